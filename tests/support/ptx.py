"""Runs PTX on the virtual GPU: :func:`run_ptx` a kernel's body, :func:`evaluate` one instruction on
many operands."""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

REGISTERS = """
.reg .pred %p<8>;
.reg .b16 %h<16>;
.reg .b32 %r<64>;
.reg .b64 %l<64>;
.reg .f32 %f<64>;
.reg .f64 %d<16>;
"""


class PtxError(Exception):
    """The message of the virtual GPU."""


@functools.cache
def library() -> ctypes.CDLL:
    """The library of the virtual GPU: convnet._vgpu, or what VGPU_LIBRARY names."""
    path = os.environ.get("VGPU_LIBRARY")
    if path is None:
        import convnet._vgpu

        path = convnet._vgpu.__file__
    lib = ctypes.CDLL(path)
    lib.vgpu_test_alloc.restype = ctypes.c_uint64
    lib.vgpu_test_counts.restype = ctypes.c_char_p
    lib.vgpu_test_alloc.argtypes = [ctypes.c_uint64]
    lib.vgpu_test_free.argtypes = [ctypes.c_uint64]
    lib.vgpu_test_write.argtypes = [ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64]
    lib.vgpu_test_read.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
    return lib


class Buffer:
    """Device memory with the bytes of an array, and of its size."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = np.ascontiguousarray(array)
        self.address: int = library().vgpu_test_alloc(self.array.nbytes)
        library().vgpu_test_write(self.address, self.array.ctypes.data, self.array.nbytes)

    def read(self) -> np.ndarray:
        """Its bytes, as an array of the shape and type that it was made with."""
        array = np.empty_like(self.array)
        library().vgpu_test_read(array.ctypes.data, self.address, array.nbytes)
        return array

    def free(self) -> None:
        library().vgpu_test_free(self.address)


def tensor_map(buffer: Buffer, box: list[int], steps: list[int], swizzle: int) -> bytes:
    """A map of a C-contiguous array of float32, its fastest dimension first."""
    sizes = buffer.array.shape[::-1]
    strides = [4 * int(np.prod(sizes[: k + 1])) for k in range(len(sizes) - 1)] or [0]
    made = ctypes.create_string_buffer(128)
    code = library().vgpu_test_tensor_map(
        made,
        len(sizes),
        ctypes.c_uint64(buffer.address),
        (ctypes.c_uint64 * len(sizes))(*sizes),
        (ctypes.c_uint64 * len(strides))(*strides),
        (ctypes.c_uint * len(box))(*box),
        (ctypes.c_uint * len(steps))(*steps),
        swizzle,
    )
    assert code == 0
    return made.raw


def run_text(
    text: str,
    params: bytes,
    grid: Sequence[int] = (1, 1, 1),
    block: Sequence[int] = (32, 1, 1),
    shared: int = 0,
    kernel: str = "test",
) -> None:
    """Runs a kernel of a module.

    Raises:
        PtxError: the text is refused, or the kernel does something that it must not.
    """
    message = ctypes.create_string_buffer(4096)
    code = library().vgpu_test_run(
        text.encode(),
        kernel.encode(),
        (ctypes.c_uint * 3)(*grid),
        (ctypes.c_uint * 3)(*block),
        ctypes.c_uint(shared),
        params,
        ctypes.c_size_t(len(params)),
        message,
        ctypes.c_size_t(len(message)),
    )
    if code:
        raise PtxError(message.value.decode())


def run_ptx(
    body: str,
    inputs: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray],
    *,
    block: int = 32,
    grid: int | tuple[int, int, int] = 1,
    shared: int = 0,
    module: str = "",
    extra: bytes = b"",
    target: str = "sm_90a",
    directives: str = "",
) -> list[np.ndarray]:
    """Runs a kernel on arrays.

    Args:
        body: statements. ``%in0``, ``%in1``, ... and ``%out0``, ... hold the arrays' addresses,
            ``%t`` holds %tid.x; ``%r0`` to ``%r63`` and likewise ``%p``, ``%h`` (16 bits), ``%l``
            (64 bits), ``%f`` and ``%d`` are there to be used.
        inputs, outputs: arrays; the outputs' contents are what is there before.
        extra: a parameter ``extra``, aligned to 64 bytes.
        module: declarations outside of the kernel.
        directives: of the kernel, such as ``.reqnctapercluster 2, 1, 1``.

    Returns:
        The outputs afterwards.
    """
    buffers = [Buffer(array) for array in [*inputs, *outputs]]
    names = [f"in{i}" for i in range(len(inputs))] + [f"out{i}" for i in range(len(outputs))]
    parameters = [f".param .u64 {name}" for name in names]
    params = b"".join(struct.pack("<Q", buffer.address) for buffer in buffers)
    if extra:
        parameters.append(f".param .align 64 .b8 extra[{len(extra)}]")
        params += bytes(-len(params) % 64) + extra
    loads = "\n".join(f".reg .b64 %{n}; ld.param.u64 %{n}, [{n}];" for n in names)
    text = f""".version 8.3
.target {target}
.address_size 64
{module}
.visible .entry test({", ".join(parameters)}) {directives}
{{
{REGISTERS}
.reg .b32 %t;
mov.u32 %t, %tid.x;
{loads}
{body}
ret;
}}
"""
    try:
        blocks = (grid, 1, 1) if isinstance(grid, int) else grid
        run_text(text, params, blocks, (block, 1, 1), shared)
        return [buffer.read() for buffer in buffers[len(inputs) :]]
    finally:
        for buffer in buffers:
            buffer.free()


# --- one instruction on many operands

SIZES = {"pred": 4, "b128": 16} | {f"{k}{8 * n}": n for n in (1, 2, 4, 8) for k in "bus"}
SIZES |= {"f16": 2, "bf16": 2, "f32": 4, "f64": 8, "bf16x2": 4}
FORMATS = {2: "<e", 4: "<f", 8: "<d"}
NAN = float("nan")
INF = float("inf")


def bits_of(kind: str, value: Any) -> int:
    """The bits of a value: an int is bits or a number of an integer type, a float is rounded to
    nothing: it must be one that the type has."""
    size = SIZES[kind]
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value & ((1 << 8 * size) - 1)
    if value != value:
        return {2: 0x7FFF, 4: 0x7FFFFFFF, 8: 0x7FF8000000000000}[size]
    if kind == "bf16":
        bits = int.from_bytes(struct.pack("<f", value), "little")
        assert bits & 0xFFFF == 0, (kind, value)
        return bits >> 16
    raw = struct.pack(FORMATS[size], value)
    assert struct.unpack(FORMATS[size], raw)[0] == value, f"{value.hex()} is no {kind}"
    return int.from_bytes(raw, "little")


def is_nan(kind: str, bits: int) -> bool:
    """Whether these are the bits of a NaN."""
    if kind == "bf16":
        return bits & 0x7FFF > 0x7F80
    if kind not in ("f16", "f32", "f64"):
        return False
    value = struct.unpack(FORMATS[SIZES[kind]], bits.to_bytes(SIZES[kind], "little"))[0]
    return bool(value != value)


@dataclass
class Form:
    """An instruction, the kinds of its operands, and what it makes of some.

    Args:
        instruction: such as ``add.rn.f32``.
        kinds: of the result and the operands, ``f32 f32 f32``.
        cases: operands and result, each ``(a, b, expected)``. A float NaN that is expected stands
            for any NaN; an int stands for its bits.
        immediate: operands from this one on are written into the instruction.
    """

    instruction: str
    kinds: str
    cases: list[tuple[Any, ...]]
    immediate: int = 99

    def __str__(self) -> str:
        return self.instruction


def register_bits(kind: str) -> int:
    return max(16, 8 * SIZES[kind])


def evaluate(form: Form) -> list[str]:
    """Runs the instruction on the operands of each case: what came out wrong, in words."""
    result, *operands = form.kinds.split()
    separate = form.immediate < len(operands)
    groups = [[case] for case in form.cases] if separate else [form.cases]
    return [wrong for group in groups for wrong in evaluate_together(form, result, operands, group)]


def evaluate_together(
    form: Form, result: str, operands: list[str], cases: list[tuple[Any, ...]]
) -> list[str]:
    statements = ["setp.ge.u32 %p0, %t, " + str(len(cases)) + "; @%p0 ret;"]
    statements.append("cvt.u64.u32 %l0, %t;")
    names, inputs = [], []
    for k, kind in enumerate(operands):
        if k >= form.immediate:
            names.append(str(cases[0][k]))
            continue
        size, bits = SIZES[kind], register_bits(kind)
        column = b"".join(bits_of(kind, case[k]).to_bytes(size, "little") for case in cases)
        inputs.append(np.frombuffer(column, np.uint8))
        at = f"mad.lo.u64 %l1, %l0, {size}, %in{len(inputs) - 1}; "
        statements.append(f".reg .b{bits} %v{k}; {at}ld.global.b{8 * size} %v{k}, [%l1];")
        if kind == "pred":
            statements.append(f".reg .pred %q{k}; setp.ne.u32 %q{k}, %v{k}, 0;")
        names.append(f"%{'q' if kind == 'pred' else 'v'}{k}")
    if result == "pred":
        statements.append(f".reg .pred %w; {form.instruction} %w, {', '.join(names)};")
        statements.append(".reg .b32 %v; selp.u32 %v, 1, 0, %w;")
    else:
        statements.append(f".reg .b{register_bits(result)} %v;")
        statements.append(f"{form.instruction} %v, {', '.join(names)};")
    size = SIZES[result]
    statements.append(f"mad.lo.u64 %l1, %l0, {size}, %out0; st.global.b{8 * size} [%l1], %v;")
    [raw] = run_ptx(
        "\n".join(statements),
        inputs,
        [np.full(size * len(cases), 0xA5, np.uint8)],
        block=-(-len(cases) // 32) * 32,
    )
    wrong = []
    for k, case in enumerate(cases):
        got = int.from_bytes(raw[k * size : (k + 1) * size].tobytes(), "little")
        expected = case[-1]
        if isinstance(expected, float) and expected != expected:
            right = is_nan(result, got)
        else:
            right = got == bits_of(result, expected)
        if not right:
            given = ", ".join(map(repr, case[:-1]))
            wrong.append(
                f"{form.instruction} of {given}: expected {expected!r} "
                f"({bits_of(result, expected):#x}), got {got:#x}"
            )
    return wrong
