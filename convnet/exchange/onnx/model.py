"""An ONNX model as it is built: nodes, constants, inputs and outputs, and the bytes of the file.

Source: onnx/onnx.proto of https://github.com/onnx/onnx, which has these numbers of fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convnet.exchange.wire import Message

OPSET, IR_VERSION = 13, 7
_TYPES = {"float32": 1, "int64": 7}
_FLOAT, _INT, _TEXT, _INTS = 1, 2, 3, 7  # AttributeProto.type


class Model:
    """A graph of operators of ONNX's.

    Args:
        name: of the graph.
    """

    def __init__(self, name: str) -> None:
        self._graph = Message().text(2, name)
        self._constants: dict[str, str] = {}
        self._names: set[str] = set()

    def name(self, wish: str) -> str:
        """A name that no value has yet."""
        found, number = wish, 1
        while found in self._names:
            number += 1
            found = f"{wish}_{number}"
        self._names.add(found)
        return found

    def node(self, kind: str, inputs: Sequence[str], wish: str, **attributes: Any) -> str:
        """Adds a node of one output.

        Args:
            kind: the operator; inputs: names of values; wish: a name for the output.
            attributes: whole numbers, lists of them, floats, texts.

        Returns: the name of the output.
        """
        output = self.name(wish)
        message = Message().text(1, *inputs).text(2, output).text(3, output).text(4, kind)
        for key, value in attributes.items():
            message.message(5, _attribute(key, value))
        self._graph.message(1, message)
        return output

    def constant(self, values: Any, wish: str, dtype: str = "float32") -> str:
        """Adds a constant; one that was added under this name before is taken again.

        Returns: its name.
        """
        if wish not in self._constants:
            array = np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<"))
            self._constants[wish] = name = self.name(wish)
            tensor = Message().integer(1, *array.shape).integer(2, _TYPES[dtype]).text(8, name)
            raw = array.reshape(-1).view(np.uint8).data if array.size else b""
            self._graph.message(5, tensor.data(9, raw))
        return self._constants[wish]

    def input(self, name: str, shape: Sequence[int]) -> str:
        """Adds an input, float32 [N, *shape]."""
        self._graph.message(11, _value(self.name(name), shape))
        return name

    def output(self, name: str, shape: Sequence[int]) -> None:
        """Makes a value an output, float32 [N, *shape]."""
        self._graph.message(12, _value(name, shape))

    def finished(self, producer: str, version: str, metadata: Mapping[str, str]) -> Message:
        """The whole model.

        Args:
            producer, version: of the program that wrote it.
            metadata: texts by name.
        """
        model = Message().integer(1, IR_VERSION).text(2, producer).text(3, version)
        model.message(7, self._graph).message(8, Message().text(1, "").integer(2, OPSET))
        entries = (Message().text(1, key).text(2, text) for key, text in metadata.items())
        return model.message(14, *entries)


def _attribute(name: str, value: Any) -> Message:
    message = Message().text(1, name)
    if isinstance(value, float):
        return message.real(2, value).integer(20, _FLOAT)
    if isinstance(value, str):
        return message.text(4, value).integer(20, _TEXT)
    if isinstance(value, int):
        return message.integer(3, value).integer(20, _INT)
    return message.integer(8, *value).integer(20, _INTS)


def _value(name: str, shape: Sequence[int]) -> Message:
    """ValueInfoProto of a float32 tensor, its batch of any size."""
    sides = [Message().text(2, "N"), *(Message().integer(1, side) for side in shape)]
    tensor = Message().integer(1, _TYPES["float32"]).message(2, Message().message(1, *sides))
    return Message().text(1, name).message(2, Message().message(1, tensor))
