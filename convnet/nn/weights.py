"""Parameters and velocities as a dict of arrays, to save them and to load them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convnet import backend as backends
from convnet.layers.layer import Parameter
from convnet.parallel.partition import Split

VELOCITY = ":velocity"  # follows the name of the parameter


def state(params: Sequence[Parameter], copy: bool = True) -> dict[str, np.ndarray]:
    """ "conv1.w" and "conv1.w:velocity" of each parameter, on the host.

    Without `copy`, where they are there already, the arrays themselves: they change with the next
    step.
    """
    arrays = {}
    for param in params:
        backend = backends.of(param.data)
        arrays[param.name] = backend.to_host(param.data)
        arrays[param.name + VELOCITY] = (
            backend.to_host(param.velocity)
            if param.has_velocity
            else np.zeros(param.shape, np.float32)
        )
    return {name: np.array(array) for name, array in arrays.items()} if copy else arrays


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
        with backend.active():
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


# ---- parameters in parts ------------------------------------------------------------------------


def join(
    splits: Mapping[str, Split], parts: Mapping[str, np.ndarray], copy: bool = True
) -> dict[str, np.ndarray]:
    """The state of a net on one device from that of the parts of its parameters.

    Without `copy`, what is in one part is not copied.
    """
    arrays = {}
    for name, split in splits.items():
        for suffix in ("", VELOCITY):
            if len(split.parts) == 1 and not copy:
                arrays[name + suffix] = parts[split.parts[0][0].name + suffix]
                continue
            array = arrays[name + suffix] = np.empty(split.shape, np.float32)
            for param, first, last in split.parts:
                array[split.index(first, last)] = parts[param.name + suffix]
    return arrays


def cut(splits: Mapping[str, Split], arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The other way round, for those parameters that are there."""
    return {
        param.name + suffix: np.ascontiguousarray(
            np.asarray(arrays[name + suffix])[split.index(first, last)]
        )
        for name, split in splits.items()
        for suffix in ("", VELOCITY)
        if name + suffix in arrays
        for param, first, last in split.parts
    }
