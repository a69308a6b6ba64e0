"""mbarriers and bulk copies: PTX ISA, "mbarrier" and "Asynchronous copy"."""

from __future__ import annotations

import numpy as np
import pytest
from ptx import Buffer, PtxError, run_ptx, tensor_map

BULK = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
WAIT = """
wait{n}: mbarrier.try_wait.parity.shared::cta.b64 %p0, [bar], {parity}; @!%p0 bra wait{n};
"""


def test_phases_of_an_mbarrier() -> None:
    """Of an mbarrier that counts to two: the phase before the first counts as complete, so waiting
    for parity 1 succeeds at once and for parity 0 after two arrivals; then it begins anew."""
    test = "mbarrier.test_wait.parity.shared::cta.b64 %p0, [bar], {p}; selp.u32 %r1, 1, 0, %p0;"
    steps = ["", "A", "A", "A", "A"]
    body = ".shared .align 8 .b8 bar[8]; mbarrier.init.shared::cta.b64 [bar], 2;"
    for n, step in enumerate(steps):
        if step:
            body += "mbarrier.arrive.shared::cta.b64 _, [bar];"
        for p in (0, 1):
            body += test.format(p=p) + f"st.global.u32 [%out0+{8 * n + 4 * p}], %r1;"
    [out] = run_ptx(body, [], [np.zeros((len(steps), 2), np.uint32)], block=1)
    assert out.tolist() == [[0, 1], [0, 1], [1, 0], [1, 0], [0, 1]]


def test_arrivals_by_every_lane() -> None:
    body = f"""
    .shared .align 8 .b8 bar[8]; .shared .align 4 .b8 word[4];
    setp.eq.u32 %p1, %t, 0; @%p1 mbarrier.init.shared::cta.b64 [bar], 64; bar.sync 0;
    @%p1 st.shared.u32 [word], 9;
    mbarrier.arrive.shared::cta.b64 _, [bar];
    {WAIT.format(n=0, parity=0)}
    ld.shared.u32 %r0, [word];
    mul.wide.u32 %l0, %t, 4; add.s64 %l1, %l0, %out0; st.global.u32 [%l1], %r0;
    """
    [out] = run_ptx(body, [], [np.zeros(64, np.uint32)], block=64)
    assert out.tolist() == [9] * 64


def test_lanes_of_a_warp_that_wait_for_each_other() -> None:
    """Some lanes wait for a phase that others of the same warp complete, further on in the code."""
    body = f"""
    .shared .align 8 .b8 bar[8];
    setp.eq.u32 %p1, %t, 0; @%p1 mbarrier.init.shared::cta.b64 [bar], 16; bar.sync 0;
    setp.ge.u32 %p1, %t, 16; @%p1 bra high; mov.u32 %r1, 5;
    {WAIT.format(n=0, parity=0)}
    bra end;
    high: mbarrier.arrive.shared::cta.b64 _, [bar]; mov.u32 %r1, 6;
    end: mul.wide.u32 %l0, %t, 4; add.s64 %l0, %l0, %out0; st.global.u32 [%l0], %r1;
    """
    [out] = run_ptx(body, [], [np.zeros(32, np.uint32)])
    assert out.tolist() == [5] * 16 + [6] * 16


def test_bulk_copy() -> None:
    """The phase is complete when the arrival and as many bytes as were expected have come."""
    body = f"""
    .shared .align 8 .b8 bar[8]; .shared .align 16 .b8 to[64];
    mbarrier.init.shared::cta.b64 [bar], 1; fence.mbarrier_init.release.cluster;
    fence.proxy.async.shared::cta;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 48;
    mov.u32 %r0, to; mov.u32 %r1, bar;
    {BULK} [%r0], [%in0], 32, [%r1];
    {BULK} [%r0+32], [%in0+48], 16, [%r1];
    {WAIT.format(n=0, parity=0)}
    ld.shared.v4.u32 {{%r2, %r3, %r4, %r5}}, [to+16]; ld.shared.u32 %r6, [to+44];
    st.global.v4.u32 [%out0], {{%r2, %r3, %r4, %r5}}; st.global.u32 [%out0+16], %r6;
    """
    [out] = run_ptx(body, [np.arange(16, dtype=np.uint32)], [np.zeros(5, np.uint32)], block=1)
    assert out.tolist() == [4, 5, 6, 7, 15]


@pytest.mark.parametrize(
    ("fence", "ends"),
    [
        ("fence.mbarrier_init.release.cluster;", "right"),
        ("fence.proxy.async.shared::cta;", "right"),
        ("fence.acq_rel.cta;", "was initialized at PTX line .* with no fence.mbarrier_init or"),
        ("", "was initialized at PTX line .* with no fence.mbarrier_init or fence.proxy.async"),
    ],
)
@pytest.mark.parametrize("other", [False, True])
def test_the_asynchronous_proxy_sees_a_barrier_after_a_fence(
    fence: str, ends: str, other: bool
) -> None:
    """Of the thread that initialized it, before others may start copies. A barrier that is
    initialized again wants another fence."""
    body = f"""
    .shared .align 8 .b8 bar[8]; .shared .align 16 .b8 to[16];
    setp.ne.u32 %p1, %t, 0; @%p1 bra meet;
    mbarrier.init.shared::cta.b64 [bar], 1; {"fence.mbarrier_init.release.cluster;" * other}
    {"mbarrier.init.shared::cta.b64 [bar], 1;" * other} {fence}
    meet: bar.sync 0;
    setp.ne.u32 %p1, %t, 40; @%p1 bra wait;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 16;
    mov.u32 %r0, to; mov.u32 %r1, bar; {BULK} [%r0], [%in0], 16, [%r1];
    wait: bar.sync 0;
    {WAIT.format(n=0, parity=0)}
    ld.shared.u32 %r2, [to+12]; st.global.u32 [%out0], %r2;
    """
    arrays = [np.arange(4, dtype=np.uint32)], [np.zeros(1, np.uint32)]
    if ends == "right":
        [out] = run_ptx(body, *arrays, block=64)
        assert out.tolist() == [3]
    else:
        with pytest.raises(PtxError, match=ends):
            run_ptx(body, *arrays, block=64)


@pytest.mark.parametrize("size", [8, 24])
def test_bulk_copies_are_of_16_bytes(size: int) -> None:
    body = f"""
    .shared .align 8 .b8 bar[8]; .shared .align 16 .b8 to[64];
    mbarrier.init.shared::cta.b64 [bar], 1; mov.u32 %r0, to; mov.u32 %r1, bar;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], {size};
    {BULK} [%r0], [%in0], {size}, [%r1];
    """
    with pytest.raises(PtxError, match="multiples of 16"):
        run_ptx(body, [np.zeros(16, np.uint32)], [], block=1)


def tma(
    array: np.ndarray,
    box: list[int],
    at: list[int],
    steps: list[int] | None = None,
    swizzle: int = 0,
) -> np.ndarray:
    """What a bulk tensor copy of a box at these coordinates writes."""
    buffer = Buffer(array)
    steps = steps or [1] * len(box)
    # an element step leaves out elements of the box
    count = int(np.prod([-(-b // s) for b, s in zip(box, steps, strict=True)]))
    body = f"""
    .shared .align 8 .b8 bar[8]; .shared .align 1024 .b8 to[{4 * count}];
    mbarrier.init.shared::cta.b64 [bar], 1; fence.proxy.async.shared::cta;
    mov.u32 %r0, to; mov.u32 %r1, bar; mov.b64 %l4, extra; cvta.param.u64 %l4, %l4;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], {4 * count};
    cp.async.bulk.tensor.{len(box)}d.shared::cluster.global.mbarrier::complete_tx::bytes
      [%r0], [%l4, {{{", ".join(map(str, at))}}}], [%r1];
    {WAIT.format(n=0, parity=0)}
    mov.u32 %r2, 0;
    again: add.u32 %r3, %r0, %r2; ld.shared.f32 %f0, [%r3]; cvt.u64.u32 %l0, %r2;
    add.s64 %l0, %l0, %out0; st.global.f32 [%l0], %f0; add.u32 %r2, %r2, 4;
    setp.lt.u32 %p1, %r2, {4 * count}; @%p1 bra again;
    """
    try:
        extra = tensor_map(buffer, box, steps, swizzle)
        [out] = run_ptx(body, [], [np.full(count, 7, np.float32)], block=1, extra=extra)
        return out
    finally:
        buffer.free()


@pytest.mark.parametrize("at", [(0, 0), (4, 1), (-2, -1), (10, 4), (-8, 0), (100, 100)])
def test_boxes_at_the_borders(at: tuple[int, int]) -> None:
    """What lies outside of the tensor is zero."""
    array = np.arange(1, 5 * 12 + 1, dtype=np.float32).reshape(5, 12)
    box = [8, 3]
    expected = np.zeros((3, 8), np.float32)
    for y in range(3):
        for x in range(8):
            if 0 <= at[1] + y < 5 and 0 <= at[0] + x < 12:
                expected[y, x] = array[at[1] + y, at[0] + x]
    np.testing.assert_array_equal(tma(array, box, list(at)), expected.ravel())


def test_a_box_of_four_dimensions() -> None:
    array = np.arange(2 * 3 * 5 * 4, dtype=np.float32).reshape(2, 3, 5, 4)
    padded = np.pad(array, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = padded[1:2, 0:2, 0:3]  # from image 1, row -1, column -1
    np.testing.assert_array_equal(tma(array, [4, 3, 2, 1], [0, -1, -1, 1]), expected.ravel())


@pytest.mark.parametrize(("swizzle", "span"), [(1, 32), (2, 64), (3, 128)])
def test_swizzled_boxes(swizzle: int, span: int) -> None:
    """Chunks of 16 bytes are exchanged within spans by bits 7 and up of their address: section
    "Tensor swizzling modes"; spans of 32, 64 and 128 bytes use one, two and three bits."""
    columns = span // 4
    array = np.arange(16 * columns, dtype=np.float32).reshape(16, columns)
    out = tma(array, [columns, 16], [0, 0], swizzle=swizzle)
    chunks = array.reshape(-1, 4)
    expected = np.empty_like(chunks)
    for k, chunk in enumerate(chunks):
        expected[k ^ (k // 8 % (span // 16))] = chunk
    np.testing.assert_array_equal(out.reshape(-1, 4), expected)
