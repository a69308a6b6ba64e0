"""The pickles in PyTorch's files: tensors as places in storages, which are read when asked for.

Nothing is imported or called: the names that state dicts need stand for the classes here. Sizes and
strides are checked against the storage before a tensor is made, so that none can claim more than
the file holds.
Source: PyTorch, torch/serialization.py and torch/_utils.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from convnet.common.pickle_machine import Machine, PickledObject, RefusedError, Table, text_of

_EXPECTED = "what a state dict holds (save model.state_dict(), not the model)"
_MOST = 1 << 40  # a size, a stride or a number of elements
_RANK = 8
# torch's classes of storages -> NumPy's types; bfloat16 is read as its bits
_STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
}


@dataclass(frozen=True)
class StorageType:
    """Stands for torch.FloatStorage and the like.

    Attributes:
        name: "FloatStorage".
    """

    name: str

    @property
    def bfloat16(self) -> bool:
        """Whether elements are the upper halves of float32."""
        return self.name == "BFloat16Storage"

    @property
    def type_name(self) -> str:
        """Of the elements, as NumPy says it: "float32", "bfloat16"."""
        return "bfloat16" if self.bfloat16 else self.dtype("<").name

    def dtype(self, order: str) -> np.dtype[Any]:
        """Of the elements; order: "<" or ">"."""
        return np.dtype(order + _STORAGES[self.name])


@dataclass(frozen=True)
class Storage:
    """A row of numbers in the file.

    Attributes:
        kind: of its numbers; key: its name; count: of numbers.
        start: at which number of the storage called `key` it begins (views, before 0.4).
    """

    kind: StorageType
    key: str
    count: int
    start: int = 0


@dataclass(frozen=True)
class Tensor:
    """A tensor as a place in a storage, within it.

    Attributes:
        storage: of its numbers; offset: of the first; shape, stride: in numbers.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _OrderedDict(Table, PickledObject):
    """Stands for collections.OrderedDict; its attributes (`_metadata`) are left out."""

    def __init__(self, items: Any = ()) -> None:
        super().__init__()
        for key, value in items:
            self[key] = value


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
    """A tensor, once it is known to lie within its storage."""
    if not isinstance(storage, Storage):
        raise RefusedError("expected a tensor in a storage, got something else")
    sizes = (shape, stride)
    if not all(isinstance(each, tuple) and len(each) <= _RANK for each in sizes):
        raise RefusedError(f"expected a shape and strides of at most {_RANK} numbers")
    numbers = (offset, *shape, *stride)
    if len(shape) != len(stride) or not all(type(n) is int and 0 <= n < _MOST for n in numbers):
        raise RefusedError("expected a shape and strides of one length, 0 or more; got others")
    count = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if count and (last >= storage.count or count > storage.count):
        raise RefusedError(
            f"expected a tensor within its storage of {storage.count} numbers, got shape "
            f"{list(shape)} from {offset} on"
        )
    return Tensor(storage, offset, shape, stride)


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _names() -> dict[str, Callable[..., Any]]:
    known: dict[str, Callable[..., Any]] = {
        "collections.OrderedDict": _OrderedDict,
        "torch._utils._rebuild_tensor": _rebuild_tensor,
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
        "torch._utils._rebuild_parameter": _rebuild_parameter,
    }
    for name in _STORAGES:
        known[f"torch.{name}"] = StorageType(name)  # type: ignore[assignment]
    return known


_NAMES = _names()


class TorchMachine(Machine):
    """Runs one pickle of PyTorch's.

    Args:
        file, size: as for `Machine`.

    Attributes:
        kinds: the kind of each storage that the pickle refers to, by its key.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file, _NAMES, size, _EXPECTED)
        self.kinds: dict[str, StorageType] = {}

    def persistent_load(self, pid: Any) -> Storage:
        """A storage: ("storage", its class, its key, a device, how many numbers), and before 0.4
        (key, start, count) of the part of it that is meant."""
        if not isinstance(pid, tuple) or not 5 <= len(pid) <= 6:
            raise RefusedError("expected a reference to a storage, got another")
        _, kind, key, _, count, *view = pid
        if not isinstance(kind, StorageType) or not isinstance(key, str | bytes):
            raise RefusedError("expected a storage of numbers, got another")
        if type(count) is not int or not 0 <= count < _MOST:
            raise RefusedError("expected the size of a storage, got something else")
        start = 0
        if view and view[0] is not None:
            match view[0]:
                case (_, int(start), int(part)) if 0 <= start <= start + part <= count:
                    count = part
                case _:
                    raise RefusedError("expected a part of a storage within it, got another")
        if self.kinds.setdefault(text_of(key), kind) != kind:
            raise RefusedError(f"expected one type of storage {text_of(key)[:40]!a}, got two")
        return Storage(kind, text_of(key), count, start)
