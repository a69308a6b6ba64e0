"""Numbers that are not finite: the search for where they began.

An update writes no element that is not finite, and notes that it met one in the state of the step
(`ops.sgd_update`). When the step is over the host reads that, runs the batch again, node by node,
and raises. So the weights of a net stay finite, and training ends at the step that went wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convnet import backend as backends
from convnet.layers.graph import INPUT
from convnet.layers.layer import Array, Parameter
from convnet.optim.sgd import DivergedError


@dataclass(frozen=True)
class Origin:
    """Where something that is not finite began: a node ("input": the data), and in words."""

    node: str
    text: str


class Watch:
    """Looks at what passes compute, and keeps the first that is not finite.

    Args:
        origin_of: the net's node of each node that runs, where they are not the same.
    """

    def __init__(self, origin_of: Mapping[str, str]) -> None:
        self.origin_of = origin_of
        self.origin: Origin | None = None

    def see(self, name: str, output: Array | None = None, params: Sequence[Parameter] = ()) -> None:
        """The parameters of a node of the graph that runs, and its output."""
        for param in params:
            if self.origin is None and not is_finite(param.data):
                self._note(name, f"first in node {{}}: {param.name} holds NaN or infinity")
        if self.origin is None and output is not None and not is_finite(output):
            self._note(name, "first in node {}, whose output is not finite")

    def see_gradients(self, name: str, gradients: Sequence[Array]) -> None:
        """What the backward pass of a node has computed."""
        if self.origin is None and not all(map(is_finite, gradients)):
            self._note(name, "first in node {}, whose gradients are not finite")

    def _note(self, name: str, text: str) -> None:
        node = self.origin_of.get(name, name)
        if node == INPUT:
            text = "the data hold NaN or infinity"
        self.origin = Origin(node, text.format(node))


def is_finite(array: Array) -> bool:
    """Whether all elements are neither NaN nor infinite."""
    device = backends.of(array)
    with device.active():
        return bool(device.xp.isfinite(array).all())


def first_not_finite(params: Sequence[Parameter]) -> int:
    """The place, from 1, of the first in backward order whose gradient is not finite; 0: none."""
    for place in range(len(params), 0, -1):
        param = params[place - 1]
        if not param.frozen and not is_finite(param.grad):
            return place
    return 0


def error_of(parameter: str, what: str, origin: Origin | None) -> DivergedError:
    """The error of a step: which parameter was not updated, in words, and where that began."""
    where = origin.text if origin else "run again, the batch shows nothing else that is not finite"
    node = origin.node if origin else None
    return DivergedError(f"the update of {what} is not finite; {where}", parameter, node)
