"""How damaged files are made and read: see fuzz_files.py."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutate import damaged

Mutator = Callable[[random.Random], bytes]


@dataclass(frozen=True)
class Attack:
    """One kind of file.

    Attributes:
        path: where damaged files are put; None: they are given to the reader as bytes.
        mutator: makes a damaged file; read: reads it.
        allowed: the errors that the reader documents.
        tries: how many of a million.
    """

    name: str
    path: Path | None
    mutator: Mutator
    read: Callable[[Any], Any]
    allowed: tuple[type[Exception], ...]
    tries: int

    def trial(self, rng: random.Random) -> Callable[[], Any]:
        content = self.mutator(rng)
        if self.path is None:
            return functools.partial(self.read, content)
        self.path.write_bytes(content)
        return functools.partial(self.read, self.path)


def bytes_of(valid: list[bytes], words: tuple[bytes, ...] = ()) -> Mutator:
    """Damages one of some files."""
    return lambda rng: damaged(rng, rng.choice(valid), valid, words)


def one_of(*mutators: Mutator) -> Mutator:
    return lambda rng: rng.choice(mutators)(rng)
