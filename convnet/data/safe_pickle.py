"""Reading the pickles of CIFAR-10 and CIFAR-100, and nothing else that a pickle can hold.

`convnet.common.pickle_machine` reads them, knowing the names of NumPy's arrays and no others. What
keeps it small besides: arrays are made after type, shape and length were found to agree, and their
bytes together are counted. What was loaded may be nested, and is then refused.
"""

from __future__ import annotations

import io
from typing import Any

from convnet.common.pickle_machine import Machine, PickledObject, RefusedError, Table, text_of
from convnet.common.pickled_arrays import ARRAY_NAMES, INTEGER_CODES, PickledArray
from convnet.common.reading import Budget, BudgetError, Limit
from convnet.data.dataset import DataError, mismatch, shown

_PLAIN = (int, float, str, bytes, type(None))  # bool is an int


def load_pickle(name: str, content: bytes) -> dict[str, Any]:
    """The dictionary in a pickle, its keys as str and its arrays as NumPy arrays.

    Args:
        name: what to call the file in a message.
        content: the pickle, of any protocol and any Python and NumPy; text of Python 2 as bytes.

    Raises:
        DataError: damaged, not a dictionary, or anything in it that CIFAR's files do not hold.
    """
    try:
        expected = "containers and arrays of whole numbers"
        loaded = Machine(io.BytesIO(content), ARRAY_NAMES, len(content), expected).load()
        if not isinstance(loaded, Table):
            raise RefusedError(f"expected a dictionary, got {_kind(loaded)}")
        room = Budget(Limit(len(content), "bytes in arrays, as many as the file has"))
        return {_key(key): _value(value, room) for key, value in loaded.items()}
    except (RefusedError, BudgetError) as error:
        raise DataError(f"{name}: {error}") from None
    except EOFError:
        raise mismatch(name, "a sound pickle file", "one that ends early") from None
    except Exception as error:  # the machine raises nearly anything on damaged pickles
        got = f"one that cannot be read ({type(error).__name__}: {shown(str(error))[:100]})"
        raise mismatch(name, "a sound pickle file", got) from None


def _key(key: Any) -> str:
    if not isinstance(key, str | bytes):
        raise RefusedError(f"expected keys of text, got a {_kind(key)}")
    return text_of(key)


def _value(value: Any, room: Budget) -> Any:
    """A value of the dictionary, once it is known to be one that CIFAR's files hold."""
    if isinstance(value, PickledArray):
        return value.to_numpy(room, INTEGER_CODES, "whole numbers")
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, _PLAIN):
            raise RefusedError(
                f"expected text, numbers, arrays, and lists of numbers, got a {_kind(one)}"
            )
    return value


def _kind(value: Any) -> str:
    return "NumPy object" if isinstance(value, PickledObject) else type(value).__name__
