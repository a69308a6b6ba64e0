"""Files that are written as a whole or not at all, and locks of files and folders."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convnet.common.reading import open_handle

try:
    import fcntl
except ImportError:  # not a POSIX system: folders are then not locked
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp"  # ends the names of files that are not complete


def replace(path: Path, content: bytes | memoryview | Callable[[Any], object]) -> None:
    """Writes a file atomically: whenever the process ends, it is the old one or the new one.

    Args:
        path: the file.
        content: of the file, or a function that writes it into the binary file it is given.

    Raises:
        OSError: naming `path`; what was there before still is.
    """
    temporary = path.with_name(f"{path.name}{TEMPORARY}")
    try:
        temporary.unlink(missing_ok=True)  # whatever it is: opening a named pipe would hang
        with temporary.open("xb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder survive a power failure, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # a system on which folders cannot be opened
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock(folder: Path) -> int:
    """A handle of the folder that holds its lock; closing it, or dying, frees the lock.

    Raises:
        BlockingIOError: another process holds it.
    """
    return _locked(os.open(folder, os.O_RDONLY))


def lock_file(path: Path) -> int:
    """As `lock`, of a file, which is made where it is not there."""
    return _locked(open_handle(path, os.O_RDWR | os.O_CREAT))


def _locked(handle: int) -> int:
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise
        except OSError:
            pass  # a file system without locks
    return handle


def is_open(handle: int, path: str | os.PathLike[str]) -> bool:
    """Whether an open file or folder is what is there now under this name."""
    try:
        return os.path.samestat(os.fstat(handle), Path(path).stat())
    except OSError:
        return False
