"""The emulator runs right kernels right, and finds the fault in broken ones.

``emulator/right.cu`` and ``emulator/broken.cu`` are programs of named cases. They are compiled
three times against ``src/emulator``: as they are ("plain"), with AddressSanitizer ("address"), and
with every memory access checked ("access", see ``access_check.cpp``).
"""

from __future__ import annotations

import concurrent.futures
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "tests" / "emulator"
EMULATOR = ROOT / "src" / "emulator"
COMPILER = os.environ.get("CXX", "g++")
OPTIONS = ["-std=c++17", "-O1", "-g", "-Wall", "-Wno-unknown-pragmas", "-DCONVNET_EMULATOR"]
# Options for the emulator itself, and for kernels.
BUILDS = {
    "plain": ([], []),
    "address": (["-fsanitize=address"], ["-fsanitize=address"]),
    "access": ([], ["-fsanitize=thread"]),
}
ORDERS = ["forward", "reverse", "shuffle:1", "shuffle:2", "shuffle:3"]
RIGHT_CASES = [
    "async_copy",
    "conversions",
    "gemm",
    "histogram",
    "indices",
    "ldmatrix",
    "mma_bf16",
    "mma_tf32",
    "peers",
    "registered",
    "warp",
]

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason="no C++ compiler")


def compile_object(source: Path, options: list[str], output: Path) -> None:
    command = [COMPILER, *OPTIONS, *options, "-I", str(ROOT / "src"), "-x", "c++", "-c"]
    subprocess.run([*command, str(source), "-o", str(output)], check=True)


class Programs:
    """The compiled programs: ``programs.run(build, program, case, order)``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # backend.cpp is the module's half, not the emulator's.
        emulator_sources = sorted(set(EMULATOR.glob("*.cpp")) - {EMULATOR / "backend.cpp"})
        jobs: dict[Path, tuple[Path, list[str]]] = {}
        links: dict[Path, tuple[list[Path], list[str]]] = {}
        for build, (emulator_options, kernel_options) in BUILDS.items():
            flavour = "address" if build == "address" else "plain"
            emulator = [folder / f"{source.stem}.{flavour}.o" for source in emulator_sources]
            for source, output in zip(emulator_sources, emulator, strict=True):
                jobs[output] = (source, emulator_options)
            for program in ("right", "broken"):
                kernels = folder / f"{program}.{build}.o"
                jobs[kernels] = (SOURCES / f"{program}.cu", kernel_options)
                # "access" is not linked with ThreadSanitizer: the emulator stands in for it.
                links[folder / f"{program}.{build}"] = ([kernels, *emulator], emulator_options)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for future in [
                pool.submit(compile_object, source, options, output)
                for output, (source, options) in jobs.items()
            ]:
                future.result()
        for output, (objects, options) in links.items():
            command = [COMPILER, *options, *map(str, objects), "-pthread", "-ldl", "-o"]
            subprocess.run([*command, str(output)], check=True)

    def run(self, build: str, program: str, case: str, order: str = "forward", **env: str) -> str:
        """Returns what the case printed: "returned HASH, COUNT NaN", "threw MESSAGE" or a report
        of AddressSanitizer."""
        variables = {
            **os.environ,
            "CONVNET_EMULATOR_ORDER": order,
            "ASAN_OPTIONS": "detect_leaks=0",
            **env,
        }
        result = subprocess.run(
            [self.folder / f"{program}.{build}", case],
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.stdout or "AddressSanitizer" in result.stderr, result
        return (result.stdout + result.stderr).strip()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(tmp_path_factory.mktemp("emulator"))


def marked_line(name: str) -> str:
    """``broken.cu:LINE`` of the line marked with the name."""
    for number, line in enumerate((SOURCES / "broken.cu").read_text().splitlines(), start=1):
        if line.endswith(f"// MARK: {name}"):
            return f"broken.cu:{number}"
    raise AssertionError(f"no line of broken.cu is marked {name}")


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("case", RIGHT_CASES)
def test_right_kernel_gives_equal_bits_in_every_order(
    programs: Programs, build: str, case: str
) -> None:
    results = {programs.run(build, "right", case, order) for order in ORDERS}
    assert len(results) == 1
    assert re.fullmatch(r"returned [0-9a-f]{16}, 0 NaN", results.pop())


@pytest.mark.parametrize("threads", ["1", "3"])
def test_blocks_may_run_on_any_number_of_os_threads(programs: Programs, threads: str) -> None:
    expected = programs.run("plain", "right", "gemm")
    assert programs.run("plain", "right", "gemm", CONVNET_EMULATOR_THREADS=threads) == expected


@pytest.mark.parametrize(
    "case",
    ["missing_barrier", "missing_second_barrier", "missing_syncwarp", "async_without_barrier"],
)
def test_missing_barrier(programs: Programs, case: str) -> None:
    """Orders differ in their bits; with accesses checked, each order names the line."""
    assert len({programs.run("plain", "broken", case, order) for order in ORDERS}) > 1
    for order in ORDERS:
        message = programs.run("access", "broken", case, order)
        assert message.startswith("threw broken_op: ")
        assert "race on shared memory" in message or "that nobody wrote" in message
        assert marked_line(case) in message
        assert re.search(r"in thread \(\d+, 0, 0\) of block \(\d, 0, 0\)$", message)


@pytest.mark.parametrize(
    ("case", "nans", "message"),
    [
        ("unwritten_shared", 1, "reads shared memory that nobody wrote: tile + 256 bytes"),
        ("async_without_wait", 64, "shared memory that a cp_async has not been waited for"),
        ("async_wait_too_few", 64, "shared memory that a cp_async has not been waited for"),
    ],
)
def test_read_of_what_is_not_there(programs: Programs, case: str, nans: int, message: str) -> None:
    """The result is NaN; with accesses checked, the line is named."""
    assert programs.run("plain", "broken", case).endswith(f", {nans} NaN")
    checked = programs.run("access", "broken", case)
    assert message in checked
    assert marked_line(case) in checked


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("exit_before_barrier", r"divergent barriers: .* waits in __syncthreads, .* has ended"),
        ("two_barriers", "divergent barriers: this thread waits in __syncthreads here, thread"),
        ("uneven_loop", r"divergent barriers: thread .* waits in __syncthreads, .* has ended"),
        ("shuffle_in_branch", r"deadlocked warp operation: .* waits in __shfl_xor_sync, but"),
        ("different_operations", "divergent warp: this thread is in __.* other lanes in __"),
        ("mask_without_self", "the mask 0x0000fffe does not name the calling lane"),
        ("mma_in_part", "mma.m16n8k8.tf32"),
    ],
)
def test_threads_that_do_not_meet(programs: Programs, case: str, message: str, order: str) -> None:
    result = programs.run("plain", "broken", case, order)
    assert re.match(rf"threw broken_op: .*{message}", result)
    assert marked_line(case) in result
    assert re.search(r"thread \(\d+, 0, 0\) of block \(\d, 0, 0\)", result)


def test_shared_memory_overrun(programs: Programs) -> None:
    for case in ("shared_write_overrun", "shared_read_overrun"):
        address = programs.run("address", "broken", case)
        assert "ERROR: AddressSanitizer: heap-buffer-overflow" in address
        assert marked_line(case) in address
        access = programs.run("access", "broken", case)
        assert "shared-memory overrun: 4 bytes at offset 256 of tile (256 bytes)" in access
        assert marked_line(case) in access
    # Without instrumentation, a write is noticed at the end of the block.
    plain = programs.run("plain", "broken", "shared_write_overrun")
    assert marked_line("shared_write_overrun declaration") in plain
    assert "block (0, 0, 0) wrote outside tile (256 bytes)" in plain


def test_global_memory_overrun(programs: Programs) -> None:
    line = marked_line("global_overrun")
    for case in ("global_overrun", "device_overrun"):
        address = programs.run("address", "broken", case)
        assert "ERROR: AddressSanitizer" in address
        assert line in address
    access = programs.run("access", "broken", "device_overrun")
    assert line in access
    assert "global-memory overrun: 4 bytes at offset 256 of an allocation of 256 bytes" in access
    registered = programs.run("access", "broken", "registered_overrun")
    assert line in registered
    assert "access outside of all registered arrays, in thread (63, 0, 0)" in registered
    far = programs.run("plain", "broken", "far_overrun")
    assert marked_line("far_overrun") in far


@pytest.mark.parametrize("build", ["plain", "access", "address"])
def test_memory_of_another_device(programs: Programs, build: str) -> None:
    argument = programs.run(build, "broken", "other_device")
    assert marked_line("other_device") in argument
    assert "argument 1 points to memory of device 1; device 0 has no peer mapping" in argument
    table = programs.run(build, "broken", "other_device_in_table")
    assert marked_line("other_device_in_table") in table
    assert "access to memory of device 1 from device 0 without a peer mapping" in table


@pytest.mark.parametrize("build", ["plain", "address"])
@pytest.mark.parametrize(
    ("case", "message", "thread"),
    [
        ("null_pointer", "invalid memory access at address", "thread (3, 0, 0)"),
        ("misaligned", "misaligned 128-bit access", "thread (1, 0, 0)"),
        ("misaligned_async", "cp_async: misaligned address", "thread (1, 0, 0)"),
        ("stack_overflow", "stack overflow", "thread (0, 0, 0)"),
        ("trap", "__trap", "thread (5, 0, 0) of block (2, 0, 0)"),
        ("divide", "integer division by zero", "thread (0, 0, 0)"),
        ("large_shared", "245760 bytes of shared memory, the limit is 232448", "thread (0, 0, 0)"),
    ],
)
def test_fault(programs: Programs, build: str, case: str, message: str, thread: str) -> None:
    result = programs.run(build, "broken", case)
    assert result.startswith("threw broken_op: ")
    assert message in result
    assert thread in result
    if case != "stack_overflow":  # which line overflows is the compiler's choice
        assert marked_line(case) in result


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("too_many_threads", "invalid block (2000, 1, 1): expected 1 to 1024 threads"),
        ("empty_grid", "invalid grid (0, 1, 1)"),
        ("no_dynamic_shared", "the launch gave no dynamic shared memory for tile"),
    ],
)
def test_impossible_launch(programs: Programs, case: str, message: str) -> None:
    assert message in programs.run("plain", "broken", case)


def test_launch_after_an_error(programs: Programs) -> None:
    assert programs.run("plain", "broken", "after_an_error").startswith("returned")


def test_unknown_order(programs: Programs) -> None:
    message = programs.run("plain", "right", "gemm", order="sideways")
    assert 'expected forward, reverse or shuffle:SEED, got "sideways"' in message
