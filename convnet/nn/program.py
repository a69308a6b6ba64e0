"""A step as a program: a list of calls that can be looked at, rewritten and run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from convnet.nn.trace import Call, PythonOp, Tensor


class Program:
    """The calls of a step, and the outputs that are wanted.

    Args:
        calls: in the order in which they run.
        outputs: tensors whose values are wanted after the run, besides what the calls update.
    """

    def __init__(self, calls: Iterable[Call], outputs: Iterable[Tensor]) -> None:
        self.calls = list(calls)
        self.outputs = {tensor.root for tensor in outputs}

    # ---- who reads and writes what --------------------------------------------------------------

    @cached_property
    def _readers(self) -> Mapping[Tensor, Sequence[Call]]:
        return self._users("reads")

    @cached_property
    def _writers(self) -> Mapping[Tensor, Sequence[Call]]:
        return self._users("writes")

    @cached_property
    def _place(self) -> Mapping[Call, int]:
        return {call: index for index, call in enumerate(self.calls)}

    def _users(self, how: str) -> Mapping[Tensor, Sequence[Call]]:
        users: dict[Tensor, list[Call]] = defaultdict(list)
        for call in self.calls:
            for root in dict.fromkeys(tensor.root for tensor in getattr(call, how)):
                users[root].append(call)
        return users

    def readers(self, tensor: Tensor) -> Sequence[Call]:
        """The calls that need the values of a tensor, in order."""
        return self._readers.get(tensor.root, ())

    def only_reader(self, tensor: Tensor) -> Call | None:
        """The one call that needs a temporary, where there is just one and nobody else asks."""
        readers = self.readers(tensor)
        if tensor.root.kind != "temp" or tensor.root in self.outputs or len(readers) != 1:
            return None
        return readers[0]

    def only_writer(self, tensor: Tensor) -> Call | None:
        """The one call that gives a temporary all of its values."""
        writers = self._writers.get(tensor.root, ())
        whole = len(writers) == 1 and tensor.root.kind == "temp"
        return writers[0] if whole and "src_col" not in writers[0].args else None

    def sole_source(self, call: Call, read: Tensor, *ops: str) -> Call | None:
        """The call of one of these operations, or else of any of the contract, that makes what
        another reads, and nobody else."""
        maker = self.only_writer(read)
        if maker is None or self.only_reader(read) is not call:
            return None
        wanted = maker.op.name in ops if ops else not isinstance(maker.op, PythonOp)
        return maker if wanted else None

    def sole_user(self, written: Tensor, *ops: str) -> Call | None:
        """The call, of one of these operations, that alone reads a tensor."""
        reader = self.only_reader(written)
        return reader if reader is not None and reader.op.name in ops else None

    def reads_after(self, tensor: Tensor, call: Call) -> list[Call]:
        """The calls after this one that need the values of a tensor."""
        return [c for c in self.readers(tensor) if self._place[c] > self._place[call]]

    def has(self, op: str) -> bool:
        """Whether any call is of this operation."""
        return any(call.op.name == op for call in self.calls)

    @property
    def roots_read(self) -> set[Tensor]:
        """The memory that the calls read."""
        return {tensor.root for call in self.calls for tensor in call.reads}

    @property
    def constants(self) -> set[Tensor]:
        """The tensors that were made before the first run."""
        return {root for root in self.roots_read if root.kind == "constant"}

    def __contains__(self, call: Call) -> bool:
        return call in self._place

    # ---- changing it ----------------------------------------------------------------------------

    def replace(self, changes: Mapping[Call, Sequence[Call]]) -> None:
        """Replaces some calls, each by other calls or by none."""
        self.calls = [new for call in self.calls for new in changes.get(call, (call,))]
        self._forget()

    def drop_dead(self) -> None:
        """Removes calls whose results nobody needs: neither a later call, nor an output, nor the
        state that lasts from step to step."""
        needed = set(self.outputs)
        kept: list[Call] = []
        for call in reversed(self.calls):
            roots = {tensor.root for tensor in call.writes}
            lasts = any(root in needed or root.kind in ("state", "input") for root in roots)
            if lasts or call.op.effects:
                needed |= {tensor.root for tensor in call.reads}
                kept.append(call)
        if len(kept) != len(self.calls):
            self.calls = kept[::-1]
            self._forget()

    def take_constant(self, constants: Iterable[Tensor]) -> Program:
        """Takes out the calls that only read these tensors and one another's results: those give
        the same in every run. Returns them as a program; its outputs are what others need."""
        known = set(constants)
        taken: list[Call] = []
        for call in self.calls:
            wholly = all(self.only_writer(tensor) is call for tensor in call.writes)
            reads = {tensor.root for tensor in call.reads}
            if wholly and reads and reads <= known and not isinstance(call.op, PythonOp):
                taken.append(call)
                known |= {tensor.root for tensor in call.writes}
        self.replace(dict.fromkeys(taken, ()))
        made = {tensor.root for call in taken for tensor in call.writes}
        return Program(taken, [root for root in made if self.readers(root) or root in self.outputs])

    def _forget(self) -> None:
        for name in ("_readers", "_writers", "_place"):
            self.__dict__.pop(name, None)
