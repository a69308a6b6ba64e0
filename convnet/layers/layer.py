"""Layer and Parameter: what the nodes of a net are made of.

A layer holds hyper-parameters and parameters, and its two passes are pure functions of arrays:

    fprop(x, train) -> y, saved              bprop(saved, dy) -> dx, gradients

They call `convnet.ops` and have no code for any backend, no buffers and no state. So a pass can be
traced: the same functions run once on symbolic tensors, and the calls become a program
(`convnet.nn.trace`); what is fused, what lies where and what is not needed is decided there.

Arrays are NumPy or CuPy, C-contiguous, with the batch as their first dimension; shapes passed to
`setup` leave the batch out: (H, W, C) or (C,). They are float32. In a net that stores its
activations in bfloat16, layers that say `traced` are given bfloat16, and others float32 all the
same (`convnet.nn.in_float32`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from convnet import backend
from convnet.common.deprecated import note
from convnet.layers.options import described
from convnet.ops.step_state import StepState

Array = Any  # numpy.ndarray or cupy.ndarray
Shape = tuple[int, ...]
Gradients = Sequence[Array | None]  # of a layer's parameters, in their order


@dataclass
class Changes:
    """What has been set of a net that its programs depend on; its layers and parameters share it.

    Attributes:
        settings: how many attributes of layers and arrays of parameters.
        multipliers: how many of parameters.
    """

    settings: int = 0
    multipliers: int = 0


@dataclass
class Rates:
    """The multipliers of a parameter, which its shards on two devices share; and its own learning
    rate and momentum, where it has them in place of the optimiser's. `changes`: of its net."""

    lr_mult: float
    decay_mult: float
    lr: float | None = None
    momentum: float | None = None

    changes = Changes()  # of nobody, until a net gives its own

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        self.changes.multipliers += name in ("lr_mult", "decay_mult")


def _shared(name: str) -> Any:
    """An attribute that is one of `rates`."""
    return property(
        lambda self: getattr(self.rates, name), lambda self, value: setattr(self.rates, name, value)
    )


class Parameter:
    """A learned tensor, its gradient and its momentum.

    Args:
        name: "w" or "b" in a layer; a net makes it "conv1.w".
        data: float32, C-contiguous, of the shape that the layer says.
        lr_mult: multiplies the learning rate, 0 or more; 0 freezes the parameter.
        decay_mult: multiplies the weight decay, 0 or more.

    Attributes:
        grad: of the last `Net.gradients`, zeros where the parameter is frozen; None after a
            training step, which keeps none (but see `Net.keep_gradients`).

    `velocity` has the shape of `data` and takes no memory until it is first used. Multipliers, and
    a learning rate or momentum of its own, are in `rates`, which shards on two devices share.
    """

    lr_mult: float = _shared("lr_mult")
    decay_mult: float = _shared("decay_mult")

    def __init__(
        self, name: str, data: Array, lr_mult: float = 1.0, decay_mult: float = 1.0
    ) -> None:
        self.name = name
        self._data = data
        self.rates = Rates(lr_mult, decay_mult)
        self.grad: Any = None
        self._grad_memory: Array | None = None
        self._velocity: Array | None = None

    @property
    def data(self) -> Array:
        """The values; programs have the address of the array."""
        return self._data

    @data.setter
    def data(self, data: Array) -> None:
        self._data = data
        self.rates.changes.settings += 1

    @property
    def frozen(self) -> bool:
        """Whether its learning rate is 0."""
        return self.lr_mult == 0.0

    @property
    def shape(self) -> Shape:
        return tuple(self.data.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def has_memory(self) -> bool:
        """False for a parameter of a net that only has sizes."""
        data = self.data
        return not isinstance(data, np.ndarray) or data.size < 2 or any(data.strides)

    def grad_memory(self) -> Array:
        """The array that its gradient is written to where it is kept: always the same one."""
        if self._grad_memory is None:
            device = backend.of(self.data)
            self._grad_memory = device.empty(self.shape) if self.has_memory else self.data
        return self._grad_memory

    def zero_grad(self) -> None:
        """Makes the gradient zero."""
        self.grad = self.grad_memory()
        with backend.of(self.data).active():
            self.grad.fill(0)

    @property
    def velocity(self) -> Array:
        """The momentum of the update rule; zeros at first."""
        if self._velocity is None:
            if not self.has_memory:
                return self.data
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
    repeated and a backward pass draws what the forward pass drew. `first_sample` is the place of
    the batch's first sample in a larger batch of which other processes have the rest. `state` is
    where the devices have seed and step; without it, operations are given them.
    """

    seed: int = 0
    step: int = 0
    first_sample: int = 0
    state: StepState | None = None

    def state_for(self, array: Array) -> Array | None:
        """The state on the device of an array, if there is one."""
        return None if self.state is None else self.state.on(backend.of(array))


class Layer:
    """One operation of a net.

    A subclass gives `fprop` and `bprop`, `setup` where its output has another shape than its input,
    and says what follows.

    Attributes:
        multi_input: setup, fprop and bprop take and return lists, one item for each input.
        traced: its passes only call `convnet.ops` and change shapes, so that they can be traced.
            Otherwise each of them is one call of Python in the middle of a program; so it is for
            every layer from outside the package that does not say otherwise.
        split_by: how a net over two devices splits it. "channel": an output channel depends on the
            same input channel only; "group": on those of its group; "filter": likewise, and output
            channels can be computed apart; "input": on a channel of one of the inputs, which are
            concatenated; None: not at all.
        channel_axis: the axis of its parameters along which the output channels lie.
        random, stream: keys of the random numbers of this layer; set by a net.
        sizes_only: `setup` makes parameters that have a shape and take no memory; set by a net.
        net_precision: of products, where the layer has no `precision` of its own; set by a net.
        in_shape, out_shape: without the batch; set by `setup`.
        changes: of its net, set by it: that an attribute has been set, after which programs that
            were made before are not used.
    """

    multi_input = False
    traced = False
    split_by: str | None = None
    channel_axis = 0
    changes = Changes()  # of nobody

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "several_inputs" in vars(cls):
            note(f"{cls.__name__}.several_inputs", "multi_input")
            cls.multi_input = vars(cls)["several_inputs"]
        if "reach" in vars(cls):
            note(f"{cls.__name__}.reach", "split_by")
            kinds = {"own": "channel", "groups": "group", "filters": "filter", "joined": "input"}
            cls.split_by = kinds.get(vars(cls)["reach"])
        if "block" in vars(cls):
            note(f"{cls.__name__}.block", "shard")
            cls.shard = vars(cls)["block"]  # type: ignore[method-assign]

    def __init__(self) -> None:
        self.params: list[Parameter] = []
        self.in_shape: Shape = ()
        self.out_shape: Shape = ()
        self.random = Randomness()
        self.stream = 0
        self.sizes_only = False
        self.net_precision = "fp32"

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        self.changes.settings += 1

    def setup(self, in_shape: Any, rng: np.random.Generator) -> Shape:
        """Checks the sizes and makes the parameters.

        Args:
            in_shape: (H, W, C) or (C,), without the batch; a list of them where the layer takes
                several inputs.
            rng: for the initial weights.

        Returns: the shape of the output; here that of the input.
        Raises: ValueError naming what does not fit.
        """
        return self._sized(in_shape, in_shape)

    def _sized(self, in_shape: Sequence[int], out_shape: Sequence[int]) -> Shape:
        """Keeps both shapes, and returns the second."""
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        return self.out_shape

    def fprop(self, x: Any, train: bool) -> tuple[Array, Any]:
        """The forward pass.

        Args:
            x: [N, ...], or a list of them; only read.
            train: false in test mode, where no `bprop` follows.

        Returns: y [N, ...], which may be x in another shape; and what `bprop` needs.
        """
        raise NotImplementedError

    def bprop(self, saved: Any, dy: Array) -> tuple[Any, Gradients]:
        """The backward pass.

        Args:
            saved: from `fprop`.
            dy: [N, ...], the gradient of the loss with respect to y; only read.

        Returns: dx of the shape of x (a list of them where there are several inputs), which may be
        dy in another shape; and the gradients of the parameters, in their order.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        return described(self)

    @property
    def learns(self) -> bool:
        """Whether it has parameters that are not frozen."""
        return any(not param.frozen for param in self.params)

    @property
    def macs(self) -> int:
        """Multiply-adds of the forward pass for one image; only sums of products are counted."""
        return 0

    def describe(self) -> str:
        """What the layer is, in a few words, for `Net.summary`."""
        return type(self).__name__.lower()

    def shard(self, first: int, last: int, channels: int) -> Self:
        """A new layer that computes a part of this one's output channels; `setup` comes next.

        Args:
            first, last: the channels first .. last - 1.
            channels: how many there are, of which a flattened input has several rows.
        """
        part = copy.copy(self)
        part.params = []
        return part

    def share(self, other: Layer) -> None:
        """Makes this layer use the parameters of another, after `setup`.

        Args:
            other: a layer with parameters of the same names and shapes.

        Raises: ValueError: they are others, or there are none.
        """
        mine = [(p.name, p.shape) for p in self.params]
        theirs = [(p.name.rpartition(".")[2], p.shape) for p in other.params]
        if mine != theirs or not mine:
            raise ValueError(f"share: expected parameters {mine}, got {theirs}")
        self.params = other.params


def image_shape(in_shape: Any, what: str) -> tuple[int, int, int]:
    """`in_shape`, checked to be (H, W, C)."""
    if len(in_shape) != 3:
        raise ValueError(f"{what} expects an input of shape (H, W, C), got {tuple(in_shape)}")
    height, width, channels = in_shape
    return height, width, channels


def scores_shape(in_shape: Any, what: str) -> Shape:
    """`in_shape`, checked to be (classes,)."""
    if len(in_shape) != 1:
        raise ValueError(
            f"{what} expects one score for each class, shape (classes,), got {tuple(in_shape)}; "
            "put a dense or flatten layer before it"
        )
    return tuple(in_shape)


def same_shape(in_shapes: Sequence[Shape]) -> Shape:
    """The shape that all inputs have."""
    if len(set(in_shapes)) != 1:
        shapes = " and ".join(map(str, dict.fromkeys(in_shapes)))
        raise ValueError(f"expected inputs of one shape, got {shapes}")
    return in_shapes[0]


def window_text(size: Any, stride: tuple[int, int], pad: tuple[int, int], rounding: str) -> str:
    """ "5x5 /2 pad 2 ceil": a window in a few words."""
    text = "x".join(map(str, size))
    if stride != (1, 1):
        text += f" /{stride[0]}" if stride[0] == stride[1] else f" /{stride[0]}x{stride[1]}"
    if pad != (0, 0):
        text += f" pad {pad[0]}" if pad[0] == pad[1] else f" pad {pad[0]}x{pad[1]}"
    return text + (f" {rounding}" if stride != (1, 1) else "")
