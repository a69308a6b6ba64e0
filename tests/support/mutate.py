"""Damage to valid files: at random, but with the lengths, numbers and words that readers act on."""

from __future__ import annotations

import copy
import json
import random
import struct
from typing import Any

EXTREMES = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**63,
    2**64 - 1,
)


def damaged(
    rng: random.Random, valid: bytes, others: list[bytes], words: tuple[bytes, ...] = ()
) -> bytes:
    """A valid file after one to four changes.

    Args:
        valid: the file; others: files to take pieces of.
        words: what the format gives a meaning to.
    """
    content = bytearray(valid)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        at = rng.randrange(len(content) + 1)
        if rng.random() < 0.5:  # most of what decides lies at the start
            at = min(at, rng.randrange(200))
        kind = rng.randrange(8)
        if kind == 0:
            for _ in range(rng.randint(1, 8)):
                if content:
                    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del content[at:]
        elif kind == 2:
            del content[at : at + rng.choice((1, 2, 4, 16, 200))]
        elif kind == 3:
            other = rng.choice([*others, valid])
            start = rng.randrange(len(other) + 1)
            content[at : at + rng.randrange(64)] = other[start : start + rng.randrange(300)]
        elif kind == 4:
            piece = bytes(content[at : at + rng.randint(1, 24)])
            content[at:at] = piece * rng.choice((1, 2, 50, 1000))
        elif kind == 5:
            size = rng.choice((1, 2, 4, 8))
            value = rng.choice(EXTREMES) % (1 << 8 * size)
            content[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
        elif kind == 6:
            content[at : at + rng.randrange(3)] = rng.randbytes(rng.randint(1, 8))
        elif words:
            content[at : at + rng.randrange(3)] = rng.choice(words) * rng.choice((1, 1, 2, 40))
    return bytes(content[: 1 << 20])


_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 2**31, 2**63, 10**19, 0.5, -1e308, 1e-300, "", "x", "\0",
    "\ud800",
    "x" * 5000, [], {}, [[]], [0], {"a": 1}, [1, 2, 3], [1e9, 1e9, 3], ["a", None], "../../x",
)  # fmt: skip
# Not JSON, but what Python's reader takes, or trips over.
_TEXTS = ("NaN", "Infinity", "1e999", "9" * 5000, "[" * 3000, '{"a":' * 3000, "[" * 40 + "]" * 40,
          '{"a":1,"a":2}', "-0", "1.0", "\\", '"\\u12"', "01")  # fmt: skip


def damaged_json(rng: random.Random, valid: Any) -> str:
    """The text of a JSON value after one to three of its values were changed."""
    value = json.loads(json.dumps(valid))
    texts: dict[str, str] = {}
    for number in range(rng.choice((1, 1, 2, 3))):
        value = _changed(rng, value, texts, number)
    text = json.dumps(value)
    for mark, replacement in texts.items():
        text = text.replace(f'"{mark}"', replacement)
    return text


def _changed(rng: random.Random, value: Any, texts: dict[str, str], number: int) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            del value[key]
        else:
            value[key] = _changed(rng, value[key], texts, number)
        return value
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        if rng.random() < 0.15:
            del value[at]
        else:
            value[at] = _changed(rng, value[at], texts, number)
        return value
    if rng.random() < 0.25:
        mark = f"text-{number}-{rng.randrange(10**9)}"
        texts[mark] = rng.choice(_TEXTS)
        return mark
    if isinstance(value, int | float) and rng.random() < 0.4:
        return rng.choice((-value, value + 1, value * 1000, value / 3, str(value)))
    return copy.deepcopy(rng.choice(_VALUES))


def safetensors(header: str, arrays: bytes) -> bytes:
    """A file of this header."""
    head = header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(head)) + head + arrays
