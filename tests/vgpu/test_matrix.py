"""Matrix instructions: PTX ISA, "Warp Level Matrix Instructions" and "Asynchronous Warpgroup Level
Matrix Instructions". Which thread holds which element is written down here from the manual's
figures and formulas; matrices of small integers make every product and sum exact."""

from __future__ import annotations

import numpy as np
import pytest
from ptx import run_ptx

LANES = [(lane, lane // 4, lane % 4) for lane in range(32)]  # lane, groupID, threadID_in_group
GENERATOR = np.random.default_rng(1)


def integers(*shape: int) -> np.ndarray:
    return GENERATOR.integers(-8, 9, shape).astype(np.float32)


def bf16(x: np.ndarray) -> np.ndarray:
    """The upper halves of floats that are bfloat16 numbers already."""
    return (np.asarray(x, np.float32).copy().view(np.uint32) >> 16).astype(np.uint32)


def rows_of_registers(count: int, base: str, pointer: str, kind: str = "b32") -> str:
    """Loads `count` registers, base0 and up, from the lane's row of an array."""
    at = f"mul.wide.u32 %l0, %t, {4 * count}; add.s64 %l1, %l0, {pointer};"
    return at + "".join(f"ld.global.{kind} {base}{k}, [%l1+{4 * k}];" for k in range(count))


def store_rows(count: int, base: str, pointer: str) -> str:
    at = f"mul.wide.u32 %l0, %t, {4 * count}; add.s64 %l1, %l0, {pointer};"
    return at + "".join(f"st.global.b32 [%l1+{4 * k}], {base}{k};" for k in range(count))


# --- ldmatrix


@pytest.mark.parametrize("trans", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix(count: int, trans: bool) -> None:
    """Lane 8 i + r gives the address of row r of matrix i. Lane l gets elements 2 (l % 4) and the
    next of row l / 4; with .trans, of the transposed matrix."""
    matrices = np.arange(64 * count, dtype=np.uint16).reshape(count, 8, 8)
    rows = matrices.reshape(8 * count, 8)
    place = GENERATOR.permutation(8 * count).astype(np.uint32)  # rows lie in any order
    scattered = np.empty_like(rows)
    scattered[place] = rows
    addresses = np.zeros(32, np.uint32)
    addresses[: 8 * count] = 16 * place
    registers = ", ".join(f"%r{10 + k}" for k in range(count))
    modifier = ".trans" if trans else ""
    fill = "".join(
        f"ld.global.u32 %r2, [%l1+{4 * k}]; st.shared.u32 [%r1+{4 * k}], %r2;" for k in range(count)
    )
    body = f"""
    .shared .align 16 .b8 rows[{128 * count}];
    mov.u32 %r0, rows; mul.lo.u32 %r1, %t, {4 * count}; add.u32 %r1, %r1, %r0;
    mul.wide.u32 %l0, %t, {4 * count}; add.s64 %l1, %l0, %in0;
    {fill}
    bar.sync 0;
    mul.wide.u32 %l0, %t, 4; add.s64 %l1, %l0, %in1; ld.global.u32 %r3, [%l1];
    add.u32 %r3, %r3, %r0;
    ldmatrix.sync.aligned.m8n8.x{count}{modifier}.shared.b16 {{{registers}}}, [%r3];
    {store_rows(count, "%r1", "%out0")}
    """
    [out] = run_ptx(body, [scattered, addresses], [np.zeros((32, count), np.uint32)])
    for lane, row, pair in LANES:
        for k in range(count):
            m = matrices[k].T if trans else matrices[k]
            low, high = int(m[row, 2 * pair]), int(m[row, 2 * pair + 1])
            assert out[lane, k] == low | high << 16, (lane, k)


# --- mma


def test_mma_m16n8k8_tf32() -> None:
    """Section "Matrix Fragments for mma.m16n8k8", .tf32."""
    a, b, c = integers(16, 8), integers(8, 8), integers(16, 8)
    fa, fb, fc = (np.empty((32, n), np.float32) for n in (4, 2, 4))
    for lane, group, thread in LANES:
        for i in range(4):
            fa[lane, i] = a[group + (8 if i in (1, 3) else 0), thread + (4 if i >= 2 else 0)]
            fc[lane, i] = c[group + (8 if i >= 2 else 0), 2 * thread + (i & 1)]
        for i in range(2):
            fb[lane, i] = b[thread + 4 * i, group]
    body = f"""
    {rows_of_registers(4, "%r1", "%in0")} {rows_of_registers(2, "%r2", "%in1")}
    {rows_of_registers(4, "%f1", "%in2", "f32")}
    mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32
      {{%f20, %f21, %f22, %f23}}, {{%r10, %r11, %r12, %r13}}, {{%r20, %r21}},
      {{%f10, %f11, %f12, %f13}};
    {store_rows(4, "%f2", "%out0")}
    """
    [out] = run_ptx(body, [fa, fb, fc], [np.zeros((32, 4), np.float32)])
    expected = a @ b + c
    for lane, group, thread in LANES:
        for i in range(4):
            row, column = group + (8 if i >= 2 else 0), 2 * thread + (i & 1)
            assert out[lane, i] == expected[row, column], (lane, i)


def bf16_fragments(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Section "Matrix Fragments for mma.m16n8k16 with floating point type": two to a register."""
    fa, fb = np.zeros((32, 4), np.uint32), np.zeros((32, 2), np.uint32)
    for lane, group, thread in LANES:
        for i in range(8):
            row = group + (0 if i in (0, 1, 4, 5) else 8)
            column = 2 * thread + (i & 1) + (8 if i >= 4 else 0)
            fa[lane, i // 2] |= bf16(a[row, column]) << 16 * (i & 1)
        for i in range(4):
            row = 2 * thread + (i & 1) + (8 if i >= 2 else 0)
            fb[lane, i // 2] |= bf16(b[row, group]) << 16 * (i & 1)
    return fa, fb


def test_mma_m16n8k16_bf16() -> None:
    a, b, c = integers(16, 16), integers(16, 8), integers(16, 8)
    fa, fb = bf16_fragments(a, b)
    fc = np.empty((32, 4), np.float32)
    for lane, group, thread in LANES:
        for i in range(4):
            fc[lane, i] = c[group + (8 if i >= 2 else 0), 2 * thread + (i & 1)]
    body = f"""
    {rows_of_registers(4, "%r1", "%in0")} {rows_of_registers(2, "%r2", "%in1")}
    {rows_of_registers(4, "%f1", "%in2", "f32")}
    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
      {{%f10, %f11, %f12, %f13}}, {{%r10, %r11, %r12, %r13}}, {{%r20, %r21}},
      {{%f10, %f11, %f12, %f13}};
    {store_rows(4, "%f1", "%out0")}
    """
    [out] = run_ptx(body, [fa, fb, fc], [np.zeros((32, 4), np.float32)])
    expected = a @ b + c
    for lane, group, thread in LANES:
        for i in range(4):
            assert out[lane, i] == expected[group + (8 if i >= 2 else 0), 2 * thread + (i & 1)]


def test_mma_ignores_the_low_bits_of_tf32() -> None:
    """A tf32 operand is the upper 19 bits of a register."""
    a = np.zeros((32, 4), np.uint32)
    b = np.zeros((32, 2), np.uint32)
    a[:, 0] = 0x3F800000 | 0x1FFF  # 1 and bits that do not count, in columns 0 to 3
    b[:, 0] = 0x3F800000
    body = f"""
    {rows_of_registers(4, "%r1", "%in0")} {rows_of_registers(2, "%r2", "%in1")}
    mov.f32 %f0, 0f00000000;
    mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32
      {{%f10, %f11, %f12, %f13}}, {{%r10, %r11, %r12, %r13}}, {{%r20, %r21}},
      {{%f0, %f0, %f0, %f0}};
    {store_rows(4, "%f1", "%out0")}
    """
    [out] = run_ptx(body, [a, b], [np.zeros((32, 4), np.float32)])
    assert out.tolist() == [[4.0, 4.0, 0.0, 0.0]] * 32


# --- wgmma


SPANS = {1: 128, 2: 64, 3: 32, 0: 16}  # bytes of a row by the descriptor's bits 62 and 63


def swizzled(b: np.ndarray, mode: int) -> bytes:
    """B [n, k], k-major, as a descriptor of this mode expects it: rows of the swizzle's span, of
    which chunks of 16 bytes are exchanged by the row: section "Shared Memory Matrix Layout"."""
    span = SPANS[mode]
    n, row_bytes = b.shape[0], b.shape[1] * b.itemsize
    raw = b.tobytes()
    out = bytearray(n * row_bytes)
    for row in range(n):
        for chunk in range(row_bytes // 16):
            piece = raw[row * row_bytes + 16 * chunk : row * row_bytes + 16 * chunk + 16]
            if mode == 0:  # core matrices of 8 rows of 16 bytes, along k, then along n
                at = (row // 8 * (row_bytes // 16) + chunk) * 128 + row % 8 * 16
            else:
                atom, within = divmod(16 * chunk, span)
                assert atom == 0, "one atom along k"
                at = row * span + within
                at ^= (at >> 7 & (span // 16 - 1)) << 4
            out[at : at + 16] = piece
    return bytes(out)


def a_fragments(a: np.ndarray, kind: str, step: int) -> np.ndarray:
    """A [64, k] as registers: of each of the 128 threads, four for every `step` columns."""
    steps = a.shape[1] // step
    fragments = np.zeros((128, 4 * steps), np.uint32)
    for thread in range(128):
        warp, lane = divmod(thread, 32)
        group, t = lane // 4, lane % 4
        for s in range(steps):
            part = a[16 * warp : 16 * warp + 16, step * s : step * s + step]
            for i in range(4):
                row = group + (8 if i in (1, 3) else 0)
                if kind == "tf32":
                    value = int(part[row, t + (4 if i >= 2 else 0)].view(np.uint32))
                else:
                    column = 2 * t + (8 if i >= 2 else 0)
                    value = int(bf16(part[row, column])) | int(bf16(part[row, column + 1])) << 16
                fragments[thread, 4 * s + i] = value
    return fragments


@pytest.mark.parametrize("mode", SPANS, ids=lambda m: f"swizzle{SPANS[m]}")
@pytest.mark.parametrize("kind", ["tf32", "bf16"])
@pytest.mark.parametrize("n", [8, 48, 64, 96, 128, 256])
def test_wgmma(kind: str, n: int, mode: int) -> None:
    """D [64, n] = A [64, k] B [k, n], A in registers as of an mma of 16 rows for each warp; D's
    fragments of section "Register Fragments for wgmma.mma_async.m64nNk8"."""
    step, size = (8, 4) if kind == "tf32" else (16, 2)
    k = step * (1 if mode in (0, 3) else SPANS[mode] // 32)
    a, b = integers(64, k), integers(k, n)
    stored = b.T if kind == "tf32" else bf16(b.T).astype(np.uint16)
    shared = np.frombuffer(swizzled(np.ascontiguousarray(stored), mode), np.uint32)
    steps = k // step
    fragments = a_fragments(a, kind, step)
    # lead: between core matrices along k (no swizzle); stride: between groups of 8 rows
    lead = 128 if mode == 0 else 16
    stride = 128 * (k * size // 16) if mode == 0 else 8 * SPANS[mode]
    words = shared.size
    d = [f"%d{j}x" for j in range(n // 2)]
    products = ""
    for s in range(steps):
        operands = ", ".join(f"%r{10 + 4 * s + i}" for i in range(4))
        scale = "%p0" if s == 0 else "%p1"
        tail = "1, 1" if kind == "tf32" else "1, 1, 0"
        products += f"""
        add.s64 %l6, %l5, {2 * s};
        wgmma.mma_async.sync.aligned.m64n{n}k{step}.f32.{kind}.{kind}
          {{{", ".join(d)}}}, {{{operands}}}, %l6, {scale}, {tail};"""
    body = f"""
    .shared .align 1024 .b8 b[{4 * words}];
    .reg .f32 {", ".join(d)};
    mov.u32 %r0, b; mov.u32 %r1, %t;
    fill: setp.ge.u32 %p2, %r1, {words}; @%p2 bra filled;
    mul.wide.u32 %l0, %r1, 4; add.s64 %l1, %l0, %in1; ld.global.u32 %r2, [%l1];
    shl.b32 %r3, %r1, 2; add.u32 %r3, %r3, %r0; st.shared.u32 [%r3], %r2;
    add.u32 %r1, %r1, 128; bra.uni fill;
    filled: fence.proxy.async.shared::cta; bar.sync 0;
    {load_many(4 * steps)}
    mov.pred %p0, 0; mov.pred %p1, -1;
    shr.u32 %r4, %r0, 4; cvt.u64.u32 %l5, %r4;
    or.b64 %l5, %l5, {lead >> 4 << 16 | (stride >> 4) << 32 | mode << 62:#x};
    {"".join(f"mov.f32 {x}, 0f7FC00000;" for x in d)}
    wgmma.fence.sync.aligned;
    {products}
    wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;
    mul.wide.u32 %l0, %t, {2 * n}; add.s64 %l1, %l0, %out0;
    {"".join(f"st.global.f32 [%l1+{4 * j}], {x};" for j, x in enumerate(d))}
    """
    [out] = run_ptx(body, [fragments, shared], [np.zeros((128, n // 2), np.float32)], block=128)
    expected = a @ b
    for thread in range(128):
        warp, lane = divmod(thread, 32)
        for i in range(n // 2):
            row = 16 * warp + lane // 4 + 8 * (i // 2 % 2)
            column = 8 * (i // 4) + 2 * (lane % 4) + i % 2
            assert out[thread, i] == expected[row, column], (thread, i)


def load_many(count: int) -> str:
    """Registers %r10 and up from the thread's row of in0."""
    at = f"mul.wide.u32 %l0, %t, {4 * count}; add.s64 %l1, %l0, %in0;"
    return at + "".join(f"ld.global.b32 %r{10 + k}, [%l1+{4 * k}];" for k in range(count))
