"""What a device of each compute capability refuses, and what it says of itself.

Source of the numbers: CUDA C++ Programming Guide, "Technical Specifications per Compute
Capability".
"""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from cuda_driver import (
    CLUSTER_DIMENSION,
    Memory,
    Module,
    attribute,
    call,
    error_of,
    launch,
    run_program,
    use_device,
)

K = 1024
# threads and blocks that an SM holds, shared memory of an SM and of a block, blocks of a cluster
DEVICES = {
    75: (1024, 16, 64 * K, 64 * K, 0),
    80: (2048, 32, 164 * K, 163 * K, 0),
    86: (1536, 16, 100 * K, 99 * K, 0),
    89: (1536, 24, 100 * K, 99 * K, 0),
    90: (2048, 32, 228 * K, 227 * K, 8),
    100: (2048, 32, 228 * K, 227 * K, 8),
    120: (1536, 24, 100 * K, 99 * K, 8),
}
HEAD = ".version 8.7\n.target sm_75\n.address_size 64\n"
BOUNDED = f"""{HEAD}
.visible .entry plain() {{ ret; }}
.visible .entry bounded() .maxntid 128, 1, 1 {{ ret; }}
.visible .entry required() .reqntid 16, 8, 1 {{ ret; }}
.visible .entry fixed() {{
  .shared .align 4 .b8 s[128]; .reg .b32 %r;
  mov.u32 %r, s; st.shared.u32 [%r], %r; ret;
}}
"""
MAX_DYNAMIC, NON_PORTABLE = 8, 14  # CUfunction_attribute


def attributes() -> list[int]:
    use_device()
    threads, blocks, sm, optin, major, minor, plain = 39, 106, 81, 97, 75, 76, 8
    return [attribute(each) for each in (major, minor, threads, blocks, sm, optin, plain)]


@pytest.mark.parametrize("cc", DEVICES)
def test_device_attributes(cc: int) -> None:
    threads, blocks, sm, block, _ = DEVICES[cc]
    expected = [cc // 10, cc % 10, threads, blocks, sm, block, 48 * K]
    assert run_program(attributes, cc=cc).value == expected


def test_an_unknown_compute_capability_is_refused() -> None:
    outcome = run_program(attributes, cc=91)
    assert outcome.code == 2
    assert "VGPU_CC=91: expected one of 75 80 86 89 90 100 120" in outcome.messages


def launches(name: str, shapes: list[dict[str, Any]]) -> list[str]:
    use_device()
    function = Module(BOUNDED).function(name)
    return [
        error_of(lambda shape=shape: launch(function, **shape))  # type: ignore[misc]
        for shape in shapes
    ]


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "plain",
            {"block": [1025, 1, 1]},
            "a block of (1025, 1, 1); from (1, 1, 1) to (1024, 1024, 64) is possible",
        ),
        (
            "plain",
            {"block": [1, 1, 65]},
            "a block of (1, 1, 65); from (1, 1, 1) to (1024, 1024, 64) is possible",
        ),
        (
            "plain",
            {"block": [32, 33, 1]},
            "a block of (32, 33, 1), 1056 threads; at most 1024 are possible",
        ),
        ("plain", {"grid": [1, 0, 1]}, "a grid of (1, 0, 1); from (1, 1, 1) to"),
        (
            "plain",
            {"grid": [1, 65536, 1]},
            "a grid of (1, 65536, 1); from (1, 1, 1) to (2147483647, 65535, 65535) is possible",
        ),
        (
            "bounded",
            {"block": [129, 1, 1]},
            "a block of (129, 1, 1), 129 threads; the kernel was compiled for at most 128 "
            "(__launch_bounds__)",
        ),
        (
            "required",
            {"block": [128, 1, 1]},
            "a block of (128, 1, 1), 128 threads; the kernel was compiled for (16, 8, 1)",
        ),
        (
            "fixed",
            {"shared": 48 * K - 127},
            "128 static and 49025 dynamic bytes of shared memory; without "
            "cudaFuncAttributeMaxDynamicSharedMemorySize at most 49152 in all",
        ),
    ],
)
def test_a_launch_that_is_refused(name: str, shape: dict[str, Any], message: str) -> None:
    outcome = run_program(launches, name, [shape])
    assert outcome.value == ["INVALID_VALUE"]
    assert f"launch of {name} refused: {message}" in outcome.messages


def test_launches_at_the_limit() -> None:
    blocks = [{"block": [1024, 1, 1]}, {"block": [1, 1024, 1]}, {"block": [16, 1, 64]}]
    assert run_program(launches, "plain", [*blocks, {"shared": 48 * K}]).value == [""] * 4
    assert run_program(launches, "bounded", [{"block": [128, 1, 1]}]).value == [""]
    assert run_program(launches, "required", [{"block": [16, 8, 1]}]).value == [""]
    assert run_program(launches, "fixed", [{"shared": 48 * K - 128}]).value == [""]


def opted_in(asked: list[int]) -> list[str]:
    """Opts in to so much dynamic shared memory, and launches with it, beside 128 static bytes."""
    use_device()
    function = Module(BOUNDED).function("fixed")

    def take(dynamic: int) -> None:
        call("cuFuncSetAttribute", function, MAX_DYNAMIC, dynamic)
        launch(function, shared=dynamic)

    return [error_of(take, dynamic) for dynamic in asked]


@pytest.mark.parametrize("cc", DEVICES)
def test_shared_memory_with_opting_in(cc: int) -> None:
    most = DEVICES[cc][3] - 128
    outcome = run_program(opted_in, [most, most + 1], cc=cc)
    assert outcome.value == ["", "INVALID_VALUE"]
    assert f"at most {most} on compute capability {cc // 10}.{cc % 10}" in outcome.messages


def too_little() -> str:
    use_device()
    function = Module(BOUNDED).function("fixed")
    call("cuFuncSetAttribute", function, MAX_DYNAMIC, 60000)
    return error_of(lambda: launch(function, shared=60001))


def test_shared_memory_beyond_what_was_opted_in_to() -> None:
    outcome = run_program(too_little)
    assert outcome.value == "INVALID_VALUE"
    assert "cudaFuncAttributeMaxDynamicSharedMemorySize allowed 60000 dynamic ones" in (
        outcome.messages
    )


def clusters(grid: list[int], cluster: list[int], non_portable: bool = False) -> str:
    use_device()
    function = Module(BOUNDED).function("plain")
    if non_portable:
        call("cuFuncSetAttribute", function, NON_PORTABLE, 1)
    return error_of(
        lambda: launch(function, grid=tuple(grid), attributes={CLUSTER_DIMENSION: cluster})  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("cc", DEVICES)
def test_clusters(cc: int) -> None:
    most = DEVICES[cc][4]
    if most == 0:
        outcome = run_program(clusters, [2, 1, 1], [2, 1, 1], cc=cc)
        assert outcome.value == "INVALID_CLUSTER_SIZE"
        assert f"compute capability {cc // 10}.{cc % 10} has none" in outcome.messages
        return
    outcome = run_program(clusters, [18, 1, 1], [9, 1, 1], cc=cc)
    assert outcome.value == "INVALID_CLUSTER_SIZE"
    assert "clusters of (9, 1, 1); at most 8 blocks are possible" in outcome.messages
    outcome = run_program(clusters, [34, 1, 1], [17, 1, 1], True, cc=cc)
    assert outcome.value == "INVALID_CLUSTER_SIZE"
    outcome = run_program(clusters, [3, 1, 1], [2, 1, 1], cc=cc)
    assert outcome.value == "INVALID_CLUSTER_SIZE"
    assert "they do not divide the grid of (3, 1, 1)" in outcome.messages


def loads(target: str) -> str:
    use_device()
    return error_of(Module, BOUNDED.replace("sm_75", target))


@pytest.mark.parametrize(
    ("target", "cc", "runs"),
    [
        ("sm_75", 75, True),
        ("sm_80", 75, False),
        ("sm_80", 90, True),
        ("sm_90", 100, True),
        ("sm_90a", 90, True),
        ("sm_90a", 100, False),
        ("sm_100", 90, False),
        ("sm_100f", 100, True),
        ("sm_100f", 120, False),
    ],
)
def test_ptx_for_another_device(target: str, cc: int, runs: bool) -> None:
    outcome = run_program(loads, target, cc=cc)
    assert outcome.value == ("" if runs else "NO_BINARY_FOR_GPU")
    if not runs:
        expected = f"PTX for {target} only, and the device has compute capability {cc // 10}."
        assert expected in outcome.messages


def occupancy(threads: int, shared: int) -> int:
    use_device()
    blocks = ctypes.c_int()
    function = Module(BOUNDED).function("fixed")
    call(
        "cuOccupancyMaxActiveBlocksPerMultiprocessor",
        ctypes.byref(blocks),
        function,
        threads,
        ctypes.c_size_t(shared),
    )
    return blocks.value


def test_blocks_that_fit_a_multiprocessor() -> None:
    assert run_program(occupancy, 32, 0, cc=80).value == 32  # blocks
    assert run_program(occupancy, 256, 0, cc=86).value == 6  # threads
    assert run_program(occupancy, 32, 50 * K, cc=90).value == 4  # 228 KiB by 51 and 128 bytes


def freed_twice() -> list[str]:
    use_device()
    x = Memory(0)
    x.free()
    return [error_of(x.free)]


def test_freeing_twice() -> None:
    outcome = run_program(freed_twice)
    assert outcome.value == ["INVALID_VALUE"]
    assert "an address is freed that was not allocated" in outcome.messages
