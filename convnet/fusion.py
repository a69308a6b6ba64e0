"""The pass that plans how a net runs: what is fused, what runs in place, what needs no gradient.

It only sets attributes of layers. With fuse=False every layer computes on its own, from its own
buffers into its own buffers, and the results are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from convnet.graph import INPUT, Node, consumers, input_names
from convnet.layer import Layer
from convnet.layers.activation import Activation, ReLU
from convnet.layers.dense import Dense
from convnet.layers.dropout import Dropout
from convnet.layers.lrn import LRN
from convnet.layers.pool import MaxPool
from convnet.layers.shape import Sum
from convnet.layers.weighted import Weighted

FREE, ONLY_SIGNS, LOCKED = 0, 1, 2  # what a value in memory is still needed for


@dataclass(frozen=True)
class Plan:
    """What `Net` needs to know of the plan.

    learns: nodes that have parameters that are not frozen, or follow one that has; others get no
        backward pass.
    own_dx: nodes whose dx may be added to, because nothing else holds it.
    """

    learns: frozenset[str]
    own_dx: frozenset[str]


def plan(nodes: Sequence[Node], fuse: bool) -> Plan:
    """Sets the attributes of all layers for this graph.

    Args:
        nodes: resolved, in order, after `setup`.
        fuse: whether to fuse and to work in place.
    """
    uses = consumers(nodes)
    learns = _find_learning(nodes)
    _reset(nodes)
    if fuse:
        _fuse_relus(nodes, uses)
        _fuse_norms(nodes, uses)
        _run_in_place(nodes, uses)
        _join_masks(nodes)
        _hand_masks_up(nodes, uses, learns)
        _run_in_place(nodes, uses)  # again, as what a mask is taken from may have changed
        _fuse_dropouts(nodes, uses)
    return Plan(learns, _find_own_dx(nodes, uses, fuse))


@contextmanager
def apart(layer: Layer, really: bool = True) -> Iterator[None]:
    """Within the block, fprop gives the layer's own output: without the ReLU that is fused into it,
    and not left to the pool that it is fused into."""
    flag = "fuse_relu" if isinstance(layer, Weighted) else "fused"
    if not (really and isinstance(layer, (Weighted, LRN)) and getattr(layer, flag)):
        yield
        return
    setattr(layer, flag, False)
    try:
        yield
    finally:
        setattr(layer, flag, True)


def _reset(nodes: Sequence[Node]) -> None:
    for node in nodes:
        layer = node.layer
        layer.in_place = layer.overwrite_dy = False
        if isinstance(layer, Weighted):
            layer.fuse_relu = layer.dy_masked = layer.mask_dx = False
        if isinstance(layer, Activation):
            layer.fused = layer.dy_masked = False
        if isinstance(layer, LRN):
            layer.fused = False
        if isinstance(layer, Dropout):
            layer.masked = layer.fused = False
        if isinstance(layer, Dense):
            layer.dropout = None
        if isinstance(layer, MaxPool):
            layer.norm, layer.mask_dx = None, False


def _find_learning(nodes: Sequence[Node]) -> frozenset[str]:
    """Which nodes need a backward pass; sets `need_dx`. The first that learns has no dx."""
    learns: set[str] = set()
    for node in nodes:
        node.layer.need_dx = any(name in learns for name in input_names(node))
        if node.layer.learns or node.layer.need_dx:
            learns.add(node.name)
    return frozenset(learns)


def _fuse_relus(nodes: Sequence[Node], uses: dict[str, list[Node]]) -> None:
    """A ReLU runs in the epilogue of the layer below it when nothing else sees that layer."""
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        below = by_name.get(input_names(node)[0])
        if not isinstance(node.layer, ReLU) or below is None:
            continue
        layer = below.layer
        if isinstance(layer, Weighted) and not layer.relu and len(uses[below.name]) == 1:
            layer.fuse_relu = node.layer.fused = True


def _fuse_norms(nodes: Sequence[Node], uses: dict[str, list[Node]]) -> None:
    """LRN runs in the operations of a max-pool that is all that reads it."""
    for node in nodes:
        readers = uses[node.name]
        if isinstance(node.layer, LRN) and len(readers) == 1:
            above = readers[0].layer
            if isinstance(above, MaxPool):
                node.layer.fused, above.norm = True, node.layer


def _join_masks(nodes: Sequence[Node]) -> None:
    """A dropout that runs in place over a ReLU's output leaves its mask to the ReLU."""
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        below = by_name.get(input_names(node)[0])
        if isinstance(node.layer, Dropout) and node.layer.in_place and below is not None:
            layer = below.layer
            over_dropout = isinstance(layer, Dropout) and layer.masked
            node.layer.masked = over_dropout or _has_relu(layer)


def _has_relu(layer: Layer) -> bool:
    """Whether the last thing a layer does is a ReLU, itself or by the layer below."""
    return isinstance(layer, ReLU) or (isinstance(layer, Weighted) and layer.has_relu)


def _hand_masks_up(
    nodes: Sequence[Node], uses: dict[str, list[Node]], learns: frozenset[str]
) -> None:
    """The mask of a ReLU is applied by the dgrad of the layer above it, where that can; or by the
    backward pass of a max-pool that LRN runs in."""
    for node in nodes:
        layer = node.layer
        is_relu = _has_relu(layer) and not (isinstance(layer, ReLU) and layer.fused)
        above = _sole_reader(node, uses)
        if not is_relu or node.name not in learns or above is None:
            continue
        masks = above.layer
        if isinstance(masks, Weighted) or (isinstance(masks, MaxPool) and masks.norm is not None):
            assert isinstance(layer, (Weighted, Activation))
            layer.dy_masked = masks.mask_dx = True


def _sole_reader(node: Node, uses: dict[str, list[Node]]) -> Node | None:
    """The one node that reads this one's output, past nodes that only hand it on, and past dropouts
    over it that have left it their mask."""
    while len(uses[node.name]) == 1:
        node = uses[node.name][0]
        if not node.layer.is_view and not (isinstance(node.layer, Dropout) and node.layer.masked):
            return node
    return None


def _run_in_place(nodes: Sequence[Node], uses: dict[str, list[Node]]) -> None:
    """Lets a layer write y over x where no other node reads x and no bprop needs it."""
    needed = {INPUT: LOCKED}
    for node in nodes:
        layer = node.layer
        below = max(needed[name] for name in input_names(node))
        if layer.can_run_in_place and not layer.is_view:
            layer.in_place = below == FREE or (below == ONLY_SIGNS and layer.keeps_relu_mask)
        own = LOCKED if len(uses[node.name]) != 1 else layer.saved_output
        shares_memory = layer.in_place or layer.is_view
        needed[node.name] = max(own, below) if shares_memory else own


def _fuse_dropouts(nodes: Sequence[Node], uses: dict[str, list[Node]]) -> None:
    """A dropout that would run in place over the output of a dense layer, or of its ReLU, runs in
    that layer's epilogue. Only of the library's own kind of layer, which does so."""
    for node in nodes:
        above = _past_views(node, uses) if type(node.layer) is Dense else None
        if above is not None and type(above.layer) is Dropout and above.layer.in_place:
            assert isinstance(node.layer, Dense)
            node.layer.dropout, above.layer.fused = above.layer, True


def _past_views(node: Node, uses: dict[str, list[Node]]) -> Node | None:
    """The one node that reads this one's output, past nodes that only hand it on."""
    while len(uses[node.name]) == 1:
        node = uses[node.name][0]
        if not node.layer.is_view:
            return node
    return None


def _find_own_dx(nodes: Sequence[Node], uses: dict[str, list[Node]], fuse: bool) -> frozenset[str]:
    """Which nodes return a dx that is theirs alone; sets `overwrite_dy`.

    A dy is shared when it went to all inputs of a Sum. A node that several nodes read gets the sum
    of their gradients, which is never shared.
    """
    own_dx: set[str] = set()
    for node in reversed(nodes):
        readers = uses[node.name]
        own_dy = len(readers) != 1 or readers[0].name in own_dx
        node.layer.overwrite_dy = fuse and own_dy
        if isinstance(node.layer, Sum) and node.layer.passes_dy:
            continue
        if own_dy or not node.layer.passes_dy:
            own_dx.add(node.name)
    return frozenset(own_dx)
