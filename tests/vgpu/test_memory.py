"""Loads, stores and atomics: PTX ISA, "Data Movement and Conversion Instructions" and "Parallel
Synchronization and Communication Instructions: atom"."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from ptx import PtxError, run_ptx

# %l1 is the address of the lane's word in out0, %l2 in in0
ADDRESSES = "mul.wide.u32 %l0, %t, 4; add.s64 %l1, %l0, %out0;"


def words(count: int) -> np.ndarray:
    return np.zeros(count, np.uint32)


@pytest.mark.parametrize(
    ("load", "registers", "stores"),
    [
        ("ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%in0];", ["%r0", "%r1", "%r2", "%r3"], 4),
        ("ld.global.nc.v4.f32 {%f0, %f1, %f2, %f3}, [%in0];", ["%f0", "%f1", "%f2", "%f3"], 4),
        ("ld.global.v2.b32 {%r0, %r1}, [%in0+8];", ["%r0", "%r1"], 2),
        ("ld.global.v4.u8 {%h0, %h1, %h2, %h3}, [%in0+4];", ["%h0", "%h1", "%h2", "%h3"], 4),
        ("ld.global.v2.u64 {%l4, %l5}, [%in0];", ["%l4", "%l5"], 2),
        ("ld.global.v2.u16 {_, %h1}, [%in0+4];", ["%h1"], 1),
    ],
)
def test_vector_loads(load: str, registers: list[str], stores: int) -> None:
    """The elements of a vector lie one behind the other; `_` is left out."""
    source = np.arange(100, 116, dtype=np.uint8)
    raw = source.tobytes()
    if "u8" in load:
        expected = list(raw[4:8])
    elif "u16" in load:
        expected = [int.from_bytes(raw[6:8], "little")]
    elif "u64" in load:
        expected = [int.from_bytes(raw[8 * k : 8 * k + 8], "little") for k in range(2)]
    else:
        first = 8 if "+8" in load else 0
        at = [first + 4 * k for k in range(stores)]
        expected = [int.from_bytes(raw[k : k + 4], "little") for k in at]
    kind = {"h": "u16", "l": "b64", "r": "b32", "f": "b32"}[registers[0][1]]
    body = load + "".join(
        f"st.global.{kind} [%out0+{8 * k}], {register};" for k, register in enumerate(registers)
    )
    [out] = run_ptx(body, [source], [np.zeros(4, np.uint64)], block=1)
    assert out[: len(expected)].tolist() == expected


@pytest.mark.parametrize(
    "hint", ["prefetch.global.L2 [%in0];", "prefetch.L1 [%in0+4];", "prefetch.global.L2 [%l9];"]
)
def test_prefetch_changes_nothing(hint: str) -> None:
    """A hint, which is of any address: the last one is of none."""
    body = f"mov.u64 %l9, 64; {hint} ld.global.b32 %r0, [%in0]; st.global.b32 [%out0], %r0;"
    [out] = run_ptx(body, [words(4) + 7], [words(1)], block=1)
    assert out.tolist() == [7]


def test_prefetch_is_of_global_or_local_memory() -> None:
    with pytest.raises(PtxError, match="prefetch"):
        run_ptx("prefetch.shared.L2 [%in0];", [words(4)], [words(1)], block=1)


def test_vector_stores() -> None:
    body = """
    mov.u32 %r0, 1; mov.u32 %r1, 2; mov.u32 %r2, 3; mov.u32 %r3, 4; mov.u16 %h0, 0x1FF;
    st.global.v4.u32 [%out0], {%r0, %r1, %r2, %r3};
    st.global.v2.b32 [%out0+24], {%r3, %r0};
    st.global.v4.u8 [%out0+16], {%h0, %h0, %h0, %h0};
    """
    [out] = run_ptx(body, [], [words(8)], block=1)
    assert out.tolist() == [1, 2, 3, 4, 0xFFFFFFFF, 0, 4, 1]


ELEMENTS = ["u8", "u16", "u32", "f32", "u64", "v2.u8", "v2.u16", "v2.u32", "v2.f32", "v4.u8"]
ELEMENTS += ["v4.u16", "v4.u32", "v4.f32", "v2.f64", "v4.b32"]


@pytest.mark.parametrize("space", ["global", "global.nc", "shared", "generic", "local", "param"])
@pytest.mark.parametrize("element", ELEMENTS)
def test_accesses_of_every_size_and_space(element: str, space: str) -> None:
    """Bytes come back as they were: loaded from the space, and stored to it before where it can be
    written."""
    *vector, kind = element.split(".")
    count = int(vector[0][1]) if vector else 1
    size = count * int(kind[1:]) // 8
    source = np.arange(101, 117, dtype=np.uint8)
    bits = max(16, int(kind[1:]))
    names = [f"%v{k}" for k in range(count)]
    registers = names[0] if count == 1 else "{" + ", ".join(names) + "}"
    declare = f".reg .b{bits} {', '.join(names)};"
    load, store = f".{space}.{element} {registers}, ", f".{space}.{element} "
    into = f"ld.global.{element} {registers}, [%in0];"
    clear = "".join(f"mov.b{bits} {name}, 0;" for name in names)
    out = f"st.global.{element} [%out0], {registers};"
    if space in ("shared", "local"):
        body = f".{space} .align 16 .b8 place[16]; mov.u64 %l3, place; {into} st{store}[%l3], "
        body += f"{registers}; {clear} ld{load}[%l3]; {out}"
    elif space == "param":
        body = f"ld{load}[extra]; {out}"
    elif space == "generic":
        body = f"cvta.to.global.u64 %l3, %in0; ld.{element} {registers}, [%l3];"
        body += f"st.{element} [%out0], {registers};"
    else:
        body = f"ld{load}[%in0]; {out}"
    [got] = run_ptx(
        declare + body, [source], [np.zeros(16, np.uint8)], block=1, extra=bytes(source)
    )
    assert got.tolist() == [*source[:size].tolist(), *[0] * (16 - size)]


@pytest.mark.parametrize(
    ("kind", "register", "expected"),
    [
        ("s8", "%r0", 0xFFFFFF85),
        ("u8", "%r0", 0x85),
        ("s16", "%r0", 0xFFFF9085),
        ("u16", "%r0", 0x9085),
        ("s8", "%l4", 0xFFFFFFFFFFFFFF85),
        ("u8", "%l4", 0x85),
        ("s32", "%l4", 0xFFFFFFFFC0A09085),
        ("u32", "%l4", 0xC0A09085),
    ],
)
def test_loads_into_wider_registers(kind: str, register: str, expected: int) -> None:
    """Extended to the register by the sign, or with zeros: "Operand Size Exceeding
    Instruction-Type Size"."""
    size = "b64" if register == "%l4" else "b32"
    body = f"ld.global.{kind} {register}, [%in0]; st.global.{size} [%out0], {register};"
    source = np.array([0x85, 0x90, 0xA0, 0xC0], np.uint8)
    [out] = run_ptx(body, [source], [np.zeros(1, np.uint64)], block=1)
    assert int(out[0]) == expected


def test_stores_from_wider_registers() -> None:
    body = "mov.u32 %r0, 0x12345678; st.global.u8 [%out0], %r0; st.global.u16 [%out0+2], %r0;"
    [out] = run_ptx(body, [], [words(1)], block=1)
    assert out.tolist() == [0x56780078]


def test_parameters() -> None:
    body = """
    ld.param.u8 %r0, [extra]; ld.param.s8 %r1, [extra+1]; ld.param.f32 %f0, [extra+4];
    ld.param.v2.f32 {%f1, %f2}, [extra+8]; ld.param.v4.u8 {%h0, %h1, %h2, %h3}, [extra];
    ld.param.u64 %l4, [extra+16]; cvt.u32.u16 %r2, %h2; ld.param.s32 %r3, [extra+24];
    mov.b64 %l5, extra; cvta.param.u64 %l5, %l5; ld.f32 %f3, [%l5+12];
    st.global.u32 [%out0], %r0; st.global.u32 [%out0+4], %r1; st.global.f32 [%out0+8], %f0;
    st.global.f32 [%out0+12], %f1; st.global.f32 [%out0+16], %f2; st.global.u32 [%out0+20], %r2;
    st.global.u64 [%out0+24], %l4; st.global.f32 [%out0+32], %f3; st.global.u32 [%out0+36], %r3;
    """
    extra = struct.pack("<BbBBfffQi", 200, -3, 7, 9, 1.5, 2.5, 3.5, 1 << 40, -2)
    [out] = run_ptx(body, [], [words(10)], block=1, extra=extra)
    numbers = [200, 0xFFFFFFFD, 0x3FC00000, 0x40200000, 0x40600000, 7, 0, 1 << 8, 0x40600000]
    numbers.append(0xFFFFFFFE)
    assert out.tolist() == numbers


def test_shared_memory() -> None:
    """Static variables, then the dynamic ones; generic addresses reach them too."""
    body = f"""
    .shared .align 16 .b8 fixed[128];
    mov.u32 %r0, fixed; shl.b32 %r1, %t, 2; add.u32 %r0, %r0, %r1;
    st.shared.u32 [%r0], %t; bar.sync 0;
    mov.u32 %r2, dynamic; sub.u32 %r3, 124, %r1; st.shared.u32 [dynamic], %r2;
    bar.warp.sync -1; mov.u32 %r4, fixed; add.u32 %r4, %r4, %r3; ld.shared.u32 %r5, [%r4];
    cvt.u64.u32 %l3, %r4; cvta.shared.u64 %l3, %l3; ld.u32 %r6, [%l3];
    {ADDRESSES} st.global.u32 [%l1], %r5; st.global.u32 [%l1+128], %r6;
    ld.shared.u32 %r7, [dynamic]; st.global.u32 [%out1], %r7;
    """
    module = ".extern .shared .align 16 .b8 dynamic[];"
    out, place = run_ptx(body, [], [words(64), words(1)], shared=16, module=module)
    assert out.tolist() == list(range(31, -1, -1)) * 2
    assert place.tolist() == [128]


def test_local_memory_is_of_each_thread() -> None:
    body = f"""
    .local .align 4 .b8 own[8];
    mov.u64 %l3, own; st.local.u32 [%l3+4], %t; cvta.local.u64 %l4, %l3; ld.u32 %r0, [%l4+4];
    ld.local.u32 %r1, [own+4]; add.u32 %r0, %r0, %r1;
    {ADDRESSES} st.global.u32 [%l1], %r0;
    """
    [out] = run_ptx(body, [], [words(32)])
    assert out.tolist() == [2 * t for t in range(32)]


def test_variables_of_the_module() -> None:
    module = """
    .const .align 4 .b32 table[3] = {5, 0x10, -1};
    .global .align 4 .f32 scale = 0f40400000;
    .global .align 8 .b8 zeros[16];
    """
    body = """
    ld.const.u32 %r0, [table]; ld.const.u32 %r1, [table+8]; ld.global.f32 %f0, [scale];
    mov.u64 %l3, table; cvta.const.u64 %l3, %l3; ld.u32 %r2, [%l3+4]; ld.global.u32 %r3, [zeros+12];
    st.global.v4.u32 [%out0], {%r0, %r1, %r2, %r3}; st.global.f32 [%out0+16], %f0;
    """
    [out] = run_ptx(body, [], [words(5)], block=1, module=module)
    assert out.tolist() == [5, 0xFFFFFFFF, 16, 0, 0x40400000]


MIN32 = 0x80000000


@pytest.mark.parametrize(
    ("operation", "old", "operands", "new"),
    [
        ("add.u32", 0xFFFFFFFF, "2", 1),
        ("add.s32", 5, "-7", 0xFFFFFFFE),
        ("add.f32", 0x3FC00000, "0f3F800000", 0x40200000),
        ("min.s32", 1, "-1", 0xFFFFFFFF),
        ("min.u32", 1, "-1", 1),
        ("max.s32", MIN32, "3", 3),
        ("max.u32", MIN32, "3", MIN32),
        ("exch.b32", 7, "9", 9),
        ("cas.b32", 7, "7, 9", 9),
        ("cas.b32", 8, "7, 9", 8),
        ("and.b32", 0xF0, "0x3C", 0x30),
        ("or.b32", 0xF0, "0x0C", 0xFC),
        ("xor.b32", 0xF0, "0x3C", 0xCC),
        # inc: ((old >= b) ? 0 : old + 1); dec: ((old == 0) || (old > b)) ? b : old - 1
        ("inc.u32", 3, "5", 4),
        ("inc.u32", 5, "5", 0),
        ("dec.u32", 3, "5", 2),
        ("dec.u32", 0, "5", 5),
        ("dec.u32", 9, "5", 5),
    ],
)
@pytest.mark.parametrize("space", ["global", "shared"])
def test_atomics(operation: str, old: int, operands: str, new: int, space: str) -> None:
    name, kind = operation.split(".")
    body = f"""
    .shared .align 4 .b8 word[4];
    mov.b64 %l3, {"%out0" if space == "global" else "word"};
    st.{space}.u32 [%l3], {old};
    atom.{space}.{name}.{kind} {"%f0" if kind == "f32" else "%r0"}, [%l3], {operands};
    ld.{space}.u32 %r1, [%l3];
    st.global.u32 [%out0], %r1; st.global.b32 [%out0+4], {"%f0" if kind == "f32" else "%r0"};
    """
    [out] = run_ptx(body, [], [words(2)], block=1)
    assert out.tolist() == [new, old]


def test_every_lane_of_an_atomic_counts() -> None:
    body = f"""
    atom.global.add.u32 %r0, [%out1], 1; red.global.add.u32 [%out1+4], %t;
    {ADDRESSES} st.global.u32 [%l1], %r0;
    """
    order, sums = run_ptx(body, [], [words(64), words(2)], block=64)
    assert sorted(order.tolist()) == list(range(64))
    assert sums.tolist() == [64, 64 * 63 // 2]


def test_cp_async_fills_with_zeros() -> None:
    """Of 16 bytes, those beyond the last operand are zeros."""
    body = """
    .shared .align 16 .b8 to[32];
    mov.u32 %r0, to;
    cp.async.cg.shared.global [%r0], [%in0], 16, 8;
    cp.async.ca.shared.global [%r0+16], [%in0+16], 4;
    cp.async.commit_group; cp.async.wait_group 0;
    ld.shared.v4.u32 {%r1, %r2, %r3, %r4}, [to]; ld.shared.u32 %r5, [to+16];
    st.global.v4.u32 [%out0], {%r1, %r2, %r3, %r4}; st.global.u32 [%out0+16], %r5;
    """
    [out] = run_ptx(body, [np.arange(1, 9, dtype=np.uint32)], [words(5)], block=1)
    assert out.tolist() == [1, 2, 0, 0, 5]


def test_cp_async_takes_offsets() -> None:
    body = """
    .shared .align 16 .b8 to[16];
    cp.async.ca.shared.global [to+8], [%in0+4], 8; cp.async.wait_all;
    ld.shared.v2.u32 {%r1, %r2}, [to+8]; st.global.v2.u32 [%out0], {%r1, %r2};
    """
    # 8 bytes from an address that is a multiple of 4 only
    with pytest.raises(PtxError, match=r"cp\.async from"):
        run_ptx(body, [np.arange(1, 9, dtype=np.uint32)], [words(2)], block=1)
    [out] = run_ptx(body.replace("%in0+4", "%in0+8"), [np.arange(8)], [words(2)], block=1)
    assert out.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "ld.global.u32 %r0, [%in0+64];",
            "read of 4 bytes at .* 64 bytes into an allocation of 64",
        ),
        ("ld.global.u32 %r0, [%in0+-4];", "read of 4 bytes"),
        ("ld.global.u32 %r0, [%in0+2];", "is not a multiple of 4"),
        ("ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%in0+8];", "is not a multiple of 16"),
        ("st.global.u32 [%in0+64], %t;", "write of 4 bytes"),
        ("st.shared.u32 [%t], %t;", "write of 4 bytes of shared memory"),
    ],
)
def test_accesses_outside_are_reported(body: str, message: str) -> None:
    with pytest.raises(PtxError, match=message):
        run_ptx(body, [words(16)], [], block=1)
