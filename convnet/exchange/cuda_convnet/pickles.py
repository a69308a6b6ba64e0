"""cuda-convnet's pickles, of Python 2, read as data.

Beside the numbers stand objects of cuda-convnet's own classes, which are inert here: nothing is
imported, constructed or called. A file may be a zip file with the pickle as its entry "data".
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from convnet.common.pickle_machine import Machine, Operations, PickledObject, RefusedError, counted
from convnet.common.pickled_arrays import ARRAY_NAMES
from convnet.common.reading import BudgetError, Limit, read_bytes
from convnet.exchange.errors import ExchangeError

FILE = Limit(1 << 32, "bytes in a pickle of cuda-convnet")
_OPERATIONS = Limit(20_000_000, "operations in a pickle")  # it keeps the cost of each batch


class _Inert(PickledObject):
    """Stands for an object of any class, and holds nothing."""

    def __new__(cls, *_: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass


class _Machine(Machine):
    """Runs the pickle of cuda-convnet: what it names besides arrays is inert."""

    dispatch = Operations(
        Machine.dispatch
        | {
            code: counted(pickle._Unpickler.dispatch[code])
            for code in (pickle.NEWOBJ[0], pickle.OBJ[0], pickle.INST[0])
        }
    )

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file, ARRAY_NAMES, size, "", _OPERATIONS)

    def find_class(self, module: str, name: str) -> Any:
        """What stands for an array, or an inert object."""
        return self.known.get(f"{module}.{name}"[:200], _Inert)


def load(path: Path, what: str) -> Any:
    """What is in a file, with arrays as they are pickled.

    Args:
        path: the file; what: it should be, for messages: "a saved model".

    Raises: ExchangeError: damaged. OSError: it cannot be read.
    """
    content = read_bytes(path, FILE)
    try:
        if content[:4] == b"PK\x03\x04":
            content = _unzipped(content)
        return _Machine(io.BytesIO(content), len(content)).load()
    except (RefusedError, BudgetError) as error:
        raise ExchangeError(f"{path}: {error}") from None
    except Exception as error:  # the machine raises nearly anything on damaged pickles
        why = " ".join(str(error).split())[:100]
        got = f"one that cannot be read ({type(error).__name__}: {why})"
        raise ExchangeError(f"{path}: expected {what}, got {got}") from None


def _unzipped(content: bytes) -> bytes:
    """The entry "data" of a zip file; models shrink little, so that more is refused."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if archive.getinfo("data").file_size > 20 * len(content):
            raise RefusedError("expected a pickle of up to 20 times the zip file, got more")
        return archive.read("data")


def value_at(table: Any, key: str, what: str) -> Any:
    """The value of a key, which Python 2 wrote as bytes.

    Raises: RefusedError: there is none, or no table.
    """
    for name in (key, key.encode()):
        if isinstance(table, dict) and name in table:
            return table[name]
    raise RefusedError(f"expected {what} with {key}, got another pickle")
