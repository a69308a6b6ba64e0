"""Where the tensors of a program lie: one block of memory, shared by what is not alive together.

A tensor is alive from the call that first writes it to the last one that reads it. What an
operation may write over what it reads (a ReLU, a dropout) takes the same place where nobody needs
the old values any more. The rest is placed largest first, each at the lowest address that is free
while it is alive; what then ends highest is placed first in further tries, of which the best is
taken. Source: the greedy by size of Pisarchyk and Lee, "Efficient memory management for deep
neural net inference", 2020, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convnet.nn.program import Program
from convnet.nn.trace import Call, Tensor

TRIES = 50
ENOUGH = 1.01  # times what is alive at once, at which a placement is not improved
ALIGNMENT = {"cpu": 64, "vgpu": 64, "cuda": 256}  # bytes: a cache line, a transaction


@dataclass(frozen=True)
class Placement:
    """Where the temporaries of a program lie on one device.

    Attributes:
        offset: bytes from the start of the block, by root tensor.
        size: bytes of the block.
    """

    offset: dict[Tensor, int]
    size: int


class _Group:
    """Tensors in one place, one after the other in time."""

    def __init__(self, tensor: Tensor, first: int, last: int) -> None:
        self.tensors = [tensor]
        self.first, self.last = first, last
        self.nbytes = tensor.nbytes

    def join(self, other: _Group) -> None:
        self.tensors += other.tensors
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)


def plan(program: Program, device: int = 0) -> Placement:
    """Places all temporaries and workspaces of one device.

    Outputs of the program are not among them: what the caller is given lies outside the block.

    Args:
        program: as it will run.
        device: the number of the device among those of the trace.
    """
    groups = _groups(program, device)
    alignment = max((ALIGNMENT[group.tensors[0].traced_on.name] for group in groups), default=1)
    order = sorted(groups, key=lambda group: (-group.nbytes, group.first))
    best = found = _place(order, alignment)
    least, _ = _most_alive(program, groups)
    for _ in range(TRIES):
        if best.size <= ENOUGH * least:
            break
        ends = [found.offset[group.tensors[0]] + group.nbytes for group in order]
        highest = ends.index(max(ends))
        order.insert(0, order.pop(highest))
        found = _place(order, alignment)
        best = min(best, found, key=lambda placement: placement.size)
    return best


def _groups(program: Program, device: int) -> list[_Group]:
    groups = _join_in_place(program, _lives(program, device))
    return list({id(group): group for group in groups.values()}.values())


def _lives(program: Program, device: int) -> dict[Tensor, _Group]:
    """From when to when each tensor that has to be placed is alive, by the numbers of the calls."""
    groups: dict[Tensor, _Group] = {}
    for index, call in enumerate(program.calls):
        scratch = call.tensors(("workspace",)) if call.op.scratch else []
        for tensor in (*call.reads, *call.writes, *scratch):
            root = tensor.root
            backend = root.traced_on
            if root.kind not in ("temp", "scratch") or root in program.outputs:
                continue
            if backend is not backend.trace.devices[device]:
                continue
            if root in groups:
                groups[root].last = index
            else:
                groups[root] = _Group(root, index, index)
    return groups


def _join_in_place(program: Program, groups: dict[Tensor, _Group]) -> dict[Tensor, _Group]:
    """Lets operations write over what they read, where they can and nobody needs it later."""
    for index, call in enumerate(program.calls):
        for read, written in call.op.in_place:
            old, new = call[read], call[written]
            if old is None or new is None or old.root is new.root:
                continue
            mine, theirs = groups.get(old.root), groups.get(new.root)
            if mine is None or theirs is None or mine is theirs or mine.nbytes != theirs.nbytes:
                continue
            other_reads = [t for t in call.reads if t is not old and t.root is old.root]
            if mine.last == index == theirs.first and not other_reads:
                mine.join(theirs)
                for tensor in theirs.tensors:
                    groups[tensor] = mine
    return groups


def _place(groups: Sequence[_Group], alignment: int) -> Placement:
    offset: dict[Tensor, int] = {}
    placed: list[tuple[int, int, _Group]] = []  # start, end, who; by start
    size = 0
    for group in groups:
        taken = math.ceil(group.nbytes / alignment) * alignment
        start = 0
        for low, high, other in placed:
            if other.first > group.last or other.last < group.first:
                continue
            if low - start >= taken:
                break
            start = max(start, high)
        placed.append((start, start + taken, group))
        placed.sort(key=lambda place: place[0])
        offset.update(dict.fromkeys(group.tensors, start))
        size = max(size, start + taken)
    return Placement(offset, size)


def peak(program: Program, device: int = 0) -> tuple[int, Call | None]:
    """The most bytes that are alive at once, which no placement can be below, and at which call."""
    return _most_alive(program, _groups(program, device))


def _most_alive(program: Program, groups: Sequence[_Group]) -> tuple[int, Call | None]:
    most, where = 0, None
    for index, call in enumerate(program.calls):
        alive = sum(group.nbytes for group in groups if group.first <= index <= group.last)
        if alive > most:
            most, where = alive, call
    return most, where
