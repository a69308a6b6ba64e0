"""A kernel as the CUDA compiler made it, and what check_build.py asks of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# By their mangled names: kernels with the main loop of FFMA (gemm/simt.cuh), whose last template
# argument says that they read whole vectors; after it the type of the activations, if there is one.
READS_VECTORS = re.compile(r"_kernelINS_8SimtLoopI.*?Lb1EEE(E|f|NS_8Bfloat16E)")

# With that of tensor cores (gemm/mma.cuh): pass, tile (rows, columns, those of a warp, blocks),
# precision, 16-byte copies; of bfloat16 arrays (gemm/mma_bf16.cuh) there is one precision.
MMA = re.compile(
    r"\d(?:conv|dense)_(fprop|dgrad|wgrad|wgrad_sgd)_kernelINS_(?:7MmaLoop|11MmaBf16Loop)I"
    r"NS_7MmaTileILi(\d+)ELi(\d+)ELi(\d+)ELi(\d+)ELi(\d+)EEE(?:LNS_9PrecisionE(\d)E)?Lb(\d)E"
)
# By the number of a precision in ops.h: its name, instruction, and how many of those a 16 x 8 piece
# of C needs in a step of 16.
PRECISIONS = {
    0: ("fp32", "HMMA.1688.F32.TF32", 6),
    2: ("tf32", "HMMA.1688.F32.TF32", 2),
    3: ("bf16", "HMMA.16816.F32.BF16", 1),
}
REGISTERS = 65536  # of a multiprocessor
# What else a multiprocessor has: KiB of shared memory for blocks, each of which also takes one for
# the system, and threads (CUDA programming guide, technical specifications).
SHARED = {"80": 164, "86": 100, "89": 100, "90": 228, "100": 228, "120": 100}
THREADS = {"80": 2048, "86": 1536, "89": 1536, "90": 2048, "100": 2048, "120": 1536}
STAGE_BYTES = 4 * 16 * 4  # of a row of a tile in gemm/mma.cuh: stages, k of a step, bytes

# The Hopper kernels: tile (pixels, filters), precision and channels of a step; of wgrad, the type
# of arrays. A wgmma is 64 pixels, by two warpgroups, and two steps are written out, with operands
# of their own; in wgrad it is 64 rows of dw, and there is code for one to four of them, each of two
# products.
WGMMA = re.compile(r"\dwgmma_conv_kernelI.*?WgmmaTileILi(\d+)ELi(\d+)ELNS_9PrecisionE(\d)ELi(\d+)E")
WGMMA_WGRAD = re.compile(r"\dwgmma_wgrad_kernelI(f|NS_8Bfloat16E)")
WGMMA_NEEDS = {
    "UTMALDG.4D": "slabs by TMA",
    "UBLKCP": "filters by bulk copies",
    "LDSM.16.M88.4": "fragments by ldmatrix",
    "LDS.64": "pairs of channels",
    "LDSM.16.MT88.4": "transposed fragments by ldmatrix",
    "STS.128": "gradients by 16 bytes",
    "USETMAXREG": "registers handed over",
}
WGMMA_SHAPES = {0: "x8.F32.TF32", 2: "x8.F32.TF32", 3: "x16.F32.BF16"}


@dataclass
class Kernel:
    """One kernel, compiled for one architecture."""

    name: str  # mangled
    arch: str
    registers: int = 0
    shared: int = 0  # bytes, static
    stack: int = 0  # bytes
    spills: int = 0  # bytes stored and loaded
    sass: str = ""
    remarks: str = ""  # of the compiler on how it used wgmma

    def count(self, instruction: str) -> int:
        return len(re.findall(rf"\b{re.escape(instruction)}\b", self.sass))

    def problems(self) -> Iterator[str]:
        local = self.count("LDL") + self.count("STL")
        if self.stack or self.spills or local:
            yield (
                f"uses local memory: {self.stack} bytes of stack, {self.spills} bytes of spills, "
                f"{local} instructions"
            )
        if match := READS_VECTORS.search(self.name):
            bits = "64" if "Bfloat16" in match[1] else "128"
            if not re.search(rf"\bLDG\.E\.{bits}\b", self.sass):
                yield f"has no {bits}-bit loads from global memory (LDG.E.{bits})"
        if not self.sass:
            yield "is not in the disassembly"
        elif int(self.arch) >= 80 and (match := MMA.search(self.name)):
            *tile, precision, wide = match.groups()[1:]
            yield from self._mma_problems(match[1], *map(int, tile), precision, wide == "1")
        elif self.arch == "90" and (match := WGMMA.search(self.name)):
            m, n, precision, channels = map(int, match.groups())
            expected = 2 * (m // 128) * (channels // 16) * PRECISIONS[precision][2]
            without = ("LDS.64", "LDSM.16.MT88.4", "STS.128")
            yield from self._wgmma_problems(expected, n, precision, without)
        elif self.arch == "90" and (match := WGMMA_WGRAD.search(self.name)):
            half = match[1] != "f"
            without = ("UBLKCP", "LDSM.16.M88.4", "LDS.64" if half else "LDSM.16.MT88.4")
            expected = 2 * (1 + 2 + 3 + 4)
            yield from self._wgmma_problems(expected, 64, 3 if half else 2, without)

    def _mma_problems(
        self,
        step: str,
        m: int,
        n: int,
        warp_m: int,
        warp_n: int,
        blocks: int,
        precision: str | None,
        wide: bool,
    ) -> Iterator[str]:
        """`precision`: None for bfloat16 arrays, whose steps are of 32."""
        _, instruction, each = PRECISIONS[int(precision or 3)]
        each *= 1 if precision else 2
        products = self.count(instruction)
        expected = warp_m // 16 * (warp_n // 8) * each
        if products < expected:
            yield f"has {products} {instruction}, expected {expected} in a step"
        if not re.search(r"\bLDGSTS\S*\.128\b" if wide else r"\bLDGSTS\b", self.sass):
            yield "has no asynchronous copies" + (" of 128 bits" if wide else "") + " (LDGSTS)"
        across = "LDS.128" if precision else "LDSM.16.MT88.4"
        fragments = across if step.startswith("wgrad") else "LDSM.16.M88.4"
        if not self.count(fragments):
            yield f"does not load fragments by {fragments}"
        threads = 32 * (m // warp_m) * (n // warp_n)
        taken = threads * (-(-self.registers // 8) * 8)  # handed out to warps in eights
        if taken * blocks > REGISTERS:
            yield f"takes {taken} registers a block; {blocks} blocks were to share {REGISTERS}"

    def _wgmma_problems(
        self, expected: int, n: int, precision: int, without: tuple
    ) -> Iterator[str]:
        instruction = f"HGMMA.64x{n}{WGMMA_SHAPES[precision]}"
        products = self.count(instruction)
        if products != expected:
            yield f"has {products} {instruction}, expected {expected}"
        for needed, what in WGMMA_NEEDS.items():
            if needed not in without and not self.count(needed):
                yield f"does not have {what} ({needed})"
        if self.remarks:
            yield f"is compiled with a remark: {self.remarks}"

    def mma_tile(self) -> Tile | None:
        """The tile of a tensor-core kernel of float32 arrays with 16-byte copies."""
        match = MMA.search(self.name)
        if match is None or match[7] is None or match[8] == "0":
            return None
        m, n, warp_m, warp_n = map(int, match.groups()[1:5])
        threads = 32 * (m // warp_m) * (n // warp_n)
        return Tile(PRECISIONS[int(match[7])][0], max(m, n), min(m, n), threads, match[1])

    def blocks(self) -> int:
        """How many blocks of a tensor-core kernel a multiprocessor holds."""
        tile = self.mma_tile()
        assert tile is not None
        registers = tile.threads * (-(-self.registers // 8) * 8)
        shared = tile.shared + self.shared + 1024
        room = SHARED[self.arch] * 1024 // shared
        return min(REGISTERS // registers, room, THREADS[self.arch] // tile.threads)


@dataclass(frozen=True)
class Tile:
    """Of a tensor-core kernel: precision, long and wide side, threads; and the pass."""

    precision: str
    length: int
    width: int
    threads: int
    step: str

    @property
    def shared(self) -> int:
        """Bytes of its ring in shared memory."""
        return (self.length + self.width) * STAGE_BYTES
