"""Layer and Parameter: what the nodes of a net are made of.

A layer holds hyper-parameters and parameters, and its two passes are pure functions of arrays:

    fprop(x, train) -> y, saved              bprop(saved, dy) -> dx, gradients

They call `convnet.ops` and have no code for any backend, no buffers and no state. So a pass can be
traced: the same functions run once on symbolic tensors, and the calls become a program
(:mod:`convnet.nn.trace`); what is fused, what lies where and what is not needed is decided there.

Arrays are NumPy or CuPy, float32, C-contiguous, with the batch as their first dimension; shapes
passed to `setup` leave the batch out: (H, W, C) or (C,).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convnet import backend
from convnet.ops.step_state import StepState

Array = Any  # numpy.ndarray or cupy.ndarray
Shape = tuple[int, ...]
Gradients = Sequence[Array | None]  # of a layer's parameters, in their order


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
        lr_mult: multiplies the learning rate; 0 freezes the parameter.
        decay_mult: multiplies the weight decay.

    Attributes:
        grad: of the last `Net.gradients`, zeros where the parameter is frozen; None after a
            training step, which keeps none (but see `Net.keep_gradients`).

    `velocity` has the shape of `data` and takes no memory until it is first used.
    """

    def __init__(
        self, name: str, data: Array, lr_mult: float = 1.0, decay_mult: float = 1.0
    ) -> None:
        self.name = name
        self.version = 0  # of `data`, which a program has the address of
        self._data = data
        self.rates = Rates(lr_mult, decay_mult)
        self.grad: Any = None
        self._grad_memory: Array | None = None
        self._velocity: Array | None = None

    @property
    def data(self) -> Array:
        """The values."""
        return self._data

    @data.setter
    def data(self, data: Array) -> None:
        self.version += 1
        self._data = data

    @property
    def lr_mult(self) -> float:
        return self.rates.lr_mult

    @lr_mult.setter
    def lr_mult(self, value: float) -> None:
        self.rates.lr_mult = value

    @property
    def decay_mult(self) -> float:
        return self.rates.decay_mult

    @decay_mult.setter
    def decay_mult(self, value: float) -> None:
        self.rates.decay_mult = value

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

    A subclass gives `setup`, `fprop` and `bprop`, and says what follows.

    Attributes:
        several_inputs: setup, fprop and bprop take and return lists, one item for each input.
        traced: its passes only call `convnet.ops` and change shapes, so that they can be traced.
            Otherwise each of them is one call of Python in the middle of a program; so it is for
            every layer from outside the package that does not say otherwise.
        reach: which input channels an output channel depends on: "own" the same one only; "groups"
            those of its group; "filters" likewise, and output channels can be computed apart;
            "joined" those of the inputs, one after the other; "all" all, and the layer is one
            piece.
        channel_axis: of the parameters: where they have the output channels.
        random, stream: keys of the random numbers of this layer; set by a net.
        sizes_only: `setup` makes parameters that have a shape and take no memory; set by a net.
        net_precision: of products, where the layer has no `precision` of its own; set by a net.
        version: how often an attribute has been set; programs that were made before are not used.
    """

    several_inputs = False
    traced = False
    reach = "all"
    channel_axis = 0

    def __init__(self) -> None:
        self.version = 0
        self.params: list[Parameter] = []
        self.in_shape: Shape = ()
        self.out_shape: Shape = ()
        self.random = Randomness()
        self.stream = 0
        self.sizes_only = False
        self.net_precision = "fp32"

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        object.__setattr__(self, "version", getattr(self, "version", 0) + 1)

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

    def block(self, first: int, last: int, channels: int) -> Layer:
        """A new layer that computes a part of this one's output channels; `setup` comes next.

        Args:
            first, last: the channels first .. last - 1.
            channels: how many there are, of which a flattened input has several rows.
        """
        part = copy.copy(self)
        part.params = []
        return part

    def share(self, other: Layer) -> None:
        """Makes this layer use the parameters of another of the same shapes, after `setup`."""
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
