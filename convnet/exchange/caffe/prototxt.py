"""Protocol buffers as text, as Caffe's .prototxt files are.

name: "net"   layer { type: "ReLU" bottom: "a" }   dim: [1, 3]   # a comment
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convnet.common.reading import Limit, read_text
from convnet.common.typecheck import brief
from convnet.exchange.errors import ExchangeError

TEXT = Limit(1 << 20, "bytes in a definition")
_DEPTH = 16
_TOKEN = re.compile(
    r"""\s+ | \#[^\n]*
    | (?P<string>"(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*')
    | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?f?(?![\w.]))
    | (?P<word>-?[A-Za-z_][\w.]*)
    | (?P<mark>[{}:\[\],;])""",
    re.VERBOSE,
)


@dataclass
class Block:
    """What stands between braces: values by name, in order; a name may come several times.

    Attributes:
        origin: file and line, for messages.
        items: numbers, texts (words in capitals too) and blocks.
    """

    origin: str
    items: dict[str, list[Any]] = field(default_factory=dict)

    def all(self, name: str, kind: type = str) -> list[Any]:
        """All values of a name. Raises: ExchangeError: of another kind."""
        found = self.items.get(name, [])
        for value in found:
            if not isinstance(value, kind) and not (kind is float and type(value) is int):
                raise self.error(name, f"expected {_KINDS[kind]}, got {brief(str(value))}")
        return found

    def one(self, name: str, default: Any) -> Any:
        """The last value of a name, of the type of the default."""
        return (self.all(name, type(default)) or [default])[-1]

    def block(self, name: str) -> Block:
        """The block of a name; an empty one where there is none."""
        blocks: list[Block] = self.all(name, Block)
        return blocks[-1] if blocks else Block(self.origin)

    def error(self, name: str, text: str) -> ExchangeError:
        """What is wrong with a name here."""
        return ExchangeError(f"{self.origin}: {name}: {text}")


_KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    Block: "{ ... }",
    bool: "true or false",
}


def read_prototxt(path: Path) -> Block:
    """A file of protocol buffers in text.

    Raises: ExchangeError: naming the line. OSError: it cannot be read.
    """
    try:
        text = read_text(path, TEXT)
    except UnicodeDecodeError:
        raise ExchangeError(f"{path}: expected a definition in text, got none in UTF-8") from None
    return _Parser(str(path), text).block(1, top=True)


class _Parser:
    def __init__(self, name: str, text: str) -> None:
        self.name, self.text, self.at, self.line = name, text, 0, 1

    def _next(self) -> tuple[str, str]:
        """The kind and the text of the next token; ("", "") at the end."""
        while self.at < len(self.text):
            match = _TOKEN.match(self.text, self.at)
            if match is None:
                raise self._error(f"got {self.text[self.at : self.at + 20]!a}")
            self.line += match[0].count("\n")
            self.at = match.end()
            if match.lastgroup:
                return match.lastgroup, match[0]
        return "", ""

    def _error(self, got: str) -> ExchangeError:
        return ExchangeError(
            f"{self.name}, line {self.line}: expected name: value or name {{ ... }}, {got}"
        )

    def block(self, depth: int, top: bool = False) -> Block:
        """Everything up to the closing brace, or to the end of the file."""
        if depth > _DEPTH:
            raise self._error(f"got braces more than {_DEPTH} deep")
        found = Block(f"{self.name}, line {self.line}")
        while True:
            kind, name = self._next()
            if name in (",", ";"):
                continue
            if (kind == "" and top) or (name == "}" and not top):
                return found
            if kind != "word":
                raise self._error(f"got {name or 'the end of the file'!a}")
            found.items.setdefault(name, []).extend(self._values(depth))

    def _values(self, depth: int) -> list[Any]:
        """What follows a name: a value, a list of them, or a block."""
        kind, text = self._next()
        if text == ":":
            kind, text = self._next()
        if text != "[":
            return [self._value(kind, text, depth)]
        found = []
        while text != "]":
            kind, text = self._next()
            if text not in (",", "]"):
                found.append(self._value(kind, text, depth))
        return found

    def _value(self, kind: str, text: str, depth: int) -> Any:
        if text == "{":
            return self.block(depth + 1)
        if kind == "string":
            try:
                return str(ast.literal_eval(text))
            except (SyntaxError, ValueError):
                raise self._error(f"got the text {text[:40]!a}") from None
        if kind == "word":
            return {"true": True, "false": False}.get(text, text)
        if kind != "number" or len(text) > 40:
            raise self._error(f"got {text[:40] or 'the end of the file'!a}")
        text = text.rstrip("f")
        return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
