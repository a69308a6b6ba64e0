"""Calls every operation with nonsense. Run by test_fuzz.py: a crash must not take pytest with it.

    python tests/stress/fuzz_calls.py ops|binding SEED EXAMPLES

`ops` calls convnet.ops, `binding` the compiled module convnet._cpu below it. Each example takes a
valid call and replaces up to three of its arguments by anything: other numbers, strings, arrays of
other shapes, types and layouts, objects that lie about their shape. The call must return or raise
ValueError (for the binding also TypeError: the signature does not match). What is to be called goes
to standard error first, so that the last lines name what crashed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

import convnet.backend
from convnet import ops
from convnet.common.dtypes import stored_type

Call = tuple[str, Callable, tuple, dict]

# Something that calls itself a GPU array is told why there is no GPU.
DeviceError = convnet.backend.DeviceError
ALLOWED = {
    "ops": (ValueError, MemoryError, DeviceError),
    "binding": (ValueError, TypeError, MemoryError),
}


# ---- valid calls ----------------------------------------------------------------------------


def array(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


def uint32(count: int) -> np.ndarray:
    return np.zeros(count, np.uint32)


def valid_ops() -> list[Call]:
    """A valid call of every public operation."""
    image, filters, maps = array(2, 5, 6, 4), array(6, 3, 3, 2), array(2, 3, 4, 6)
    own, conv = (
        array(3, 4, 6, 3, 3, 2),
        {"stride": (2, 2), "pad": 1, "groups": 2, "rounding": "ceil"},
    )
    pooled, winners = array(2, 2, 3, 4), array(2, 2, 3, 4, dtype=np.uint8)
    pool = ((3, 3), 2, 0, "ceil")
    matrix, labels = array(3, 7), np.array([0, 6, 3], np.int32)
    images = array(2, 6, 6, 3, dtype=np.uint8)
    offsets, mirror = array(2, 2, dtype=np.int32), array(2, dtype=np.uint8)
    shapes = image.shape, filters.shape
    prepared = np.zeros(ops.conv_prepared_bytes(*shapes, **conv), np.uint8)
    calls: list[tuple[str, tuple, dict]] = [
        ("conv_output_shape", shapes, conv),
        ("conv_workspace", shapes, conv | {"dgrad": False}),
        ("conv_kernel", ("wgrad", *shapes), conv | {"precision": "tf32"}),
        ("conv_fprop", (image, filters, array(6)), conv | {"relu": True, "out": maps}),
        ("conv_prepared_bytes", shapes, conv | {"precision": "bf16"}),
        ("conv_prepare", (filters, image.shape), conv | {"out": prepared}),
        ("conv_fprop_prepared", (image, prepared, filters.shape, array(6)),
         conv | {"relu": True, "out": maps}),
        ("conv_dgrad", (maps, filters, image.shape), conv | {"relu_mask": image}),
        ("conv_wgrad", (image, maps, filters.shape), conv | {"bias": True}),
        ("local_output_shape", (image.shape, own.shape), conv),
        ("local_fprop", (image, own, array(3, 4, 6)), conv | {"relu": True}),
        ("local_dgrad", (maps, own, image.shape), conv | {"relu_mask": image}),
        ("local_wgrad", (image, maps, own.shape), conv | {"bias": True}),
        ("dense_workspace", (matrix.shape, (4, 7)), {"dgrad": True}),
        ("dense_kernel", ("dgrad", matrix.shape, (4, 7)), {"precision": "bf16"}),
        ("dense_fprop", (matrix, array(4, 7), array(4)), {"relu": True}),
        ("dense_fprop_dropout", (matrix, array(4, 7), array(4), 0.5),
         {"seed": 1, "layer": 2, "step": 3, "mode": "inverted", "row_offset": 4, "col_offset": 5,
          "global_cols": 99, "relu": True, "state": uint32(12)}),
        ("dense_dgrad", (array(3, 4), array(4, 7)), {"relu_mask": matrix}),
        ("dense_wgrad", (matrix, array(3, 4)), {"out": (array(4, 7), array(4))}),
        ("dense_wgrad_sgd", (matrix, array(3, 4), array(4, 7), array(4, 7), 0.1), {"state": None}),
        ("pool_output_shape", (image.shape, *pool), {}),
        ("maxpool_fprop", (image, *pool), {"out": (pooled, winners)}),
        ("maxpool_bprop", (pooled, winners, image.shape, *pool), {}),
        ("avgpool_fprop", (image, *pool), {}),
        ("avgpool_bprop", (pooled, image.shape, *pool), {}),
        ("blur_fprop", (image, 3, 1.5), {"out": array(*image.shape)}),
        ("blur_bprop", (image, 5, 0.5), {}),
        ("nailbed_fprop", (image, 2, 1), {}),
        ("nailbed_bprop", (image[:, 1::2, 1::2].copy(), image.shape, 2, 1), {}),
        ("lrn_fprop", (matrix, 5, 2.0, 1e-4, 0.75, 1, "sum"), {"out": array(3, 7)}),
        ("lrn_bprop", (matrix, matrix, 4, 2.0, 1e-4, 0.75, 7, "mean"), {}),
        ("lrn_maxpool_fprop", (image, *pool), {"n": 3, "out": (pooled, winners)}),
        ("lrn_maxpool_bprop", (image, pooled, winners, *pool), {"relu_mask": True}),
        ("activation_saves_output", ("tanh",), {}),
        ("activation_fprop", ("drelu", matrix, 1.0, 1.0), {"out": array(3, 7)}),
        ("activation_bprop", ("tanh", matrix, matrix, 1.0, 1.0), {}),
        ("convert", (array(5), "bfloat16"), {}),
        ("convert", (array(5).astype(stored_type("bfloat16")), "float32"), {}),
        ("accumulate", (array(5), array(5)), {}),
        ("dropout_fprop", (matrix, 0.5), {"seed": 1, "layer": 2, "step": 3, "mode": "inverted",
                                          "row_offset": 4, "col_offset": 5, "global_cols": 99}),
        ("dropout_bprop", (matrix, 0.5), {"seed": 1, "state": uint32(12)}),
        ("softmax_fprop", (matrix,), {"out": array(3, 7)}),
        ("softmax_xent", (matrix, labels),
         {"weights": array(7), "scale": 0.5, "dlogits": True}),
        ("sgd_update", ([(matrix.copy(), matrix.copy(), matrix, 1.0, 1.0)], 0.1, 0.9, 5e-4),
         {"state": uint32(12)}),
        ("augment", (images, offsets, mirror, array(6, 6, 3)),
         {"crop": (4, 5), "affine": array(2, 2, 2), "noise": array(2, 3), "scale": 1.0}),
        ("philox", (1, 2, 3, np.arange(5)), {}),
        ("peer_copy", (array(3, 5), array(3, 4)), {"dst_col": 1, "src_col": 2, "cols": 2}),
        ("peer_add", (array(3, 5), array(3, 4)), {"dst_col": 1, "src_col": 2, "cols": 2}),
        ("copy", (array(3, 5), array(3, 5)), {}),
        ("peer_checksum", (array(3, 5), uint32(1), uint32(2), convnet.backend.get("cpu")),
         {"src_col": 1, "cols": 3}),
        ("peer_check", (array(3, 5), uint32(1), uint32(2), uint32(1), 7),
         {"src_col": 1, "cols": 3}),
        ("peer_abort", (uint32(1), uint32(1)), {}),
    ]  # fmt: skip
    return [(name, getattr(ops, name), args, kwargs) for name, args, kwargs in calls]


class Recorder:
    """Stands in for the compiled module, and notes every call that reaches it."""

    def __init__(self, module: Any) -> None:
        self.module, self.calls = module, {}

    def __getattr__(self, name: str) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] = (name, getattr(self.module, name), args, kwargs)
            return getattr(self.module, name)(*args, **kwargs)

        return call


def valid_binding() -> list[Call]:
    """A valid call of every function of the module: those that the valid operations end in."""
    backend = convnet.backend.get("cpu")
    module = backend.module
    backend.module = recorder = Recorder(module)
    try:
        for _, function, args, kwargs in valid_ops():
            function(*args, **kwargs)
        recorder.set_thread_count(2)
        recorder.precision_description("bf16")
        recorder.pretend_implementation("")
        recorder.device_description(0)
    finally:
        backend.module = module
    return [call for call in recorder.calls.values() if call[2] or call[3]]


def untested(calls: list[Call], module: Any) -> set[str]:
    """Functions that take arguments and that no valid call reaches: a gap in the table above."""
    functions = {name for name in dir(module) if not name.startswith("_")}
    alone = {"backend_name", "device_count", "build_description", "thread_count"}
    alone |= {"start_backend", "schema", "Recording"}
    alone |= {"tiles_of", "tile_choice", "set_tile_choices"}  # which the host refuses altogether
    return functions - {call[0] for call in calls} - alone


# ---- nonsense -------------------------------------------------------------------------------


class Liar(np.ndarray):
    """An array that claims another shape."""

    shape = property(lambda self: (2, 5, 6, 400))  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Liar"


class Shaped:
    """No array, but with a shape, and with device memory that does not exist."""

    def __init__(self, shape: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(np.float32)
        self.__cuda_array_interface__ = {
            "shape": (2, 5, 6, 4), "typestr": "<f4", "data": (64, False), "version": 3,
        }  # fmt: skip


class Angry:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError(f"no {name}")


INTEGERS = [0, 1, 2, 3, 5, 7, 16, 255, 256, 2**16, 2**20, 2**20 + 1, 2**31 - 1, 2**31, 2**32 - 1,
            2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**400]  # fmt: skip
DTYPES = ["f4", ">f4", "f8", "f2", "i4", ">i4", "i8", "u4", "u1", "i1", "?", "c8", "O", "V4", "S4",
          "M8[s]", [("a", "f4")]]  # fmt: skip
integers = st.sampled_from(INTEGERS + [-i for i in INTEGERS])
floats = st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0, 1e-45, 3e38, 1e300, -1e300, float("inf"),
                          float("-inf"), float("nan")])  # fmt: skip
words = st.sampled_from(["", "ceil", "floor", "sum", "mean", "relu", "log", "paper", "fprop",
                         "dgrad", "\ud800", "a\0b", "x" * 5000])  # fmt: skip
shapes = st.one_of(
    st.lists(st.integers(0, 7), max_size=7).map(tuple),
    st.lists(integers, max_size=7).map(tuple),
    st.lists(st.one_of(integers, floats, words), max_size=5),
    st.sampled_from([(2, 5, 6, 4), (6, 3, 3, 2), (2, 3, 4, 6), (3, 7), (7,), (1,) * 32]),
)


@st.composite
def arrays(draw: st.DrawFn, like: np.ndarray | None = None) -> np.ndarray:
    """Any shape, type, contents and layout; like the array it replaces, where there is one."""
    shape, dtype = draw(st.lists(st.integers(0, 7), max_size=6)), draw(st.sampled_from(DTYPES))
    if like is not None:
        shape, dtype = (
            draw(st.sampled_from([like.shape, shape])),
            draw(st.sampled_from([like.dtype, dtype])),
        )
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    seed = draw(st.integers(0, 99))
    if dtype.hasobject:
        value = np.full(shape, None, dtype)
    else:
        bits = np.random.default_rng(seed).bytes(count * dtype.itemsize + 1)
        value = np.frombuffer(bits, dtype, count).reshape(shape).copy()
    layout = draw(st.sampled_from(["plain", "plain", "fortran", "strided", "backwards", "broadcast",
                                   "read-only", "misaligned", "liar"]))  # fmt: skip
    return lay_out(value, layout)


def lay_out(value: np.ndarray, layout: str) -> np.ndarray:
    if layout == "fortran":
        return np.asfortranarray(value)
    if layout == "strided" and value.ndim:
        return np.repeat(value, 2, axis=-1)[..., ::2]
    if layout == "backwards" and value.ndim:
        return value[::-1]
    if layout == "broadcast" and value.size and value.ndim:
        return np.broadcast_to(value[:1], value.shape)
    if layout == "read-only":
        value.flags.writeable = False
    if layout == "misaligned" and not value.dtype.hasobject:
        raw = np.zeros(value.nbytes + 1, np.uint8)[1:]
        return raw.view(value.dtype).reshape(value.shape) if value.nbytes else value
    if layout == "liar":
        return value.view(Liar)
    return value


def anything(old: Any, others: list[Any]) -> st.SearchStrategy:
    """What may stand where `old` stood; `others` are the arrays of the same call."""
    like = arrays(old) if isinstance(old, np.ndarray) else arrays()
    choices = [
        like, arrays(), integers, floats, words, shapes, shapes.map(Shaped),
        st.builds(Angry), st.builds(object), st.none(), st.booleans(), st.just(np.ndarray),
        st.lists(st.one_of(like, integers, st.none()), max_size=3),
        st.just([(old, old, old, old, old)]), st.just(np.float32(3)), st.just(np.array(3)),
        st.just(np.array([1.5])), *map(st.just, others),
    ]  # fmt: skip
    same_kind = {int: [integers], float: [floats], str: [words], tuple: [shapes]}.get(type(old), [])
    if isinstance(old, np.ndarray):
        same_kind = [like, st.sampled_from(others), st.sampled_from(others).map(np.ravel)]
    return st.one_of(same_kind * 6 + choices)


# ---- the run --------------------------------------------------------------------------------


def describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        actual = np.ndarray.shape.__get__(value)
        flags = "".join(
            letter for letter, on in zip("CWA", (value.flags.c_contiguous, value.flags.writeable,
                                                 value.flags.aligned), strict=True) if on
        )  # fmt: skip
        return f"{type(value).__name__}{actual}:{value.dtype}:{flags}"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(describe, value))}]"
    if isinstance(value, (str, int)):
        return ascii(value)[:80]
    return repr(value) if isinstance(value, (float, type(None))) else type(value).__name__


def run(layer: str, calls: list[Call], seed: int, examples: int) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(data=st.data())
    def one_call(data: st.DataObject) -> None:
        name, function, args, kwargs = data.draw(st.sampled_from(calls))
        values: dict[Any, Any] = dict(enumerate(args)) | kwargs
        values = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in values.items()}
        others = [value for value in values.values() if isinstance(value, np.ndarray)]
        places = data.draw(st.lists(st.sampled_from(list(values)), min_size=1, max_size=3))
        for place in dict.fromkeys(places):
            values[place] = data.draw(anything(values[place], others))
        print(name, {k: describe(v) for k, v in values.items()}, file=sys.stderr, flush=True)
        with np.errstate(all="ignore"):
            try:
                function(
                    *(values[i] for i in range(len(args))),
                    **{key: values[key] for key in kwargs},
                )
            except ALLOWED[layer]:
                pass

    one_call()


def main(layer: str, seed: str, examples: str = "400") -> None:
    module = convnet.backend.get("cpu").module
    before = module.thread_count()
    calls = valid_ops() if layer == "ops" else valid_binding()
    if layer == "binding":
        missing = untested(calls, module)
        assert not missing, f"no valid call of {missing}: add an operation to valid_ops()"
    for _, function, args, kwargs in calls:
        function(*args, **kwargs)  # as it stands, each must pass
    run(layer, calls, int(seed), int(examples))
    module.set_thread_count(before)


if __name__ == "__main__":
    main(*sys.argv[1:])
