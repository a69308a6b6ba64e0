"""The problems that tests and benchmarks run: one table per operation, every row with a name.

Rows with `small=False` are too large for the virtual GPU; the tests leave them out there. The
`ALEXNET_*` tables are the layers of the paper at its batch of 128, for benchmarks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import reference

Pair = tuple[int, int]


@dataclass(frozen=True)
class ConvCase:
    """A convolution: x [N, H, W, C], w [K, R, S, C / groups]."""

    name: str
    n: int
    h: int
    w: int
    c: int
    k: int
    r: int
    s: int
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    groups: int = 1
    rounding: str = "floor"
    small: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def options(self) -> dict:
        """Keyword arguments of the operation."""
        return {
            "stride": self.stride,
            "pad": self.pad,
            "groups": self.groups,
            "rounding": self.rounding,
        }

    @property
    def output(self) -> Pair:
        size = (self.r, self.s)
        return reference.conv_size(self.x_shape, size, self.stride, self.pad, self.rounding)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.n, self.h, self.w, self.c

    @property
    def w_shape(self) -> tuple[int, ...]:
        return self.k, self.r, self.s, self.c // self.groups

    @property
    def y_shape(self) -> tuple[int, ...]:
        return self.n, *self.output, self.k

    @property
    def local_w_shape(self) -> tuple[int, ...]:
        return *self.output, *self.w_shape

    @property
    def local_b_shape(self) -> tuple[int, ...]:
        return *self.output, self.k

    @property
    def macs(self) -> int:
        """Multiply-adds of one pass; fprop, dgrad and wgrad cost the same."""
        return math.prod(self.y_shape) * math.prod(self.w_shape[1:])


@dataclass(frozen=True)
class PoolCase:
    """A pool over x [N, H, W, C]."""

    name: str
    n: int
    h: int
    w: int
    c: int
    size: Pair
    stride: Pair
    pad: Pair = (0, 0)
    rounding: str = "ceil"
    small: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def args(self) -> tuple:
        """Positional arguments after the arrays."""
        return self.size, self.stride, self.pad, self.rounding

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.n, self.h, self.w, self.c

    @property
    def y_shape(self) -> tuple[int, ...]:
        output = reference.pool_size(self.x_shape, *self.args)
        return self.n, *output, self.c


@dataclass(frozen=True)
class LrnCase:
    """Response normalization of x [..., C]."""

    name: str
    x_shape: tuple[int, ...]
    n: int = 5
    k: float = 1.0
    alpha: float = 1.0
    beta: float = 0.75
    groups: int = 1
    alpha_mode: str = "sum"
    small: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def options(self) -> dict:
        return {
            "n": self.n,
            "k": self.k,
            "alpha": self.alpha,
            "beta": self.beta,
            "groups": self.groups,
            "alpha_mode": self.alpha_mode,
        }


@dataclass(frozen=True)
class DenseCase:
    """A fully connected layer: x [N, C], w [K, C]."""

    name: str
    n: int
    c: int
    k: int
    small: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def macs(self) -> int:
        return self.n * self.c * self.k


CONV = (
    ConvCase("1x1", 2, 5, 7, 3, 4, 1, 1),
    ConvCase("1x1-one-channel", 1, 4, 3, 1, 1, 1, 1),
    ConvCase("1x1-stride-2", 2, 6, 7, 5, 3, 1, 1, stride=(2, 2)),
    ConvCase("3x3-same", 2, 8, 9, 4, 6, 3, 3, pad=(1, 1)),
    ConvCase("5x5-same", 2, 8, 7, 8, 16, 5, 5, pad=(2, 2)),
    ConvCase("5x5-groups-2", 2, 9, 8, 8, 12, 5, 5, pad=(2, 2), groups=2),
    ConvCase("3x3-groups-2-odd-channels", 2, 7, 6, 6, 10, 3, 3, pad=(1, 1), groups=2),
    ConvCase("3x3-groups-3", 1, 6, 7, 9, 6, 3, 3, pad=(1, 1), groups=3),
    ConvCase("depthwise", 2, 6, 7, 5, 5, 3, 3, pad=(1, 1), groups=5),
    ConvCase("depthwise-two-filters", 2, 6, 5, 3, 6, 3, 3, groups=3),
    ConvCase("one-row-filter", 2, 6, 9, 3, 4, 1, 7, pad=(0, 3)),
    ConvCase("one-column-filter", 2, 9, 6, 3, 4, 5, 1, pad=(2, 0)),
    ConvCase("r-not-s-stride-2x3-pad-1x2", 2, 9, 11, 3, 5, 3, 4, stride=(2, 3), pad=(1, 2)),
    ConvCase("stride-3x1-pad-0x1", 2, 10, 6, 4, 3, 2, 3, stride=(3, 1), pad=(0, 1)),
    ConvCase("pad-wider-than-filter", 2, 4, 5, 3, 4, 3, 3, pad=(4, 3)),
    ConvCase("pad-with-stride-2", 1, 5, 5, 2, 3, 3, 3, stride=(2, 2), pad=(3, 3)),
    ConvCase("batch-1", 1, 7, 7, 3, 8, 3, 3, pad=(1, 1)),
    ConvCase("one-channel-17-filters", 3, 7, 6, 1, 17, 3, 3),
    ConvCase("17-channels-3-filters", 3, 6, 7, 17, 3, 3, 3, pad=(1, 1)),
    ConvCase("17-channels-1-filter", 2, 5, 5, 17, 1, 2, 2),
    ConvCase("filter-as-big-as-image", 3, 5, 4, 3, 7, 5, 4),
    ConvCase("filter-bigger-than-image", 2, 3, 2, 3, 4, 5, 4, pad=(1, 1)),
    ConvCase("stride-beyond-filter", 2, 9, 10, 3, 4, 2, 2, stride=(3, 4)),
    ConvCase("one-pixel-image", 4, 1, 1, 5, 6, 1, 1),
    ConvCase("floor-drops-the-edge", 2, 10, 9, 3, 4, 3, 3, stride=(4, 4)),
    ConvCase("ceil-overhang", 2, 10, 9, 3, 4, 3, 3, stride=(4, 4), rounding="ceil"),
    ConvCase("ceil-overhang-pad", 2, 8, 7, 3, 4, 4, 3, (3, 3), (1, 1), rounding="ceil"),
    ConvCase("ceil-overhang-groups", 2, 6, 8, 4, 6, 3, 3, (2, 2), groups=2, rounding="ceil"),
    ConvCase("ceil-window-all-outside", 2, 8, 7, 3, 4, 1, 2, stride=(4, 6), rounding="ceil"),
    ConvCase("conv1-small", 2, 24, 24, 3, 8, 11, 11, stride=(4, 4), rounding="ceil"),
    ConvCase("ragged-tiles", 3, 9, 7, 20, 70, 3, 3, pad=(1, 1)),
    ConvCase("ragged-tiles-groups", 2, 7, 9, 36, 70, 3, 3, pad=(1, 1), groups=2),
    ConvCase("several-tiles", 5, 15, 13, 33, 130, 3, 3, pad=(1, 1), small=False),
    ConvCase("conv1-224", 1, 224, 224, 3, 2, 11, 11, (4, 4), rounding="ceil", small=False),
)

# Locally connected layers have filters for every position: the same geometry, small images.
LOCAL = tuple(case for case in CONV if case.small and math.prod(case.local_w_shape) < 200_000)

DENSE = (
    DenseCase("one", 1, 1, 1),
    DenseCase("row", 1, 17, 5),
    DenseCase("column", 5, 1, 3),
    DenseCase("ten-classes", 33, 70, 10),
    DenseCase("ragged-tiles", 65, 33, 129),
    DenseCase("one-image-wide", 1, 300, 77),
    DenseCase("large", 128, 800, 257, small=False),
)

POOL = (
    PoolCase("2x2", 2, 6, 8, 3, (2, 2), (2, 2)),
    PoolCase("2x2-odd-image", 2, 5, 7, 3, (2, 2), (2, 2)),
    PoolCase("2x2-odd-image-floor", 2, 5, 7, 3, (2, 2), (2, 2), rounding="floor"),
    PoolCase("overlapping-3-by-2", 2, 7, 9, 5, (3, 3), (2, 2)),
    PoolCase("overlapping-3-by-2-ragged", 2, 8, 6, 5, (3, 3), (2, 2)),
    PoolCase("stride-1", 1, 5, 6, 4, (3, 3), (1, 1)),
    PoolCase("stride-1-same", 1, 5, 6, 4, (3, 3), (1, 1), (1, 1)),
    PoolCase("r-not-s-stride-1x2", 2, 7, 8, 3, (3, 2), (1, 2), (1, 0)),
    PoolCase("pad-2x1", 2, 7, 6, 3, (4, 3), (2, 3), (2, 1)),
    PoolCase("pad-drops-last-window", 2, 5, 5, 3, (2, 2), (2, 2), (1, 1)),
    PoolCase("stride-beyond-window", 2, 9, 8, 3, (2, 1), (3, 4)),
    PoolCase("window-starts-outside", 2, 8, 7, 3, (1, 2), (4, 6)),
    PoolCase("one-by-one", 3, 4, 3, 2, (1, 1), (1, 1)),
    PoolCase("whole-image", 3, 5, 4, 7, (5, 4), (1, 1)),
    PoolCase("largest-window", 1, 18, 17, 2, (16, 16), (2, 1)),
    PoolCase("one-channel", 3, 7, 7, 1, (3, 3), (2, 2)),
    PoolCase("17-channels", 1, 7, 6, 17, (3, 3), (2, 2)),
    PoolCase("one-pixel-image", 2, 1, 1, 33, (1, 1), (2, 2)),
    # Channels in fours, where kernels use wide loads.
    PoolCase("3x3-fours", 2, 7, 8, 8, (3, 3), (2, 2), (1, 1)),
    PoolCase("2x2-fours", 2, 5, 6, 12, (2, 2), (2, 2)),
    PoolCase("2x3-fours", 2, 6, 7, 20, (2, 3), (1, 2), (0, 1)),
    PoolCase("several-blocks", 9, 27, 25, 34, (3, 3), (2, 2), small=False),
)

BLUR = (  # shape of x, size, standard deviation
    ((2, 5, 4, 3), 3, 0.7),
    ((1, 9, 6, 8), 5, 1.3),  # channels in fours, two strips of rows
    ((2, 17, 3, 2), 7, 4.0),  # wider than the image
    ((1, 8, 10, 4), 9, 1.0),
    ((3, 1, 1, 1), 3, 0.5),
    ((1, 16, 2, 17), 5, 1e-3),  # what is left is the pixel itself
)

NAILBED = (  # shape of x, stride, start
    ((2, 7, 6, 5), 3, 1),
    ((1, 8, 9, 8), 2, 0),
    ((2, 5, 4, 3), 1, 0),
    ((1, 6, 5, 4), 7, 4),  # one pixel, the last row but one
    ((3, 1, 1, 1), 2, 0),
    ((1, 33, 20, 12), 2, 3),  # several blocks
)

LRN = (
    LrnCase("alpha-1", (2, 3, 4, 16)),
    LrnCase("paper", (2, 3, 4, 16), k=2.0, alpha=1e-4),
    LrnCase("groups-2", (2, 3, 3, 16), groups=2),
    LrnCase("groups-3-narrower-than-window", (2, 3, 3, 9), groups=3, n=7),
    LrnCase("each-channel-a-group", (2, 2, 3, 6), groups=6),
    LrnCase("even-window", (2, 3, 4, 16), n=4),
    LrnCase("even-window-groups", (2, 3, 4, 12), n=2, groups=2),
    LrnCase("window-of-1", (2, 3, 4, 8), n=1),
    LrnCase("window-of-3", (1, 5, 5, 7), n=3, alpha=0.5),
    LrnCase("window-of-9", (1, 3, 5, 32), n=9, alpha=0.25),
    LrnCase("window-wider-than-channels", (2, 3, 3, 5), n=31),
    LrnCase("mean", (2, 3, 4, 16), alpha_mode="mean"),
    LrnCase("mean-even-window-groups", (2, 3, 4, 16), n=6, alpha_mode="mean", groups=2),
    LrnCase("beta-half", (2, 3, 4, 16), beta=0.5),
    LrnCase("beta-1", (2, 3, 4, 16), beta=1.0),
    LrnCase("beta-0", (2, 3, 4, 16), beta=0.0),
    LrnCase("beta-1.3", (2, 3, 4, 16), beta=1.3, k=0.5),
    LrnCase("alpha-0", (2, 3, 4, 8), alpha=0.0),
    LrnCase("one-channel", (2, 5, 3, 1)),
    LrnCase("17-channels", (1, 5, 7, 17)),
    LrnCase("96-channels", (1, 3, 3, 96), groups=2),
    LrnCase("rows-of-features", (7, 20)),
    LrnCase("window-of-3-fours", (2, 3, 4, 24), n=3, groups=2),
    LrnCase("several-blocks-of-fours", (2, 9, 7, 24), groups=2),
    LrnCase("wide-window-many-channels", (2, 1500), n=1201, alpha=0.01),
    LrnCase("several-blocks", (3, 27, 25, 48), groups=2, small=False),
)

# The paper's net, layer by layer: batch 128, 224 x 224 images; `ceil` gives conv1 55 positions.
ALEXNET_CONV = (
    ConvCase("conv1", 128, 224, 224, 3, 96, 11, 11, (4, 4), rounding="ceil", small=False),
    ConvCase("conv2", 128, 27, 27, 96, 256, 5, 5, pad=(2, 2), groups=2, small=False),
    ConvCase("conv3", 128, 13, 13, 256, 384, 3, 3, pad=(1, 1), small=False),
    ConvCase("conv4", 128, 13, 13, 384, 384, 3, 3, pad=(1, 1), groups=2, small=False),
    ConvCase("conv5", 128, 13, 13, 384, 256, 3, 3, pad=(1, 1), groups=2, small=False),
)
ALEXNET_POOL = (
    PoolCase("pool1", 128, 55, 55, 96, (3, 3), (2, 2), small=False),
    PoolCase("pool2", 128, 27, 27, 256, (3, 3), (2, 2), small=False),
    PoolCase("pool5", 128, 13, 13, 256, (3, 3), (2, 2), small=False),
)
ALEXNET_LRN = (
    LrnCase("norm1", (128, 55, 55, 96), k=2.0, alpha=1e-4, groups=2, small=False),
    LrnCase("norm2", (128, 27, 27, 256), k=2.0, alpha=1e-4, groups=2, small=False),
)
ALEXNET_DENSE = (
    DenseCase("fc6", 128, 9216, 4096, small=False),
    DenseCase("fc7", 128, 4096, 4096, small=False),
    DenseCase("fc8", 128, 4096, 1000, small=False),
)


# ---- inputs ---------------------------------------------------------------------------------


def integers(rng: np.random.Generator, shape: tuple[int, ...], largest: int = 4) -> np.ndarray:
    """Whole numbers in [-largest, largest] as float32: sums and products of them are exact."""
    return rng.integers(-largest, largest + 1, shape).astype(np.float32)


def floats(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normally distributed float32."""
    return rng.standard_normal(shape).astype(np.float32)


def distinct(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """All different and evenly spread over [-1, 1]: no ties, and room for central differences."""
    count = math.prod(shape)
    return (rng.permutation(count).reshape(shape) / count * 2 - 1).astype(np.float32)
