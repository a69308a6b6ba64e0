"""How faults are planted in kernels; and that the list of those nobody can see is up to date."""

from __future__ import annotations

import tomllib

import mutants
import pytest
from paths import ROOT, SUPPORT

KERNELS = ROOT / "src" / "kernels"


@pytest.mark.parametrize(
    ("code", "planted"),
    [
        ("  if (i < n) y[i] = x[i];", "  if (mutant(1) ? false : i < mutant(2) + n) y[i] = x[i];"),
        ("  while (i >= n) --i;", "  while (i >= mutant(1) + n) --i;"),
        ("  ok = i <= n;", "  ok = i <= -mutant(1) + n;"),
        ("  ok = a && b;", "  ok = a | mutant(1) && mutant(2) | b;"),
        ("  last = min(n, end);", "  last = mutant(1) + min(n, end);"),
        ("  x = std::min(n, end);", "  x = std::min(n, end);"),
        ("  y = a ? b : c;", "  y = a && mutant(1) == 0 ? b : c;"),
        ("  __syncthreads();", "  if (mutant(1) == 0) __syncthreads();"),
        ("  cp_async_wait<kStages - 2>();", "  if (mutant(1) == 0) cp_async_wait<kStages - 2>();"),
        ("  i = row * pitch;", "  i = row * (1 + mutant(1)) * pitch;"),
        ("  i = 2 * T::kRows;", "  i = 2 * T::kRows;"),
        ("  h = s.stride_h;", "  h = (mutant(1) ? s.stride_w : s.stride_h);"),
        ("  shape.h = h;", "  shape.h = h;"),
        ("  for (int i = 0; i < kRows; ++i) {", "  for (int i = 0; i < kRows; ++i) {"),
        ('  fail("a < b");', '  fail("a < b");'),
    ],
)  # fmt: skip
def test_a_line(code, planted):
    found: list[mutants.Mutant] = []
    assert mutants.plant(code, "file.cu", 7, found) == planted
    assert [mutant.number for mutant in found] == list(range(1, 1 + planted.count("mutant(")))
    assert all(mutant.code == code.strip() and mutant.line == 7 for mutant in found)


def test_what_the_compiler_evaluates_is_left_alone():
    lines = [
        "constexpr int kRows = 2 * size;",
        "static constexpr int width() {",
        "  return a < b ? a * c : b;",
        "}",
        "static_assert(a <= b &&",
        '              c, "text");',
        "if constexpr (a < b) {",
        "  y = a < b;",
    ]
    assert list(mutants.constant_lines(lines)) == [True] * 7 + [False]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Every fault in the kernels."""
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "gemm").mkdir()
    for path in KERNELS.rglob("*.cu*"):
        (folder / path.relative_to(KERNELS)).write_text(path.read_text())
    return mutants.plant_all(folder)


def test_every_kernel_and_every_barrier_gets_one(planted):
    found = [path for path in KERNELS.rglob("*.cu") if "__global__" in path.read_text()]
    kernels = {path.relative_to(KERNELS).as_posix() for path in found}
    kernels.remove("backend.cu")  # not of the virtual GPU
    assert kernels <= {mutant.file for mutant in planted}
    barriers = [mutant for mutant in planted if mutant.kind == "barrier"]
    statements = sum(
        line.split("//")[0].count("__syncthreads();")
        for path in KERNELS.rglob("*.cu*")
        for line in path.read_text().splitlines()
    )
    assert sum("__syncthreads" in mutant.code for mutant in barriers) == statements


def test_those_that_nobody_can_see_are_there(planted):
    keys = {mutant.key for mutant in planted}
    for entry in tomllib.loads((SUPPORT / "mutants.toml").read_text())["equivalent"]:
        for nth in entry.get("nth", [0]):
            assert (entry["file"], entry["code"], entry["kind"], nth) in keys, entry
        assert entry["reason"]
