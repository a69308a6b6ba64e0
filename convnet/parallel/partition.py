"""Partition: one net over two devices, as in the paper's figure 2, for any graph of layers.

Every activation is split by channel, so that each device holds a range of them, and so are the
filters that compute it. The graph of a net is turned into a larger one, in which a node for each
device computes that device's channels, and `AllGather` nodes stand where a device needs channels
that are elsewhere. Everything else follows: forward and backward run through the larger graph as
through any other, and the gradient of a gathered value is the sum of what its readers on both
devices send back. Which channels a layer needs is declared by the layer (`Layer.split_by`):

    channel   works on the channels that are there: activations, dropout, pools, flatten, sum
    group     needs whole groups: response normalization. Where a group lies across the devices,
              both gather it, and both compute all of it
    filter    convolution and local layers: each device has some of the groups; without groups each
              has half of the filters and gathers all channels. Dense layers likewise
    input     concat: what a device needs of each input is gathered
    None      all of it on the first device: losses, and layers that declare nothing

Source: paper, sections 3.2 and 3.5 and figure 2; and Krizhevsky, "One weird trick for parallelizing
convolutional neural networks", 2014, for what each kind of layer has to send.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from convnet.backend import Array, Backend
from convnet.layers.graph import INPUT, Node, ancestors, input_names, learning
from convnet.layers.layer import Layer, Parameter, Randomness, Shape
from convnet.layers.parametric import ParametricLayer
from convnet.parallel.all_gather import AllGather, Columns
from convnet.parallel.p2p import Links


@dataclass(frozen=True)
class Shard:
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
        shards: for each device, or None where it has none. The ranges may overlap.
    """

    name: str
    shape: Shape
    channels: int
    shards: list[Shard | None]

    def shard_shape(self, width: int) -> Shape:
        """The shape of `width` of the channels."""
        if self.channels == self.shape[-1]:
            return (*self.shape[:-1], width)
        return (math.prod(self.shape) // self.channels * width,)

    def covering(self, first: int, last: int, prefer: int) -> list[tuple[int, Shard, int, int]]:
        """(device, its shard, from, to) that together are the channels first .. last - 1; from
        device `prefer` what it has."""
        order = sorted(range(len(self.shards)), key=lambda device: device != prefer)
        nearer, found, at = self.shards[prefer], [], first
        while at < last:
            device, shard = next(
                (device, shard)
                for device in order
                if (shard := self.shards[device]) and shard.first <= at < shard.last
            )
            end = min(last, shard.last)
            if device != prefer and nearer is not None and at < nearer.first < end:
                end = nearer.first
            found.append((device, shard, at, end))
            at = end
        return found


@dataclass
class Split:
    """A parameter of the net, as shards on devices.

    Attributes:
        shape: of the whole; axis: along which it is cut.
        parts: (parameter, first, last) along that axis.
    """

    shape: Shape
    axis: int
    parts: list[tuple[Parameter, int, int]] = field(default_factory=list)

    def index(self, first: int, last: int) -> tuple[slice, ...]:
        return (*[slice(None)] * self.axis, slice(first, last))


class Partition:
    """The graph of a net over several devices.

    Args:
        nodes: resolved and set up, with their parameters on the host. The layers keep the shapes
            of their parameters only, and their multipliers, which the shards share.
        shapes: of their outputs.
        in_shape: of the net's input, which is on the first device.
        devices: at least two.
        random: the net's random numbers.

    Attributes:
        nodes: of the larger graph, in order; steps: those of them that a training step needs (of
            what both devices could compute, one may be enough).
        device_of: name of such a node -> its device; origin: -> the name of the node it is of.
        values: name of a node of the net (or "input") -> where its output is.
        params: the shards, named like "conv1.w@0".
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
        self.splits: dict[str, Split] = {}
        self._shapes, self._random = shapes, random
        self._gathers: dict[tuple[str, int, int, int], str] = {}
        self._shard_shapes: dict[str, Shape] = {INPUT: in_shape}
        held = [Shard(INPUT, 0, in_shape[-1]), *[None] * (len(devices) - 1)]
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
        kind, shape = node.layer.split_by, self._shapes[node.name]
        inputs = [self.values[name] for name in input_names(node)]
        if kind in ("channel", "group") and any(x.channels != inputs[0].channels for x in inputs):
            kind = "everywhere"  # rows of channels of different lengths
        if kind in ("group", "input") and any(x.channels != x.shape[-1] for x in inputs):
            kind = "everywhere"  # a flattened value is one row here, whose elements are everywhere
        channels = inputs[0].channels if kind == "channel" else shape[-1]
        value = Value(node.name, shape, channels, [None] * len(self.devices))
        if kind == "input":
            self._concatenate(value, inputs)
            return value
        ranges = enumerate(self._ranges(node, kind, inputs[0], channels))
        parts = [(device, *part) for device, part in ranges if part is not None]
        # First the gathers of all devices, so that what one waits for is on its way while another
        # computes.
        sources = [
            [self._gathered(x, device, *self._need(node, kind, x, channels, *part)) for x in inputs]
            for device, *part in parts
        ]
        for (device, first, last), names in zip(parts, sources, strict=True):
            self._add(value, node, device, names, first, last)
        return value

    def _ranges(
        self, node: Node, kind: str | None, x: Value, channels: int
    ) -> list[tuple[int, int] | None]:
        """The first and last + 1 channel that each device computes of a node."""
        count, groups = len(self.devices), getattr(node.layer, "groups", 1)
        if kind in ("channel", "group"):
            size = 1 if kind == "channel" else x.channels // groups
            return [
                None if s is None else (s.first // size * size, -(-s.last // size) * size)
                for s in x.shards
            ]
        if kind == "filter":
            units = groups if groups > 1 else channels
            cuts = [units * device // count * (channels // units) for device in range(count + 1)]
            return [(first, last) if first < last else None for first, last in pairwise(cuts)]
        return [(0, channels) if kind or not device else None for device in range(count)]

    @staticmethod
    def _need(
        node: Node, kind: str | None, x: Value, channels: int, first: int, last: int
    ) -> tuple[int, int]:
        """The channels of an input that channels first .. last - 1 of a node are computed from."""
        if kind in ("channel", "group"):
            return first, last
        if kind == "filter" and getattr(node.layer, "groups", 1) > 1:
            return first * x.channels // channels, last * x.channels // channels
        return 0, x.channels

    def _concatenate(self, value: Value, inputs: list[Value]) -> None:
        """A node that joins its inputs gathers on each device its share of their channels."""
        count = len(self.devices)
        for device in range(count):
            first, last = (value.channels * d // count for d in (device, device + 1))
            columns, start = [], 0
            for x in inputs:
                low, high = max(first - start, 0), min(last - start, x.channels)
                if low < high:
                    columns += self._columns(x, device, low, high, start + low - first)
                start += x.channels
            if columns:
                name = f"{value.name}@{device}"
                self._add_gather(name, value, device, columns, last - first)
                value.shards[device] = Shard(name, first, last)

    def _used(self, nodes: Sequence[Node]) -> list[Node]:
        """The nodes that the net's losses, or else its output, depend on."""
        read = {name for node in nodes for name in input_names(node)}
        ends = [end for node in nodes if node.name not in read for end in self.ends(node.name)]
        needed = set().union(*(ancestors(self.nodes, end) for end in ends))
        return [node for node in self.nodes if node.name in needed]

    # ---- the larger graph -----------------------------------------------------------------------

    def _add(
        self, value: Value, node: Node, device: int, inputs: list[str], first: int, last: int
    ) -> None:
        """A node that computes channels first .. last - 1 of another on one device."""
        name = f"{node.name}@{device}"
        layer = node.layer.shard(first, last, value.channels)
        layer.random, layer.stream = self._random, zlib.crc32(node.name.encode())
        if isinstance(layer, ParametricLayer):
            layer.init = _unset
        shapes = [self._shard_shapes[source] for source in inputs]
        with self.devices[device].active():
            rng = np.random.default_rng(0)
            shape = tuple(layer.setup(shapes if layer.multi_input else shapes[0], rng))
        assert shape == value.shard_shape(last - first), (name, shape)
        value.shards[device] = Shard(name, first, last)
        share = f"{node.share}@{device}" if node.share is not None else None
        if share is None:
            self._cut(node, layer, device, first, last, value.channels)
        self._append(Node(name, layer, tuple(inputs), share), node.name, device, shape)

    def _append(self, node: Node, origin: str, device: int, shape: Shape) -> None:
        self.nodes.append(node)
        self.origin[node.name] = origin
        self.device_of[node.name] = self.devices[device]
        self._shard_shapes[node.name] = shape

    def _cut(
        self, node: Node, layer: Layer, device: int, first: int, last: int, channels: int
    ) -> None:
        """Gives a shard of a node its shards of the node's parameters."""
        axis = node.layer.channel_axis
        for whole, param in zip(node.layer.params, layer.params, strict=True):
            split = self.splits.setdefault(whole.name, Split(whole.shape, axis))
            if whole.shape[axis] != channels:
                raise ValueError(
                    f"node {node.name!r}: {whole.name} has no dimension of {channels} channels"
                )
            param.name = f"{whole.name}@{device}"
            param.rates = whole.rates
            if not layer.sizes_only:
                param.data = self.devices[device].asarray(whole.data[split.index(first, last)])
            split.parts.append((param, first, last))
            self.params.append(param)

    def _gathered(self, x: Value, device: int, first: int, last: int) -> str:
        """The name of a node on a device whose output is these channels of x."""
        shard = x.shards[device]
        if shard is not None and (shard.first, shard.last) == (first, last):
            return shard.node
        key = (x.name, device, first, last)
        if key not in self._gathers:
            whole = (first, last) == (0, x.channels)
            name = self._gathers[key] = f"{x.name}{'' if whole else f'[{first}:{last}]'}>{device}"
            columns = self._columns(x, device, first, last, 0)
            self._add_gather(name, x, device, columns, last - first)
        return self._gathers[key]

    def _columns(self, x: Value, device: int, first: int, last: int, at: int) -> list[Columns]:
        return [
            Columns(
                node=shard.node,
                device=self.devices[holder],
                width=shard.last - shard.first,
                first=low - shard.first,
                count=high - low,
                at=at + low - first,
            )
            for holder, shard, low, high in x.covering(first, last, device)
        ]

    def _add_gather(
        self, name: str, x: Value, device: int, columns: list[Columns], width: int
    ) -> None:
        shape = x.shard_shape(width)
        layer = AllGather(x.name, self.devices[device], columns, width, shape, self.links)
        node = Node(name, layer, tuple(each.node for each in columns))
        self._append(node, x.name, device, shape)

    # ---- running --------------------------------------------------------------------------------

    def ends(self, name: str) -> list[str]:
        """The nodes whose outputs together are that of a node of the net."""
        value = self.values[name]
        return [shard.node for _, shard, _, _ in value.covering(0, value.channels, prefer=0)]

    def collect(self, name: str, values: Mapping[str, Array], out: np.ndarray) -> None:
        """The output of a node of the net from those of `ends`, into an array on the host."""
        value = self.values[name]
        rows = out.reshape(-1, value.channels)
        for device, shard, low, high in value.covering(0, value.channels, prefer=0):
            held = self.devices[device].to_host(values[shard.node])
            held = held.reshape(-1, shard.last - shard.first)
            rows[:, low:high] = held[:, low - shard.first : high - shard.first]

    def gathers(self) -> list[tuple[Node, AllGather]]:
        """The nodes of a step that bring channels from other devices."""
        return [(node, node.layer) for node in self.steps if isinstance(node.layer, AllGather)]

    def moved(self, batch: int, itemsize: int = 4) -> int:
        """Bytes that cross between the devices in a training step of this batch; `itemsize`: of an
        activation."""
        wanted = learning(self.steps)
        return sum(sum(gather.crossing(batch, wanted, itemsize)) for _, gather in self.gathers())


def _unset(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> np.ndarray:
    """No initial values: they are cut from those of the whole net."""
    return np.empty(shape, np.float32)
