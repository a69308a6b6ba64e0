"""Faults for kernels: how they are planted in a source, each asleep until its number is chosen.

A rule finds places in a line of code and writes there something that calls ``mutant(number)``,
which is 1 for the fault that is awake and else 0: ``a < b`` becomes ``a < mutant(7) + b``. The text
is not parsed; clang-format sees to it that operators are known by the blanks around them.

    bound      a < b becomes a < b + 1, and likewise <=, > and >=; min() and max() go one further
    predicate  one side of a && b is left out
    guard      what an `if` guards is never done
    choice     of a ? b : c it is always c
    barrier    a barrier, wait, fence, commit or arrival is left out
    stride     a product is twice as large
    swap       stride_h for stride_w, p for q, and their like
"""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """One fault: the number that wakes it, and where it is; `nth` of its kind in the line."""

    number: int
    file: str
    line: int
    kind: str
    nth: int
    code: str

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What stays the same when other lines change."""
        return self.file, self.code, self.kind, self.nth

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.kind} {self.nth}: {self.code}"


SWAPPED = {"h": "w", "p": "q", "r": "s", "stride_h": "stride_w", "pad_h": "pad_w"}
SWAPPED |= {second: first for first, second in SWAPPED.items()}
SHAPES = r"\b((?:\w+\.)*(?:s|shape))\.(stride_[hw]|pad_[hw]|[hwpqrs])\b(?! = |\()"
WAITS = (
    r"(__sync(?:threads|warp)|cp_async_(?:wait|commit)|mbarrier_(?:wait|arrive|init)\w*|"
    r"wgmma_(?:wait|fence|commit)|fence_shared_writes)((?:<[^;]*?>)?\()"
)

# (kind, what is found, what stands there instead); new() is the number of a fault more.
Rule = tuple[str, str, Callable[[re.Match, Callable[[], int]], str]]
RULES: tuple[Rule, ...] = (
    ("bound", r" (<|>=) ", lambda m, new: f" {m[1]} mutant({new()}) + "),
    ("bound", r" (<=|>) ", lambda m, new: f" {m[1]} -mutant({new()}) + "),
    ("bound", r"(?<![\w:.])min\(", lambda m, new: f"mutant({new()}) + min("),
    ("bound", r"(?<![\w:.])max\(", lambda m, new: f"-mutant({new()}) + max("),
    # `|` binds less than a comparison and more than `&&`
    ("predicate", r" &&(?:\s|$)", lambda m, new: f" | mutant({new()}) && mutant({new()}) | "),
    ("guard", r"\bif \(", lambda m, new: f"if (mutant({new()}) ? false : "),
    ("choice", r" \? ", lambda m, new: f" && mutant({new()}) == 0 ? "),
    ("barrier", rf"(?<=  |\) ){WAITS}", lambda m, new: f"if (mutant({new()}) == 0) {m[0]}"),
    ("stride", r" \* ", lambda m, new: f" * (1 + mutant({new()})) * "),
    ("swap", SHAPES, lambda m, new: f"(mutant({new()}) ? {m[1]}.{SWAPPED[m[2]]} : {m[0]})"),
)
KINDS = tuple(dict.fromkeys(kind for kind, _, _ in RULES))

# A loop over a constant number of registers has no data to run past; sizes that the compiler must
# know have to stay constant.
_CONSTANT = r"\b(?:(?:\w+::)*k[A-Z]\w*|\d+)\b"
CONSTANT = {
    "bound": rf"for \((?:int|unsigned) \w+ = [^;]*; \w+ <=? {_CONSTANT}(?: - \w+)?;",
    "stride": rf"{_CONSTANT}(?: \* {_CONSTANT})+",
}


def plant_all(
    folder: Path, files: Collection[str] = (), kinds: Collection[str] = KINDS
) -> list[Mutant]:
    """Plants faults of these kinds in these kernel files of the folder, by default in every one. A
    fault has the same number either way."""
    mutants: list[Mutant] = []
    for path in sorted([*folder.rglob("*.cu"), *folder.rglob("*.cuh")]):
        file = path.relative_to(folder).as_posix()
        if path.name == "backend.cu":  # not of the virtual GPU
            continue
        planted = []
        lines = path.read_text().splitlines()
        for number, (line, constant) in enumerate(
            zip(lines, constant_lines(lines), strict=True), start=1
        ):
            code, slashes, comment = line.partition("//")
            if not constant:
                code = plant(code, file, number, mutants, kinds)
            planted.append(code + slashes + comment)
        if not files or file in files:
            path.write_text("\n".join(planted) + "\n")
    return [m for m in mutants if (not files or m.file in files) and m.kind in kinds]


def plant(
    code: str, file: str, line: int, mutants: list[Mutant], kinds: Collection[str] = KINDS
) -> str:
    """The line with every fault of these kinds asleep in it; those of all kinds are appended to
    `mutants`."""
    counts: collections.Counter[str] = collections.Counter()
    planted, end = "", 0
    for match, kind, become in places(code):

        def new(kind: str = kind) -> int:
            mutants.append(Mutant(len(mutants) + 1, file, line, kind, counts[kind], code.strip()))
            counts[kind] += 1
            return mutants[-1].number

        if match.start() >= end:
            replaced = become(match, new)
            planted += code[end : match.start()] + (replaced if kind in kinds else match[0])
            end = match.end()
    return planted + code[end:]


def places(code: str) -> list[tuple[re.Match, str, Callable]]:
    """Where rules apply in a line, from left to right."""
    found = []
    for kind, pattern, become in RULES:
        constant = [m.span() for m in re.finditer(CONSTANT.get(kind, "(?!)"), code)]
        for match in re.finditer(pattern, code):
            start = match.start()
            in_text = code[:start].count('"') % 2 == 1
            if not in_text and not any(begin <= start < end for begin, end in constant):
                found.append((match, kind, become))
    return sorted(found, key=lambda place: place[0].span())


def constant_lines(lines: list[str]) -> Iterator[bool]:
    """For each line, whether it is of a declaration or a function that the compiler evaluates."""
    depth, statement = 0, False
    function: int | None = None  # the depth that it began at
    for line in lines:
        code = line.partition("//")[0]
        if re.search(r"\b(constexpr|static_assert)\b|^\s*(using|template|#|class|struct)\b", code):
            statement = True
        yield statement or function is not None or code.startswith("#")
        opens = "constexpr" in code and "if constexpr" not in code and code.rstrip().endswith("{")
        if opens and function is None and "(" in code:
            function = depth
        depth += code.count("{") - code.count("}")
        if function is not None and depth <= function:
            function = None
        if re.search(r"[;{}>]\s*$|^#", code):
            statement = False
