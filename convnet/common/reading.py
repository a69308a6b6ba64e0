"""Reading files that anyone may have made: regular files only, and never more than was agreed.

A few bytes can claim, or expand to, gigabytes: an archive, a number in a header, a key of ten
thousand parts. So every reader has a budget for each file, and spends from it before it allocates
or computes. Named pipes, sockets and devices are refused before they are opened: opening one can
hang, and reading one need not end. Links to regular files are followed.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

_NONBLOCK = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)  # not all systems have them
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_DIGITS = 20  # of a whole number in JSON: enough for 64 bits
_DEPTH = 32  # containers within one another in JSON

PathLike = str | os.PathLike[str]


# ---- regular files -------------------------------------------------------------------------------


def open_handle(path: PathLike, flags: int = os.O_RDONLY, folder: int | None = None) -> int:
    """The handle of a regular file.

    Args:
        path: the file, or a link to it.
        flags: as for `os.open`.
        folder: a handle of the folder that the path starts from.

    Raises:
        OSError: it cannot be opened, or is a folder, a named pipe, a socket or a device.
    """
    try:
        # Before it is opened, too: opening a device can already do something.
        _require_regular(os.stat(path, dir_fd=folder).st_mode, path)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    handle = os.open(path, flags | _NONBLOCK | _CLOEXEC, 0o666, dir_fd=folder)
    try:
        _require_regular(os.fstat(handle).st_mode, path)  # it may have been replaced since
    except OSError:
        os.close(handle)
        raise
    return handle


def open_file(path: PathLike) -> BinaryIO:
    """A regular file, opened for reading bytes. Raises: OSError, as `open_handle`."""
    return os.fdopen(open_handle(path), "rb")


def _require_regular(mode: int, path: PathLike) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    kind = kinds.get(stat.S_IFMT(mode), "a device")
    raise OSError(errno.EINVAL, f"{kind}, not a regular file", os.fspath(path))


# ---- budgets -------------------------------------------------------------------------------------


class BudgetError(ValueError):
    """A file asks for more than its reader gives. Says the limit; the reader adds the name."""


@dataclass(frozen=True)
class Limit:
    """The most of one thing that one file may ask for.

    Attributes:
        most: how many.
        unit: of what, as a message says it: "bytes of text".
        hint: what to do with a sound file that needs more; empty where none can.
    """

    most: int
    unit: str
    hint: str = ""

    def check(self, amount: int) -> None:
        """Raises BudgetError where `amount` is above the limit."""
        if amount > self.most:
            raise BudgetError(
                f"expected at most {self.most:,} {self.unit}, got more"
                + (f"; {self.hint}" if self.hint else "")
            )


class Budget:
    """What is left of a limit while one file is read."""

    def __init__(self, limit: Limit) -> None:
        self._limit, self.spent = limit, 0

    def spend(self, amount: int = 1) -> None:
        """Counts `amount`, before it is allocated or done. Raises: BudgetError."""
        self.spent += amount
        self._limit.check(self.spent)


TEXT = Limit(1 << 20, "bytes in a configuration")
LINES = Limit(1 << 28, "bytes in a list of labels or names")
JSON = Limit(1 << 28, "bytes of JSON")


def read_bytes(path: PathLike, limit: Limit) -> bytes:
    """All of a regular file.

    Raises:
        OSError: as `open_handle`, or the file is larger than the limit.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read() if size <= limit.most else b""
    try:
        limit.check(max(size, len(content)))
    except BudgetError:
        text = f"{max(size, len(content)):,} bytes, where at most {limit.most:,} are read"
        raise OSError(errno.EFBIG, text, os.fspath(path)) from None
    return content


def read_text(path: PathLike, limit: Limit, errors: str = "strict") -> str:
    """All of a regular file in UTF-8. Raises: OSError, as `read_bytes`; UnicodeDecodeError."""
    text = read_bytes(path, limit).decode("utf-8", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


# ---- formats -------------------------------------------------------------------------------------


def parse_json(text: str | bytes, nan: bool = False) -> Any:
    """A JSON value.

    Args:
        text: the JSON.
        nan: allow NaN and Infinity, which Python writes, and JSON has not.

    Raises:
        ValueError: no JSON; or a key twice in an object, numbers of over 20 digits or beyond
            float64, containers nested more than 32 deep.
    """
    hooks: dict[str, Any] = {"parse_int": _json_int, "object_pairs_hook": _json_object}
    if not nan:
        hooks |= {"parse_float": _json_float, "parse_constant": _json_float}
    try:
        value = json.loads(text, **hooks)
        too_deep = _deeper(value, _DEPTH)
    except RecursionError:
        too_deep = True
    if too_deep:
        raise ValueError(f"JSON nested more than {_DEPTH} deep")
    return value


def _deeper(value: Any, depth: int) -> bool:
    """Whether there are more than `depth` containers within one another."""
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper(one, depth - 1) for one in inner)


def _json_int(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a whole number of {len(digits):,} digits")
    return int(digits)


def _json_float(text: str) -> float:
    value = float(text)
    if not np.isfinite(value):
        raise ValueError(f"the number {text[:_DIGITS]}")
    return value


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key that comes twice in one object")
    return found


def map_npy(path: Path, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The array in a .npy file, mapped into memory to be read.

    Args:
        path: the file.
        dtype: that it must have.

    Raises:
        OSError: as `open_handle`. ValueError: damaged, or of another type.
    """
    with open_file(path) as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read_header = np.lib.format.read_array_header_2_0
            shape, fortran, found = read_header(file)
        except Exception as error:  # it evaluates the header, which raises nearly anything
            raise ValueError(f"a damaged .npy header ({type(error).__name__})") from None
        if found != dtype or fortran or any(size < 0 for size in shape):
            raise ValueError(f"an array of {found}")
        start, count = file.tell(), math.prod(shape)
        if start + count * found.itemsize != os.fstat(file.fileno()).st_size:
            raise ValueError(f"an array of shape {list(shape)} in a file of another size")
        return np.memmap(file, found, "r", start, shape) if count else np.empty(shape, found)
