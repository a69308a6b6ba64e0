"""The driver API of the virtual GPU for tests, by ctypes: streams, events, graphs and launches.

How work is ordered and which device it is are read from the environment once, and an error of a
kernel stays with its process. So a test's program runs in a process of its own:
:func:`run_program` calls a function of the test's module there and hands back what it returned.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from ptx import library

NON_BLOCKING = 1
CODES = {
    1: "INVALID_VALUE",
    101: "INVALID_DEVICE",
    209: "NO_BINARY_FOR_GPU",
    400: "INVALID_HANDLE",
    600: "NOT_READY",
    700: "ILLEGAL_ADDRESS",
    701: "LAUNCH_OUT_OF_RESOURCES",
    705: "PEER_ACCESS_NOT_ENABLED",
    900: "STREAM_CAPTURE_UNSUPPORTED",
    901: "STREAM_CAPTURE_INVALIDATED",
    902: "STREAM_CAPTURE_MERGE",
    903: "STREAM_CAPTURE_UNMATCHED",
    904: "STREAM_CAPTURE_UNJOINED",
    719: "LAUNCH_FAILED",
    801: "NOT_SUPPORTED",
    905: "STREAM_CAPTURE_ISOLATION",
    906: "STREAM_CAPTURE_IMPLICIT",
    907: "CAPTURED_EVENT",
    912: "INVALID_CLUSTER_SIZE",
}
PATIENCE = 60  # seconds for a program
GLOBAL, THREAD_LOCAL, RELAXED = 0, 1, 2  # modes of capture

# set: *x = value. add: *x += value. move: *y = *x.
KERNELS = """.version 8.3
.target sm_75
.address_size 64
.visible .entry set(.param .u64 x, .param .u32 value) {
  .reg .b64 %l; .reg .b32 %v;
  ld.param.u64 %l, [x]; ld.param.u32 %v, [value];
  st.global.u32 [%l], %v; ret;
}
.visible .entry add(.param .u64 x, .param .u32 value) {
  .reg .b64 %l; .reg .b32 %v, %w;
  ld.param.u64 %l, [x]; ld.param.u32 %v, [value];
  ld.global.u32 %w, [%l]; add.s32 %w, %w, %v; st.global.u32 [%l], %w; ret;
}
.visible .entry move(.param .u64 y, .param .u64 x) {
  .reg .b64 %l; .reg .b32 %v;
  ld.param.u64 %l, [x]; ld.global.u32 %v, [%l];
  ld.param.u64 %l, [y]; st.global.u32 [%l], %v; ret;
}
"""


class CudaError(Exception):
    """A CUresult other than success, by its name."""


def call(name: str, *arguments: Any) -> None:
    """Calls a function of the driver API; raises :class:`CudaError`."""
    code = getattr(library(), name)(*arguments)
    if code:
        raise CudaError(CODES.get(code, str(code)))


def error_of(function: Callable[..., Any], *arguments: Any) -> str:
    """The name of the error that a call raises; empty where it raises none."""
    try:
        function(*arguments)
    except CudaError as error:
        return str(error)
    return ""


def handle(name: str, *arguments: Any) -> ctypes.c_void_p:
    """What a function writes to its first argument."""
    made = ctypes.c_void_p()
    call(name, ctypes.byref(made), *arguments)
    return made


def use_device(device: int = 0) -> ctypes.c_void_p:
    """Makes a device's context current, and returns it."""
    call("cuInit", 0)
    context = handle("cuDevicePrimaryCtxRetain", device)
    call("cuCtxSetCurrent", context)
    return context


def attribute(number: int) -> int:
    """A device attribute, by its number in cuda.h."""
    value = ctypes.c_int()
    call("cuDeviceGetAttribute", ctypes.byref(value), number, 0)
    return value.value


class _Config(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("count", ctypes.c_uint),
    ]


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute: an id, padding, a value of 64 bytes."""

    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_uint * 16)]


CLUSTER_DIMENSION, PROGRAMMATIC, PROGRAMMATIC_EVENT = 4, 6, 7  # CUlaunchAttributeID


class Module:
    """PTX text on the current device."""

    def __init__(self, text: str = KERNELS) -> None:
        self.module = handle("cuModuleLoadData", text.encode())

    def function(self, name: str) -> ctypes.c_void_p:
        return handle("cuModuleGetFunction", self.module, name.encode())


def launch(
    function: ctypes.c_void_p,
    *arguments: Any,
    stream: ctypes.c_void_p | None = None,
    grid: tuple[int, int, int] = (1, 1, 1),
    block: tuple[int, int, int] = (1, 1, 1),
    shared: int = 0,
    attributes: dict[int, list[int]] | None = None,
) -> None:
    """Launches a kernel. Arguments: integers of 32 bits, or :class:`Memory`. Attributes of the
    launch: their numbers, and words of their values."""
    values = [
        ctypes.c_uint64(each.address) if isinstance(each, Memory) else ctypes.c_uint32(each)
        for each in arguments
    ]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    if attributes is None:
        call("cuLaunchKernel", function, *grid, *block, shared, stream, pointers, None)
        return
    wanted = (_Attribute * len(attributes))(*(_Attribute(id=each) for each in attributes))
    for attribute, words in zip(wanted, attributes.values(), strict=True):
        attribute.value[: len(words)] = words
    sizes = (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block)
    config = _Config(*sizes, shared, stream, ctypes.addressof(wanted), len(wanted))
    call("cuLaunchKernelEx", ctypes.byref(config), function, pointers, None)


class Memory:
    """A number of 32 bits: in device memory, or ``pinned`` on the host, or the host's own."""

    def __init__(self, value: int = 0, kind: str = "device") -> None:
        self.kind = kind
        if kind == "device":
            address = ctypes.c_uint64()
            call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(4))
            self.address = address.value
            call(
                "cuMemcpyHtoD_v2", address, ctypes.byref(ctypes.c_uint32(value)), ctypes.c_size_t(4)
            )
            call("cuCtxSynchronize")
        elif kind == "pinned":
            self.address = handle("cuMemAllocHost_v2", ctypes.c_size_t(4)).value or 0
            self.value = value
        else:
            self._own = ctypes.c_uint32(value)
            self.address = ctypes.addressof(self._own)

    @property
    def value(self) -> int:
        """What lies there now: of device memory by a copy that waits for the legacy stream."""
        if self.kind != "device":
            return ctypes.c_uint32.from_address(self.address).value
        there = ctypes.c_uint32()
        address = ctypes.c_uint64(self.address)
        call("cuMemcpyDtoH_v2", ctypes.byref(there), address, ctypes.c_size_t(4))
        return there.value

    @value.setter
    def value(self, value: int) -> None:
        ctypes.c_uint32.from_address(self.address).value = value

    def copy_from(self, other: Memory, stream: ctypes.c_void_p | None = None) -> None:
        to, source = ctypes.c_uint64(self.address), ctypes.c_uint64(other.address)
        call("cuMemcpyAsync", to, source, ctypes.c_size_t(4), stream)

    def free(self) -> None:
        call("cuMemFree_v2", ctypes.c_uint64(self.address))


def stream(flags: int = NON_BLOCKING) -> ctypes.c_void_p:
    return handle("cuStreamCreate", flags)


def synchronize(stream: ctypes.c_void_p | None = None) -> None:
    call("cuStreamSynchronize", stream)


class Event:
    def __init__(self) -> None:
        self.event = handle("cuEventCreate", 0)

    def record(self, stream: ctypes.c_void_p | None) -> Event:
        call("cuEventRecord", self.event, stream)
        return self

    def query(self) -> None:
        call("cuEventQuery", self.event)

    def hold(self, stream: ctypes.c_void_p | None) -> None:
        """Lets a stream wait for it."""
        call("cuStreamWaitEvent", stream, self.event, 0)


def begin_capture(stream: ctypes.c_void_p | None, mode: int = THREAD_LOCAL) -> None:
    call("cuStreamBeginCapture_v2", stream, mode)


def end_capture(stream: ctypes.c_void_p | None) -> ctypes.c_void_p:
    graph = ctypes.c_void_p()
    call("cuStreamEndCapture", stream, ctypes.byref(graph))
    return handle("cuGraphInstantiateWithFlags", graph, ctypes.c_uint64(0))


@dataclass
class Outcome:
    """What a program returned, and what it wrote to stderr. One that ended early returned None."""

    value: Any
    messages: str
    code: int


def run_program(function: Callable[..., Any], *arguments: Any, **environment: Any) -> Outcome:
    """Calls a test module's function in a process of its own.

    Args:
        function: of the module's top level; what it returns has to be something for JSON.
        arguments: for the function; numbers, strings and lists.
        environment: variables ``VGPU_...`` by their names without that, in small letters.
    """
    path = sys.modules[function.__module__].__file__
    variables = {f"VGPU_{name.upper()}": str(value) for name, value in environment.items()}
    request = json.dumps([path, function.__name__, arguments, variables])
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(request + "\n")
    server.stdin.flush()
    return Outcome(*json.loads(server.stdout.readline()))


@functools.cache
def _server() -> subprocess.Popen[str]:
    """A process that has imported what programs need, and forks one for each."""
    return subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _run_forked(path: str, name: str, arguments: list[Any], variables: dict[str, str]) -> Outcome:
    sys.path.insert(0, str(Path(path).parent))
    function = getattr(importlib.import_module(Path(path).stem), name)
    with tempfile.TemporaryFile("w+") as messages, tempfile.TemporaryFile("w+") as value:
        child = os.fork()
        if child == 0:
            os.dup2(messages.fileno(), 2)
            os.environ.update(variables)
            signal.alarm(PATIENCE)
            try:
                json.dump(function(*arguments), value)
                value.flush()
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        messages.seek(0)
        value.seek(0)
        return Outcome(json.load(value) if code == 0 else None, messages.read(), code)


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(astuple(_run_forked(*json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
