"""Checks values that people typed (TOML, command line) against Python type hints.

Only the hints that configurations need are known: bool, int, float, str, None, Any, Literal,
unions, tuple, list, Sequence, dict and Mapping. A hint that is none of these accepts anything:
the code that receives the value then checks it.
"""

from __future__ import annotations

import collections.abc
import contextlib
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
# Kinds of hints.
_TABLES = (dict, collections.abc.Mapping)
_UNIONS = (typing.Union, types.UnionType)
_SEQUENCES = (tuple, list, collections.abc.Sequence)


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
    kind, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is Literal:
        return "one of " + ", ".join(shown(arg) for arg in args)
    if kind in _UNIONS:
        return " or ".join(describe(arg) for arg in args if _is_known(arg))
    if kind in _SEQUENCES:
        items = [arg for arg in args if arg is not Ellipsis]
        count = f"{len(items)} " if kind is tuple and Ellipsis not in args and items else ""
        many = {int: "integers", float: "numbers", str: "strings"}
        return f"a list of {count}{many.get(items[0] if items else Any, 'values')}"
    if kind in _TABLES:
        return "a table"
    simple = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
    return simple.get(hint, str(getattr(hint, "__name__", hint)))


def _is_known(hint: Any) -> bool:
    """Whether a person can type a value for this hint (not for a function, for example)."""
    kind = typing.get_origin(hint) or hint
    return kind in (bool, int, float, str, Literal, *_TABLES, *_UNIONS, *_SEQUENCES)


def convert(value: Any, hint: Any) -> Any:
    """Returns the value as the hint wants it (an int becomes a float, a list a tuple).

    Args:
        value: what TOML or a caller gave.
        hint: a resolved type hint.

    Raises:
        MismatchError: the value does not fit.
    """
    kind, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    wrong = MismatchError(describe(hint))
    if kind is Literal:
        if not any(value == arg and type(value) is type(arg) for arg in args):
            raise wrong
    elif kind in _UNIONS:
        known = [member for member in args if _is_known(member)]
        exact = [member for member in known if type(value) is member]  # 1 stays 1 in int | float
        for member in exact + (known or list(args)) if value is not None else []:
            with contextlib.suppress(MismatchError):
                return convert(value, member)
        if value is not None or type(None) not in args:
            raise wrong
    elif kind in _SEQUENCES:
        fixed = kind is tuple and Ellipsis not in args and args
        if not isinstance(value, (list, tuple)) or (fixed and len(value) != len(args)):
            raise wrong
        hints = args if fixed else (args[0] if args else Any for _ in value)
        try:
            return tuple(convert(item, each) for item, each in zip(value, hints, strict=True))
        except MismatchError:
            raise wrong from None
    elif kind in _TABLES:
        if not isinstance(value, collections.abc.Mapping):
            raise wrong
        return dict(value)
    elif kind is float:
        if type(value) not in (int, float):
            raise wrong
        try:
            value = float(value)
        except OverflowError:  # a whole number of more than 308 digits
            value = math.inf
        if not math.isfinite(value):
            raise MismatchError("a finite number")
    elif kind in (bool, int, str) and type(value) is not kind:
        raise wrong
    return value


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
