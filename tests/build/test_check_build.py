"""The build check: what it makes of compiler output that is not as it should be."""

from __future__ import annotations

import check_build
import pytest

VECTOR = (
    "_ZN7convnet40_GLOBAL__N__d0ed131c_8_fprop_cu_458bf3cc17conv_fprop_kernel"
    "INS_8SimtLoopINS_4TileILi128ELi64ELi8EEELb1EEEEEvNS0_15FpropParametersEPKfS8_Pf"
)
HALVES = VECTOR.replace("Lb1EEE", "Lb1EEENS_8Bfloat16E")
SCALAR = VECTOR.replace("Lb1E", "Lb0E")
PLAIN = "_ZN7convnet39_GLOBAL__N__d8639359_7_conv_cu_f8b9138816split_sum_kernelEPKfjPf"
REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{name}' for 'sm_90'
ptxas info    : Function properties for {name}
    {stack} bytes stack frame, {spill} bytes spill stores, {spill} bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 12800 bytes smem
"""
LOADS = "        /*0010*/  LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;\n"


def kernel(name: str = PLAIN, stack: int = 0, spill: int = 0, sass: str = LOADS):
    (found,) = check_build.read_report(REPORT.format(name=name, stack=stack, spill=spill), "90")
    found.sass = sass
    return found


def test_reads_the_report():
    found = kernel(VECTOR)
    assert (found.name, found.arch, found.registers, found.shared) == (VECTOR, "90", 40, 12800)
    assert not list(found.problems())


def test_names_are_readable():
    assert check_build.readable(VECTOR) == "conv_fprop_kernel<128 64 8 1>"
    assert check_build.readable(HALVES) == "conv_fprop_kernel<128 64 8 1 bfloat16>"
    assert check_build.readable(PLAIN) == "split_sum_kernel"
    assert check_build.readable("plain_kernel") == "plain_kernel"


def test_disassembly_is_taken_apart_by_kernel():
    text = '\t.section\t.text.one,"ax",@progbits\nA ;\n\t.section\t.text.two,"ax"\nB ;\n'
    parts = check_build.read_disassembly("header\n" + text)
    assert {name: sass.strip() for name, sass in parts.items()} == {"one": "A ;", "two": "B ;"}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"stack": 8}, "8 bytes of stack"),
        ({"spill": 4}, "8 bytes of spills"),
        ({"sass": LOADS + "  STL [R1], R0 ;\n"}, "1 instructions"),
        ({"sass": LOADS + "  LDL.128 R4, [R1] ;\n"}, "1 instructions"),
        ({"name": VECTOR, "sass": "  LDG.E.CONSTANT R4, desc[UR4][R2.64] ;\n"}, "no 128-bit loads"),
        ({"name": HALVES, "sass": "  LDG.E.U16 R4, desc[UR4][R2.64] ;\n"}, "no 64-bit loads"),
        ({"sass": ""}, "not in the disassembly"),
    ],
)
def test_finds_what_is_wrong(changed, problem):
    assert problem in "; ".join(kernel(**changed).problems())


MMA = (
    "_ZN7convnet40_GLOBAL__N__d0ed131c_8_fprop_cu_458bf3cc17conv_fprop_kernelINS_7MmaLoopI"
    "NS_7MmaTileILi128ELi64ELi64ELi32ELi2EEELNS_9PrecisionE0ELb1EEEEEvNS0_15FpropParametersEPKfS9_Pf"
)
MMA_SASS = (
    "  HMMA.1688.F32.TF32 R4, R8, R2, R4 ;\n" * 96
    + "  LDGSTS.E.BYPASS.LTC128B.128 [R1], desc[UR4][R2.64], P0 ;\n  LDSM.16.M88.4 R8, [R3] ;\n"
)


def mma_problems(name=MMA, sass=MMA_SASS, registers=40) -> str:
    found = kernel(name, sass=sass)
    found.registers = registers
    return "; ".join(found.problems())


def test_tensor_core_kernels():
    assert mma_problems() == ""
    assert check_build.readable(MMA) == "conv_fprop_kernel<128x64 fp32 128-bit>"
    assert "has 95 HMMA.1688.F32.TF32, expected 96" in mma_problems(sass=MMA_SASS.split("\n", 1)[1])
    assert "copies of 128 bits" in mma_problems(sass=MMA_SASS.replace("LTC128B.128", "LTC128B"))
    narrow = MMA.replace("Lb1E", "Lb0E")
    assert mma_problems(narrow, MMA_SASS.replace("LTC128B.128", "LTC128B")) == ""
    assert "no asynchronous copies" in mma_problems(narrow, MMA_SASS.replace("LDGSTS", "LDG"))
    assert "fragments by LDSM" in mma_problems(sass=MMA_SASS.replace("LDSM", "LDS"))
    assert "fragments by LDS.128" in mma_problems(MMA.replace("conv_fprop", "conv_wgrad"))
    assert "has 0 HMMA.16816.F32.BF16, expected 16" in mma_problems(
        MMA.replace("PrecisionE0E", "PrecisionE3E")
    )
    halves = MMA.replace("7MmaLoop", "11MmaBf16Loop").replace("LNS_9PrecisionE0E", "")
    assert check_build.readable(halves) == "conv_fprop_kernel<128x64 bfloat16 128-bit>"
    assert "has 0 HMMA.16816.F32.BF16, expected 32" in mma_problems(halves)
    across = halves.replace("conv_fprop", "conv_wgrad")
    assert "fragments by LDSM.16.MT88.4" in mma_problems(across)
    assert mma_problems(registers=255) == ""  # two blocks of 128 threads
    three = MMA.replace("Li2EEE", "Li3EEE")
    assert "takes 22528 registers a block; 3 blocks" in mma_problems(three, registers=169)
    assert mma_problems(three, registers=168) == ""


WGMMA = (
    "_ZN7convnet46_GLOBAL__N__882d415b_13_wgmma_conv_cu_3a85cf8017wgmma_conv_kernelINS0_9WgmmaTileI"
    "Li256ELi96ELNS_9PrecisionE2ELi16EEEEEvNS0_15WgmmaParametersE14CUtensorMap_stPKhPf"
)
WGMMA_SASS = (
    "  HGMMA.64x96x8.F32.TF32 R24, R152, gdesc[UR24], R24 ;\n" * 8
    + "  UTMALDG.4D [UR8], [UR4] ;\n  UBLKCP.S.G [UR8], [UR4], UR6 ;\n"
    + "  LDSM.16.M88.4 R8, [R3] ;\n  USETMAXREG.DEALLOC.CTAPOOL 0x28 ;\n"
)


def test_hopper_kernels():
    assert mma_problems(WGMMA, WGMMA_SASS) == ""
    assert check_build.readable(WGMMA) == "wgmma_conv_kernel<256x96 tf32 16>"
    fewer = WGMMA_SASS.split("\n", 1)[1]
    assert "has 7 HGMMA.64x96x8.F32.TF32, expected 8" in mma_problems(WGMMA, fewer)
    for needed in ("UTMALDG", "UBLKCP", "LDSM", "USETMAXREG"):
        assert f"({needed}" in mma_problems(WGMMA, WGMMA_SASS.replace(needed, "NOP"))
    halves = WGMMA.replace("PrecisionE2ELi16E", "PrecisionE3ELi32E")
    assert "has 0 HGMMA.64x96x16.F32.BF16, expected 8" in mma_problems(halves, WGMMA_SASS)
    halves = halves.replace("Li32E", "Li16E")
    assert "has 0 HGMMA.64x96x16.F32.BF16, expected 4" in mma_problems(halves, WGMMA_SASS)
    elsewhere = kernel(WGMMA, sass="  EXIT ;\n")
    elsewhere.arch = "100"
    assert not list(elsewhere.problems())


@pytest.mark.parametrize(
    ("array", "kind", "product", "count", "loads"),
    [
        ("f", "tf32", "64x64x8.F32.TF32", 20, "LDS.64"),
        ("NS_8Bfloat16E", "bf16", "64x64x16.F32.BF16", 20, "LDSM.16.MT88.4"),
    ],
)
def test_hopper_kernels_of_gradients(array, kind, product, count, loads):
    wgrad = (
        "_ZN7convnet47_GLOBAL__N__f3e524da_14_wgmma_wgrad_cu_ed4ed67018wgmma_wgrad_kernel"
        f"I{array}EEvNS_15WgradParametersE14CUtensorMap_stPKT_PfS7_"
    )
    sass = f"  HGMMA.{product} R24, R152, gdesc[UR24], R24 ;\n" * count
    sass += (
        f"  UTMALDG.4D [UR8], [UR4] ;\n  {loads} R8, [R3] ;\n  STS.128 [R3], R8 ;\n"
        "  USETMAXREG 72\n"
    )
    assert mma_problems(wgrad, sass) == ""
    assert check_build.readable(wgrad) == f"wgmma_wgrad_kernel<{kind}>"
    fewer = sass.split("\n", 1)[1]
    assert f"has {count - 1} HGMMA.{product}, expected {count}" in mma_problems(wgrad, fewer)
    for needed in ("UTMALDG", loads, "STS.128", "USETMAXREG"):
        assert f"({needed}" in mma_problems(wgrad, sass.replace(needed, "NOP"))


@pytest.mark.parametrize("named", [True, False])
def test_remarks_of_the_compiler_on_wgmma(named):
    remark = "ptxas info    : (C7517) warpgroup.wait is injected in around line 9 by compiler"
    remark += f" in function '{WGMMA}'\n" if named else "\n"
    report = remark + "".join(REPORT.format(name=n, stack=0, spill=0) for n in (WGMMA, PLAIN))
    first, second = check_build.read_report(report, "90")
    first.sass = WGMMA_SASS
    assert "remark: (C7517) warpgroup.wait is injected" in "; ".join(first.problems())
    assert bool(second.remarks) is not named


def test_single_loads_are_right_where_they_are_meant():
    assert not list(kernel(SCALAR, sass="  LDG.E.CONSTANT R4, desc[UR4][R2.64] ;\n").problems())


def test_architectures():
    known = "compute_80\ncompute_90\ncompute_100\n"
    assert check_build.chosen_archs("all", known) == ["80", "90", "100"]
    assert check_build.chosen_archs("90,80", known) == ["90", "80"]
    with pytest.raises(RuntimeError, match="got 35"):
        check_build.chosen_archs("80,35", known)
