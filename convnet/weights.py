"""Parameters and velocities as a dict of arrays, to save them and to load them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convnet import backend as backends
from convnet.layer import Parameter

VELOCITY = ":velocity"  # follows the name of the parameter


def state(params: Sequence[Parameter]) -> dict[str, np.ndarray]:
    """Copies on the host: "conv1.w" and "conv1.w:velocity" of each parameter."""
    arrays = {}
    for param in params:
        backend = backends.of(param.data)
        arrays[param.name] = np.array(backend.to_host(param.data))
        arrays[param.name + VELOCITY] = (
            np.array(backend.to_host(param.velocity))
            if param.has_velocity
            else np.zeros(param.shape, np.float32)
        )
    return arrays


def misfits(params: Sequence[Parameter], arrays: Mapping[str, Any], strict: bool) -> dict[str, str]:
    """What of such a dict does not fit these parameters, by key.

    Raises: ValueError listing it, where strict.
    """
    targets = {param.name: param for param in params}
    if any(key.endswith(VELOCITY) for key in arrays):
        targets |= {param.name + VELOCITY: param for param in params}
    problems = _misfits(targets, arrays)
    if problems and strict:
        raise ValueError(f"the state is not of this net: {_listed(list(problems.values()))}")
    return problems


def load(params: Sequence[Parameter], arrays: Mapping[str, Any]) -> None:
    """Puts what there is in such a dict into parameters; see `Net.load_state`."""
    for param in params:
        if param.name not in arrays:
            continue
        backend = backends.of(param.data)
        param.data[...] = backend.asarray(arrays[param.name])
        key = param.name + VELOCITY
        if key in arrays:
            param.velocity[...] = backend.asarray(arrays[key])
        elif param.has_velocity:
            param.velocity.fill(0)


def _misfits(targets: Mapping[str, Parameter], arrays: Mapping[str, Any]) -> dict[str, str]:
    """What does not fit, by key."""
    problems = {key: f"missing {key}" for key in targets if key not in arrays}
    for key, value in arrays.items():
        if key not in targets:
            problems[key] = f"unexpected {key}"
        elif tuple(value.shape) != targets[key].shape:
            shapes = f"expected shape {targets[key].shape}, got {tuple(value.shape)}"
            problems[key] = f"{key}: {shapes}"
        elif value.dtype != np.float32:
            problems[key] = f"{key}: expected float32, got {value.dtype}"
    return problems


def _listed(problems: list[str], most: int = 8) -> str:
    rest = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + rest
