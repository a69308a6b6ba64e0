"""Parameters and velocities as a dict of arrays, to save them and to load them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convnet import backend as backends
from convnet.layers.layer import Parameter
from convnet.parallel.partition import Split

VELOCITY = ":velocity"  # follows the name of the parameter


def state(splits: Mapping[str, Split], copy: bool = True) -> dict[str, np.ndarray]:
    """ "conv1.w" and "conv1.w:velocity" of each parameter, on the host, joined from its shards.

    Without `copy`, what is there already in one piece is not copied: it changes with the next step.
    """
    arrays = {}
    for name, split in splits.items():
        for suffix in ("", VELOCITY):
            parts = [(_values(param, suffix), first, last) for param, first, last in split.parts]
            if len(parts) == 1:
                arrays[name + suffix] = np.array(parts[0][0]) if copy else parts[0][0]
                continue
            array = arrays[name + suffix] = np.empty(split.shape, np.float32)
            for values, first, last in parts:
                array[split.index(first, last)] = values
    return arrays


def _values(param: Parameter, suffix: str) -> np.ndarray:
    if suffix and not param.has_velocity:
        return np.zeros(param.shape, np.float32)
    return backends.of(param.data).to_host(param.velocity if suffix else param.data)


def load(splits: Mapping[str, Split], arrays: Mapping[str, Any]) -> None:
    """Puts what there is in such a dict into the shards of parameters; see `Net.load_state`."""
    for name, split in splits.items():
        for param, first, last in split.parts if name in arrays else ():
            where = split.index(first, last) if len(split.parts) > 1 else ...
            device = backends.of(param.data)
            with device.active():
                param.data[...] = device.asarray(arrays[name][where])
                if name + VELOCITY in arrays:
                    param.velocity[...] = device.asarray(arrays[name + VELOCITY][where])
                elif param.has_velocity:
                    param.velocity.fill(0)


def misfits(params: Sequence[Parameter], arrays: Mapping[str, Any], strict: bool) -> dict[str, str]:
    """The keys of such a dict that do not fit these parameters, and why.

    Raises: ValueError listing it, where strict.
    """
    targets = {param.name: param for param in params}
    if any(key.endswith(VELOCITY) for key in arrays):
        targets |= {param.name + VELOCITY: param for param in params}
    problems = _misfits(targets, arrays)
    if problems and strict:
        raise ValueError(f"the state is not of this net: {_listed(list(problems.values()))}")
    return problems


def _misfits(targets: Mapping[str, Parameter], arrays: Mapping[str, Any]) -> dict[str, str]:
    """The keys that do not fit, and why."""
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
