"""Short binary codes of feature vectors, by an auto-encoder.

    x -> (x - mean) / scale -> dense + relu, ... -> dense a -> sigmoid -> rounded to 0 or 1
      -> dense + relu, ... -> dense -> y close to the scaled x

The forward pass rounds; in the backward pass the gradient passes through unchanged (a
straight-through estimator), so that the decoder learns from what a code can hold. In the final code
a bit says whether its a is above the median of that a over the data: every bit then divides the
images into halves.

Sources: paper, section 6.1, proposes such codes; rounding: A. Krizhevsky, G. Hinton, "Using very
deep autoencoders for content-based image retrieval", ESANN 2011, which is the paper's [14].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from convnet import backend as backends
from convnet.common.progress import counted
from convnet.data.augment import epoch_order
from convnet.data.dataset import DataError, mismatch
from convnet.layers import Dense, Sigmoid, Sum, SumSquares
from convnet.layers.graph import INPUT, Node
from convnet.layers.layer import Array, Gradients, Layer
from convnet.nn.net import Net
from convnet.optim import lr_schedule
from convnet.optim.sgd import SGD, DivergedError

Vectors = npt.NDArray[np.float32]

_ROWS = 256  # rows that are encoded at a time: a fixed number, so that their bits do not vary
_MEDIAN_ROWS = 100_000  # rows that the medians are taken over, at most
_WARM_UP = 50  # steps


@dataclass(frozen=True)
class HashSettings:
    """How codes are learned.

    Attributes:
        bits: bits per code.
        hidden: sizes of the encoder's hidden layers; the decoder has the same in reverse. None: a
            quarter and a sixteenth of the feature's size, where these are more than `bits`.
        epochs: passes over the data.
        batch: rows per step.
        lr: learning rate, which grows for 50 steps and falls by a half cosine.
        seed: seed of the weights and of the data order.
    """

    bits: int = 64
    hidden: tuple[int, ...] | None = None
    epochs: int = 30
    batch: int = 128
    lr: float = 0.01
    seed: int = 1

    def sizes(self, size: int) -> tuple[int, ...]:
        """The hidden layers for features of this size."""
        if self.hidden is not None:
            return self.hidden
        return tuple(each for each in (size // 4, size // 16) if each > self.bits)


@dataclass
class Encoder:
    """Makes codes of feature vectors.

    Attributes:
        mean: float32 [D]; scale: what the differences from it are divided by.
        layers: (w, b) of the dense layers, float32; a ReLU lies between two of them.
        threshold: float32 [bits].

    It runs on the CPU, so that bits near their threshold do not depend on where they are computed.
    """

    mean: Vectors
    scale: float
    layers: list[tuple[Vectors, Vectors]]
    threshold: Vectors
    _net: list[Layer] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        shape: tuple[int, ...] = self.mean.shape
        for number, (w, b) in enumerate(self.layers):
            layer = Dense(len(w), relu=number < len(self.layers) - 1)
            layer.sizes_only = True
            shape = layer.setup(shape, np.random.default_rng(0))
            for param, array in zip(layer.params, (w, b), strict=True):
                if param.shape != array.shape:
                    raise mismatch("encoder", f"weights of shape {param.shape}", array.shape)
                param.data = np.ascontiguousarray(array)
            self._net.append(layer)

    @property
    def bits(self) -> int:
        return len(self.threshold)

    def activations(self, x: Vectors) -> Vectors:
        """What the thresholds are compared with, float32 [N, bits], for features [N, D]."""
        found = np.empty((len(x), self.bits), np.float32)
        with backends.use("cpu"):
            for start in range(0, len(x), _ROWS):
                rows = np.zeros((_ROWS, len(self.mean)), np.float32)
                part = x[start : start + _ROWS]
                rows[: len(part)] = (part - self.mean) / np.float32(self.scale)
                y: Any = rows
                for layer in self._net:
                    y, _ = layer.fprop(y, False)
                found[start : start + len(part)] = y[: len(part)]
        return found

    def __call__(self, x: Vectors) -> npt.NDArray[np.uint8]:
        """Codes, uint8 [N, bits / 8], of features float32 [N, D]; the first bit is the highest."""
        return np.packbits(self.activations(x) > self.threshold, axis=1)


@dataclass
class Learned:
    """An encoder, and how much of the variance its codes leave unexplained (0 .. 1)."""

    encoder: Encoder
    loss: float


def learn_codes(
    x: Vectors,
    settings: HashSettings,
    device: str = "auto",
) -> Learned:
    """Trains an auto-encoder on feature vectors.

    Args:
        x: float32 [N, D]; may be mapped, it is read a batch at a time.
        settings: sizes and rates.
        device: as for `convnet.backend.get`.

    Raises:
        DataError: fewer rows than a batch, features that are all the same, or a loss that is not
            finite: the learning rate is too large.
    """
    count = len(x)
    if count < settings.batch:
        raise mismatch("hash", f"at least {settings.batch} images to learn from", count)
    mean, scale = _moments(x)
    if not 0 < scale < math.inf:
        raise DataError("hash: expected features that differ, got the same ones for all images")
    net = _auto_encoder(x.shape[1], settings, device)
    sgd = SGD(net.params, settings.lr, momentum=0.9, weight_decay=0.0)
    schedule = lr_schedule.build("cosine", settings.lr, _WARM_UP)
    labels, steps = np.zeros(settings.batch, np.int32), count // settings.batch
    loss = math.nan
    for epoch in counted(range(settings.epochs), settings.epochs, "hash", "epochs"):
        total = 0.0
        try:
            for batch in _batches(x, mean, scale, settings, epoch):
                sgd.lr = schedule.lr(net.step, steps * settings.epochs)
                total += net.train_step(batch, labels, sgd)
        except DivergedError:
            total = math.nan
        loss = total / steps / math.sqrt(x.shape[1])  # of a number of a sample
        if not math.isfinite(loss):
            raise DataError(
                f"hash: the loss is {loss} in epoch {epoch + 1}; try a smaller --lr (it was"
                f" {settings.lr:g})"
            )
    encoder = Encoder(mean, scale, _encoder_weights(net), np.zeros(settings.bits, np.float32))
    some = x[:: -(-count // _MEDIAN_ROWS)]
    encoder.threshold = np.median(encoder.activations(some), axis=0).astype(np.float32)
    return Learned(encoder, loss)


def _moments(x: Vectors) -> tuple[Vectors, float]:
    """The mean of each feature, and the standard deviation over all of them."""
    total, squares = np.zeros(x.shape[1]), 0.0
    for start in range(0, len(x), 4096):
        total += x[start : start + 4096].sum(axis=0, dtype=np.float64)
    mean = total / len(x)
    for start in range(0, len(x), 4096):
        squares += float(np.square(x[start : start + 4096] - mean).sum())
    return mean.astype(np.float32), math.sqrt(squares / x.size)


def _batches(
    x: Vectors, mean: Vectors, scale: float, settings: HashSettings, epoch: int
) -> Iterator[Vectors]:
    order = epoch_order(settings.seed, epoch, len(x))
    for start in range(0, len(x) - settings.batch + 1, settings.batch):
        yield (x[order[start : start + settings.batch]] - mean) / np.float32(scale)


class _Rounded(Layer):
    """y = x rounded to a whole number; the gradient passes through unchanged."""

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        return backends.of(x).xp.rint(x), None

    def bprop(self, saved: None, dy: Array) -> tuple[Array, Gradients]:
        return dy, []


def _auto_encoder(size: int, settings: HashSettings, device: str) -> Net:
    """The net, with the code in the middle; its loss is sum (y - x)^2 / sqrt(size), since gradients
    of sums over `size` outputs grow with its root."""
    hidden = settings.sizes(size)
    nodes = [_dense(f"down{number}", units) for number, units in enumerate(hidden)]
    nodes += [
        _dense("bits", settings.bits, last=True),
        Node("code", Sigmoid()),
        Node("rounded", _Rounded()),
    ]
    nodes += [_dense(f"up{number}", units) for number, units in enumerate(reversed(hidden))]
    nodes += [
        _dense("decoded", size, last=True),
        Node("difference", Sum((1.0, -1.0)), ("decoded", INPUT)),
        Node("loss", SumSquares(1.0 / math.sqrt(size))),
    ]
    return Net(nodes, (size,), device, settings.seed)


def _dense(name: str, units: int, last: bool = False) -> Node:
    return Node(name, Dense(units, relu=not last, init="xavier" if last else "he"))


def _encoder_weights(net: Net) -> list[tuple[Vectors, Vectors]]:
    """(w, b) of the dense layers up to the code."""
    names = [node.name for node in net.nodes]
    state = net.state()
    layers = names[: names.index("code")]
    return [(state[f"{name}.w"], state[f"{name}.b"]) for name in layers]
