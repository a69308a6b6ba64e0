"""Clusters of blocks: shared memory of other blocks, the cluster's barrier, multicast.

Wrong kernels of ``clusters.cu`` are found, right ones beside them pass in every order.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from cuda_driver import CLUSTER_DIMENSION, Memory, Module, call, launch, run_program, use_device
from ptx import Buffer, PtxError, run_ptx, tensor_map

from kernels import ORDERS, Kernels, is_at

X = np.arange(1, 257, dtype=np.float32)
SWAPPED = X.reshape(2, 2, 64)[:, ::-1].ravel()  # of the other block in the cluster


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return Kernels("clusters.cu")


RIGHT = {
    "exchange_right": SWAPPED,
    "rewritten_right": 3 * SWAPPED,
    "written_right": SWAPPED,
    "written_fenced": SWAPPED,
    "counted": np.repeat(X.reshape(2, 128).sum(1), 128),
    "ended_do_not_count": X,
    "signal_right": SWAPPED,
    "broadcast_right": np.tile(X.reshape(2, 2, 64)[:, :1], (1, 2, 1)).ravel(),
    "sent_right": SWAPPED,
    "stored_right": SWAPPED,
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", RIGHT)
def test_right_kernel_passes_in_every_order(kernels: Kernels, name: str, order: str) -> None:
    y = kernels.run(name, X, np.zeros(256, np.float32), grid=4, order=order)
    np.testing.assert_array_equal(y, RIGHT[name])


UNORDERED = r"(race in shared memory|shared memory at byte \d+ is read before it was written)"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("name", "line", "what"),
    [
        (
            "exchange_no_first",
            "exchange",
            r"access to the shared memory of block .*, which may not have begun: there was no "
            "barrier.cluster before",
        ),
        (
            "exchange_no_second",
            "exchange",
            "access to the shared memory of block .*, which (may have|has) ended",
        ),
        (
            "exchange_bounds",
            "exchange",
            r"read of 4 bytes of shared memory of block .* at byte 256; the block has 256",
        ),
        ("exchange_rank", "rank", "mapa to the block of rank [23]; the cluster has 2"),
        (
            "rewritten_race",
            "rewritten",
            "race in shared memory( of block .*)? at byte .*: (written here, read by|read here, "
            "written by) thread .* of block",
        ),
        ("written_relaxed", "written", UNORDERED),
        (
            "wrong_window",
            "wrong_window",
            "the address is of the shared memory of block .*; .shared::cta is the thread's own",
        ),
        (
            "arrives_twice",
            "arrives_twice",
            "barrier.cluster.arrive again, with no barrier.cluster.wait since the last one",
        ),
        (
            "waits_only",
            "waits_only",
            "barrier.cluster.wait without a barrier.cluster.arrive before",
        ),
        (
            "one_block_waits",
            None,
            r"deadlock: warp 0, 1 of block \(\d, 0, 0\) is waiting in barrier.cluster at .*, where "
            r"64 of 128 threads have arrived; warp 0, 1 of block .* is waiting for an mbarrier's",
        ),
        ("signal_cta_scope", "signal_read", UNORDERED),
        (
            "signal_no_init_fence",
            "signal_arrive",
            "the mbarrier was initialized by thread .* of block .* with no barrier between",
        ),
        (
            "signal_no_cluster_sync",
            "signal_store",
            "access to the shared memory of block .*, which may not have begun",
        ),
        (
            "arrival_at_the_dead",
            "arrival_at_the_dead",
            "access to the shared memory of block .*, which (may have|has) ended",
        ),
        (
            "broadcast_nobody_waits",
            "broadcast",
            "the block ends with a copy to shared memory of block .* that nobody has waited for",
        ),
        (
            "broadcast_too_few",
            "broadcast",
            "a copy of 256 bytes, but its mbarrier expects only 128|"
            "more bytes arrived at the mbarrier than were expected",
        ),
        ("broadcast_no_block", "broadcast", "multicast to the blocks 0x6; the cluster has 2"),
        (
            "sent_early_end",
            "sent",
            "the copy reads the shared memory of block .*, which may have ended|access to the "
            "shared memory of block .*, which (may have|has) ended",
        ),
        (
            "sent_overwritten",
            "overwritten",
            "race in shared memory at byte .*: written here, while it may still be read by the",
        ),
        (
            "sent_no_proxy_fence",
            "sent",
            "an asynchronous copy reads byte 0 of shared memory, .* no fence.proxy.async since",
        ),
        (
            "stored_nobody_waits",
            "stored",
            "shared memory at byte .* is read while the bulk copy|"
            "shared memory at byte .* is read before it was written",
        ),
    ],
)
def test_fault(kernels: Kernels, name: str, line: str | None, what: str, order: str) -> None:
    found = kernels.message(name, X, np.zeros(256, np.float32), grid=4, order=order)
    assert re.match(what, found), found
    if line is not None:
        assert is_at(found, kernels, line), found


@pytest.mark.parametrize("order", ORDERS)
def test_eight_blocks(kernels: Kernels, order: str) -> None:
    x = np.arange(8 * 64, dtype=np.float32) % 11
    y = kernels.run("butterfly", x, np.zeros(8 * 64, np.float32), grid=(4, 2), order=order)
    np.testing.assert_array_equal(y.reshape(8, 64), np.tile(x.reshape(8, 64).sum(0), (8, 1)))


def of_blocks(body: str, words: int, grid: tuple[int, int, int], cluster: str) -> np.ndarray:
    """What the first thread of each block writes: `words` from %r10 on, a row for each block."""
    stores = "".join(f"st.global.u32 [%l0+{4 * k}], %r{10 + k};" for k in range(words))
    place = f"""
    mov.u32 %r0, %ctaid.z; mov.u32 %r1, %nctaid.y; mov.u32 %r2, %ctaid.y;
    mad.lo.u32 %r0, %r0, %r1, %r2; mov.u32 %r1, %nctaid.x; mov.u32 %r2, %ctaid.x;
    mad.lo.u32 %r0, %r0, %r1, %r2; mul.wide.u32 %l0, %r0, {4 * words}; add.s64 %l0, %l0, %out0;
    """
    blocks = grid[0] * grid[1] * grid[2]
    [out] = run_ptx(
        body + place + stores,
        [],
        [np.full((blocks, words), 77, np.uint32)],
        block=1,
        grid=grid,
        directives=cluster,
    )
    return out


def test_special_registers() -> None:
    """A grid of 4 x 4 x 2 blocks in clusters of 2 x 2 x 1: PTX ISA, "Special Registers"."""
    names = [f"clusterid.{a}" for a in "xyz"] + [f"nclusterid.{a}" for a in "xyz"]
    names += [f"cluster_ctaid.{a}" for a in "xyz"] + [f"cluster_nctaid.{a}" for a in "xyz"]
    names += ["cluster_ctarank", "cluster_nctarank"]
    body = "".join(f"mov.u32 %r{10 + k}, %{name};" for k, name in enumerate(names))
    body += f"selp.u32 %r{10 + len(names)}, 1, 0, %is_explicit_cluster;"
    out = of_blocks(body, len(names) + 1, (4, 4, 2), ".explicitcluster .reqnctapercluster 2, 2, 1")
    for z in range(2):
        for y in range(4):
            for x in range(4):
                row = out[(z * 4 + y) * 4 + x].tolist()
                expected = [x // 2, y // 2, z, 2, 2, 2, x % 2, y % 2, 0, 2, 2, 1]
                assert row == [*expected, y % 2 * 2 + x % 2, 4, 1]


def test_special_registers_without_a_cluster() -> None:
    body = """mov.u32 %r10, %cluster_nctarank; mov.u32 %r11, %cluster_ctarank;
    mov.u32 %r12, %clusterid.x; selp.u32 %r13, 1, 0, %is_explicit_cluster;"""
    assert of_blocks(body, 4, (3, 1, 1), "").tolist() == [[1, 0, b, 0] for b in range(3)]


def test_addresses_of_other_blocks() -> None:
    """mapa keeps the place and changes the block, of shared and of generic addresses; getctarank
    tells the block of an address. An address of the own block may come from mapa too."""
    body = """
    .shared .align 4 .b8 word[8];
    mov.u32 %r0, word; add.u32 %r0, %r0, 4; mov.u32 %r1, %cluster_ctarank; xor.b32 %r2, %r1, 1;
    mapa.shared::cluster.u32 %r3, %r0, %r2; getctarank.shared::cluster.u32 %r10, %r3;
    getctarank.shared::cluster.u32 %r11, %r0;
    cvt.u64.u32 %l1, %r0; cvta.shared.u64 %l1, %l1; mapa.u64 %l2, %l1, %r2;
    getctarank.u64 %r12, %l2; add.u32 %r4, %r1, 40;
    mapa.shared::cluster.u32 %r5, %r0, %r1; st.shared.u32 [%r5], %r4;
    barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;
    ld.shared::cluster.u32 %r13, [%r3]; ld.u32 %r14, [%l2]; ld.shared::cta.u32 %r15, [%r5];
    barrier.cluster.arrive; barrier.cluster.wait;
    atom.shared::cluster.add.u32 %r16, [%r3], 100;
    barrier.cluster.arrive; barrier.cluster.wait; ld.shared.u32 %r17, [word+4];
    """
    out = of_blocks(body, 8, (2, 1, 1), ".reqnctapercluster 2, 1, 1")
    assert out.tolist() == [
        [1, 0, 1, 41, 41, 40, 41, 140],
        [0, 1, 0, 40, 40, 41, 40, 141],
    ]


def test_vectors_and_halves_of_another_block() -> None:
    body = """
    .shared .align 16 .b8 words[16];
    barrier.cluster.arrive; barrier.cluster.wait;
    mov.u32 %r1, %cluster_ctarank; xor.b32 %r2, %r1, 1; mov.u32 %r0, words;
    mapa.shared::cluster.u32 %r3, %r0, %r2; add.u32 %r4, %r1, 1; add.u32 %r5, %r1, 3;
    st.shared::cluster.v2.u32 [%r3], {%r4, %r5}; st.shared::cluster.u8 [%r3+8], %r4;
    barrier.cluster.arrive; barrier.cluster.wait;
    ld.shared.u32 %r10, [words]; ld.shared.u32 %r11, [words+4]; ld.shared.u8 %r12, [words+8];
    """
    out = of_blocks(body, 3, (2, 1, 1), ".reqnctapercluster 2, 1, 1")
    assert out.tolist() == [[2, 4, 2], [1, 3, 1]]


def test_arrivals_of_several() -> None:
    """mbarrier.arrive with a count, at the other block's barrier."""
    body = """
    .shared .align 8 .b8 bar[8]; .reg .pred %q;
    mbarrier.init.shared::cta.b64 [bar], 5; fence.mbarrier_init.release.cluster;
    barrier.cluster.arrive.relaxed; barrier.cluster.wait;
    mov.u32 %r1, %cluster_ctarank; xor.b32 %r2, %r1, 1; mov.u32 %r0, bar;
    mapa.shared::cluster.u32 %r3, %r0, %r2;
    mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r3], 3;
    mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r3], 2;
    wait: mbarrier.try_wait.parity.shared::cta.b64 %q, [bar], 0; @!%q bra wait;
    mov.u32 %r10, 1;
    """
    assert of_blocks(body, 1, (2, 1, 1), ".reqnctapercluster 2, 1, 1").tolist() == [[1], [1]]


def test_tensor_copy_to_both_blocks() -> None:
    """cp.async.bulk.tensor with .multicast::cluster: the same place in every block of the mask."""
    array = np.arange(4 * 8, dtype=np.float32).reshape(4, 8)
    buffer = Buffer(array)
    body = """
    .shared .align 128 .b8 to[64]; .shared .align 8 .b8 bar[8]; .reg .pred %q, %first;
    mov.u32 %r0, to; mov.u32 %r1, bar; mov.b64 %l4, extra; cvta.param.u64 %l4, %l4;
    mbarrier.init.shared::cta.b64 [bar], 1; fence.mbarrier_init.release.cluster;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 64;
    barrier.cluster.arrive; barrier.cluster.wait;
    mov.u32 %r2, %cluster_ctarank; setp.eq.u32 %first, %r2, 0; mov.u16 %h0, 3;
    @%first cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes\
.multicast::cluster [%r0], [%l4, {4, 1}], [%r1], %h0;
    wait: mbarrier.try_wait.parity.shared::cta.b64 %q, [bar], 0; @!%q bra wait;
    mov.u32 %r2, %ctaid.x; mul.wide.u32 %l0, %r2, 64; add.s64 %l0, %l0, %out0; mov.u32 %r3, 0;
    again: ld.shared.f32 %f0, [%r0]; st.global.f32 [%l0], %f0; add.u32 %r0, %r0, 4;
    add.s64 %l0, %l0, 4; add.u32 %r3, %r3, 1; setp.lt.u32 %q, %r3, 16; @%q bra again;
    """
    try:
        [out] = run_ptx(
            body,
            [],
            [np.zeros((2, 4, 4), np.float32)],
            block=1,
            grid=2,
            extra=tensor_map(buffer, [4, 4], [1, 1], 0),
            directives=".reqnctapercluster 2, 1, 1",
        )
    finally:
        buffer.free()
    expected = np.zeros((4, 4), np.float32)
    expected[:3] = array[1:, 4:]
    np.testing.assert_array_equal(out, np.stack([expected, expected]))


def test_mbarrier_in_another_block_than_the_bytes() -> None:
    body = """
    .shared .align 16 .b8 to[16]; .shared .align 8 .b8 bar[8];
    mbarrier.init.shared::cta.b64 [bar], 1; barrier.cluster.arrive; barrier.cluster.wait;
    mov.u32 %r0, to; mov.u32 %r1, bar; mov.u32 %r2, %cluster_ctarank; xor.b32 %r2, %r2, 1;
    mapa.shared::cluster.u32 %r0, %r0, %r2;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r0], [%in0], 16, [%r1];
    """
    with pytest.raises(PtxError, match=r"the copy is to the shared memory of block .*, its mbarr"):
        run_ptx(
            body,
            [np.zeros(4, np.uint32)],
            [],
            block=1,
            grid=2,
            directives=".reqnctapercluster 2, 1, 1",
        )


def test_an_aligned_barrier_in_a_branch() -> None:
    body = """
    setp.lt.u32 %p0, %t, 16; @%p0 bra low;
    barrier.cluster.arrive.aligned; barrier.cluster.wait; bra end;
    low: barrier.cluster.arrive.aligned; barrier.cluster.wait; end:
    """
    with pytest.raises(PtxError, match=r"divergent warp: lanes .* barrier.cluster.arrive.al"):
        run_ptx(body, [], [])


def test_a_barrier_in_a_branch() -> None:
    """Without .aligned the lanes of a warp may arrive at different places."""
    body = """
    setp.lt.u32 %p0, %t, 16; @%p0 bra low;
    barrier.cluster.arrive; barrier.cluster.wait; mov.u32 %r1, 5; bra end;
    low: barrier.cluster.arrive; barrier.cluster.wait; mov.u32 %r1, 6; end:
    mul.wide.u32 %l0, %t, 4; add.s64 %l0, %l0, %out0; st.global.u32 [%l0], %r1;
    """
    [out] = run_ptx(body, [], [np.zeros(32, np.uint32)])
    assert out.tolist() == [6] * 16 + [5] * 16


def test_sixteen_blocks() -> None:
    """The largest cluster: each block reads what the next one wrote."""
    body = """
    .shared .align 4 .b8 word[4]; mov.u32 %r1, %cluster_ctarank; mul.lo.u32 %r2, %r1, 7;
    st.shared.u32 [word], %r2; barrier.cluster.arrive; barrier.cluster.wait;
    add.u32 %r3, %r1, 1; and.b32 %r3, %r3, 15; mov.u32 %r4, word;
    mapa.shared::cluster.u32 %r5, %r4, %r3; ld.shared::cluster.u32 %r10, [%r5];
    barrier.cluster.arrive; barrier.cluster.wait;
    """
    out = of_blocks(body, 1, (16, 1, 1), ".reqnctapercluster 16, 1, 1")
    assert out.ravel().tolist() == [7 * ((k + 1) % 16) for k in range(16)]


SIZES = """.version 8.7\n.target sm_90\n.address_size 64
.visible .entry sizes(.param .u64 x) {
  .reg .b64 %l; .reg .b32 %v, %w; ld.param.u64 %l, [x];
  mov.u32 %v, %cluster_nctarank; mov.u32 %w, %cluster_ctarank; mad.lo.u32 %v, %v, 100, %w;
  red.global.add.u32 [%l], %v; ret;
}
"""


def by_attribute(cluster: list[int]) -> int:
    use_device()
    x = Memory(0)
    function = Module(SIZES).function("sizes")
    launch(function, x, grid=(4, 2, 1), attributes={CLUSTER_DIMENSION: cluster})
    call("cuCtxSynchronize")
    return x.value


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [([1, 1, 1], 8 * 100), ([4, 1, 1], 8 * 400 + 2 * 6), ([2, 2, 1], 8 * 400 + 2 * 6)],
)
def test_a_cluster_by_an_attribute_of_the_launch(cluster: list[int], expected: int) -> None:
    assert run_program(by_attribute, cluster).value == expected
