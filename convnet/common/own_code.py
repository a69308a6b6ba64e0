"""Code of one's own that a configuration or a saved net names: "module:name".

It is looked for in a file beside the configuration, then among installed modules, and is run only
where that was allowed: a configuration and a run are data that somebody may have sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from convnet.common.typecheck import brief

_allowed: ContextVar[bool] = ContextVar("own code allowed", default=False)


class OwnCodeError(ValueError):
    """Code that is not allowed, or is not there; one line."""


@contextlib.contextmanager
def allowed(code: bool = True) -> Iterator[None]:
    """Within the block, or in the rest of the process's main thread where it is not left, code that
    configurations and nets name may run.

    Args:
        code: false changes nothing.
    """
    token = _allowed.set(_allowed.get() or code)
    try:
        yield
    finally:
        _allowed.reset(token)


def is_own(name: str) -> bool:
    """Whether a name is one of code: "module:name"."""
    return ":" in name


def find(name: str, folder: Path | None = None) -> Any:
    """What a name stands for.

    Args:
        name: "package.module:function" or "package.module:Class".
        folder: where a file of the module's name is looked for first.

    Raises: OwnCodeError: code is not allowed, or there is none of this name.
    """
    module, _, member = name.partition(":")
    parts = [*module.split("."), *member.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise OwnCodeError(f'expected "package.module:name", got "{brief(name)}"')
    if not _allowed.get():
        raise OwnCodeError(
            f'"{brief(name)}" is code, which runs only where that is allowed: --code, or code=True '
            "in Python; look at it first"
        )
    found: Any = _module(module, folder)
    for part in member.split("."):
        if not hasattr(found, part):
            raise OwnCodeError(f'there is no {brief(member)} in the module "{brief(module)}"')
        found = getattr(found, part)
    return found


def _module(name: str, folder: Path | None) -> ModuleType:
    file = folder and (folder / Path(*name.split("."))).with_suffix(".py")
    try:
        if file and file.is_file():
            return _from_file(file)
        return importlib.import_module(name)
    except OwnCodeError:
        raise
    except Exception as error:  # whatever the code raises
        where = f" (no {file})" if file and not file.is_file() else ""
        raise OwnCodeError(
            f'the module "{brief(name)}" cannot be imported{where}: {type(error).__name__}: {error}'
        ) from error


def _from_file(file: Path) -> ModuleType:
    """The module in a file, under a name of its own: two runs may have files of one name."""
    digest = hashlib.sha256(bytes(file.resolve()) + file.read_bytes()).hexdigest()[:12]
    name = f"convnet_own_{digest}_{file.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def is_lasting(name: str) -> bool:
    """Whether another process finds what a name stands for: not what a script or a notebook has
    defined, or a function."""
    return not name.startswith("__main__:") and "<locals>" not in name


def shown_name(thing: Any) -> str:
    """The name of a class or function, as `find` takes it."""
    module: str = thing.__module__
    if module.startswith("convnet_own_"):
        module = module.split("_", 3)[3]
    return f"{module}:{thing.__qualname__}"
