"""What a net is: a graph of layers with shapes, parameters and devices, ready to be run."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from convnet import backend as backends
from convnet import ops
from convnet.common.checks import check_bool, check_choice, check_int
from convnet.common.deprecated import renamed_attribute
from convnet.common.dtypes import stored_type
from convnet.common.typecheck import did_you_mean
from convnet.layers import graph
from convnet.layers.graph import INPUT, Node, input_names
from convnet.layers.layer import Changes, Parameter, Randomness, Shape
from convnet.layers.loss import Loss
from convnet.ops.step_state import StepState
from convnet.parallel.partition import Partition, Split


class Structure:
    """The graph of a net, set up: see `Net`, which adds what can be done with it.

    Attributes:
        all_nodes: of the graph that runs, which over two devices is larger than `nodes`;
        step_nodes: those of them that a training step needs.
        splits: of each parameter, its shards on the devices.
        classes: how many classes its losses tell apart; None where none of them does.
        changes: what has been set of its layers and parameters, which programs depend on.
        stored: the type of its activations and their gradients: bfloat16 where `precision` is
            "bf16" and the device has all operations for it, else float32.
        step_state: seed, step and rates, in the memory of the devices.
    """

    math = renamed_attribute("math", "precision")
    first_case = renamed_attribute("first_case", "first_sample")

    def __init__(
        self,
        nodes: Iterable[Node],
        in_shape: Iterable[int],
        devices: Sequence[backends.Backend],
        seed: int,
        sizes_only: bool,
        precision: str,
    ) -> None:
        self.precision = check_choice("precision", precision, ops.PRECISIONS)
        self.sizes_only = sizes_only
        self.backends = list(devices)
        self.backend = self.backends[0]
        self.stored = stored_type("bfloat16" if precision == "bf16" else "float32")
        self.step_state = StepState(self.backends)
        self._random = Randomness(seed=check_int("seed", seed, 0), state=self.step_state)
        self.nodes = graph.resolve(nodes)
        self.in_shape: Shape = tuple(check_int("in_shape", size) for size in in_shape)
        self.shapes: dict[str, Shape] = {}
        self.params: list[Parameter] = []
        self._by_name = {node.name: node for node in self.nodes}
        self._losses = [node for node in self.nodes if isinstance(node.layer, Loss)]
        self._classifiers = [node for node in self._losses if node.layer.classifies]  # type: ignore[attr-defined]
        self.gradient_ready: Callable[[Parameter], None] | None = None
        self.trace = True
        self._keep_gradients = False
        self._set_up()
        self.partition: Partition | None = None
        self.all_nodes: Sequence[Node] = self.nodes
        self.step_nodes: Sequence[Node] = self.nodes
        self.splits = {
            param.name: Split(param.shape, 0, [(param, 0, param.size)]) for param in self.params
        }
        if len(self.backends) > 1:
            self._divide()
        self.classes = min((self.shapes[node.name][0] for node in self._classifiers), default=None)
        self.changes = Changes()
        for node in (*self.nodes, *self.all_nodes):
            node.layer.changes = self.changes
        for param in self.params:
            param.rates.changes = self.changes

    def _set_up(self) -> None:
        """Infers shapes and makes the parameters, node by node."""
        shapes: dict[str, Shape] = {INPUT: self.in_shape}
        for node in self.nodes:
            layer = node.layer
            layer.random, layer.sizes_only = self._random, self.sizes_only
            layer.net_precision = self.precision
            layer.stream = zlib.crc32(node.name.encode())
            in_shapes = [shapes[name] for name in input_names(node)]
            rng = np.random.default_rng([self.seed, layer.stream])
            try:
                shape = layer.setup(in_shapes if layer.multi_input else in_shapes[0], rng)
            except ValueError as error:
                raise ValueError(self._misfit(node, in_shapes, error)) from None
            shapes[node.name] = tuple(shape)
        self.shapes = {node.name: shapes[node.name] for node in self.nodes}
        for node in self.nodes:
            if node.share is None:
                for param in node.layer.params:
                    param.name = f"{node.name}.{param.name}"
                    if len(self.backends) == 1 and not self.sizes_only:
                        param.data = self.backend.asarray(param.data)
                self.params += node.layer.params
        for node in self.nodes:
            if node.share is not None:
                try:
                    node.layer.share(self._by_name[node.share].layer)
                except ValueError as error:
                    raise ValueError(f"node {node.name!r}: {error}") from None

    def _divide(self) -> None:
        """Puts a part of every node on each of the devices."""
        self.partition = Partition(
            self.nodes, self.shapes, self.in_shape, self.backends, self._random
        )
        self.all_nodes, self.step_nodes = self.partition.nodes, self.partition.steps
        self.params, self.splits = self.partition.params, self.partition.splits

    @staticmethod
    def _misfit(node: Node, in_shapes: list[Shape], error: ValueError) -> str:
        pairs = zip(input_names(node), in_shapes, strict=True)
        inputs = " and ".join(f"{name!r} of shape {shape}" for name, shape in pairs)
        kind = type(node.layer).__name__
        return f"node {node.name!r} ({kind}) cannot take its input {inputs}: {error}"

    # ---- what the net is ------------------------------------------------------------------------

    @property
    def device(self) -> str:
        """Where the net is: "cpu", or "cpu:0,cpu:1"."""
        return ",".join(backend.device for backend in self.backends)

    @property
    def seed(self) -> int:
        return self._random.seed

    @property
    def step(self) -> int:
        return self._random.step

    @step.setter
    def step(self, step: int) -> None:
        self._random.step = check_int("step", step, 0)

    @property
    def first_sample(self) -> int:
        """The place of a batch's first sample in a larger batch whose rest other processes have."""
        return self._random.first_sample

    @first_sample.setter
    def first_sample(self, sample: int) -> None:
        self._random.first_sample = check_int("first_sample", sample, 0)

    @property
    def result(self) -> str:
        """The node whose output is the net's: its last classifier, loss or node."""
        return [self.nodes[-1], *self._losses, *self._classifiers][-1].name

    def known(self, node: str) -> str:
        """The name of a node. Raises: ValueError: there is none of this name."""
        return self.node_of(node).name

    def node_of(self, name: str) -> Node:
        """The node of a name. Raises: ValueError: there is none of this name."""
        if name not in self._by_name:
            raise ValueError(f"unknown node {name!r}{did_you_mean(name, self._by_name)}")
        return self._by_name[name]

    @property
    def parametric(self) -> list[Node]:
        """The nodes that have parameters of their own, in the order they run."""
        return [node for node in self.nodes if node.layer.params and node.share is None]

    @property
    def whole_params(self) -> list[Parameter]:
        """The parameters of `nodes`; those in `params` are their shards in a net over two
        devices."""
        return [param for node in self.parametric for param in node.layer.params]

    @property
    def parameter_count(self) -> int:
        return sum(param.size for param in self.params)

    @property
    def macs(self) -> int:
        """Multiply-adds of the forward pass of one image, in convolutions and dense layers."""
        return sum(node.layer.macs for node in self.nodes)

    @property
    def flops(self) -> int:
        """Floating-point operations of the forward pass of one image: twice `macs`."""
        return 2 * self.macs

    def parts_of(self, param: Parameter) -> list[Parameter]:
        """A parameter of one of `nodes` as it is on the devices: itself, or its shards."""
        return [part for part, _, _ in self.splits[param.name].parts]

    def needed_for(self, names: Iterable[str]) -> list[Node]:
        """The nodes, of `all_nodes`, that some outputs depend on, those of the outputs included."""
        needed = set().union(*(graph.ancestors(self.all_nodes, name) for name in names))
        return [node for node in self.all_nodes if node.name in needed]

    def running(self, device: backends.Backend | None = None) -> list[Node]:
        """The nodes that a training step runs: all, or those on one of the devices."""
        of = {} if self.partition is None else self.partition.device_of
        return [node for node in self.step_nodes if device in (None, of.get(node.name, device))]

    @property
    def keep_gradients(self) -> bool:
        """Whether training steps leave gradients in `Parameter.grad`; else those of dense weights
        go straight into the update and others give up their memory. It changes no result."""
        return self._keep_gradients

    @keep_gradients.setter
    def keep_gradients(self, value: bool) -> None:
        self._keep_gradients = check_bool("keep_gradients", value)
