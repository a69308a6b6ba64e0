"""Plants faults in the CUDA kernels and says which of them the tests see.

    python tests/stress/mutate_kernels.py                        # every fault in every file: hours
    python tests/stress/mutate_kernels.py lrn.cuh softmax.cu     # in these files
    python tests/stress/mutate_kernels.py --kinds barrier,bound  # of these kinds
    python tests/stress/mutate_kernels.py --tests tests/kernels/test_lrn.py lrn.cuh
    python tests/stress/mutate_kernels.py --list gemm/simt.cuh   # what would be planted

A copy of the sources gets all faults of those files at once, each asleep until its number is
chosen, and is built once for the virtual GPU, which takes some minutes, and needs nvcc, CMake,
Ninja, pybind11 and oneDNN (what `build-system` of pyproject.toml names), in the environment that
has convnet and its tests. The tests are collected once and run without a fault, which shows which
pass by which fault. Then each fault is woken in a process of its own, which runs the tests that
pass by it, the quickest first, until one fails. A fault that no test sees, and that is not in
``mutants.toml`` with the reason why nobody could see it, makes the exit code 1.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import importlib.util
import mmap
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import pytest
from mutants import KINDS, Mutant, plant_all
from paths import ROOT, SUPPORT

TESTS = ROOT / "tests"
BUILT = ("CMakeLists.txt", "bindings", "convnet/_build_info.py.in", "src")

# What mutant(number) is in the copy, in kernels and around them: whether that fault is awake. It
# notes who asks. The state lies at an address that every file knows and every kernel may read.
ADDRESS = "0x5d0000000000ull"
SIZE = 1 << 14  # more faults than there are: one header for all, so that little is built anew
HEADER = """
#pragma once
struct MutantState {
  int awake;
  unsigned char passed[%(size)d];
};
#ifdef __CUDACC__
__host__ __device__
#endif
inline int mutant(int number) {
  MutantState* state = reinterpret_cast<MutantState*>(%(address)s);
  if (state->passed[number] == 0) state->passed[number] = 1;
  return state->awake == number;
}
"""
STATE = """
#include <sys/mman.h>
#include <cstdlib>
#include "../../mutants.h"
#include "vgpu/memory.h"
static MutantState* make_state() {
  void* at = reinterpret_cast<void*>(%(address)s);
  if (mmap(at, sizeof(MutantState), PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != at) std::abort();
  vgpu::memory_register(at, sizeof(MutantState));
  return static_cast<MutantState*>(at);
}
extern "C" __attribute__((visibility("default"))) MutantState* convnet_mutants() {
  static MutantState* const state = make_state();
  return state;
}
"""


# ---- the copy that is tested -------------------------------------------------------------------


def copy_sources(copy: Path, files: Sequence[str], kinds: Sequence[str]) -> list[Mutant]:
    """The sources with every fault of these files and kinds in them; returns the faults. What is
    the same as in the copy before keeps its time, so that it is not built anew."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        for name in BUILT:
            source, target = ROOT / name, fresh / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy2(source, target)
        mutants = plant_all(fresh / "src" / "kernels", files, kinds)
        assert all(mutant.number < SIZE for mutant in mutants)
        header = copy / "mutants.h"
        for file in {mutant.file for mutant in mutants}:
            path = fresh / "src" / "kernels" / file
            path.write_text(f'#include "{header}"\n{path.read_text()}')
        (fresh / "src" / "vgpu" / "mutants.cpp").write_text(STATE % {"address": ADDRESS})
        (fresh / header.name).write_text(HEADER % {"size": SIZE, "address": ADDRESS})
        update(copy, fresh)
    return mutants


def update(copy: Path, fresh: Path) -> None:
    """Makes a folder the same as another, by writing only what differs."""
    wanted = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    for path in copy.rglob("*"):
        if path.is_file() and path.relative_to(copy) not in wanted:
            path.unlink()
    for name in wanted:
        content, target = (fresh / name).read_bytes(), copy / name
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def missing_tools() -> str:
    """What a build needs and this environment does not have; empty where nothing is missing."""
    tools = [name for name in ("cmake", "ninja") if shutil.which(name) is None]
    if shutil.which(os.environ.get("CUDACXX") or "nvcc") is None:
        tools.append("nvcc")
    if importlib.util.find_spec("pybind11") is None:
        tools.append("pybind11")
    return ", ".join(tools)


def build(copy: Path, folder: Path) -> None:
    pybind11 = [sys.executable, "-m", "pybind11", "--cmakedir"]
    options = {
        "CMAKE_CUDA_FLAGS": "-w",
        "CONVNET_VGPU": "on",
        "CONVNET_CUDA": "off",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": subprocess.check_output(pybind11, text=True).strip(),
    }
    configure = ["cmake", "-G", "Ninja", "-S", str(copy), "-B", str(folder)]
    for command in (
        [*configure, *(f"-D{k}={v}" for k, v in options.items())],
        ["cmake", "--build", str(folder), "--target", "_vgpu"],
    ):
        if subprocess.run(command).returncode:
            sys.exit(f"mutate_kernels: cannot build the faults: see above; {' '.join(command[:2])}")


def load(folder: Path) -> ctypes.Structure:
    """Makes what was built `convnet._vgpu`; returns the state that mutant() reads."""
    (path,) = folder.rglob("_vgpu*.so")
    name = "convnet._vgpu"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module

    class State(ctypes.Structure):
        _fields_ = (("awake", ctypes.c_int), ("passed", ctypes.c_ubyte * SIZE))

    library = ctypes.CDLL(str(path))
    library.convnet_mutants.restype = ctypes.POINTER(State)
    state: ctypes.Structure = library.convnet_mutants().contents
    return state


# ---- the tests ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What became of a mutant: killed, survived, or equivalent; and by which test, or why."""

    mutant: Mutant
    what: str
    by: str

    def __str__(self) -> str:
        return f"{self.what:10} {self.mutant}  [{self.by}]"


class Mutation:
    """A plugin of pytest: the collected tests run once without a fault, then for each mutant.

    Args: chosen: the mutants; seconds: of tests a mutant, at most.
    """

    def __init__(
        self, chosen: list[Mutant], state: ctypes.Structure, seconds: float, jobs: int
    ) -> None:
        self.chosen, self.seconds, self.jobs = chosen, seconds, jobs
        self.state: Any = state
        self.equivalent = known_equivalents()
        self.failure: str | None = None
        self.results: list[Result] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("the tests could not be collected")
        self.items = {item.nodeid: item for item in session.items}
        passing = self.run_without_a_fault()
        running: dict[int, tuple[Mutant, list[str], mmap.mmap]] = {}
        for mutant in self.chosen:
            tests = passing[mutant.number]
            if not tests:
                self.report(mutant, "survived", "no test passes by it")
                continue
            if len(running) == self.jobs:
                self.wait_for_one(running)
            begun = mmap.mmap(-1, 4)  # how many tests, as the child says
            child = os.fork()
            if child == 0:
                self.run_one(mutant, tests, begun)
            running[child] = mutant, tests, begun
        while running:
            self.wait_for_one(running)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failure = report.nodeid

    def run_without_a_fault(self) -> dict[int, list[str]]:
        """For each mutant, the tests that pass by it, the quickest first, for so many seconds."""
        seconds: dict[str, float] = {}
        passing: dict[int, list[str]] = collections.defaultdict(list)
        for name, item in self.items.items():
            ctypes.memset(self.state.passed, 0, ctypes.sizeof(self.state.passed))
            start = time.perf_counter()
            run_test(item)
            seconds[name] = time.perf_counter() - start
            met = [m.number for m in self.chosen if self.state.passed[m.number]]
            if self.failure and met:
                raise pytest.UsageError(f"{self.failure} fails without any fault")
            if self.failure:  # nothing of the kernels: it says nothing of their faults
                print(f"\n{self.failure} fails without any fault, and passes by none: left out")
                self.failure = None
            for number in met:
                passing[number].append(name)
        print(f"\n{len(seconds)} tests pass without a fault, in {sum(seconds.values()):.0f} s")
        for number, names in passing.items():
            names.sort(key=seconds.__getitem__)
            total = 0.0
            for place, name in enumerate(names):
                total += seconds[name]
                if total > self.seconds and place > 0:
                    passing[number] = names[:place]
                    break
        return passing

    def run_one(self, mutant: Mutant, tests: list[str], begun: mmap.mmap) -> None:
        """In a child: counts each test before it runs, and ends with 1 where one fails."""
        signal.alarm(int(60 + 20 * self.seconds))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        self.state.awake = mutant.number
        for number, name in enumerate(tests, start=1):
            begun[:] = number.to_bytes(4, "little")
            run_test(self.items[name])
            if self.failure:
                os._exit(1)
        os._exit(0)

    def wait_for_one(self, running: dict[int, tuple[Mutant, list[str], mmap.mmap]]) -> None:
        child, status = os.wait()
        mutant, tests, begun = running.pop(child)
        last = tests[int.from_bytes(begun[:], "little") - 1]
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            self.report(mutant, "survived", f"{len(tests)} tests")
        elif code < 0:
            self.report(mutant, "killed", f"{signal.strsignal(-code)} in {last}")
        else:
            self.report(mutant, "killed", last)

    def report(self, mutant: Mutant, what: str, by: str) -> None:
        if what == "survived" and mutant.key in self.equivalent:
            what, by = "equivalent", self.equivalent[mutant.key]
        self.results.append(Result(mutant, what, by))
        print(self.results[-1], flush=True)


def run_test(item: pytest.Item) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def known_equivalents() -> dict[tuple[str, str, str, int], str]:
    """The reasons in ``mutants.toml``, by `Mutant.key`."""
    table = tomllib.loads((SUPPORT / "mutants.toml").read_text())
    return {
        (entry["file"], entry["code"], entry["kind"], nth): entry["reason"]
        for entry in table.get("equivalent", [])
        for nth in entry.get("nth", [0])
    }


def table_of(results: list[Result]) -> str:
    """Markdown: for each file how many faults were planted, and what became of them."""
    lines = ["| file | planted | killed | equivalent | survived |", "|---|---|---|---|---|"]
    by_file: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for result in results:
        for file in (result.mutant.file, "all"):
            by_file[file][result.what] += 1
    for file, counts in by_file.items():
        columns = [counts.total(), *(counts[w] for w in ("killed", "equivalent", "survived"))]
        lines.append(f"| `{file}` | {' | '.join(map(str, columns))} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="of src/kernels; default: all")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--tests", action="append", metavar="PATH", help="default: tests/kernels")
    parser.add_argument("--thorough", action="store_true", help="also the tests marked thorough")
    parser.add_argument("--seconds", type=float, default=60, help="of tests a fault, at most")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--every", type=int, default=1, help="only every so many of the faults")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "mutants", help="folder")
    parser.add_argument("--list", action="store_true", help="only say what would be planted")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    mutants = copy_sources(options.work / "copy", options.files, kinds)
    chosen = mutants[:: options.every]
    if not chosen:
        parser.error(f"no faults of {options.kinds} in {', '.join(options.files) or 'any file'}")
    if options.list:
        print("\n".join(map(str, chosen)))
        return 0
    if missing := missing_tools():
        parser.error(f"the build needs {missing}; see --help")
    build(options.work / "copy", options.work / "build")
    state = load(options.work / "build")
    mutation = Mutation(chosen, state, options.seconds, options.jobs)
    code = pytest.main(
        [*(options.tests or [str(TESTS / "kernels")]), "--backend", "vgpu", "-q", "-s",
         *(["--thorough"] if options.thorough else []),
         "--no-header", "--no-summary", "-p", "no:cacheprovider", "-p", "no:faulthandler"],
        plugins=[mutation],
    )  # fmt: skip
    print(table_of(mutation.results))
    survived = [result for result in mutation.results if result.what == "survived"]
    return int(code) or int(bool(survived))


if __name__ == "__main__":
    sys.exit(main())
