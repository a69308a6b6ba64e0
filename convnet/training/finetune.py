"""Starting from another net: the weights of all layers that fit.

Source: paper, section 6, where a net trained on 22,000 classes is then trained on 1,000 of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convnet.layers.layer import Parameter
from convnet.nn.net import Net
from convnet.nn.weights import VELOCITY
from convnet.training.checkpoint import Checkpoint, CheckpointError


@dataclass(frozen=True)
class Taken:
    """What a net got from a checkpoint.

    Attributes:
        path, step: of the checkpoint.
        taken: the layers whose weights were taken.
        fresh: the layers that keep their initial weights, each with the reason in brackets.
        unused: the layers of the checkpoint that the net does not have.
    """

    path: Path
    step: int
    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """For the reader of a run."""
        lines = [f"{self.path}, step {self.step}: took {', '.join(self.taken)}"]
        if self.fresh:
            lines.append(f"not taken, with fresh weights: {', '.join(self.fresh)}")
        if self.unused:
            lines.append(f"not used, no such layer here: {', '.join(self.unused)}")
        return lines


def take_weights(net: Net, checkpoint: Checkpoint) -> Taken:
    """Copies the parameters of each layer that the checkpoint has under the same name with the same
    shapes. A layer is taken as a whole or not at all. Its velocities begin at zero; the step stays.

    Raises:
        CheckpointError: no layer fits; nothing is changed.
    """
    there = _layers_of(checkpoint.weights)
    fits: dict[str, list[Parameter]] = {}
    fresh = []
    for node in net.parametric:
        if reason := _misfit(node.layer.params, there.pop(node.name, None)):
            fresh.append(f"{node.name} ({reason})")
        else:
            fits[node.name] = node.layer.params
    if not fits:
        raise CheckpointError(f"{checkpoint.path}: nothing in it fits the net: {', '.join(fresh)}")
    names = (param.name for params in fits.values() for param in params)
    weights = {name: np.asarray(checkpoint.arrays[name], np.float32) for name in names}
    net.load_state(weights, strict=False)
    return Taken(checkpoint.path, checkpoint.state["step"], tuple(fits), tuple(fresh), tuple(there))


def _layers_of(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """The parameters of a checkpoint by layer: {"conv1": {"w": ..., "b": ...}}."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        if not name.endswith(VELOCITY):
            layer, _, param = name.rpartition(".")
            layers.setdefault(layer, {})[param] = array
    return layers


def _misfit(params: list[Parameter], held: dict[str, np.ndarray] | None) -> str:
    """Why a layer's parameters cannot be taken; empty where they can."""
    if held is None:
        return "no such layer there"
    for param in params:
        name = param.name.rpartition(".")[2]
        if name not in held:
            return f"no {name} there"
        if held[name].shape != param.shape:
            here, there = ("x".join(map(str, s)) for s in (param.shape, held[name].shape))
            return f"{name} is {here} here, {there} there"
    more = set(held) - {param.name.rpartition(".")[2] for param in params}
    return f"no {min(more)} here" if more else ""
