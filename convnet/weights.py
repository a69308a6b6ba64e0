"""Parameters and velocities as a dict of arrays, to save them and to load them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convnet.backend import Backend
from convnet.layer import Parameter

VELOCITY = ":velocity"  # follows the name of the parameter


def state(
    params: Sequence[Parameter], backend: Backend, copy: bool = True
) -> dict[str, np.ndarray]:
    """ "conv1.w" and "conv1.w:velocity" of each parameter, on the host.

    Without `copy`, where they are there already, the arrays themselves: they change with the next
    step.
    """
    arrays = {}
    for param in params:
        arrays[param.name] = backend.to_host(param.data)
        arrays[param.name + VELOCITY] = (
            backend.to_host(param.velocity)
            if param.has_velocity
            else np.zeros(param.shape, np.float32)
        )
    return {name: np.array(array) for name, array in arrays.items()} if copy else arrays


def load(
    params: Sequence[Parameter], backend: Backend, arrays: Mapping[str, Any], strict: bool
) -> list[str]:
    """Puts such a dict into parameters; see `Net.load_state`."""
    targets = {param.name: param for param in params}
    if any(key.endswith(VELOCITY) for key in arrays):
        targets |= {param.name + VELOCITY: param for param in params}
    problems = _misfits(targets, arrays)
    if problems and strict:
        raise ValueError(f"the state is not of this net: {_listed(list(problems.values()))}")
    for param in params:
        if param.name in problems:
            continue
        param.data[...] = backend.asarray(arrays[param.name])
        key = param.name + VELOCITY
        if key in arrays and key not in problems:
            param.velocity[...] = backend.asarray(arrays[key])
        elif param.has_velocity:
            param.velocity.fill(0)
    return list(problems.values())


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
