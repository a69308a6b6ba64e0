"""Numbers that are not finite: the error that ends training, and the search for where they began.

An update writes no element that is not finite, and notes that it met one in the state of the step
(`ops.sgd_update`). When the step is over the host reads that, runs the batch again, node by node,
and raises. So the weights of a net stay finite, and training ends at the step that went wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convnet import backend as backends
from convnet.exit_codes import FAILED
from convnet.graph import INPUT
from convnet.layer import Array, Parameter

if TYPE_CHECKING:
    from convnet.partition import Partition
    from convnet.steps import Steps


class DivergedError(ArithmeticError):
    """Training met numbers that are not finite.

    Attributes:
        parameter: the first in backward order whose update was not finite; None where another
            number than an update was not.
        node: where it began, "input" if the data held them; None where that is not known.
    """

    exit_code = FAILED

    def __init__(self, message: str, parameter: str | None = None, node: str | None = None) -> None:
        super().__init__(message)
        self.parameter, self.node = parameter, node


@dataclass(frozen=True)
class Origin:
    """Where something that is not finite began: a node ("input": the data), and in words."""

    node: str
    text: str


class Watch:
    """Looks at what passes compute, and keeps the first that is not finite.

    Args:
        partition: of the net over devices, or None.
    """

    def __init__(self, partition: Partition | None) -> None:
        self.partition = partition
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
        node = name if self.partition is None else self.partition.origin.get(name, name)
        if node == INPUT:
            text = "the data hold NaN or infinity"
        self.origin = Origin(node, text.format(node))


def is_finite(array: Array) -> bool:
    """Whether all elements are neither NaN nor infinite."""
    device = backends.of(array)
    with device.active():
        return bool(device.xp.isfinite(array).all())


def in_parameters(net: Steps) -> str | None:
    """The first node with a parameter that is not finite."""
    watch = Watch(net.partition)
    for node in net.step_nodes:
        watch.see(node.name, params=node.layer.params)
    return watch.origin.node if watch.origin else None


def in_batch(net: Steps, x: Array, labels: Array) -> Origin | None:
    """Runs a batch forward and backward, layer by layer, and looks at all of it as it is computed.
    No update is made, no gradient kept, and no other process told."""
    watch = Watch(net.partition)
    passes = net.passes(net.step_nodes, watch)
    passes.backward(passes.forward(x, True, labels), lambda param, grad: None)
    return watch.origin


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
