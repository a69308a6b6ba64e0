"""Tiles and splits of the tensor-core kernels: a table's row is obeyed, and changes nothing but the
order of sums."""

from __future__ import annotations

import os
import subprocess

import cases
import check
import numpy as np
import pytest
import reference
from cases import ConvCase
from paths import ROOT

from convnet import ops
from kernels import nvcc

PRECISIONS = ("fp32", "tf32", "bf16")
# Ragged in every tile; k of 144 in fprop, 234 in dgrad, 84 in wgrad: 6 to 15 steps. One with
# classes of pixels and columns in the place of channels.
PLAIN = ConvCase("plain", 2, 7, 6, 16, 26 * 4, 3, 3, pad=(1, 1))
GROUPS = ConvCase("groups", 2, 7, 6, 2 * 12, 2 * 20, 3, 3, pad=(1, 1), groups=2)
STRIDED = ConvCase("strided", 3, 15, 16, 3, 40, 5, 5, stride=(2, 4), pad=(1, 4))
passes = pytest.mark.parametrize("step", ["fprop", "dgrad", "wgrad"])


@pytest.fixture
def module(kernels_backend, monkeypatch):
    """The compiled module with mma.sync alone; its own table is in force again afterwards."""
    monkeypatch.setenv("CONVNET_WGMMA", "off")
    yield kernels_backend.module
    kernels_backend.module.set_tile_choices(None)


def choice(module, case: ConvCase, step: str, precision: str):
    """(pass, precision, product, tile, splits, on Hopper) that is in force for a pass."""
    windows = (case.stride, case.pad, case.rounding)
    return module.tile_choice(step, case.x_shape, case.w_shape, *windows, case.groups, precision)


def run(backend, case: ConvCase, step: str, precision: str, make):
    """The results of a pass on numbers that are always the same, and their float64 reference."""
    rng = np.random.default_rng(5)
    x, w, b, dy = (
        make(rng, shape) for shape in (case.x_shape, case.w_shape, (case.k,), case.y_shape)
    )
    options = {"precision": precision, **case.options}
    if step == "fprop":
        found = check.call(backend, ops.conv_fprop, x, w, b, **options)
        return (found,), (reference.conv_fprop(x, w, b, **case.options),)
    if step == "dgrad":
        found = check.call(backend, ops.conv_dgrad, dy, w, case.x_shape, **options)
        return (found,), (reference.conv_dgrad(dy, w, case.x_shape, **case.options),)
    found = check.call(backend, ops.conv_wgrad, x, dy, case.w_shape, **options)
    return found, reference.conv_wgrad(x, dy, case.w_shape, **case.options)


@passes
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", [PLAIN, GROUPS, STRIDED], ids=str)
def test_every_tile_is_exact_on_integers(kernels_backend, module, case, step, precision):
    """And is the one that was asked for, in as many splits, with a workspace to match."""
    _, _, product, *_ = choice(module, case, step, precision)
    steps = -(-product[2] // 16)
    assert len(module.tiles_of(step, precision)) >= 4
    for index, tile in enumerate(module.tiles_of(step, precision)):
        splits = (1, 2, 3, steps)[index % 4]
        module.set_tile_choices([(step, precision, product, tile, splits, "rule")])
        assert choice(module, case, step, precision)[3:5] == (tile, splits)
        found, expected = run(kernels_backend, case, step, precision, cases.integers)
        for one, other in zip(found, expected, strict=True):
            check.equal(one, other)


@passes
@pytest.mark.parametrize("precision", PRECISIONS)
def test_bits_depend_on_the_splits_alone(kernels_backend, module, step, precision):
    """All tiles add up in the same order, so their bits are the same; splits add up in another."""
    kernel = ops.conv_kernel(
        step, PLAIN.x_shape, PLAIN.w_shape, precision=precision, **PLAIN.options
    )
    if kernel.startswith("FFMA"):
        pytest.skip("no tensor cores for it: compute capability below 8.0")
    _, _, product, *_ = choice(module, PLAIN, step, precision)
    results = {}
    for splits in (1, 3):
        for tile in module.tiles_of(step, precision):
            module.set_tile_choices([(step, precision, product, tile, splits, "rule")])
            found, expected = run(kernels_backend, PLAIN, step, precision, cases.floats)
            check.same_bits(found[0], results.setdefault(splits, found[0]))
            error = np.linalg.norm(found[0] - expected[0]) / np.linalg.norm(expected[0])
            assert error < {"fp32": 3e-7, "tf32": 4e-4, "bf16": 3e-3}[precision]
    assert np.any(results[1] != results[3])


def test_the_workspace_follows(kernels_backend, module):
    windows = (PLAIN.stride, PLAIN.pad, PLAIN.rounding, PLAIN.groups, "fp32", "float32")
    shapes = PLAIN.x_shape, PLAIN.w_shape
    row = ("fprop", "fp32", choice(module, PLAIN, "fprop", "fp32")[2], "64x32", 9, "rule")
    module.set_tile_choices([row])
    size = 9 * 4 * int(np.prod(PLAIN.y_shape))
    assert module.conv_workspace("fprop", *shapes, *windows) == size + 16
    other = [*row[2]]
    other[0] += 1  # of another product: not for this one
    module.set_tile_choices([(*row[:2], other, *row[3:])])
    assert module.conv_workspace("fprop", *shapes, *windows) < size
    module.set_tile_choices([("wgrad", *row[1:])])
    assert module.conv_workspace("fprop", *shapes, *windows) < size
    module.set_tile_choices([("fprop", "tf32", *row[2:])])
    assert module.conv_workspace("fprop", *shapes, *windows) < size


def test_without_rows_the_rule_decides(kernels_backend, module):
    """As it is described in docs/kernels.md, for conv2 of the paper's net at batch 128."""
    conv2 = ConvCase("conv2", 128, 27, 27, 96, 256, 5, 5, pad=(2, 2), groups=2)
    module.set_tile_choices([])
    expected = {
        "fprop": ([93312, 128, 1200, 2], "256x128", 1),
        "dgrad": ([93312, 48, 3200, 2], "128x64", 1),
        "wgrad": ([128, 1200, 93312, 2], "128x128", 13),
    }
    for step, said in expected.items():
        assert choice(module, conv2, step, "tf32")[2:5] == said
    assert choice(module, conv2, "fprop", "fp32")[3:5] == ("128x128", 1)
    assert choice(module, conv2, "fprop", "ffma")[3:5] == ("", 0)  # not for tensor cores


@pytest.mark.parametrize(
    ("rows", "columns", "tile"),
    [
        (64, 128, "64x32"),
        (65, 128, "128x128"),
        (1000, 32, "64x32"),
        (1000, 33, "128x64"),
        (1000, 64, "128x64"),
        (1000, 65, "128x96"),
        (1000, 96, "128x96"),
        (1000, 97, "128x128"),
        (1000, 128, "128x128"),
        (1000, 129, "128x64"),
        (1000, 192, "128x64"),
        (1000, 193, "128x128"),
        (263 * 256, 128, "128x128"),
        (264 * 256 - 255, 128, "256x128"),  # two for each of 132 multiprocessors
    ],
)
def test_the_rule_at_its_limits(tensor_cores, module, rows, columns, tile):
    module.set_tile_choices([])
    case = ConvCase("rows", rows, 1, 1, 64, columns, 1, 1)
    assert choice(module, case, "fprop", "tf32")[3] == tile


def test_the_documentation_has_the_rules_choices(module, monkeypatch):
    """The table of what is expected on an H200 is of the plans that there are."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import expected

    module.set_tile_choices([])
    page = (ROOT / "docs" / "kernels.md").read_text().partition("## Hopper")[0]
    rows = expected.COMPUTED.findall(page)
    assert len(rows) == 23
    for layer, step, cells in rows:
        x, w, _ = expected.LAYERS[layer]
        if layer.startswith("fc"):
            shapes, windows = ((x[0], 1, 1, x[1]), (w[0], 1, 1, w[1])), (1, 0, "floor", 1)
        else:
            stride, pad = (4, 0) if layer == "conv1" else (1, w[1] // 2)
            rounding = "ceil" if layer == "conv1" else "floor"
            windows = (stride, pad, rounding, x[3] // w[3])
            shapes = x, w
        for precision, said in zip(expected.PRECISIONS, cells.split("|")[::3], strict=False):
            tile, splits = module.tile_choice(step, *shapes, *windows, precision)[3:5]
            sides = sorted(map(int, tile.split("x")), reverse=True)
            named, _, split = said.strip().partition(", ")
            assert sorted(map(int, named.split(" x ")), reverse=True) == sides, (
                layer,
                step,
                precision,
            )
            assert int(split.partition(" ")[0] or 1) == splits, (layer, step, precision)


PRODUCT = (100, 64, 64, 1)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (("dgrad", "tf32", PRODUCT, "256x128", 1), "tile: expected one of 128x128, 128x96, 128x64"),
        (("fprop", "fp32", PRODUCT, "256x128", 1), "this pass and precision have, got 256x128"),
        (("wgrad", "bf16", PRODUCT, "huge", 1), "tile: expected one of 256x128, 128x128"),
        (("fprop", "tf32", PRODUCT, "64x32", 5), "splits: expected 1 to 4, the steps of k = 64"),
        (("fprop", "tf32", PRODUCT, "64x32", 0), "splits: expected 1 to 4"),
        (("fprop", "ffma", PRODUCT, "64x32", 1), 'precision: expected "fp32", "tf32" or "bf16"'),
        (("bprop", "tf32", PRODUCT, "64x32", 1), "pass: expected"),
        (("fprop", "tf32", PRODUCT, "64x32", 1, "hmma"), "on_hopper: expected rule, wgmma or mma"),
    ],
)
def test_rows_that_cannot_be(module, row, problem):
    with pytest.raises(ValueError, match=problem):
        module.set_tile_choices([(*row, "rule")[:6]])


def test_a_row_chooses_between_wgmma_and_mma(kernels_backend, module, monkeypatch):
    """Where there are both: on Hopper, virtual or not."""
    case = ConvCase("two-waves", 70, 16, 16, 16, 16, 3, 3, pad=(1, 1))  # 140 tiles

    def bits() -> np.ndarray:
        rng = np.random.default_rng(5)
        x, w = (kernels_backend.asarray(cases.floats(rng, s)) for s in (case.x_shape, case.w_shape))
        y = ops.conv_fprop(x, w, precision="fp32", **case.options)
        return np.array(kernels_backend.to_host(y))

    module.set_tile_choices([])
    by_mma = bits()
    monkeypatch.setenv("CONVNET_WGMMA", "always")
    row = choice(module, case, "fprop", "fp32")
    if row[5] != "wgmma":
        pytest.skip("no Hopper: there is mma.sync alone")
    by_wgmma = bits()
    assert np.any(by_wgmma != by_mma)
    monkeypatch.setenv("CONVNET_WGMMA", "auto")
    check.same_bits(bits(), by_wgmma)
    for wanted, expected in (("mma", by_mma), ("wgmma", by_wgmma), ("rule", by_wgmma)):
        module.set_tile_choices([(*row[:5], wanted)])
        said = choice(module, case, "fprop", "fp32")[5]
        assert said == ("mma" if wanted == "mma" else "wgmma")
        check.same_bits(bits(), expected)
    small = ConvCase("small", 2, 16, 16, 16, 16, 3, 3, pad=(1, 1))  # too few tiles, by rule
    row = choice(module, small, "fprop", "fp32")
    assert row[5] == "mma"
    module.set_tile_choices([(*row[:5], "wgmma")])
    assert choice(module, small, "fprop", "fp32")[5] == "wgmma"


def test_the_cpu_has_no_tiles():
    from convnet import backend

    with pytest.raises(ValueError, match="the cpu backend's products have no tiles"):
        backend.get("cpu").module.set_tile_choices([])


def test_what_tune_tiles_writes_is_a_table(tmp_path, monkeypatch):
    """tuned.cu takes the file, and finds its rows."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import tiles_table

    row = tiles_table.TunedRow
    rows = [
        row("A GPU", "fprop", "tf32", (64, 32, 96, 2), "256x128", 1, "mma", "conv2, 0.2 ms"),
        row("A GPU", "wgrad", "fp32", (8, 9, 1000, 1), "64x32", 7),
    ]
    (tmp_path / "tuned.inc").write_text(tiles_table.table_text(rows))
    assert tiles_table.read_table(tmp_path / "tuned.inc") == rows
    kernels = ROOT / "src" / "kernels" / "gemm"
    (tmp_path / "tuned.cu").write_text((kernels / "tuned.cu").read_text())
    (tmp_path / "main.cu").write_text(MAIN)
    command = [
        nvcc(),
        "-std=c++17",
        "-O0",
        f"-I{kernels}",
        f"-I{ROOT / 'src'}",
        "main.cu",
        "-o",
        "main",
    ]
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    subprocess.run(command, cwd=tmp_path, check=True, env={**plain, "LC_ALL": "C"})
    said = subprocess.run([tmp_path / "main"], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["1", "0", "1", "2", "1", "4", "7", "0", "0"], said


# find_tuned() alone, with nothing else of the kernels.
MAIN = """\
#include "tuned.cu"
#include <cstdio>
int main() {
  using namespace convnet;
  TunedTile row{};
  const auto print = [&] {
    std::printf("%d %u %d ", static_cast<int>(row.tile), row.splits,
                static_cast<int>(row.on_hopper));
  };
  std::printf("%d ", find_tuned(Pass::kFprop, Precision::kTf32, {64, 32, 96, 2}, &row));
  print();
  std::printf("%d ", find_tuned(Pass::kWgrad, Precision::kFp32, {8, 9, 1000, 1}, &row));
  print();
  std::printf("%d\\n", find_tuned(Pass::kWgrad, Precision::kFp32, {8, 9, 1000, 2}, &row));
}
// What the rest of the file calls, which is not linked here.
namespace convnet {
[[noreturn]] void fail(const char*, const char*, const std::string&, const std::string&,
                       const std::string&) {
  throw 1;
}
}
"""
