"""The programs of ``emulator/``, compiled against ``src/emulator`` in two ways.

They are programs of named cases, compiled as they are ("plain") and with AddressSanitizer
("address").
"""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
from pathlib import Path

from paths import ROOT

SOURCES = ROOT / "tests" / "emulator"
EMULATOR = ROOT / "src" / "emulator"
COMPILER = os.environ.get("CXX", "g++")
OPTIONS = ["-std=c++17", "-O1", "-g", "-Wall", "-Wno-unknown-pragmas", "-Wno-psabi"]
OPTIONS += ["-DCONVNET_EMULATOR"]
BUILDS: dict[str, list[str]] = {"plain": [], "address": ["-fsanitize=address"]}
HOST_HALF = ("launch_limits", "tensor_map")  # of device.h and device_hopper.h, in src/kernels
ORDERS = ["forward", "reverse", "shuffle:1", "shuffle:2", "shuffle:3"]


def compile_object(source: Path, options: list[str], output: Path) -> None:
    command = [COMPILER, *OPTIONS, *options, "-I", str(ROOT / "src"), "-x", "c++", "-c"]
    subprocess.run([*command, str(source), "-o", str(output)], check=True)


class Programs:
    """The compiled programs: ``programs.run(build, program, case, order)``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # backend.cpp is the module's half, not the emulator's.
        common = sorted(set(EMULATOR.glob("*.cpp")) - {EMULATOR / "backend.cpp"})
        common += [ROOT / "src" / "kernels" / f"{name}.cu" for name in HOST_HALF]
        jobs: dict[Path, tuple[Path, list[str]]] = {}
        links: dict[Path, tuple[list[Path], list[str]]] = {}
        for build, options in BUILDS.items():
            shared = {folder / f"{source.stem}.{build}.o": (source, options) for source in common}
            jobs |= shared
            for program in ("right", "broken", "hopper"):
                kernels = folder / f"{program}.{build}.o"
                jobs[kernels] = (SOURCES / f"{program}.cu", options)
                links[folder / f"{program}.{build}"] = ([kernels, *shared], options)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for future in [
                pool.submit(compile_object, source, options, output)
                for output, (source, options) in jobs.items()
            ]:
                future.result()
        for output, (objects, options) in links.items():
            command = [COMPILER, *options, *map(str, objects), "-pthread", "-ldl", "-o"]
            subprocess.run([*command, str(output)], check=True)

    def run(self, build: str, program: str, case: str, order: str = "forward", **env: str) -> str:
        """Returns what the case printed: "returned HASH, COUNT NaN", "threw MESSAGE" or a report
        of AddressSanitizer."""
        variables = {
            **os.environ,
            "CONVNET_EMULATOR_ORDER": order,
            "ASAN_OPTIONS": "detect_leaks=0",
            **env,
        }
        result = subprocess.run(
            [self.folder / f"{program}.{build}", case],
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.stdout or "AddressSanitizer" in result.stderr, result
        return (result.stdout + result.stderr).strip()


def marked_line(name: str, program: str = "broken.cu") -> str:
    """``broken.cu:LINE`` of the line marked with the name."""
    for number, line in enumerate((SOURCES / program).read_text().splitlines(), start=1):
        if line.endswith(f"// MARK: {name}"):
            return f"{program}:{number}"
    raise AssertionError(f"no line of {program} is marked {name}")
