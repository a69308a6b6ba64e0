"""Checks values that people typed (TOML, command line) against Python type hints.

Only the hints that configurations need are known: bool, int, float, str, None, Any, Literal,
unions, tuple, list, Sequence, dict and Mapping. A hint that is none of these accepts anything:
the code that receives the value then checks it.
"""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import itertools
import math
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Literal

# What suggestions look at, of files that may hold any number of names of any length.
_LONGEST, _MOST = 60, 500


class ConfigError(ValueError):
    """A configuration that cannot be used; one line naming the file and the key."""


class MismatchError(ValueError):
    """The value does not fit the hint; `expected` says in words what would."""

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.expected = expected


def shown(value: Any) -> str:
    """The value as an error message shows it: short, with strings in quotes."""
    if isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, dict):
        text = "a table"
    else:
        text = repr(value)
    return brief(text)


def brief(text: str) -> str:
    """The text, printable and cut to what fits a message."""
    text = text if len(text) <= 60 else text[:57] + "..."
    return text if text.isprintable() else ascii(text)[1:-1]


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean "momentum"?` or, with nothing similar, the list of what is known."""
    wrong = wrong[:_LONGEST]  # comparing takes time with the product of the lengths
    names = sorted(name[:_LONGEST] for name in itertools.islice(known, _MOST))
    near = difflib.get_close_matches(wrong, names, n=1)
    if not near:
        lower = {name.lower(): name for name in names}
        near = [lower[name] for name in difflib.get_close_matches(wrong.lower(), lower, n=1)]
    if near:
        return f'; did you mean "{near[0]}"?'
    return f" (known: {', '.join(names)})" if names else " (nothing can be set here)"


def describe(hint: Any) -> str:
    """A hint in words: `int | tuple[int, int]` is "an integer or a list of 2 integers"."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(shown(arg) for arg in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args if _is_known(arg))
    if _is_sequence(origin or hint):
        items = [arg for arg in args if arg is not Ellipsis]
        count = f"{len(items)} " if origin is tuple and Ellipsis not in args and items else ""
        kind = {int: "integers", float: "numbers", str: "strings"}
        return f"a list of {count}{kind.get(items[0] if items else Any, 'values')}"
    if (origin or hint) in (dict, collections.abc.Mapping):
        return "a table"
    simple = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
    return simple.get(hint, str(getattr(hint, "__name__", hint)))


def _is_known(hint: Any) -> bool:
    """Whether a person can type a value for this hint (not for a function, for example)."""
    kind = typing.get_origin(hint) or hint
    plain = (bool, int, float, str, dict, collections.abc.Mapping, Literal)
    return kind in plain or kind in (typing.Union, types.UnionType) or _is_sequence(kind)


def _is_sequence(kind: Any) -> bool:
    return kind in (tuple, list, collections.abc.Sequence)


def convert(value: Any, hint: Any) -> Any:
    """Returns the value as the hint wants it (an int becomes a float, a list a tuple).

    Args:
        value: what TOML or a caller gave.
        hint: a resolved type hint.

    Raises:
        MismatchError: the value does not fit.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if any(value == arg and type(value) is type(arg) for arg in args):
            return value
        raise MismatchError(describe(hint))
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, hint, args)
    if _is_sequence(origin or hint):
        return _convert_sequence(value, hint, args)
    if (origin or hint) in (dict, collections.abc.Mapping):
        if not isinstance(value, collections.abc.Mapping):
            raise MismatchError(describe(hint))
        return dict(value)
    if hint in (bool, int, str) and type(value) is not hint:
        raise MismatchError(describe(hint))
    if hint is float:
        if type(value) not in (int, float):
            raise MismatchError(describe(hint))
        try:
            number = float(value)
        except OverflowError:  # a whole number of more than 308 digits
            number = math.inf
        if not math.isfinite(number):
            raise MismatchError("a finite number")
        return number
    return value


def _convert_union(value: Any, hint: Any, members: tuple[Any, ...]) -> Any:
    if value is None and type(None) in members:
        return None
    known = [member for member in members if _is_known(member)]
    exact = [member for member in known if type(value) is member]  # 1 stays an int in int | float
    for member in exact + (known or list(members)):
        try:
            return convert(value, member)
        except MismatchError:
            continue
    raise MismatchError(describe(hint))


def _convert_sequence(value: Any, hint: Any, args: tuple[Any, ...]) -> Any:
    if not isinstance(value, (list, tuple)):
        raise MismatchError(describe(hint))
    fixed = typing.get_origin(hint) is tuple and Ellipsis not in args and args
    if fixed and len(value) != len(args):
        raise MismatchError(describe(hint))
    items: Iterable[Any] = args if fixed else (args[0] if args else Any for _ in value)
    try:
        return tuple(convert(item, item_hint) for item, item_hint in zip(value, items, strict=True))
    except MismatchError:
        raise MismatchError(describe(hint)) from None


def keywords(function: Callable[..., Any]) -> dict[str, tuple[Any, bool]]:
    """The keyword parameters of a function or constructor: name -> type hint (Any if unknown) and
    whether it must be given."""
    target = function.__init__ if inspect.isclass(function) else function
    try:
        hints = typing.get_type_hints(target)
    except (NameError, TypeError):
        hints = {}
    usable = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: (hints.get(name, Any), parameter.default is parameter.empty)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in usable and name != "self"
    }
