"""Tracing: the operations of a step, noted instead of run.

Within a trace the functions of `convnet.ops` are given symbolic tensors. They check shapes as
always; but the backend they find is the trace, so that what would have been called in the compiled
module is appended to a list of `Call`. Layers need to know nothing of it: a layer that only calls
`ops` can be traced.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from convnet import ops
from convnet.backend import Array, Backend
from convnet.ops.schema import Op, operations

Shape = tuple[int, ...]


@dataclass(frozen=True)
class PythonOp(Op):
    """An operation that is a Python function, which takes the arguments by name."""

    run: Callable[..., None] = lambda: None


# One device goes on when another has done what it was given; hosts do one thing after the other.
WAIT = Op("wait", ("other",), (), (), (), effects=True)


class TraceError(TypeError):
    """Something was asked of a tensor that only an array can answer."""


@dataclass(eq=False, repr=False)
class Tensor:
    """An array that does not exist yet: its shape and type are known, its values are not.

    Attributes:
        traced_on: the device of the trace that it belongs to, which operations take for their
            backend.
        kind: "temp" is written within the step and lies where the planner puts it; "input" is
            given to each run; "state" exists already (`array`): weights, velocities, rates;
            "constant" was made before the first run and stays (`array`); "scratch" is the
            workspace of one call.
        base: the tensor whose memory this one has in another shape, or None.
    """

    traced_on: TraceBackend
    shape: Shape
    dtype: Any
    kind: str
    array: Any = None
    base: Tensor | None = None

    def __post_init__(self) -> None:
        self.shape = tuple(map(int, self.shape))
        self.dtype = np.dtype(self.dtype)

    @property
    def root(self) -> Tensor:
        """The tensor that owns the memory."""
        return self if self.base is None else self.base.root

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, *shape: Any) -> Tensor:
        """The same numbers in another shape, in the same memory."""
        wanted = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        known = math.prod(size for size in wanted if size != -1)
        resolved = tuple(self.size // max(known, 1) if size == -1 else size for size in wanted)
        if math.prod(resolved) != self.size:
            raise ValueError(f"reshape: {self.size} numbers of shape {self.shape} into {wanted}")
        if resolved == self.shape:
            return self
        return Tensor(self.traced_on, resolved, self.dtype, self.kind, base=self)

    def __repr__(self) -> str:
        return f"Tensor({'x'.join(map(str, self.shape))} {self.dtype.name}, {self.kind})"

    def _unknown(self, *_: Any, **__: Any) -> Any:
        where = self.traced_on.trace.node
        raise TraceError(
            f"{f'node {where!r}: ' if where else ''}the values of a tensor are not known while a "
            "step is traced; a layer that works on arrays itself, beside convnet.ops, must leave "
            "`traced` False"
        )

    __array__ = __array_ufunc__ = __bool__ = __float__ = __int__ = __index__ = __iter__ = _unknown
    __getitem__ = __setitem__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = _unknown
    __lt__ = __le__ = __gt__ = __ge__ = _unknown
    __rmul__ = __truediv__ = __rtruediv__ = __neg__ = __dlpack__ = _unknown


Value = Tensor | list[Tensor] | Any  # an argument of a call: an array, several, or a number


@dataclass(eq=False)
class Call:
    """One operation of a step.

    Attributes:
        op: which.
        args: by name, in the order of the binding; tensors for arrays, None for those left out.
        nodes: the nodes of the net that it computes.
        device: where it runs.
    """

    op: Op
    args: dict[str, Value]
    nodes: tuple[str, ...]
    device: TraceBackend

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    def tensors(self, names: Sequence[str]) -> list[Tensor]:
        """The arrays among these arguments."""
        found: list[Tensor] = []
        for name in names:
            value = self.args[name]
            found += value if isinstance(value, list) else [] if value is None else [value]
        return found

    @property
    def reads(self) -> list[Tensor]:
        """The tensors whose values it needs."""
        return self.tensors((*self.op.reads, *self.op.updates))

    @property
    def writes(self) -> list[Tensor]:
        """The tensors that it writes."""
        return self.tensors((*self.op.writes, *self.op.updates))

    def but(self, op: str = "", also: Sequence[Call] = (), **args: Value) -> Call:
        """This call with other arguments; `also`: calls whose work it does besides. Another
        operation keeps the arguments that it has too."""
        new = operations()[op] if op else self.op
        known = {**self.args, **args}
        nodes = dict.fromkeys([name for call in (self, *also) for name in call.nodes])
        return replace(
            self, op=new, args={name: known[name] for name in new.arguments}, nodes=tuple(nodes)
        )

    def __repr__(self) -> str:
        return f"{self.op.name}({', '.join(self.nodes)})"


@dataclass
class Trace:
    """A step that is being traced.

    Args:
        backends: the devices that it runs on.

    Attributes:
        calls: so far.
        node: the name of the node that is being traced.
    """

    backends: Sequence[Backend]
    calls: list[Call] = field(default_factory=list)
    node: str = ""

    def __post_init__(self) -> None:
        self.devices = [TraceBackend(self, backend) for backend in self.backends]
        self._held: dict[int, Tensor] = {}
        self.zeros: dict[Any, Array] = {}

    def on(self, backend: Backend) -> TraceBackend:
        """The device of the trace that stands for a device."""
        return self.devices[list(self.backends).index(backend)]

    def input(self, shape: Shape, dtype: Any, backend: Backend) -> Tensor:
        """A tensor that each run of the step is given."""
        return Tensor(self.on(backend), shape, dtype, "input")

    def held(self, array: Array, device: TraceBackend) -> Tensor:
        """The tensor that stands for an existing array; always the same one."""
        if id(array) not in self._held:
            held = Tensor(device, array.shape, array.dtype, "state", array=array)
            self._held[id(array)] = held
        return self._held[id(array)]

    @contextlib.contextmanager
    def apart(self) -> Iterator[list[Call]]:
        """Within the block, calls are noted in the list that it is given, and not in `calls`."""
        before, self.calls = self.calls, []
        try:
            yield self.calls
        finally:
            self.calls = before

    @contextlib.contextmanager
    def at(self, node: str) -> Iterator[None]:
        """Within the block, calls belong to this node, and errors name it."""
        before, self.node = self.node, node
        try:
            yield
        except ValueError as error:
            raise ValueError(f"node {node!r}: {error}") from None
        finally:
            self.node = before


class TraceBackend(Backend):
    """A device as operations see it while a step is traced: it makes tensors, and notes calls."""

    tracing = True

    def __init__(self, trace: Trace, real: Backend) -> None:
        super().__init__(real.name, real.module, real.xp, real.index, real.logical)
        self.trace, self._real = trace, real
        self.module: Any = _NotingModule(self)

    @property
    def real(self) -> Backend:
        return self._real

    def empty(self, shape: Shape, dtype: Any = np.float32) -> Any:
        return Tensor(self, shape, dtype, "temp")

    def workspace(self, size: int) -> Any:
        return Tensor(self, (size,), np.uint8, "scratch") if size else None

    def stream(self) -> int:
        return 0  # known when the program is bound

    def wait_for(self, other: Backend) -> None:
        """Notes that this device goes on when the other has done what it was given so far."""
        if other is not self:
            self.note(WAIT, {"other": other})

    def beside(self, device: Backend) -> Backend:
        return self.trace.on(device)

    def zeros(self, shape: Shape, dtype: Any = np.float32) -> Any:
        """A copy of an array of zeros that all runs share."""
        held = self.trace.zeros.get((self, shape, dtype))
        if held is None:
            held = self.trace.zeros[self, shape, dtype] = self._real.zeros(shape, dtype)
        return ops.copy(self.empty(shape, dtype), self.trace.held(held, self))

    def note(self, op: Op, args: dict[str, Value]) -> None:
        """Appends a call, of the node that is being traced."""
        nodes = (self.trace.node,) if self.trace.node else ()
        self.trace.calls.append(Call(op, args, nodes, self))

    def note_python(
        self,
        function: Callable[..., None],
        reads: dict[str, Any],
        writes: dict[str, Any],
        others: dict[str, Any],
        effects: bool = False,
    ) -> None:
        """Appends a call of a Python function, which takes all of these by name."""
        op = PythonOp(
            function.__name__.strip("_"), (), tuple(reads), tuple(writes), (), effects=effects,
            run=function,
        )  # fmt: skip
        self.note(op, {**reads, **writes, **others})


class _NotingModule:
    """The compiled module, but for its operations, which are noted and not called."""

    def __init__(self, device: TraceBackend) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        op = operations().get(name)
        if op is None:
            return getattr(self._device.real.module, name)

        def note(*values: Value) -> None:
            args = dict(zip(op.arguments, values, strict=True))
            for arg in op.arrays:
                args[arg] = self._tensors(args[arg])
            self._device.note(op, args)

        return note

    def _tensors(self, value: Any) -> Any:
        if value is None or isinstance(value, Tensor):
            return value
        if isinstance(value, (list, tuple)):
            return [self._tensors(each) for each in value]
        return self._device.trace.held(value, self._device)
