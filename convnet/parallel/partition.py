"""Partition: one net over two devices, as in the paper's figure 2, for any graph of layers.

Every activation is split by channel, so that each device holds a range of them, and so are the
filters that compute it. The graph of a net is turned into a larger one, in which a node for each
device computes that device's channels, and `Gather` nodes stand where a device needs channels that
are elsewhere. Everything else follows: forward and backward run through the larger graph as through
any other, and the gradient of a gathered value is the sum of what its readers on both devices send
back. Which channels a layer needs is declared by the layer (`Layer.reach`):

    own       works on the channels that are there: activations, dropout, pools, flatten, sum
    groups    needs whole groups: response normalization. Where a group lies across the devices,
              both gather it, and both compute all of it
    filters   convolution and local layers: each device has some of the groups; without groups each
              has half of the filters and gathers all channels. Dense layers likewise
    joined    concat: what a device needs of each input is gathered
    all       one piece, on the first device: losses, and layers that declare nothing

Source: paper, sections 3.2 and 3.5 and figure 2; and Krizhevsky, "One weird trick for parallelizing
convolutional neural networks", 2014, for what each kind of layer has to send.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from convnet.backend import Array, Backend
from convnet.layers.graph import INPUT, Node, ancestors, input_names, learning
from convnet.layers.layer import Layer, Parameter, Randomness, Shape
from convnet.layers.parametric import ParametricLayer
from convnet.parallel.all_gather import Gather, Piece
from convnet.parallel.p2p import Links


@dataclass(frozen=True)
class Held:
    """Channels first .. last - 1 of a value, as the output of a node."""

    node: str
    first: int
    last: int


@dataclass
class Value:
    """The output of one of the net's nodes, and which device holds which channels of it.

    Attributes:
        name, shape: of the node; the shape is without the batch and of all channels.
        channels: how many; a flattened value has several rows of them.
        held: for each device, or None where it has none. The ranges may overlap.
    """

    name: str
    shape: Shape
    channels: int
    held: list[Held | None]

    def part_shape(self, width: int) -> Shape:
        """The shape of `width` of the channels."""
        if self.channels == self.shape[-1]:
            return (*self.shape[:-1], width)
        return (math.prod(self.shape) // self.channels * width,)

    def covering(self, first: int, last: int, prefer: int) -> list[tuple[int, Held, int, int]]:
        """(device, what it holds, from, to) that together are the channels first .. last - 1; from
        device `prefer` what it has."""
        order = sorted(range(len(self.held)), key=lambda device: device != prefer)
        found, at = [], first
        while at < last:
            device, held = next(
                (device, held)
                for device in order
                if (held := self.held[device]) is not None and held.first <= at < held.last
            )
            end = min(last, held.last)
            nearer = self.held[prefer]
            if device != prefer and nearer is not None and at < nearer.first < end:
                end = nearer.first
            found.append((device, held, at, end))
            at = end
        return found


@dataclass
class Split:
    """A parameter of the net, as parts on devices.

    Attributes:
        shape: of the whole; axis: along which it is cut.
        parts: (parameter, first, last) along that axis.
    """

    shape: Shape
    axis: int
    parts: list[tuple[Parameter, int, int]] = field(default_factory=list)

    def index(self, first: int, last: int) -> tuple[slice, ...]:
        return (*[slice(None)] * self.axis, slice(first, last))


# Of a node on one device: the device, the first and last + 1 channel it computes, and for each
# input the channels it needs.
Part = tuple[int, int, int, list[tuple[Value, int, int]]]


class Partition:
    """The graph of a net over several devices.

    Args:
        nodes: resolved and set up, with their parameters on the host. The layers keep the shapes
            of their parameters only, and their multipliers, which the parts share.
        shapes: of their outputs.
        in_shape: of the net's input, which is on the first device.
        devices: at least two.
        random: the net's random numbers.

    Attributes:
        nodes: of the larger graph, in order; steps: those of them that a training step needs (of
            what both devices could compute, one may be enough).
        device_of: name of such a node -> its device; origin: -> the name of the node it is of.
        values: name of a node of the net (or "input") -> where its output is.
        params: the parts, named like "conv1.w@0".
        links: between the devices.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        shapes: Mapping[str, Shape],
        in_shape: Shape,
        devices: Sequence[Backend],
        random: Randomness,
    ) -> None:
        self.devices, self.links = list(devices), Links(devices, random.state)
        self.nodes: list[Node] = []
        self.device_of: dict[str, Backend] = {INPUT: devices[0]}
        self.origin: dict[str, str] = {INPUT: INPUT}
        self.params: list[Parameter] = []
        self.whole: dict[str, Split] = {}
        self._shapes, self._random = shapes, random
        self._gathers: dict[tuple[str, int, int, int], str] = {}
        self._part_shapes: dict[str, Shape] = {INPUT: in_shape}
        held = [Held(INPUT, 0, in_shape[-1]), *[None] * (len(devices) - 1)]
        self.values = {INPUT: Value(INPUT, in_shape, in_shape[-1], held)}
        for node in nodes:
            self.values[node.name] = self._split(node)
        self._by_name = {node.name: node for node in self.nodes}
        self.steps = self._used(nodes)
        for node in self.nodes:
            if node.share is not None:
                node.layer.params = self._by_name[node.share].layer.params
        for node in nodes:
            for param in node.layer.params:
                param.data = np.broadcast_to(np.float32(0), param.shape)

    # ---- one node -------------------------------------------------------------------------------

    def _split(self, node: Node) -> Value:
        """Adds the nodes that compute what `node` does on each device."""
        kind = node.layer.reach
        inputs = [self.values[name] for name in input_names(node)]
        if kind in ("own", "groups") and any(x.channels != inputs[0].channels for x in inputs):
            kind = "everywhere"  # rows of channels of different lengths
        if kind in ("groups", "joined") and any(x.channels != x.shape[-1] for x in inputs):
            kind = "everywhere"  # a flattened value is one row here, whose elements are everywhere
        if kind == "own":
            return self._split_own(node, inputs)
        if kind == "groups":
            return self._split_groups(node, inputs[0])
        if kind == "filters":
            return self._split_filters(node, inputs[0])
        if kind == "joined":
            return self._split_joined(node, inputs)
        return self._whole(node, inputs, self.devices if kind == "everywhere" else self.devices[:1])

    def _value(self, node: Node, channels: int | None = None) -> Value:
        shape = self._shapes[node.name]
        return Value(node.name, shape, channels or shape[-1], [None] * len(self.devices))

    def _split_own(self, node: Node, inputs: list[Value]) -> Value:
        value = self._value(node, inputs[0].channels)
        parts = [
            (device, held.first, held.last, [(x, held.first, held.last) for x in inputs])
            for device, held in enumerate(inputs[0].held)
            if held is not None
        ]
        return self._add_parts(value, node, parts)

    def _split_groups(self, node: Node, x: Value) -> Value:
        value = self._value(node)
        size = x.channels // getattr(node.layer, "groups", 1)
        parts: list[Part] = []
        for device, held in enumerate(x.held):
            if held is not None:
                first, last = held.first // size * size, -(-held.last // size) * size
                parts.append((device, first, last, [(x, first, last)]))
        return self._add_parts(value, node, parts)

    def _split_filters(self, node: Node, x: Value) -> Value:
        value = self._value(node)
        groups = getattr(node.layer, "groups", 1)
        units = groups if groups > 1 else value.channels
        filters, size = value.channels // units, x.channels // groups
        parts: list[Part] = []
        for device in range(len(self.devices)):
            first, last = self._share_of(units, device)
            if first < last:
                need = (x, first * size, last * size) if groups > 1 else (x, 0, x.channels)
                parts.append((device, first * filters, last * filters, [need]))
        return self._add_parts(value, node, parts)

    def _split_joined(self, node: Node, inputs: list[Value]) -> Value:
        value = self._value(node)
        for device in range(len(self.devices)):
            first, last = self._share_of(value.channels, device)
            pieces, start = [], 0
            for x in inputs:
                low, high = max(first - start, 0), min(last - start, x.channels)
                if low < high:
                    pieces += self._pieces(x, device, low, high, start + low - first)
                start += x.channels
            if pieces:
                name = f"{node.name}@{device}"
                self._add_gather(name, node.name, value, device, pieces, last - first)
                value.held[device] = Held(name, first, last)
        return value

    def _used(self, nodes: Sequence[Node]) -> list[Node]:
        """The nodes that the net's losses, or else its output, depend on."""
        read = {name for node in nodes for name in input_names(node)}
        ends = [end for node in nodes if node.name not in read for end in self.ends(node.name)]
        needed = set().union(*(ancestors(self.nodes, end) for end in ends))
        return [node for node in self.nodes if node.name in needed]

    def _whole(self, node: Node, inputs: list[Value], devices: Sequence[Backend]) -> Value:
        """All of a node on each of the devices."""
        value = self._value(node)
        need = [(x, 0, x.channels) for x in inputs]
        parts = [(device, 0, value.channels, need) for device in range(len(devices))]
        return self._add_parts(value, node, parts)

    def _share_of(self, units: int, device: int) -> tuple[int, int]:
        count = len(self.devices)
        return units * device // count, units * (device + 1) // count

    # ---- the larger graph -----------------------------------------------------------------------

    def _add_parts(self, value: Value, node: Node, parts: list[Part]) -> Value:
        """Adds the nodes of all devices: first the gathers, so that what one device waits for is on
        its way while another computes."""
        inputs = [
            [self._need(x, device, first, last) for x, first, last in need]
            for device, _, _, need in parts
        ]
        for (device, first, last, _), names in zip(parts, inputs, strict=True):
            self._add(value, node, device, names, first, last)
        return value

    def _add(
        self, value: Value, node: Node, device: int, inputs: list[str], first: int, last: int
    ) -> None:
        """A node that computes channels first .. last - 1 of another on one device."""
        name = f"{node.name}@{device}"
        part = node.layer.block(first, last, value.channels)
        part.random, part.stream = self._random, zlib.crc32(node.name.encode())
        if isinstance(part, ParametricLayer):
            part.init = _unset
        shapes = [self._part_shapes[source] for source in inputs]
        with self.devices[device].active():
            shape = part.setup(
                shapes if part.several_inputs else shapes[0], np.random.default_rng(0)
            )
        assert tuple(shape) == value.part_shape(last - first), (name, shape)
        value.held[device] = Held(name, first, last)
        share = f"{node.share}@{device}" if node.share is not None else None
        if share is None:
            self._cut(node, part, device, first, last, value.channels)
        self._append(Node(name, part, tuple(inputs), share), node.name, device, tuple(shape))

    def _append(self, node: Node, origin: str, device: int, shape: Shape) -> None:
        self.nodes.append(node)
        self.origin[node.name] = origin
        self.device_of[node.name] = self.devices[device]
        self._part_shapes[node.name] = shape

    def _cut(
        self, node: Node, part: Layer, device: int, first: int, last: int, channels: int
    ) -> None:
        """Gives a part its share of the node's parameters."""
        axis = node.layer.channel_axis
        for whole, param in zip(node.layer.params, part.params, strict=True):
            split = self.whole.setdefault(whole.name, Split(whole.shape, axis))
            if whole.shape[axis] != channels:
                raise ValueError(
                    f"node {node.name!r}: {whole.name} has no dimension of {channels} channels"
                )
            param.name = f"{whole.name}@{device}"
            param.rates = whole.rates
            if not part.sizes_only:
                param.data = self.devices[device].asarray(whole.data[split.index(first, last)])
            split.parts.append((param, first, last))
            self.params.append(param)

    def _need(self, x: Value, device: int, first: int, last: int) -> str:
        """The name of a node on a device whose output is these channels of x."""
        held = x.held[device]
        if held is not None and (held.first, held.last) == (first, last):
            return held.node
        key = (x.name, device, first, last)
        if key not in self._gathers:
            whole = (first, last) == (0, x.channels)
            name = f"{x.name}{'' if whole else f'[{first}:{last}]'}>{device}"
            pieces = self._pieces(x, device, first, last, 0)
            self._add_gather(name, x.name, x, device, pieces, last - first)
            self._gathers[key] = name
        return self._gathers[key]

    def _pieces(self, x: Value, device: int, first: int, last: int, at: int) -> list[Piece]:
        return [
            Piece(
                node=held.node,
                device=self.devices[holder],
                width=held.last - held.first,
                first=low - held.first,
                cols=high - low,
                at=at + low - first,
            )
            for holder, held, low, high in x.covering(first, last, device)
        ]

    def _add_gather(
        self, name: str, origin: str, x: Value, device: int, pieces: list[Piece], width: int
    ) -> None:
        shape = x.part_shape(width)
        layer = Gather(origin, self.devices[device], pieces, width, shape, self.links)
        inputs = tuple(piece.node for piece in pieces)
        self._append(Node(name, layer, inputs), origin, device, shape)

    # ---- running --------------------------------------------------------------------------------

    def ends(self, name: str) -> list[str]:
        """The nodes whose outputs together are that of a node of the net."""
        value = self.values[name]
        return [held.node for _, held, _, _ in value.covering(0, value.channels, prefer=0)]

    def collect(self, name: str, values: Mapping[str, Array], out: np.ndarray) -> None:
        """The output of a node of the net from those of `ends`, into an array on the host."""
        value = self.values[name]
        rows = out.reshape(-1, value.channels)
        for device, held, low, high in value.covering(0, value.channels, prefer=0):
            part = self.devices[device].to_host(values[held.node])
            part = part.reshape(-1, held.last - held.first)
            rows[:, low:high] = part[:, low - held.first : high - held.first]

    def gathers(self) -> list[tuple[Node, Gather]]:
        """The nodes of a step that bring channels from other devices."""
        return [(node, node.layer) for node in self.steps if isinstance(node.layer, Gather)]

    def moved(self, batch: int) -> int:
        """Bytes that cross between the devices in a training step of this batch."""
        wanted = learning(self.steps)
        return sum(sum(gather.crossing(batch, wanted)) for _, gather in self.gathers())


def _unset(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> np.ndarray:
    """No initial values: they are cut from those of the whole net."""
    return np.empty(shape, np.float32)
