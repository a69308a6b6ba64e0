"""The graph of a net: its nodes, which of them feed which, and the order to run them in."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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


def suggestion(name: str, known: Iterable[str]) -> str:
    """ "did you mean" for an unknown name, or the names there are."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"


def _check_names(nodes: Sequence[Node]) -> None:
    positions: dict[str, int] = {}
    layers: dict[int, str] = {}
    for position, node in enumerate(nodes, 1):
        if not isinstance(node, Node):
            raise ValueError(f"node {position}: expected a Node, got {type(node).__name__}")
        name = node.name
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_/-]+", name) or name == INPUT:
            raise ValueError(
                f"node {position}: expected a name of letters, digits, '_', '-' or '/', "
                f"and not {INPUT!r}; got {name!r}"
            )
        if not isinstance(node.layer, Layer):
            raise ValueError(f"node {name!r}: expected a Layer, got {type(node.layer).__name__}")
        if name in positions:
            raise ValueError(
                f"node {name!r}: two nodes have this name, number {positions[name]} and {position}"
            )
        if id(node.layer) in layers:
            raise ValueError(
                f"node {name!r}: its layer object is also that of node {layers[id(node.layer)]!r}; "
                "to share weights give this node a layer of its own and share= the other's name"
            )
        positions[name] = position
        layers[id(node.layer)] = name


def _check_inputs(node: Node, by_name: dict[str, Node]) -> None:
    what = f"node {node.name!r}"
    names = input_names(node)
    for name in names:
        if name != INPUT and name not in by_name:
            known = [INPUT, *by_name]
            raise ValueError(f"{what}: unknown input {name!r}; {suggestion(str(name), known)}")
        if name != INPUT and isinstance(by_name[name].layer, Loss):
            raise ValueError(f"{what}: input {name!r} is a loss, which nothing can come after")
    if node.layer.several_inputs and len(names) < 2:
        raise ValueError(f"{what}: expected two inputs or more, got {', '.join(names) or 'none'}")
    if not node.layer.several_inputs and len(names) != 1:
        raise ValueError(f"{what}: expected one input, got {', '.join(names) or 'none'}")
    if node.share is not None and (node.share not in by_name or node.share == node.name):
        others = [name for name in by_name if name != node.name]
        raise ValueError(
            f"{what}: share: unknown node {node.share!r}; {suggestion(str(node.share), others)}"
        )
    if node.share is not None and by_name[node.share].share is not None:
        raise ValueError(
            f"{what}: share: node {node.share!r} itself shares the parameters of "
            f"{by_name[node.share].share!r}; name that one"
        )


def _sort(nodes: Sequence[Node]) -> list[Node]:
    """Nodes after their inputs, otherwise in the order given."""
    ordered: list[Node] = []
    done = {INPUT}
    waiting = list(nodes)
    while waiting:
        ready = next((n for n in waiting if all(name in done for name in input_names(n))), None)
        if ready is None:
            raise ValueError(f"the inputs form a cycle: {_cycle(waiting, done)}")
        waiting.remove(ready)
        ordered.append(ready)
        done.add(ready.name)
    return ordered


def _cycle(waiting: Sequence[Node], done: set[str]) -> str:
    """One cycle among nodes that can never run, as text: a -> b -> a."""
    by_name = {node.name: node for node in waiting}
    path = [waiting[0].name]
    while True:
        missing = next(name for name in input_names(by_name[path[-1]]) if name not in done)
        if missing in path:
            loop = [missing, *reversed(path[path.index(missing) :])]
            return " -> ".join(loop)
        path.append(missing)


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
