"""Writes convnet/_cpu.pyi, the types of the compiled modules, from their schema of functions.

Run as `python bindings/stubs.py > convnet/_cpu.pyi`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

HEAD = '''\
"""The compiled operations on the host; convnet._cuda and convnet._vgpu have the same surface.

Written by bindings/stubs.py from the schema in bindings/operations/ and queries.cpp. An
operation takes its stream last; :mod:`convnet.ops` documents each.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

_Array = Any
_Tile = tuple[str, str, Sequence[int], str, int, str]

class Recording:
    """The operations called between `begin` and `end` on a thread, which `run` calls again."""

    def __init__(self) -> None: ...
    def begin(self) -> None: ...
    def end(self) -> None: ...
    def run(self) -> None: ...
    @property
    def names(self) -> list[str]: ...

def schema() -> list[tuple[str, list[tuple[str, str, str, bool, bool, str]], str]]:
    """For each function below: its name; its arguments as (name, role, type, optional, several,
    the input whose memory it may have); and what it returns, "" for an operation."""

def infer(op: str, /, *arguments: Any) -> tuple[list[tuple[int, tuple[int, ...], Any]], int]:
    """For an operation with these arguments, without workspace and stream, of which only shapes
    are looked at: the outputs that have yet to be made as (number of the argument, shape, dtype),
    and the bytes of its workspace."""

def start_backend() -> None: ...
def backend_name() -> str: ...
def device_count() -> int: ...
def device_description(device: int = 0) -> str: ...
def build_description() -> str: ...
def pretend_implementation(name: str) -> None: ...
def set_tile_choices(rows: Sequence[_Tile] | None) -> None: ...
def thread_count() -> int: ...
def set_thread_count(threads: int) -> None: ...
'''
WIDTH = 100


def parameter(name: str, role: str, kind: str, optional: bool, several: bool, _: str) -> str:
    """An argument with its type in Python."""
    kind = kind if role == "value" else "_Array"
    if several:
        kind = f"Sequence[{kind}]"
    return f"{name}: {kind}{' | None' if optional else ''}"


def function(name: str, arguments: Sequence[str], returns: str) -> str:
    """A line, or as few as the formatter would take."""
    given = ", ".join([*arguments, "/"])
    line = f"def {name}({given}) -> {returns}: ..."
    if len(line) <= WIDTH:
        return line
    if len(given) + 4 <= WIDTH:
        return f"def {name}(\n    {given}\n) -> {returns}: ..."
    lines = "".join(f"    {argument},\n" for argument in [*arguments, "/"])
    return f"def {name}(\n{lines}) -> {returns}: ..."


def stubs() -> str:
    """The whole file."""
    from convnet import _cpu

    lines = []
    for name, parameters, returns in _cpu.schema():
        arguments = [parameter(*each) for each in parameters]
        if not returns:
            arguments.append("stream: int")
        lines.append(function(name, arguments, returns or "None"))
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(stubs())
