"""Reads tables into dataclasses. Whatever is wrong is a `ConfigError` that names file and key."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from convnet.common.checks import LIMITS, outside
from convnet.common.typecheck import (
    ConfigError,
    MismatchError,
    brief,
    convert,
    did_you_mean,
    keywords,
    shown,
)

Table = Mapping[str, Any]


def setting(
    default: Any,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
) -> Any:
    """A field with limits: low and high are allowed values themselves, above and below are not."""
    limits = {"low": low, "above": above, "high": high, "below": below}
    return dataclasses.field(default=default, metadata=limits)


@dataclass(frozen=True)
class Place:
    """A place in a configuration.

    Attributes:
        origin: what was read, such as the name of the file.
        key: the dotted key; empty for the whole.
    """

    origin: str
    key: str = ""

    def at(self, name: str) -> Place:
        """The place of a key in the table that is here."""
        return Place(self.origin, f"{self.key}.{brief(name)}" if self.key else brief(name))

    def error(self, text: str) -> ConfigError:
        """What is wrong here."""
        return ConfigError(f"{self.origin}: {self.key}: {text}")

    def convert(self, value: Any, hint: Any) -> Any:
        """The value as the type hint wants it. Raises: ConfigError."""
        try:
            return convert(value, hint)
        except MismatchError as error:
            raise self.error(f"expected {error.expected}, got {shown(value)}") from None

    def table(self, value: Any) -> Table:
        """The value, which must be a table. Raises: ConfigError."""
        if not isinstance(value, Mapping):
            raise self.error(f"expected a table, got {shown(value)}")
        return value

    def tables(self, value: Any) -> list[tuple[Place, Table]]:
        """The tables of a list and their places. Raises: ConfigError."""
        if not isinstance(value, list):
            raise self.error(f"expected [[{self.key}]] tables")
        places = [Place(self.origin, f"{self.key}[{number}]") for number in range(len(value))]
        return [(place, place.table(item)) for place, item in zip(places, value, strict=True)]

    def known(self, table: Table, names: Iterable[str]) -> None:
        """Checks that a table has no other keys. Raises: ConfigError."""
        names = set(names)
        for key in table:
            if key not in names:
                raise self.at(key).error(f"unknown key{did_you_mean(key, names)}")

    def name(self, value: Any, what: str, known: Iterable[str]) -> str:
        """The value, which must name one of the known things. Raises: ConfigError."""
        name: str = self.convert(value, str)
        if name not in (known := list(known)):
            raise self.error(f'unknown {what} "{brief(name)}"{did_you_mean(name, known)}')
        return name

    def value(self, value: Any, hint: Any, limits: Mapping[str, Any]) -> Any:
        """A field's value as its hint wants it, and within its limits. Raises: ConfigError."""
        value = self.convert(value, hint)
        if isinstance(value, Mapping):
            hints = (hint, *typing.get_args(hint))  # of a table, or of one thing that it may be
            table = next(kind for kind in hints if typing.get_origin(kind) is Mapping)
            if (inner := typing.get_args(table)[1]) is Any:
                return value
            return {name: self.at(name).value(item, inner, limits) for name, item in value.items()}
        numbers = [] if isinstance(value, str) else value if isinstance(value, tuple) else [value]
        for number in numbers:
            if wanted := outside(number, {name: limits.get(name) for name in LIMITS}):
                raise self.error(f"expected a value {wanted}, got {shown(value)}")
        return value

    def arguments(
        self, table: Table, function: Callable[..., Any], reserved: Set[str] = frozenset()
    ) -> dict[str, Any]:
        """Keyword arguments for a function, but for reserved ones. Raises: ConfigError."""
        known = {name: item for name, item in keywords(function).items() if name not in reserved}
        self.known(table, known)
        for name, (_, required) in known.items():
            if required and name not in table:
                raise self.at(name).error("missing")
        return {name: self.at(name).convert(value, known[name][0]) for name, value in table.items()}


Reader = Callable[[Table, Place], Any]


def section(
    kind: type, table: Table, place: Place, readers: Mapping[type, Reader] | None = None
) -> Any:
    """A dataclass whose fields are the keys of a table.

    Args:
        kind: the dataclass. A field that is a dataclass is read from a table, a tuple of them from
            a list of tables; fields that are not compared are no keys.
        table: what was read.
        place: where it stands.
        readers: how dataclasses are read that are not read by their fields.

    Raises: ConfigError for an unknown key, a value of another type, or one beyond its limits.
    """
    hints = typing.get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind) if item.compare}
    place.known(table, fields)
    found = {}
    for name, value in table.items():
        here, hint = place.at(name), hints[name]
        inner: Any = next(filter(dataclasses.is_dataclass, (hint, *typing.get_args(hint))), None)
        if inner is None:
            found[name] = here.value(value, hint, fields[name].metadata)
            continue
        read = (readers or {}).get(inner) or _by_fields(inner, readers)
        if typing.get_origin(hint) is tuple:
            found[name] = tuple(read(item, there) for there, item in here.tables(value))
        else:
            found[name] = read(here.table(value), here)
    return kind(**found)


def _by_fields(kind: type, readers: Mapping[type, Reader] | None) -> Reader:
    return lambda table, place: section(kind, table, place, readers)
