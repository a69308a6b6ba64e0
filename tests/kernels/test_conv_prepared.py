"""Prepared filters: convolutions of them have the bits of those of w, whatever prepares them."""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
from cases import ConvCase

import convnet
from convnet import ops

WIDE = ConvCase("wide", 2, 9, 10, 32, 48, 3, 3, pad=(1, 1), groups=2)
COLUMNS = next(case for case in cases.CONV if case.name == "conv1-small")
STRIDED = ConvCase("9x9-stride-3", 2, 14, 17, 2, 5, 9, 9, (3, 3), (2, 1))
CASES = (*cases.CONV, WIDE, STRIDED)
every_case = pytest.mark.parametrize("case", CASES, ids=str)
HOW = {"auto": {}, "Winograd": {"CONVNET_WINOGRAD": "always"}, "wgmma": {"CONVNET_WGMMA": "always"}}


def arrays(rng, case):
    return [cases.floats(rng, shape) for shape in (case.x_shape, case.w_shape, (case.k,))]


def shapes_of(case):
    return case.x_shape, case.w_shape


@every_case
@pytest.mark.parametrize("precision", ops.PRECISIONS)
@pytest.mark.parametrize("how", HOW)
def test_the_bits_of_conv_fprop(backend, rng, monkeypatch, case, precision, how):
    if how == ("wgmma" if backend.name == "cpu" else "Winograd"):
        return  # the same as auto
    for name, value in HOW[how].items():
        monkeypatch.setenv(name, value)
    options = {"precision": precision, **case.options}
    size = ops.conv_prepared_bytes(*shapes_of(case), **options)
    if not size:
        return
    x, w, b = arrays(rng, case)
    prepared = check.call(backend, ops.conv_prepare, w, case.x_shape, **options)
    assert prepared.shape == (size,)
    for bias, relu in ((b, True), (None, False)):
        plain = backend.to_host(
            ops.conv_fprop(
                *(a if a is None else backend.asarray(a) for a in (x, w, bias)),
                relu=relu,
                **options,
            )
        )
        given = x, prepared, case.w_shape, bias
        y = check.call(backend, ops.conv_fprop_prepared, *given, relu=relu, **options)
        check.same_bits(y, plain)


@pytest.mark.parametrize(
    ("name", "case", "precision", "kernel"),
    [
        ("cpu", WIDE, "fp32", "direct"),
        ("cpu", WIDE, "ffma", "direct"),
        ("vgpu", COLUMNS, "fp32", "mma.sync"),
        ("vgpu", COLUMNS, "ffma", "FFMA"),
        ("vgpu", WIDE, "tf32", "wgmma"),
        ("vgpu", WIDE, "bf16", "wgmma"),
    ],
)
def test_what_is_prepared(request, monkeypatch, name, case, precision, kernel):
    if name == "vgpu":
        needs = {"wgmma": "hopper", "mma.sync": "tensor_cores"}
        request.getfixturevalue(needs.get(kernel, "vgpu"))
    monkeypatch.setenv("CONVNET_WGMMA", "always")
    dtype = "bfloat16" if precision == "bf16" else "float32"
    options = {"precision": precision, "dtype": dtype, **case.options}
    with convnet.backend.use(name):
        assert ops.conv_kernel("fprop", *shapes_of(case), **options).startswith(kernel)
        size = ops.conv_prepared_bytes(*shapes_of(case), **options)
    assert bool(size) == (kernel != "FFMA")


def test_winograd_is_prepared(monkeypatch):
    monkeypatch.setenv("CONVNET_WINOGRAD", "always")
    with convnet.backend.use("cpu"):
        for case, kernel in ((WIDE, "Winograd"), (STRIDED, "space to depth")):
            assert ops.conv_kernel("fprop", *shapes_of(case), **case.options).startswith(kernel)
            more = ops.conv_prepared_bytes(*shapes_of(case), **case.options) / np.prod(case.w_shape)
            assert more >= 4 * 16 / 9  # F(2 x 2, 3 x 3), the smallest


@pytest.mark.parametrize("case", [WIDE, STRIDED, cases.CONV[4]], ids=str)
@pytest.mark.parametrize("winograd", ["off", "always"])
def test_filters_serve_any_number_of_threads(rng, monkeypatch, case, winograd):
    monkeypatch.setenv("CONVNET_WINOGRAD", winograd)
    cpu = convnet.backend.get("cpu")
    x, w, b = arrays(rng, case)
    with convnet.backend.use(cpu):
        with check.threads(cpu, 3):
            prepared = ops.conv_prepare(w, case.x_shape, **case.options)
        for count in (1, 2, 5):
            with check.threads(cpu, count):
                y = ops.conv_fprop_prepared(x, prepared, case.w_shape, b, **case.options)
                check.same_bits(y, ops.conv_fprop(x, w, b, **case.options))


def shifted(backend, array):
    """A copy that begins one element past an aligned address."""
    moved = backend.empty((array.size + 1,), array.dtype)[1:].reshape(array.shape)
    moved[...] = array
    return moved


def skip_where_nothing_is_prepared(options):
    if ops.conv_prepared_bytes(*shapes_of(COLUMNS), **options) == 0:
        pytest.skip("filters are taken as they lie: compute capability below 8.0")


def test_unaligned_arrays(backend, rng):
    options = {"precision": "tf32", **COLUMNS.options}
    skip_where_nothing_is_prepared(options)
    x, w, b = map(backend.asarray, arrays(rng, COLUMNS))
    prepared = ops.conv_prepare(w, COLUMNS.x_shape, **options)
    plain = np.array(backend.to_host(ops.conv_fprop(x, w, b, **options)))

    def run(x, prepared, b):
        return ops.conv_fprop_prepared(x, prepared, COLUMNS.w_shape, b, **options)

    check.same_bits(backend.to_host(run(x, prepared, shifted(backend, b))), plain)
    again = ops.conv_prepare(shifted(backend, w), COLUMNS.x_shape, **options)
    check.same_bits(np.array(backend.to_host(again)), np.array(backend.to_host(prepared)))
    moved = {
        "x": (shifted(backend, x), prepared, b),
        "prepared": (x, shifted(backend, prepared), b),
    }
    for name, given in moved.items():
        if backend.name == "cpu":
            check.same_bits(run(*given), plain)
            continue
        with pytest.raises(ValueError, match=f"{name}: expected memory aligned to 16 bytes"):
            run(*given)


def test_filters_of_another_shape_are_refused(backend, rng):
    skip_where_nothing_is_prepared(COLUMNS.options)
    x, w, b = arrays(rng, COLUMNS)
    prepared = ops.conv_prepare(backend.asarray(w), COLUMNS.x_shape, **COLUMNS.options)
    x, b = backend.asarray(x), backend.asarray(b)
    with pytest.raises(ValueError, match=r"conv_fprop_prepared: prepared: expected shape .*, got"):
        ops.conv_fprop_prepared(x, prepared[:-1], COLUMNS.w_shape, b, **COLUMNS.options)
    with pytest.raises(ValueError, match="conv_fprop_prepared: b: expected"):
        ops.conv_fprop_prepared(x, prepared, COLUMNS.w_shape, b[:-1], **COLUMNS.options)
    with pytest.raises(ValueError, match="conv_prepare: prepared: expected shape"):
        ops.conv_prepare(backend.asarray(w), COLUMNS.x_shape, out=prepared[1:], **COLUMNS.options)


def test_where_there_is_nothing_to_prepare(kernels_backend, rng):
    case = next(case for case in cases.CONV if case.name == "1x1")
    x, w, _ = map(kernels_backend.asarray, arrays(rng, case))
    assert ops.conv_prepared_bytes(*shapes_of(case), **case.options) == 0
    with pytest.raises(ValueError, match="conv_prepare: w: expected filters that are prepared"):
        ops.conv_prepare(w, case.x_shape, **case.options)
    some = kernels_backend.empty((64,), np.uint8)
    with pytest.raises(ValueError, match="w_shape: expected filters that are prepared"):
        ops.conv_fprop_prepared(x, some, case.w_shape, **case.options)
