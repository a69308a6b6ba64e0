"""Initial values of parameters.

Each function takes (rng, shape, fan_in, fan_out, ...) and returns a float32 array. fan_in is the
number of inputs that one output sums, fan_out the number of outputs that one input reaches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from convnet.common.checks import check_choice

Initializer = Callable[..., np.ndarray]


def gaussian(
    rng: np.random.Generator, shape: Sequence[int], fan_in: int, fan_out: int, std: float = 0.01
) -> np.ndarray:
    """The normal distribution with mean 0.

    Args:
        rng, shape, fan_in, fan_out: as in `weights`.
        std: the standard deviation.

    Source: paper, section 5, which uses 0.01.
    """
    values = rng.standard_normal(tuple(shape), dtype=np.float32)
    values *= np.float32(std)
    return values


def uniform(
    rng: np.random.Generator, shape: Sequence[int], fan_in: int, fan_out: int, std: float = 0.01
) -> np.ndarray:
    """The uniform distribution between -std sqrt(3) and std sqrt(3).

    Args:
        rng, shape, fan_in, fan_out: as in `weights`.
        std: its standard deviation.
    """
    values = rng.random(tuple(shape), dtype=np.float32)
    values -= np.float32(0.5)
    values *= np.float32(2.0 * math.sqrt(3.0) * std)
    return values


def xavier(rng: np.random.Generator, shape: Sequence[int], fan_in: int, fan_out: int) -> np.ndarray:
    """The uniform distribution with mean 0 and variance 2 / (fan_in + fan_out).

    Args:
        rng, shape, fan_in, fan_out: as in `weights`.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010, equation 16.
    """
    return uniform(rng, shape, fan_in, fan_out, std=math.sqrt(2.0 / (fan_in + fan_out)))


def he(rng: np.random.Generator, shape: Sequence[int], fan_in: int, fan_out: int) -> np.ndarray:
    """The normal distribution with mean 0 and variance 2 / fan_in, which keeps the scale of
    activations through ReLUs.

    Args:
        rng, shape, fan_in, fan_out: as in `weights`.

    Source: He et al., "Delving deep into rectifiers", ICCV 2015, equation 10.
    """
    return gaussian(rng, shape, fan_in, fan_out, std=math.sqrt(2.0 / fan_in))


def constant(
    rng: np.random.Generator, shape: Sequence[int], fan_in: int, fan_out: int, value: float = 0.0
) -> np.ndarray:
    """The same value everywhere.

    Args:
        rng, shape, fan_in, fan_out: as in `weights`.
        value: which.
    """
    return np.full(tuple(shape), value, dtype=np.float32)


# By the name that a layer's `init` takes. Only the first two look at the layer's `std`.
INITIALIZERS: dict[str, Initializer] = {
    "gaussian": gaussian,
    "uniform": uniform,
    "xavier": xavier,
    "he": he,
}


def weights(
    init: str | Initializer,
    rng: np.random.Generator,
    shape: Sequence[int],
    fan_in: int,
    fan_out: int,
    std: float,
) -> np.ndarray:
    """Initial weights by name, or from a function of (rng, shape, fan_in, fan_out).

    Args:
        init: a key of `INITIALIZERS`, or a function.
        rng: draws them.
        shape: of the weights.
        fan_in, fan_out: numbers of inputs of an output, and of outputs of an input.
        std: of "gaussian" and "uniform".

    Returns: float32 of that shape.
    Raises: ValueError for an unknown name, or a function that returns another shape.
    """
    if callable(init):
        values = np.ascontiguousarray(init(rng, tuple(shape), fan_in, fan_out), dtype=np.float32)
        if values.shape != tuple(shape):
            raise ValueError(f"init: expected shape {tuple(shape)}, got {values.shape}")
        return values
    own = {"std": std} if init in ("gaussian", "uniform") else {}
    return INITIALIZERS[check_choice("init", init, list(INITIALIZERS))](
        rng, shape, fan_in, fan_out, **own
    )
