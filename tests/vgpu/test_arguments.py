"""What a launch is given: pointers inside of structures, tensor maps, shared memory."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from cuda_driver import Memory, Module, call, error_of, handle, launch, run_program, use_device
from ptx import Buffer, PtxError, library, run_ptx

HEAD = ".version 8.7\n.target sm_75\n.address_size 64\n"
# struct {int pad; float* pointer;} by value
STRUCTURE = f"""{HEAD}
.visible .entry read(.param .align 8 .b8 structure[16]) {{
  .reg .b64 %l; .reg .b32 %v;
  ld.param.u64 %l, [structure+8]; ld.global.u32 %v, [%l]; add.u32 %v, %v, 1;
  st.global.u32 [%l], %v; ret;
}}
"""


def in_a_structure(device: int, peers: bool) -> list[object]:
    """A pointer to memory of a device, inside of a structure; the kernel runs on device 0."""
    first = use_device(device)
    x = Memory(3)
    use_device(0)
    if peers:
        call("cuCtxEnablePeerAccess", first, 0)
    structure = (ctypes.c_uint64 * 2)(0, x.address)
    pointers = (ctypes.c_void_p * 1)(ctypes.addressof(structure))
    function = Module(STRUCTURE).function("read")
    call("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, None, pointers, None)
    error = error_of(call, "cuCtxSynchronize")
    return [0 if error else x.value, error]


def test_a_pointer_inside_of_a_structure() -> None:
    assert run_program(in_a_structure, 0, False, devices=2).value == [4, ""]
    assert run_program(in_a_structure, 1, True, devices=2).value == [4, ""]
    outcome = run_program(in_a_structure, 1, False, devices=2)
    assert outcome.value == [0, "ILLEGAL_ADDRESS"]
    assert "memory of device 1 by device 0 without peer access" in outcome.messages


RIGHT = {"size": (16, 8), "stride": (64,), "box": (8, 4), "step": (1, 1), "swizzle": 0}


@pytest.mark.parametrize(
    "change",
    [
        {"size": (0, 8)},
        {"stride": (60,)},
        {"stride": (1 << 40,)},
        {"box": (6, 4)},  # rows of 24 bytes
        {"box": (0, 4)},
        {"box": (8, 257)},
        {"step": (1, 9)},
        {"step": (1, 0)},
        {"box": (16, 4), "swizzle": 1},  # rows of 64 bytes in a swizzle of 32
        {"address": 4},
        {"rank": 6},
        {"rank": 0},
    ],
)
def test_impossible_tensor_maps(change: dict[str, object]) -> None:
    """What cuTensorMapEncodeTiled has to refuse by the manual of the driver API."""
    buffer = Buffer(np.zeros((8, 16), np.float32))

    def encode(change: dict[str, object]) -> int:
        given = RIGHT | change
        words = {
            name: (kind * 6)(*(*given[name], *[1] * (6 - len(given[name]))))  # type: ignore[misc, arg-type]
            for name, kind in [
                ("size", ctypes.c_uint64),
                ("stride", ctypes.c_uint64),
                ("box", ctypes.c_uint),
                ("step", ctypes.c_uint),
            ]
        }
        return library().vgpu_test_tensor_map(  # type: ignore[no-any-return]
            ctypes.create_string_buffer(128),
            given.get("rank", 2),
            ctypes.c_uint64(buffer.address + int(str(given.get("address", 0)))),
            *words.values(),
            given["swizzle"],
        )

    assert encode({}) == 0
    assert encode(change) == 1  # CUDA_ERROR_INVALID_VALUE
    buffer.free()


def test_what_is_no_tensor_map() -> None:
    body = """
    .shared .align 128 .b8 to[64]; .shared .align 8 .b8 bar[8];
    mov.u32 %r0, to; mov.u32 %r1, bar; mov.b64 %l4, extra; cvta.param.u64 %l4, %l4;
    mbarrier.init.shared::cta.b64 [bar], 1; mov.u32 %r2, 0;
    cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes
      [%r0], [%l4, {%r2, %r2}], [%r1];
    """
    with pytest.raises(PtxError, match="not a tensor map of this rank"):
        run_ptx(body, [], [], block=1, extra=bytes(128))


@pytest.mark.parametrize("offset", [16, -4, 1 << 20])
@pytest.mark.parametrize("generic", [False, True])
def test_beyond_local_memory(offset: int, generic: bool) -> None:
    """A thread's stack, in its own window or by a generic address."""
    cast = "cvta.local.u64 %l0, %l0;" if generic else ""
    load = "ld.u32" if generic else "ld.local.u32"
    body = f"""
    .local .align 8 .b8 stack[16]; mov.u64 %l0, stack; st.local.u32 [%l0+12], %t; {cast}
    add.s64 %l0, %l0, {offset}; {load} %r0, [%l0];
    """
    with pytest.raises(PtxError, match=r"(local memory|parameters) at byte .*thread \(0, 0, 0\)"):
        run_ptx(body, [], [])


@pytest.mark.parametrize("address", [-4, -256, 0])
@pytest.mark.parametrize("touched", [False, True])
def test_addresses_at_the_ends(address: int, touched: bool) -> None:
    """The last and the first of 64 bits, when an allocation was touched before and when not."""
    before = "ld.global.u32 %r1, [%in0];" if touched else ""
    body = f"{before} mov.s64 %l0, {address}; ld.global.u32 %r0, [%l0];"
    with pytest.raises(PtxError, match=r"read of 4 bytes at .*in no allocation"):
        run_ptx(body, [np.zeros(32, np.uint32)], [])


def large_static(static: int, opts_in: bool) -> str:
    use_device()
    text = f"""{HEAD}
    .shared .align 16 .b8 tile[{static}];
    .visible .entry large() {{ .reg .b32 %r; mov.u32 %r, tile; st.shared.u32 [%r+{static - 4}], %r;
    ret; }}
    """
    function = handle("cuModuleGetFunction", Module(text).module, b"large")
    if opts_in:
        call("cuFuncSetAttribute", function, 8, 0)

    def run() -> None:
        launch(function)
        call("cuCtxSynchronize")

    return error_of(run)


def test_large_static_shared_memory() -> None:
    """It may be 48 KiB, whatever is opted in to: that is for dynamic shared memory."""
    assert run_program(large_static, 49152, False).value == ""
    outcome = run_program(large_static, 49168, False)
    assert outcome.value == "INVALID_VALUE"
    assert "49168 static and 0 dynamic bytes of shared memory; " in outcome.messages
    assert run_program(large_static, 49168, True).value == "INVALID_VALUE"


ACROSS = """
    .shared .align 4 .b8 tile[256];
    mul.wide.u32 %l0, %t, 4; mov.u32 %r0, tile; mad.lo.u32 %r0, %t, 4, %r0;
    mov.u32 %r1, %ctaid.x; mad.lo.u32 %r1, %r1, 64, %t; mul.wide.u32 %l0, %r1, 4;
    add.s64 %l1, %l0, %in0; ld.global.f32 %f0, [%l1]; st.shared.f32 [%r0], %f0; bar.sync 0;
    xor.b32 %r2, %t, 33; mov.u32 %r3, tile; mad.lo.u32 %r3, %r2, 4, %r3; ld.shared.f32 %f1, [%r3];
    fma.rn.f32 %f2, %f1, %f0, %f1; add.s64 %l2, %l0, %out0; st.global.f32 [%l2], %f2;
"""


def test_threads_of_the_cpu_change_neither_bits_nor_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = np.random.default_rng(0).standard_normal(64 * 37).astype(np.float32)
    seen = []
    for threads in ("1", "3"):
        for order in ("forward", "shuffle:3"):
            monkeypatch.setenv("VGPU_THREADS", threads)
            monkeypatch.setenv("VGPU_ORDER", order)
            library().vgpu_test_count()
            [y] = run_ptx(ACROSS, [x], [np.zeros_like(x)], block=64, grid=37)
            seen.append((y.tobytes(), library().vgpu_test_counts()))
    assert len({bits for bits, _ in seen}) == 1
    assert len({counts for _, counts in seen}) == 1
    pairs = x.reshape(37, 64)[:, np.arange(64) ^ 33].ravel().astype(np.float64)
    np.testing.assert_allclose(np.frombuffer(seen[0][0], np.float32), pairs * x + pairs, rtol=1e-6)
