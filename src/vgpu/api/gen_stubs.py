"""Generates C for libcuda.so.1, which has the runtime API too, from the toolkit's public headers.

    python gen_stubs.py INCLUDE_FOLDER OUTPUT_FOLDER

cuda_stubs.c    A weak definition of every function of cuda.h, which prints its name and returns
                CUDA_ERROR_NOT_SUPPORTED: what the driver API lacks is missed when it is called,
                and not when a program is loaded. Where a function exists, it is taken instead.
cuda_names.c    The table of cuGetProcAddress: name without version, CUDA version, address.
cudart_stubs.c  As cuda_stubs.c, for cuda_runtime_api.h.
"""

import collections
import re
import subprocess
import sys
from pathlib import Path

NOT_SUPPORTED = 801  # CUDA_ERROR_NOT_SUPPORTED and cudaErrorNotSupported
PER_THREAD = re.compile(r"_pt[sd][sz]$")  # variants for programs whose default stream is a thread's


def declarations(include: Path, headers: list[str], pattern: str) -> set[str]:
    """The names that a pattern finds in preprocessed headers. Those of the profiler may be missing:
    on PyPI they are a package of their own."""
    headers = [header for header in headers if (include / header).exists()]
    text = subprocess.run(
        ["c++", "-E", "-P", "-x", "c++", "-D__CUDA_API_VERSION_INTERNAL", "-I", include, "-"],
        input="".join(f"#include <{header}>\n" for header in headers),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return set(re.findall(pattern, text))


def proc_addresses(include: Path, functions: set[str]) -> list[tuple[str, int, str]]:
    """Rows of name, version and symbol.

    The n-th version that cudaTypedefs.h lists for a name is the symbol name_v<n>, but that the
    first forms of some functions were never exported.
    """
    versions = collections.defaultdict(set)
    typedefs = (include / "cudaTypedefs.h").read_text()
    for name, version in re.findall(r"\bPFN_(cu\w+?)_v(\d{4,5})\)", typedefs):
        versions[name].add(int(version))
    rows = []
    for name, numbers in versions.items():
        for n, version in enumerate(sorted(numbers), 1):
            candidates = [name if n == 1 else f"{name}_v{n}", f"{name}_v2", name]
            if name == "cuGraphInstantiate" and version >= 12000:
                candidates = ["cuGraphInstantiateWithFlags"]
            symbol = next((each for each in candidates if each in functions), None)
            if symbol:
                rows.append((name, version, symbol))
    for symbol in sorted(functions - {row[2] for row in rows}):
        name = re.sub(r"_v\d$", "", symbol)
        rows.append((name, 2000 if name == symbol else 13000, symbol))
    return sorted(rows)


def stubs(functions: set[str]) -> str:
    lines = [
        "#include <stdio.h>",
        "static int missing(const char* name) {",
        '  fprintf(stderr, "vgpu: %s is not implemented\\n", name);',
        f"  return {NOT_SUPPORTED};",
        "}",
    ]
    for name in sorted(functions):
        lines.append(f'__attribute__((weak)) int {name}() {{ return missing("{name}"); }}')
    return "\n".join(lines) + "\n"


def names(functions: set[str], rows: list[tuple[str, int, str]]) -> str:
    lines = [f"int {name}();" for name in sorted(functions)]
    lines.append("struct Row { const char* base; int version; void* address; };")
    lines.append("const struct Row vgpu_rows[] = {")
    lines += [f'  {{"{name}", {version}, (void*){symbol}}},' for name, version, symbol in rows]
    lines.append("  {0, 0, 0}};")
    return "\n".join(lines) + "\n"


def main() -> None:
    include, out = map(Path, sys.argv[1:3])
    out.mkdir(parents=True, exist_ok=True)
    driver = declarations(
        include, ["cuda.h", "cudaProfiler.h"], r"\bCUresult\s+(cu[A-Za-z0-9_]+)\s*\("
    )
    driver = {PER_THREAD.sub("", name) for name in driver}
    runtime = declarations(
        include,
        ["cuda_runtime_api.h", "cuda_profiler_api.h"],
        r"\bcudaError_t\s+(cuda[A-Za-z0-9_]+)\s*\(",
    )
    (out / "cuda_stubs.c").write_text(stubs(driver))
    (out / "cuda_names.c").write_text(names(driver, proc_addresses(include, driver)))
    (out / "cudart_stubs.c").write_text(stubs(runtime | {"__cudaRegisterManagedVar"}))


if __name__ == "__main__":
    main()
