"""Public functions and classes say what they take, what they return and what they raise."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import convnet
from convnet import backend
from convnet.config import load, schema
from convnet.evaluation import evaluate, predict
from convnet.layers import initializers
from convnet.optim import lr_schedule
from convnet.training import callbacks

# Whose public members are looked at: packages by `__all__`, modules by what they define.
PLACES = (
    convnet,
    convnet.data,
    convnet.layers,
    convnet.models,
    convnet.ops,
    callbacks,
    initializers,
    lr_schedule,
    load,
    schema,
)
ALSO = (
    backend.cuda_problem,
    backend.get,
    backend.get_all,
    backend.of,
    backend.set_threads,
    backend.use,
    evaluate.evaluate,
    evaluate.load,
    predict.predict,
    predict.Prediction,
)

_SECTION = re.compile(r"^ *(Args|Attributes|Returns|Raises|Yields):", re.MULTILINE)
# Sentences that are what is returned: "The mean loss of ...".
_RESULT = re.compile(r"(The|A|An|Whether|What|Where|Which|Why|How) ")


def _members(place: ModuleType) -> Iterator[tuple[str, Any]]:
    names = getattr(place, "__all__", None)
    for name, member in vars(place).items():
        own = getattr(member, "__module__", "") == place.__name__
        if (name in names if names is not None else own and not name.startswith("_")) and (
            inspect.isclass(member) or inspect.isfunction(member)
        ):
            yield f"{place.__name__}.{name}", member
            if inspect.isclass(member):
                yield from _methods(f"{place.__name__}.{name}", member)


def _methods(where: str, owner: type) -> Iterator[tuple[str, Any]]:
    """Public methods that say something of their own; others are as in the base class."""
    for name, member in vars(owner).items():
        if name in getattr(owner, "__dataclass_fields__", {}):
            continue  # the default of a field
        if isinstance(member, classmethod | staticmethod):
            member = member.__func__
        inherited = any(hasattr(base, name) for base in owner.__mro__[1:])
        if inspect.isfunction(member) and not name.startswith("_") and not inherited:
            yield f"{where}.{name}", member


MEMBERS = dict(item for place in PLACES for item in _members(place))
MEMBERS |= {f"{member.__module__}.{member.__qualname__}": member for member in ALSO}


def _sections(text: str) -> dict[str, str]:
    """The text of each section, and under "" what stands before them."""
    parts = _SECTION.split(text)
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


def _parameters(member: Any) -> list[str]:
    if inspect.isclass(member) and issubclass(member, BaseException):
        return []
    parameters = inspect.signature(member).parameters.values()
    return [one.name for one in parameters if one.name not in ("self", "cls", "_")]


def _raises(member: Any) -> bool:
    """Whether its own body raises something."""
    function = member.__init__ if inspect.isclass(member) else member
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    except (OSError, TypeError):
        return False
    raised = [node for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc]
    return any("NotImplementedError" not in ast.unparse(node) for node in raised)


def problems(member: Any) -> list[str]:
    """What the docstring of a public member lacks."""
    text = inspect.getdoc(member)
    if not text:
        return ["no docstring"]
    sections = _sections(text)
    said = sections.get("Args", "") + sections.get("Attributes", "")
    found = []
    if not re.match(r"\s*[Aa]s ", said):  # "Args: as in `conv_fprop`."
        missing = [name for name in _parameters(member) if not re.search(rf"\b{name}\b", said)]
        found += [f"Args: {', '.join(missing)}"] if missing else []
    returned = None if inspect.isclass(member) else member.__annotations__.get("return")
    told = {"Returns", "Yields"} & set(sections) or _RESULT.match(text)
    if returned not in (None, "None", "NoReturn") and not told:
        found.append("Returns")
    if _raises(member) and "Raises" not in sections:
        found.append("Raises")
    return found


@pytest.mark.parametrize("name", MEMBERS)
def test_public_docstrings(name: str) -> None:
    assert problems(MEMBERS[name]) == []
