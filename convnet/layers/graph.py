"""The graph of a net: its nodes, which of them feed which, and the order to run them in."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from convnet.common.typecheck import did_you_mean
from convnet.layers.layer import Layer
from convnet.layers.loss import Loss

INPUT = "input"  # the name of the images that are fed to a net


@dataclass(frozen=True)
class Node:
    """A layer in its place in a net.

    Args:
        name: letters, digits, "_", "-" and "/".
        layer: its operation; a layer object belongs to one node.
        inputs: names of the nodes whose outputs it takes, one name or several; "input" is what the
            net is fed. By default the node above, or "input" for the first.
        share: name of a node with a layer of the same shapes, whose parameters this one uses too.
    """

    name: str
    layer: Layer
    inputs: str | Sequence[str] | None = None
    share: str | None = None


def resolve(nodes: Iterable[Node]) -> list[Node]:
    """The nodes in an order to run them in, each with the tuple of its inputs.

    The order given is kept as far as the inputs allow.

    Raises: ValueError for a name that is unknown, malformed or used twice, the wrong number of
        inputs, a cycle, a layer in two nodes, or an output that nothing uses.
    """
    nodes = list(nodes)
    if not nodes:
        raise ValueError("a net needs at least one node")
    _check_names(nodes)
    resolved = []
    for index, node in enumerate(nodes):
        above = nodes[index - 1].name if index else INPUT
        inputs = above if node.inputs is None else node.inputs
        inputs = (inputs,) if isinstance(inputs, str) else tuple(inputs)
        resolved.append(Node(node.name, node.layer, inputs, node.share))
    by_name = {node.name: node for node in resolved}
    for node in resolved:
        _check_inputs(node, by_name)
    ordered = _sort(resolved)
    _check_uses(ordered)
    return ordered


def input_names(node: Node) -> tuple[str, ...]:
    """The inputs of a resolved node."""
    assert isinstance(node.inputs, tuple)
    return node.inputs


def consumers(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    """For each node, and for "input", the nodes that take its output; once for every use."""
    uses: dict[str, list[Node]] = {name: [] for name in (INPUT, *(node.name for node in nodes))}
    for node in nodes:
        for name in input_names(node):
            uses[name].append(node)
    return uses


def ancestors(nodes: Sequence[Node], name: str) -> set[str]:
    """The names of all nodes that the output of one depends on, itself included."""
    by_name = {node.name: node for node in nodes}
    found: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name != INPUT and name not in found:
            found.add(name)
            waiting.extend(input_names(by_name[name]))
    return found


def learning(nodes: Sequence[Node]) -> frozenset[str]:
    """The nodes that need a backward pass: those that learn, and those above them."""
    learns: set[str] = set()
    for node in nodes:
        if node.layer.learns or any(name in learns for name in input_names(node)):
            learns.add(node.name)
    return frozenset(learns)


def _check_names(nodes: Sequence[Node]) -> None:
    by_name: dict[str, int] = {}
    by_layer: dict[int, str] = {}
    for place, node in enumerate(nodes, 1):
        if not isinstance(node, Node):
            raise ValueError(f"node {place}: expected a Node, got {type(node).__name__}")
        name, layer = node.name, node.layer
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_/-]+", name) or name == INPUT:
            raise ValueError(
                f"node {place}: expected a name of letters, digits, '_', '-' or '/', "
                f"and not {INPUT!r}; got {name!r}"
            )
        if not isinstance(layer, Layer):
            raise ValueError(f"node {name!r}: expected a Layer, got {type(layer).__name__}")
        if (other := by_name.setdefault(name, place)) != place:
            raise ValueError(f"node {name!r}: two nodes have this name, number {other} and {place}")
        if by_layer.setdefault(id(layer), name) != name:
            raise ValueError(
                f"node {name!r}: its layer object is also that of node {by_layer[id(layer)]!r}; "
                "to share weights give this node a layer of its own and share= the other's name"
            )


def _check_inputs(node: Node, by_name: dict[str, Node]) -> None:
    what = f"node {node.name!r}"
    names = input_names(node)
    for name in names:
        if name != INPUT and name not in by_name:
            known = [INPUT, *by_name]
            raise ValueError(f"{what}: unknown input {name!r}{did_you_mean(str(name), known)}")
        if name != INPUT and isinstance(by_name[name].layer, Loss):
            raise ValueError(f"{what}: input {name!r} is a loss, which nothing can come after")
    if node.layer.multi_input and len(names) < 2:
        raise ValueError(f"{what}: expected two inputs or more, got {', '.join(names) or 'none'}")
    if not node.layer.multi_input and len(names) != 1:
        raise ValueError(f"{what}: expected one input, got {', '.join(names) or 'none'}")
    if node.share is not None and (node.share not in by_name or node.share == node.name):
        others = [name for name in by_name if name != node.name]
        raise ValueError(
            f"{what}: share: unknown node {node.share!r}{did_you_mean(str(node.share), others)}"
        )
    if node.share is not None and by_name[node.share].share is not None:
        raise ValueError(
            f"{what}: share: node {node.share!r} itself shares the parameters of "
            f"{by_name[node.share].share!r}; name that one"
        )


def _sort(nodes: Sequence[Node]) -> list[Node]:
    """Nodes after their inputs, otherwise in the order given."""
    sorter = TopologicalSorter(
        {node.name: [name for name in input_names(node) if name != INPUT] for node in nodes}
    )
    try:
        sorter.prepare()
    except CycleError as error:
        raise ValueError(f"the inputs form a cycle: {' -> '.join(error.args[1])}") from None
    place = {node.name: number for number, node in enumerate(nodes)}
    ready: list[int] = []
    ordered: list[Node] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(ready, place[name])
        ordered.append(nodes[heapq.heappop(ready)])
        sorter.done(ordered[-1].name)
    return ordered


def _check_uses(nodes: Sequence[Node]) -> None:
    uses = consumers(nodes)
    losses = [node.name for node in nodes if isinstance(node.layer, Loss)]
    ends = [node.name for node in nodes if not uses[node.name] and node.name not in losses]
    if losses and ends:
        raise ValueError(
            f"node {ends[0]!r}: its output is used by no node and it is no loss; "
            "remove it, or make it an input of one that leads to the loss"
        )
    if not losses and len(ends) > 1:
        raise ValueError(
            f"nodes {', '.join(map(repr, ends))}: a net without a loss has one output, "
            f"and these {len(ends)} are used by no other node"
        )
