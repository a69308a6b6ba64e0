"""Exit codes of the `convnet` command, and the one line that an error ends with.

An error class whose message is meant for the user as it stands says so by an attribute `exit_code`;
ValueErrors and OSErrors are bad input. Anything else is unexpected, and named by its type.
"""

from __future__ import annotations

import os
import sys

DONE, FAILED, BAD_INPUT, NO_DEVICE = 0, 1, 2, 3
_MOST = 4000  # characters of a message


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code and the one line for an error."""
    code = getattr(error, "exit_code", None)
    if code is not None:
        return int(code), _one_line(error)
    if isinstance(error, OSError) and error.errno is not None:
        named = error.filename is not None
        where = f"{_printable(os.fsdecode(error.filename))}: " if named else ""
        return BAD_INPUT, f"{where}{error.strerror}"
    if isinstance(error, ValueError):
        return BAD_INPUT, _one_line(error)
    if isinstance(error, MemoryError):
        return FAILED, f"out of memory ({_one_line(error)}); try a smaller train.batch"
    return FAILED, f"{type(error).__name__}: {_one_line(error)[:400]} (--debug shows where)"


def complain(message: str) -> None:
    """Writes the one line of an error to stderr."""
    print(f"convnet: error: {message}", file=sys.stderr)


def _one_line(error: BaseException) -> str:
    return _printable(str(error)) or type(error).__name__


def _printable(text: str) -> str:
    """The text as one line: what a message quotes from a file may be anything."""
    text = " ".join(text[: 2 * _MOST].split())
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return text if len(text) <= _MOST else f"{text[:_MOST]} ..."
