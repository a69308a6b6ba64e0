#!/usr/bin/env python3
"""What the CUDA compiler made of the kernels, checked without a GPU.

Compiles every .cu file of this folder and of gemm/ for each architecture, as the build does, and
reads ptxas' report and the disassembly. Exits with 1, naming the kernel and the architecture, when

- a kernel uses local memory: registers were spilled, or an array is indexed at run time;
- a matrix product that should read four elements at a time does not;
- a tensor-core kernel lacks its instructions: as many HMMA as a step has, LDGSTS (of 128 bits where
  it should be), LDSM or LDS.128; or its registers do not allow the blocks on a multiprocessor that
  its tile is planned for;
- a Hopper kernel, on sm_90a, lacks its own: as many HGMMA as its steps have, UTMALDG, UBLKCP, LDSM;
  or the compiler says that it makes wgmma wait for each other, or does not hand registers over.

    python src/kernels/check_build.py --archs 80,90        # all: every one that we support

Prints a table of registers by kernel and architecture; with --tiles, one of the tensor-core tiles
alone: what they take of a multiprocessor and how many blocks fit, as docs/kernels.md has it. With
--registers FILE writes the numbers for the virtual GPU too, which then checks them at each launch.

Needs nvcc and nvdisasm; the latter is in the PyPI package nvidia-cuda-nvdisasm where the toolkit
does not bring it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from built_kernel import MMA, PRECISIONS, SHARED, STAGE_BYTES, WGMMA, WGMMA_WGRAD, Kernel

KERNELS = Path(__file__).resolve().parent
SUPPORTED = ("75", "80", "86", "89", "90", "100", "120")
FLAGS = ("-std=c++17", "-O3", "-lineinfo", f"-I{KERNELS.parent}")  # those of cuda.cmake


# ---- compiling ----------------------------------------------------------------------------------


def compile_kernels(source: Path, archs: list[str], nvcc: str, nvdisasm: str) -> list[Kernel]:
    """The kernels of one file for architectures that are made from one PTX.

    Raises: RuntimeError with the output of the compiler.
    """
    kernels = []
    ptx = ptx_of(archs[0])
    with tempfile.TemporaryDirectory() as folder:
        text, cubin = Path(folder) / "kernels.ptx", Path(folder) / "kernels.cubin"
        run([nvcc, *FLAGS, f"-arch=compute_{ptx}", "-ptx", "-o", text, source])
        for arch in archs:
            code = f"arch=compute_{ptx},code=sm_{'90a' if arch == '90' else arch}"
            command = [nvcc, "-lineinfo", "-gencode", code, "-cubin", "-Xptxas", "-v"]
            found = read_report(run([*command, "-o", cubin, text]), arch)
            disassembly = read_disassembly(run([nvdisasm, "-c", cubin])) if found else {}
            for kernel in found:
                kernel.sass = disassembly.get(kernel.name, "")
            kernels += found
    return kernels


def ptx_of(arch: str) -> str:
    """The PTX that an architecture's code is made from, as in cuda.cmake."""
    if arch == "90":
        return "90a"
    return next(ptx for ptx in ("100", "80", "75") if int(arch) >= int(ptx))


def read_report(report: str, arch: str) -> list[Kernel]:
    """Kernels from what `ptxas -v` printed."""
    kernels: list[Kernel] = []
    for line in report.splitlines():
        if match := re.search(r"Compiling entry function '(\S+)'", line):
            kernels.append(Kernel(match[1], arch))
        elif not kernels:
            continue
        elif match := re.search(r"(\d+) bytes stack frame", line):
            kernels[-1].stack += int(match[1])
            kernels[-1].spills += sum(map(int, re.findall(r"(\d+) bytes spill", line)))
        elif match := re.search(r"Used (\d+) registers", line):
            kernels[-1].registers = int(match[1])
            kernels[-1].shared = sum(map(int, re.findall(r"(\d+) bytes smem", line)))
    for line in re.findall(r".*\(C75\d\d\).*", report):
        named = re.search(r"function '(\S+?)'", line)
        for kernel in kernels:
            if named is None or kernel.name == named[1]:
                kernel.remarks = line.removeprefix("ptxas info    :").strip()
    return kernels


def read_disassembly(text: str) -> dict[str, str]:
    """The instructions of each kernel."""
    parts = re.split(r"^\s*\.section\s+\.text\.([^,\s]+).*$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def run(command: list[object]) -> str:
    """What a command printed, to both streams."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def find_tool(name: str) -> str:
    """The path of nvcc or nvdisasm: $CUDACXX, PATH, beside nvcc, or a PyPI wheel."""
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc")
    if name == "nvcc":
        places = [Path(nvcc)] if nvcc else []
    else:
        places = [Path(found)] if (found := shutil.which(name)) else []
        places += [Path(nvcc).resolve().parent / name] if nvcc else []
    packages = [Path(sysconfig.get_path("purelib"))]
    packages += map(Path, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    for folder in packages:
        places += sorted(folder.glob(f"nvidia/*/bin/{name}"))
    for place in places:
        if place.is_file() and os.access(place, os.X_OK):
            return str(place)
    raise RuntimeError(f"{name} was not found; pip install nvidia-cuda-{name}")


# ---- reporting ----------------------------------------------------------------------------------


def readable(name: str) -> str:
    """A mangled kernel name in short: conv_fprop_kernel<128 64 8 1> of Tile<128, 64, 8>, true."""
    # _ZN, then names with their lengths; after the last one I, the template arguments and E, or E.
    rest, last = re.sub(r"^_ZN?", "", name), name
    while match := re.match(r"\d+", rest):
        end = match.end() + int(match[0])
        last, rest = rest[match.end() : end], rest[end:]
    if not rest.startswith("I"):
        return last
    if match := MMA.search(name):
        tile = "x".join(match.groups()[1:3])
        kind = PRECISIONS[int(match[7])][0] if match[7] else "bfloat16"
        narrow = "single" if match[7] else "64-bit"
        return f"{last}<{tile} {kind} {'128-bit' if match[8] == '1' else narrow}>"
    if match := WGMMA.search(name):
        return f"{last}<{match[1]}x{match[2]} {PRECISIONS[int(match[3])][0]} {match[4]}>"
    if match := WGMMA_WGRAD.search(name):
        return f"{last}<{'tf32' if match[1] == 'f' else 'bf16'}>"
    arguments = re.findall(r"(?:L[bijl]|E)(\d+)E", rest.split("EEv")[0] + "E")
    if "8Bfloat16" in rest.split("EEv")[0]:
        arguments.append("bfloat16")
    return f"{last}<{' '.join(arguments)}>"


def print_table(kernels: list[Kernel], archs: list[str]) -> None:
    """Registers of each kernel by architecture."""
    rows: dict[str, dict[str, Kernel]] = {}
    for kernel in kernels:
        rows.setdefault(kernel.name, {})[kernel.arch] = kernel
    names = {name: readable(name) for name in rows}
    width = max(map(len, names.values()), default=0)
    print(f"{'registers':{width}}  " + "  ".join(f"sm_{a:<4}" for a in archs) + "  shared  LDG.128")
    for name, row in sorted(rows.items(), key=lambda item: names[item[0]]):
        registers = (str(row[a].registers) if a in row else "-" for a in archs)
        last = row[max(row, key=int)]
        vectors = len(re.findall(r"\bLDG\.E\.128\b", last.sass))
        columns = "  ".join(f"{r:>7}" for r in registers)
        print(f"{names[name]:{width}}  {columns}  {last.shared:>6}  {vectors:>7}")


def print_tiles(kernels: list[Kernel], archs: list[str]) -> None:
    """What each tile takes of a multiprocessor, as a table in Markdown: registers of a thread in
    fprop, dgrad and wgrad (one number where they are the same), and the blocks that fit."""
    rows: dict[tuple[str, int, int, int], dict[str, list[Kernel]]] = {}
    for kernel in kernels:
        tile = kernel.mma_tile()
        if tile is not None and kernel.arch in SHARED:
            key = (tile.precision, -tile.length, -tile.width, tile.threads)
            rows.setdefault(key, {}).setdefault(kernel.arch, []).append(kernel)
    archs = [arch for arch in archs if arch in SHARED]
    head = ["precision", "tile", "threads", "shared KiB"]
    head += [f"sm_{arch}: registers, blocks" for arch in archs]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    order = [name for name, _, _ in PRECISIONS.values()]
    for key, found in sorted(rows.items(), key=lambda item: (order.index(item[0][0]), item[0][1:])):
        precision, length, width, threads = key[0], -key[1], -key[2], key[3]
        shared = (length + width) * STAGE_BYTES / 1024
        cells = [f"`{precision}`", f"{length} x {width}", str(threads), f"{shared:g}"]
        for arch in archs:
            by_pass = {kernel.mma_tile().step: kernel for kernel in found[arch]}  # type: ignore[union-attr]
            passes = [by_pass.get(step) for step in ("fprop", "dgrad", "wgrad")]
            registers = [str(kernel.registers) if kernel else "-" for kernel in passes]
            blocks = [str(kernel.blocks()) if kernel else "-" for kernel in passes]
            cells.append(", ".join(short(texts) for texts in (registers, blocks)))
        print(f"| {' | '.join(cells)} |")


def short(texts: list[str]) -> str:
    """One of them where they are the same."""
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archs", default="all", help="comma list such as 80,90, or all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tiles", action="store_true", help="a table of tensor-core tiles")
    parser.add_argument("--registers", type=Path, help="a file to write for VGPU_REGISTERS")
    parser.add_argument("sources", nargs="*", type=Path, help="default: every .cu file")
    options = parser.parse_args()
    try:
        nvcc, nvdisasm = find_tool("nvcc"), find_tool("nvdisasm")
        archs = chosen_archs(options.archs, run([nvcc, "--list-gpu-arch"]))
        sources = options.sources or sorted(KERNELS.rglob("*.cu"))
        of_one_ptx = [[a for a in archs if ptx_of(a) == ptx] for ptx in ("75", "80", "90a", "100")]
        with ThreadPoolExecutor(options.jobs) as pool:
            tasks = [
                pool.submit(compile_kernels, source, of_one, nvcc, nvdisasm)
                for source in sources
                for of_one in filter(None, of_one_ptx)
            ]
            kernels = [kernel for task in tasks for kernel in task.result()]
    except RuntimeError as error:
        print(f"check_build: {error}", file=sys.stderr)
        return 1
    if options.registers:
        lines = [f"{kernel.arch} {kernel.registers} {kernel.name}\n" for kernel in kernels]
        options.registers.write_text("".join(lines))
    (print_tiles if options.tiles else print_table)(kernels, archs)
    problems = [
        f"{readable(kernel.name)} for sm_{kernel.arch} {problem}"
        for kernel in kernels
        for problem in kernel.problems()
    ]
    for problem in problems:
        print(f"check_build: {problem}", file=sys.stderr)
    if not problems:
        print(
            f"{len(kernels)} kernels: no local memory; 128-bit loads, asynchronous copies and "
            "tensor cores where they belong"
        )
    return 1 if problems else 0


def chosen_archs(asked: str, known_by_nvcc: str) -> list[str]:
    """The architectures of `--archs`. Raises RuntimeError for one that nvcc does not know."""
    known = re.findall(r"compute_(\d+)\b", known_by_nvcc)
    if asked == "all":
        return [arch for arch in SUPPORTED if arch in known]
    archs = asked.split(",")
    for arch in archs:
        if arch not in known:
            raise RuntimeError(f"--archs: expected some of {', '.join(known)}, got {arch}")
    return archs


if __name__ == "__main__":
    sys.exit(main())
