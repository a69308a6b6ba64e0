"""Arrays of the host that stand for device memory while an operation runs, and the host's own
accesses to device memory."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from cuda_driver import Memory, Module, call, error_of, launch, run_program, use_device
from ptx import library


class View:
    """Numbers of an array as kernels take them."""

    def __init__(self, array: np.ndarray, offset: int = 0) -> None:
        self.address = array.ctypes.data + offset


def register(array: np.ndarray) -> None:
    library().vgpu_test_register(ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(array.nbytes))


def unregister(array: np.ndarray) -> None:
    library().vgpu_test_unregister(
        ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(array.nbytes)
    )


def finish() -> str:
    message = ctypes.create_string_buffer(1000)
    library().vgpu_test_finish(message, ctypes.c_size_t(len(message)))
    return message.value.decode()


def move(to: Any, source: Any) -> str:
    """Runs *to = *source; the message of what went wrong."""
    arguments = [ctypes.c_uint64(each.address) for each in (to, source)]
    pointers = (ctypes.c_void_p * 2)(*(ctypes.addressof(each) for each in arguments))
    function = Module().function("move")
    call("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, None, pointers, None)
    return finish()


def kernels_on_arrays(case: str) -> dict[str, Any]:
    use_device()
    x, y = np.arange(8, dtype=np.uint32) + 10, np.zeros(8, np.uint32)
    part = x[2:4]  # within x
    if case == "right":
        register(x), register(y)
        message = move(View(y, 28), View(x, 28))
    elif case == "read past the end":
        register(x), register(y)
        message = move(View(y), View(x, 32))
    elif case == "read before the start":
        register(x), register(y)
        message = move(View(y), View(x, -4))
    elif case == "straddling the end":
        register(x[:-1].view(np.uint8)[:27]), register(y)
        message = move(View(y), View(x, 24))
    elif case == "write past the end":
        register(x), register(y)
        message = move(View(y, 32), View(x))
    elif case == "not registered":
        register(y)
        message = move(View(y), View(x))
    elif case == "no longer registered":
        register(x), register(y), unregister(x)
        message = move(View(y), View(x))
    elif case == "registered twice":
        register(x), register(y), register(x), unregister(x)
        message = move(View(y), View(x))
    elif case == "beside a part of it":
        register(x), register(part), register(y)
        message = move(View(y), View(x, 20))
    elif case == "once its part is gone":
        register(x), register(part), register(y), unregister(part)
        message = move(View(y), View(x, 8))
    else:
        assert case == "only its part"
        register(x), register(part), register(y), unregister(x)
        message = move(View(y), View(x, 16))
    return {"message": message, "y": y.tolist()}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("right", [0] * 7 + [17]),
        ("registered twice", [10] + [0] * 7),
        ("beside a part of it", [15] + [0] * 7),
        ("once its part is gone", [12] + [0] * 7),
    ],
)
def test_a_kernel_on_registered_arrays(case: str, expected: list[int]) -> None:
    assert run_program(kernels_on_arrays, case).value == {"message": "", "y": expected}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("read past the end", "read of 4 bytes"),
        ("read before the start", "read of 4 bytes"),
        ("straddling the end", "24 bytes into an allocation of 27"),
        ("write past the end", "write of 4 bytes"),
        ("not registered", "in no allocation"),
        ("no longer registered", "in no allocation"),
        ("only its part", "read of 4 bytes"),
    ],
)
def test_a_kernel_beyond_registered_arrays(case: str, message: str) -> None:
    outcome = run_program(kernels_on_arrays, case).value
    assert message in outcome["message"]
    assert outcome["y"] == [0] * 8


def afterwards() -> list[str]:
    use_device()
    x, y = np.ones(4, np.uint32), np.zeros(4, np.uint32)
    register(y)
    first = move(View(y), View(x))
    register(x)
    return [first[:4], move(View(y), View(x)), str(y[0])]


def refused() -> list[str]:
    """A launch that is refused, then work that is right."""
    use_device()
    x, y = np.ones(4, np.uint32), np.zeros(4, np.uint32)
    register(x), register(y)
    error = error_of(lambda: launch(Module().function("move"), block=(2048, 1, 1)))
    return [error, move(View(y), View(x)), str(y[0])]


def test_what_a_call_refused_is_not_said_again() -> None:
    outcome = run_program(refused)
    assert outcome.value == ["INVALID_VALUE", "", "1"]
    assert "launch of move refused: a block of (2048, 1, 1)" in outcome.messages


def test_what_failed_is_forgotten_once_it_was_said() -> None:
    assert run_program(afterwards).value == ["read", "", "1"]


def pinned_and_own() -> list[str]:
    """Kernels reach pinned memory, and no other memory of the host."""
    use_device()
    kernels = Module()
    pinned, own, there = Memory(5, "pinned"), Memory(6, "pageable"), Memory(0)
    launch(kernels.function("move"), there, pinned)
    values = [str(there.value)]
    launch(kernels.function("move"), there, own)
    return [*values, error_of(call, "cuCtxSynchronize")]


def test_pinned_memory_and_the_hosts_own() -> None:
    outcome = run_program(pinned_and_own)
    assert outcome.value == ["5", "ILLEGAL_ADDRESS"]
    assert "in no allocation" in outcome.messages


def touching_device_memory(freed: bool) -> int:
    use_device()
    x = Memory(3)
    if freed:
        x.free()
    return ctypes.c_uint32.from_address(x.address).value


def test_the_host_may_not_touch_device_memory() -> None:
    outcome = run_program(touching_device_memory, False)
    assert outcome.code < 0
    assert "the host touches device memory at 0x" in outcome.messages
    assert "0 bytes into an allocation of 4 bytes on device 0" in outcome.messages
    assert "in no allocation" in run_program(touching_device_memory, True).messages


def copies_out_of_bounds() -> list[str]:
    use_device()
    x = Memory(1)
    too_long = (ctypes.c_uint32 * 2)()
    eight = ctypes.c_size_t(8)
    return [
        error_of(call, "cuMemcpyDtoH_v2", too_long, ctypes.c_uint64(x.address), eight),
        error_of(call, "cuMemcpyHtoDAsync_v2", ctypes.c_uint64(x.address), too_long, eight, None),
        error_of(call, "cuMemsetD32Async", ctypes.c_uint64(x.address), 0, eight, None),
    ]


def test_copies_and_fills_beyond_an_allocation() -> None:
    outcome = run_program(copies_out_of_bounds)
    assert outcome.value == ["INVALID_VALUE"] * 3
    assert "a copy from device memory of 8 bytes at 0x" in outcome.messages
