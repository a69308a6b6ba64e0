"""Net: a graph of layers that trains, evaluates and predicts."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from convnet import backend as backends
from convnet import divergence, fusion, graph, ops, weights
from convnet.divergence import DivergedError, Origin
from convnet.gather import arrived
from convnet.graph import INPUT, Node, input_names
from convnet.inputs import checked_labels, checked_x
from convnet.layer import Array, Parameter, Randomness, Shape, choice, whole
from convnet.layers.loss import UNRANKED, Loss
from convnet.memory import training_memory
from convnet.partition import Partition
from convnet.sgd import SGD
from convnet.stepgraph import StepGraph
from convnet.steps import Steps
from convnet.stepstate import StepState
from convnet.summary import summary_table

__all__ = ["Net", "Node"]

Method = TypeVar("Method", bound=Callable[..., Any])


def _on_own_backend(method: Method) -> Method:
    """Runs a method of Net with NumPy arrays going to the net's backend, on its (first) device."""

    @functools.wraps(method)
    def run(self: Net, *args: Any, **kwargs: Any) -> Any:
        with backends.use(self.backend):
            return method(self, *args, **kwargs)

    return run  # type: ignore[return-value]


class Net(Steps):
    """A net of named layers.

    Args:
        nodes: see `Node`; a loss among them makes the net trainable.
        in_shape: (H, W, C) or (C,) of one input, without the batch.
        device: "auto", "cpu", "cuda", "cuda:N", "emulator", or a Backend; or two of a kind that
            share the net, as "cuda:0,cuda:1" or "cpu:0,cpu:1" (see `convnet.partition`).
        seed: of the initial weights and of dropout. Each node draws from a stream of its own name,
            so that adding a node changes no other's weights.
        fuse: false runs every layer by itself, with the same results.
        sizes_only: the parameters have shapes and take no memory: a net to describe, not to run.
        devices: the devices as a sequence, in place of `device`.
        math: how layers that do not say form products: see :mod:`convnet.ops`.

    Attributes:
        nodes: in the order they run; shapes: name -> output shape without the batch.
        params: of all nodes, each once, with names like "conv1.w"; on two devices those of each,
            "conv1.w@0" and "conv1.w@1".
        backend: the device, or the first one; partition: over two devices, or None.
        seed; step: training steps done, which also counts dropout's masks.
        step_graph: runs the steps; see `convnet.stepgraph`; fuse_update: see `Passes`.
        diverged: the error that a training step ended with; None once weights have been loaded.

    Raises: ValueError for a graph or sizes that do not fit, naming the node.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        in_shape: Iterable[int],
        device: str | backends.Backend = "auto",
        seed: int = 0,
        fuse: bool = True,
        sizes_only: bool = False,
        devices: Sequence[str | backends.Backend] | None = None,
        math: str = "fp32",
    ) -> None:
        self.math = choice("math", math, ops.MATHS)
        self.sizes_only = sizes_only
        self.backends = backends.get_all(device if devices is None else devices)
        self.backend = self.backends[0]
        self._random = Randomness(seed=whole("seed", seed, 0), state=StepState(self.backends))
        self.nodes = graph.resolve(nodes)
        self.in_shape: Shape = tuple(whole("in_shape", size) for size in in_shape)
        self.shapes: dict[str, Shape] = {}
        self.params: list[Parameter] = []
        self._by_name = {node.name: node for node in self.nodes}
        self._losses = [node for node in self.nodes if isinstance(node.layer, Loss)]
        self._classifiers = [node for node in self._losses if node.layer.classifies]  # type: ignore[attr-defined]
        self._values, self._sums, self._case_losses = {}, {}, []
        self._rank = None
        self.gradient_ready = None
        self.diverged: DivergedError | None = None
        self._set_up()
        self.partition = None
        self._nodes = self._steps = self.nodes
        if len(self.backends) > 1:
            self._divide()
        self._fuse, self._fuse_update, self._updated = fuse, True, []
        self._frozen = None
        self.plan()
        self.step_graph = StepGraph(self)

    # ---- construction ---------------------------------------------------------------------------

    def _set_up(self) -> None:
        """Infers shapes and makes the parameters, node by node."""
        shapes: dict[str, Shape] = {INPUT: self.in_shape}
        for node in self.nodes:
            layer = node.layer
            layer.random, layer.sizes_only = self._random, self.sizes_only
            layer.net_math = self.math
            layer.stream = zlib.crc32(node.name.encode())
            in_shapes = [shapes[name] for name in input_names(node)]
            rng = np.random.default_rng([self.seed, layer.stream])
            try:
                shape = layer.setup(in_shapes if layer.several_inputs else in_shapes[0], rng)
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
        self._nodes, self._steps = self.partition.nodes, self.partition.steps
        self.params = self.partition.params

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
        self._random.step = whole("step", step, 0)

    @property
    def first_case(self) -> int:
        """The place of a batch's first case in a larger batch whose rest other processes have."""
        return self._random.first_case

    @first_case.setter
    def first_case(self, case: int) -> None:
        self._random.first_case = whole("first_case", case, 0)

    @property
    def classes(self) -> int | None:
        """How many classes its losses tell apart; None where none of them does."""
        return min((self.shapes[node.name][0] for node in self._classifiers), default=None)

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
        """A parameter of one of `nodes` as it is on the devices: itself, or its parts."""
        if self.partition is None:
            return [param]
        return [part for part, _, _ in self.partition.whole[param.name].parts]

    def memory_bytes(self, batch: int) -> int:
        """Bytes that training with this batch takes on all devices; see `convnet.memory`."""
        return training_memory(self, batch).total

    def summary(self, batch: int = 1) -> str:
        """A table of the nodes: output shapes, parameters and multiply-adds per image."""
        return summary_table(self, batch)

    # ---- training -------------------------------------------------------------------------------

    @_on_own_backend
    def train_step(self, x: Array, labels: Array, sgd: SGD) -> float:
        """One step: forward, backward, update.

        Args:
            x: float32 [N, *in_shape], on the host or on the net's device.
            labels: integers [N] in 0 .. classes - 1.
            sgd: updates the parameters.

        Returns: the mean loss of the batch before the update.
        Raises:
            ValueError: x or labels do not fit.
            DivergedError: an update would not have been finite, or was not in an earlier step.
                All weights are still finite, but not all were updated: the net trains on when
                weights have been loaded (`load_state`).
        """
        self._run_step(x, labels, sgd)
        self.finish_steps()
        self.step += 1
        return self._mean_loss()

    @_on_own_backend
    def start_step(self, x: Array, labels: Array, sgd: SGD) -> None:
        """As `train_step`, without waiting for a GPU: what comes of it `finish_steps` finds, and
        the loss `convnet.stepresults`."""
        self._run_step(x, labels, sgd)
        self.step += 1

    def _run_step(self, x: Array, labels: Array, sgd: SGD) -> None:
        x, labels = self.begin_step(x, labels, sgd)
        self.step_graph.run(x, labels, sgd)

    @_on_own_backend
    def finish_steps(
        self, each: Callable[[Origin | None], list[Origin | None]] = lambda origin: [origin]
    ) -> None:
        """Waits for the steps that were started.

        Args:
            each: what all processes of the job say, in their order, of what this one does.

        Raises: what was wrong with them, as `train_step`.
        """
        if self.partition is not None:
            self.partition.links.verify()
        self.check_updates(each)

    def wait_for(self, event: Any) -> None:
        """Waits for an event of the net's device: for ever on one that is alone, and where a net is
        on several, as long as its links do. Raises: LinkError."""
        if self.partition is None or event is None:
            self.backend.wait(event)
        else:
            self.partition.links.wait_for(event, self.backend)

    @_on_own_backend
    def gradients(self, x: Array, labels: Array, scale: float | None = None) -> float:
        """The mean loss, leaving its gradient in `Parameter.grad`; no update.

        Those of frozen layers (`lr_mult` 0) are not computed and stay zero.

        Args:
            x, labels: as in `train_step`.
            scale: multiplies the sum of the cases' gradients; 1 / N by default, for their mean.
        """
        self.start_gradients(x, labels, scale)
        return self._mean_loss()

    @_on_own_backend
    def start_gradients(self, x: Array, labels: Array, scale: float | None = None) -> None:
        """As `gradients`, without waiting for a GPU that is alone."""
        x, labels = self.on_device(x, labels)
        self.write_state()
        self.run_gradients(x, labels, scale)
        if self.partition is not None:
            self.partition.links.verify()  # before anything is made of what arrived

    @_on_own_backend
    def training_loss(self, x: Array, labels: Array) -> float:
        """The mean loss as `gradients` sees it, with the dropout masks of this step."""
        x, labels = self.on_device(x, labels)
        self.write_state()
        self._forward(x, True, labels, gradient=False)
        return self._mean_loss()

    # ---- testing --------------------------------------------------------------------------------

    @_on_own_backend
    def evaluate(self, x: Array, labels: Array, batch: int = 256) -> tuple[np.ndarray, np.ndarray]:
        """The loss and the rank of each case, in test mode.

        Args:
            x, labels: as in `train_step`, any number of cases.
            batch: how many are run at a time, which bounds the memory.

        Returns: (float32 [N], int32 [N]: 0 where the label scored highest).
        """
        x, labels = self._checked(x, labels)
        losses = np.zeros(len(x), np.float32)
        ranks = np.zeros(len(x), np.int32)
        for part in _parts(len(x), batch):
            inputs, answers = map(self.backend.asarray, (x[part], labels[part]))
            self._forward(inputs, False, answers, gradient=False)
            for coeff, loss in self._case_losses:
                losses[part] += np.float32(coeff) * self.backend.to_host(loss)
            ranks[part] = self.backend.to_host(self._rank)
        self._rank = ranks
        return losses, ranks.copy()

    def predict(self, x: Array, batch: int = 256) -> np.ndarray:
        """Probabilities of the classes, float32 [N, classes] on the host.

        For a net that does not classify, the input of its last loss, or else its last output.
        """
        last = [self.nodes[-1], *self._losses, *self._classifiers][-1]
        return self.forward(x, last.name, batch)

    @_on_own_backend
    def forward(self, x: Array, until: str, batch: int = 256) -> np.ndarray:
        """The output of one node in test mode, [N, ...] on the host."""
        if until not in self._by_name:
            raise ValueError(f"unknown node {until!r}; {graph.suggestion(until, self._by_name)}")
        x = checked_x(x, self.in_shape, self.backend)
        ends = [until] if self.partition is None else self.partition.ends(until)
        needed = set().union(*(graph.ancestors(self._nodes, end) for end in ends))
        output = np.empty((len(x), *self.shapes[until]), np.float32)
        for part in _parts(len(x), batch):
            values = self._values = {INPUT: self.backend.asarray(x[part])}
            for node in self._nodes:
                if node.name in needed:
                    with self._at(node):
                        inputs = [arrived(x) for x in self._inputs(node)]
                        with fusion.apart(node.layer, node.name in ends):
                            x_of = inputs if node.layer.several_inputs else inputs[0]
                            values[node.name] = node.layer.fprop(x_of, False)
            if self.partition is None:
                output[part] = self.backend.to_host(values[until])
            else:
                self.partition.collect(until, values, output[part])
        return output

    # ---- checks of what is fed in ---------------------------------------------------------------

    def on_device(self, x: Array, labels: Array) -> tuple[Array, Array]:
        """x and labels of a batch in the net's memory, if they can be used."""
        x, labels = self._checked(x, labels)
        return self.backend.asarray(x), self.backend.asarray(labels)

    def _checked(self, x: Array, labels: Array) -> tuple[Array, Array]:
        """x and labels, wherever they are, if they can be used."""
        if not self._losses:
            raise ValueError("the net has no loss; end it with a SoftmaxXent layer to train it")
        x = checked_x(x, self.in_shape, self.backend)
        return x, checked_labels(labels, len(x), self.classes or UNRANKED, self.backend)

    @_on_own_backend
    def check_finite(self, x: Array | None = None, labels: Array | None = None) -> str | None:
        """Where NaN or infinity began, or None if there is none.

        Args:
            x, labels: as in `gradients`: a batch to run forward and backward, with a look at all
                that each node computes. Without them the outputs that the last pass has left are
                looked at, and the parameters; some outputs may have been overwritten since.

        Returns: the first node with one in its parameters or its output, "input" if x held it;
            else the first in the backward pass with one in its gradients.
        """
        if x is None and labels is None:
            origin = divergence.in_last_pass(self)
        else:
            x, labels = self.on_device(x, labels)
            self.write_state()
            origin = divergence.in_batch(self, x, labels)
        return origin.node if origin else None

    # ---- saving ---------------------------------------------------------------------------------

    @_on_own_backend
    def state(self, copy: bool = True) -> dict[str, np.ndarray]:
        """All parameters and velocities, on the host: "conv1.w" and "conv1.w:velocity".

        Without `copy` they may be the net's own arrays, which the next step changes.
        """
        if self.partition is None:
            return weights.state(self.params, copy)
        return weights.join(self.partition.whole, weights.state(self.params, copy=False), copy)

    @_on_own_backend
    def load_state(self, state: Mapping[str, Any], strict: bool = True) -> list[str]:
        """Takes parameters and velocities from a `state()`.

        Velocities may be left out, all of them: they are then zeros.

        Args:
            state: name -> float32 array.
            strict: refuse a state that does not fit in every way; else load what fits.

        A net that has diverged trains on when all its parameters have been loaded.

        Returns: what did not fit, one line each; empty where strict.
        Raises: ValueError listing what is missing, unexpected or of another shape; nothing is
            changed then.
        """
        whole = [p for node in self.nodes if node.share is None for p in node.layer.params]
        problems = weights.misfits(whole, state, strict)
        if all(param.name in state and param.name not in problems for param in whole):
            self.forget_divergence()
        fitting = {key: state[key] for key in state if key not in problems}
        if self.partition is not None:
            fitting = weights.cut(self.partition.whole, fitting)
        weights.load(self.params, fitting)
        return list(problems.values())


def _parts(count: int, batch: int) -> list[slice]:
    batch = whole("batch", batch)
    return [slice(start, min(start + batch, count)) for start in range(0, count, batch)]
