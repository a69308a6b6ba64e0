"""Layer and Parameter: what the nodes of a net are made of.

A layer holds hyper-parameters and calls `convnet.ops`; it has no code of its own for any backend.
Arrays are NumPy or CuPy, float32, C-contiguous, with the batch as their first dimension; shapes
passed to `setup` leave the batch out: (H, W, C) or (C,).

The arrays a layer returns are buffers that it keeps and writes again in its next call.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from convnet import backend, ops
from convnet.changes import changed
from convnet.stepstate import StepState

Array = Any  # numpy.ndarray or cupy.ndarray
Shape = tuple[int, ...]


@dataclass
class Rates:
    """The multipliers of a parameter, which the parts of one on two devices share; and its own
    learning rate and momentum, where it has them in place of the optimiser's."""

    lr_mult: float
    decay_mult: float
    lr: float | None = None
    momentum: float | None = None


class Parameter:
    """A learned tensor, its gradient and its momentum.

    Args:
        name: "w" or "b" in a layer; a net makes it "conv1.w".
        data: float32 array.
        lr_mult: multiplies the learning rate; 0 freezes the parameter. A layer whose parameters
            are all frozen computes no gradients of them.
        decay_mult: multiplies the weight decay.

    Attributes:
        grad_used_up: the gradient went into an update and was never stored; see
            `convnet.fusedupdate`.

    `grad` and `velocity` have the shape of `data` and take no memory until they are first used.
    """

    def __init__(
        self, name: str, data: Array, lr_mult: float = 1.0, decay_mult: float = 1.0
    ) -> None:
        self.name = name
        self._data = data
        self.rates = Rates(lr_mult, decay_mult)
        self.grad_is_zero = True  # then the contents of _grad are stale and stand for zeros
        self.grad_used_up = False
        self._grad: Array | None = None
        self._scratch: Array | None = None
        self._velocity: Array | None = None

    @property
    def data(self) -> Array:
        """The values."""
        return self._data

    @data.setter
    def data(self, data: Array) -> None:
        changed()
        self._data = data

    @property
    def lr_mult(self) -> float:
        return self.rates.lr_mult

    @lr_mult.setter
    def lr_mult(self, value: float) -> None:
        changed()
        self.rates.lr_mult = value

    @property
    def decay_mult(self) -> float:
        return self.rates.decay_mult

    @decay_mult.setter
    def decay_mult(self, value: float) -> None:
        changed()
        self.rates.decay_mult = value

    @property
    def shape(self) -> Shape:
        return tuple(self.data.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def grad(self) -> Array:
        """The sum of the gradients since the last `zero_grad`.

        Raises: RuntimeError where a training step has used it up and did not keep it.
        """
        self._check_kept()
        if self._grad is None:
            self._grad = backend.of(self.data).zeros(self.shape)
        elif self.grad_is_zero:
            with backend.of(self.data).active():
                self._grad.fill(0)
        return self._grad

    def zero_grad(self) -> None:
        """Makes the gradient zero, at no cost: the next one is written over it."""
        self.grad_is_zero, self.grad_used_up = True, False

    def use_up_gradient(self) -> None:
        """Says that the gradient went straight into an update of `data`."""
        self.grad_used_up = True

    def _check_kept(self) -> None:
        if self.grad_used_up:
            raise RuntimeError(
                f"{self.name}: its gradient was not kept: the training step updated it where the "
                "gradient was computed. Net.gradients() computes gradients and keeps them; with "
                "net.fuse_update = False (step.fuse_update = false) training steps do too"
            )

    @contextmanager
    def gradient(self) -> Iterator[Array]:
        """The array to write one contribution to the gradient into, in a `with` statement.

        The first contribution goes straight into `grad`. Later ones (of a parameter that several
        nodes share) go into a second array that is added to `grad` on leaving.

        Raises: as `grad`.
        """
        self._check_kept()
        if self.grad_is_zero:
            if self._grad is None:
                self._grad = backend.of(self.data).empty(self.shape)
            yield self._grad
            self.grad_is_zero = False
        else:
            if self._scratch is None:
                self._scratch = backend.of(self.data).empty(self.shape)
            yield self._scratch
            ops.accumulate(self._grad, self._scratch)

    @property
    def velocity(self) -> Array:
        """The momentum of the update rule; zeros at first."""
        if self._velocity is None:
            self._velocity = backend.of(self.data).zeros(self.shape)
        return self._velocity

    @property
    def has_velocity(self) -> bool:
        """False while the velocity is all zeros because nothing has used it yet."""
        return self._velocity is not None

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, {self.shape})"


@dataclass
class Randomness:
    """Where a net stands in its streams of random numbers; shared by all its layers.

    Numbers are a function of (seed, stream of the layer, step, position), so that a step can be
    repeated and a backward pass draws what the forward pass drew. `first_case` is the place of the
    batch's first case in a larger batch of which other processes have the rest. `state` is where
    the devices have seed and step; without it, operations are given them.
    """

    seed: int = 0
    step: int = 0
    first_case: int = 0
    state: StepState | None = None

    def state_for(self, array: Array) -> Array | None:
        """The state on the device of an array, if there is one."""
        return None if self.state is None else self.state.on(backend.of(array))


class Layer:
    """One operation of a net.

    Attributes that a net sets, and a layer on its own need not:
        random, stream: keys of the random numbers of this layer.
        need_dx: False where nothing below learns; `bprop` then returns None.
        in_place: `fprop` may overwrite x.
        overwrite_dy: `bprop` may overwrite dy.
        sizes_only: `setup` makes parameters that have a shape and take no memory.
        net_math: how products are formed where the layer's own `math` does not say.
    """

    several_inputs = False  # True: setup, fprop and bprop take and return lists, one item per input
    is_view = False  # True: y is x, perhaps in another shape
    passes_dy = False  # True: dx is dy, perhaps in another shape
    can_run_in_place = False  # True: fprop can write y over x, and bprop does not need x
    works_on_arrays = False  # True: does more than call convnet.ops, so steps are not captured
    dx_over_dy = False  # True: bprop writes dx over dy where it may (overwrite_dy)
    keeps_relu_mask = False  # True: what a ReLU wrote may be replaced by y, and y > 0 be its mask
    # Which input channels an output channel depends on: "own" the same one only; "groups" those of
    # its group; "filters" likewise, and output channels can be computed apart; "joined" those of
    # the inputs, one after the other; "all" all, and the layer is one piece.
    reach = "all"
    channel_axis = 0  # of the parameters: where they have the output channels
    saved_output = 0  # what bprop needs of y: 0 nothing, 1 only where it is positive, 2 the values

    def __init__(self) -> None:
        self.params: list[Parameter] = []
        self.in_shape: Shape = ()
        self.out_shape: Shape = ()
        self.random = Randomness()
        self.stream = 0
        self.need_dx = True
        self.in_place = False
        self.overwrite_dy = False
        self.sizes_only = False
        self.net_math = "fp32"
        self.saved: Any = None
        self._buffers: dict[str, Array] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "saved" and not name.startswith("_"):  # these are the passes' own
            changed()
        object.__setattr__(self, name, value)

    def setup(self, in_shape: Any, rng: np.random.Generator) -> Shape:
        """Checks the sizes and makes the parameters.

        Args:
            in_shape: (H, W, C) or (C,), without the batch; a list of them where the layer takes
                several inputs.
            rng: for the initial weights.

        Returns: the shape of the output.
        Raises: ValueError naming what does not fit.
        """
        raise NotImplementedError

    def fprop(self, x: Any, train: bool) -> Array:
        """y [N, ...] from x [N, ...]. `bprop` may follow only when `train` is true."""
        raise NotImplementedError

    def bprop(self, dy: Array) -> Any:
        """dx from dy, and adds the gradients of the parameters into `Parameter.grad`."""
        raise NotImplementedError

    @property
    def learns(self) -> bool:
        """Whether it has parameters whose learning rate is not 0."""
        return any(param.lr_mult != 0.0 for param in self.params)

    @property
    def macs(self) -> int:
        """Multiply-adds of the forward pass for one image; only sums of products are counted."""
        return 0

    def describe(self) -> str:
        """What the layer is, in a few words, for `Net.summary`."""
        return type(self).__name__.lower()

    def buffer(
        self, name: str, shape: Sequence[int], like: Array, dtype: Any = np.float32
    ) -> Array:
        """An uninitialised array on the backend of `like`, the same one in every call.

        A batch larger than all before it makes a new one; a smaller one gets its first rows.
        """
        shape = tuple(shape)
        held = self._buffers.get(name)
        if (
            held is None
            or held.shape[1:] != shape[1:]
            or held.shape[0] < shape[0]
            or type(held) is not type(like)
        ):
            changed()
            held = self._buffers[name] = backend.of(like).empty(shape, dtype)
        return held if held.shape[0] == shape[0] else held[: shape[0]]

    def recall(self) -> Any:
        """What the last fprop saved for bprop."""
        if self.saved is None:
            raise RuntimeError(f"{self.describe()}: bprop needs an fprop with train=True before it")
        return self.saved

    def block(self, first: int, last: int, channels: int) -> Layer:
        """A new layer that computes a part of this one's output channels; `setup` comes next.

        Args:
            first, last: the channels first .. last - 1.
            channels: how many there are, of which a flattened input has several rows.
        """
        part = copy.copy(self)
        part.params, part._buffers, part.saved = [], {}, None
        return part

    def finish_bprop(self) -> None:
        """Does what `bprop` has put off, where the net has set `late` (see `Weighted`)."""

    def share(self, other: Layer) -> None:
        """Makes this layer use the parameters of another of the same shapes, after `setup`."""
        mine = [(p.name, p.shape) for p in self.params]
        theirs = [(p.name.rpartition(".")[2], p.shape) for p in other.params]
        if mine != theirs or not mine:
            raise ValueError(f"share: expected parameters {mine}, got {theirs}")
        self.params = other.params

    def output_bytes(self, batch: int) -> int:
        """Bytes of the buffers that fprop fills for this batch, in the net as it is planned."""
        return 0 if self.is_view or self.in_place else 4 * batch * math.prod(self.out_shape)

    def gradient_bytes(self, batch: int) -> int:
        """Bytes of the buffers that bprop fills besides; the parameters' gradients apart."""
        in_dy = self.passes_dy or (self.dx_over_dy and self.overwrite_dy)
        return 4 * batch * math.prod(self.in_shape) if self.need_dx and not in_dy else 0

    def workspace_bytes(self, batch: int) -> int:
        """Bytes of scratch memory that the operations ask for, on the backend in use."""
        return 0

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the buffers that the layer holds now."""
        return sum(held.nbytes for held in self._buffers.values())


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value`, checked to be an integer that is at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: expected a whole number, at least {least}; got {value!r}")
    return int(value)


def pair(name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """(h, w) from one whole number for both, or from two."""
    if isinstance(value, (list, tuple)):
        if len(value) != 2:
            raise ValueError(f"{name}: expected one whole number or two (h, w), got {value!r}")
        return whole(name, value[0], least), whole(name, value[1], least)
    return whole(name, value, least), whole(name, value, least)


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """`value`, checked to be a finite number in [low, high]."""
    is_number = isinstance(value, (int, float, np.integer, np.floating))
    if isinstance(value, bool) or not is_number or not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    """`value`, checked to be one of the options."""
    if value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(options)}; got {value!r}")
    return str(value)


def flag(name: str, value: Any) -> bool:
    """`value`, checked to be true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, got {value!r}")
    return value


def image_shape(in_shape: Any, what: str) -> tuple[int, int, int]:
    """`in_shape`, checked to be (H, W, C)."""
    if len(in_shape) != 3:
        raise ValueError(f"{what} expects an input of shape (H, W, C), got {tuple(in_shape)}")
    height, width, channels = in_shape
    return height, width, channels
