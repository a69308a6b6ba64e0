"""Old names that keep working, with a warning that says the new one."""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


class RenamedWarning(DeprecationWarning):
    """Something is written otherwise now; how it was still works."""


def note(old: str, new: str, stacklevel: int = 3) -> None:
    """Says by a warning that `old` is written `new` now."""
    warnings.warn(f"{old} is called {new} now", RenamedWarning, stacklevel)


@contextlib.contextmanager
def notes_shown() -> Iterator[None]:
    """Within the block, notes are lines on stderr, as a command's user has no use for more."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", RenamedWarning)
        others = warnings.showwarning

        def show(message: Any, category: Any, *place: Any, **options: Any) -> None:
            if issubclass(category, RenamedWarning):
                print(f"convnet: note: {message}", file=sys.stderr)
            else:
                others(message, category, *place, **options)

        warnings.showwarning = show
        yield


def renamed_members(
    module: str, names: Mapping[str, str], others: Callable[[str], Any] | None = None
) -> Callable[[str], Any]:
    """The `__getattr__` of a module, which finds its members also by their old names.

    Args:
        module: its `__name__`.
        names: old name -> new name.
        others: finds what has no old name, such as `lazy_members`.
    """

    def get(name: str) -> Any:
        if name not in names:
            if others is not None:
                return others(name)
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        note(f"{module}.{name}", names[name])
        return getattr(sys.modules[module], names[name])

    return get


def renamed_attribute(old: str, new: str) -> property:
    """An attribute of objects under its old name, to be read and set."""

    def get(owner: Any) -> Any:
        note(f"{type(owner).__name__}.{old}", new)
        return getattr(owner, new)

    def set_to(owner: Any, value: Any) -> None:
        note(f"{type(owner).__name__}.{old}", new)
        setattr(owner, new, value)

    return property(get, set_to)


def renamed_keyword(old: str, new: str) -> Callable[[Function], Function]:
    """A decorator: lets a function take a keyword argument also by its old name."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if old in kwargs:
                note(f"{function.__qualname__.removesuffix('.__init__')}: {old}", new)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate
