"""The operations of the contract as data: what each reads, writes and is told.

The table is that of the compiled module (bindings/operations/), in the order of its arguments. A
step that is traced (`convnet.nn.trace`) is a list of these.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from convnet import backend as _backend


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        name: of the function in the compiled module.
        arguments: in the order of that function.
        reads, writes, updates: the arrays among them: what is only read, what is only written
            (all of it, but for the columns of `peer_copy`), what is read and written.
        in_place: (read, written) pairs that may be the same memory.
        effects: it does something besides writing its arrays, so that it is never left out.
    """

    name: str
    arguments: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    updates: tuple[str, ...]
    in_place: tuple[tuple[str, str], ...] = ()
    effects: bool = False

    @functools.cached_property
    def scratch(self) -> bool:
        """Whether it takes a workspace."""
        return "workspace" in self.arguments

    @functools.cached_property
    def arrays(self) -> tuple[str, ...]:
        """The names of all array arguments but the workspace."""
        return (*self.reads, *self.writes, *self.updates)

    @functools.cached_property
    def arrays_among(self) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
        """Picks the arrays from the arguments in their order."""
        return operator.itemgetter(*map(self.arguments.index, self.arrays))

    @functools.cached_property
    def results(self) -> tuple[int, ...]:
        """The numbers of the arguments that are written."""
        return tuple(self.arguments.index(name) for name in self.writes)


@functools.cache
def operations() -> dict[str, Op]:
    """All operations by name."""
    found = {}
    for name, parameters, returns in _backend.get("cpu").module.schema():
        if returns:
            continue  # a function that answers a question
        reads, writes, updates = (
            tuple(p[0] for p in parameters if p[1] == role) for role in ("in", "out", "update")
        )
        in_place = tuple((p[5], p[0]) for p in parameters if p[5])
        arguments = (*(p[0] for p in parameters), "stream")
        found[name] = Op(name, arguments, reads, writes, updates, in_place)
    return found
