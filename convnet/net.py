"""Net: a graph of layers that trains, evaluates and predicts."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from convnet import backend as backends
from convnet import divergence, graph, ops, weights
from convnet.divergence import Origin
from convnet.graph import INPUT, Node, input_names
from convnet.inputs import checked_labels, checked_x
from convnet.layer import Array, Parameter, Randomness, Shape, choice, flag, whole
from convnet.layers.loss import UNRANKED, Loss
from convnet.memory import training_memory
from convnet.nn.programs import Programs
from convnet.nn.table import program_table
from convnet.partition import Partition
from convnet.passes import Forward
from convnet.sgd import SGD
from convnet.stepresults import mean_loss
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
        trace: false runs every layer by itself, operation by operation, with the same results.
        sizes_only: the parameters have shapes and take no memory: a net to describe, not to run.
        devices: the devices as a sequence, in place of `device`.
        math: how layers that do not say form products: see :mod:`convnet.ops`.

    Attributes:
        nodes: in the order they run; shapes: name -> output shape without the batch.
        params: of all nodes, each once, with names like "conv1.w"; on two devices those of each,
            "conv1.w@0" and "conv1.w@1".
        backend: the device, or the first one; partition: over two devices, or None.
        seed; step: training steps done, which also counts dropout's masks.
        programs: what its passes are run as; see `convnet.nn.programs`.
        gradient_ready: told of each parameter whose gradient is complete while `gradients` runs.
        last, diverged: see `convnet.steps`.

    Raises: ValueError for a graph or sizes that do not fit, naming the node.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        in_shape: Iterable[int],
        device: str | backends.Backend = "auto",
        seed: int = 0,
        trace: bool = True,
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
        self.gradient_ready = None
        self.diverged = None
        self._recent: tuple[Array, Array] | None = None  # the last batch
        self._set_up()
        self.partition = None
        self.all_nodes: Sequence[Node] = self.nodes  # as they run; `step_nodes` in a training step
        self.step_nodes = self.nodes
        if len(self.backends) > 1:
            self._divide()
        self.trace = flag("trace", trace)
        self._keep_gradients = False
        self.last = Forward({})
        self.programs = Programs(self)

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
        self.all_nodes, self.step_nodes = self.partition.nodes, self.partition.steps
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

    def running(self, device: backends.Backend | None = None) -> list[Node]:
        """The nodes that a training step runs: all, or those on one of the devices."""
        of = {} if self.partition is None else self.partition.device_of
        return [node for node in self.step_nodes if device in (None, of.get(node.name, device))]

    def memory_bytes(self, batch: int) -> int:
        """Bytes that training with this batch takes on all devices; see `convnet.memory`."""
        return training_memory(self, batch).total

    def summary(self, batch: int = 1) -> str:
        """A table of the nodes: output shapes, parameters and multiply-adds per image."""
        return summary_table(self, batch)

    def program_table(self, batch: int) -> str:
        """The training step for this batch as the list of calls that it is; see
        `convnet.nn.table`."""
        traced = self.programs.trace_training((batch, *self.in_shape), SGD(self.params))
        return program_table(traced.program, traced.trace)

    # ---- training -------------------------------------------------------------------------------

    @property
    def keep_gradients(self) -> bool:
        """Whether training steps leave gradients in `Parameter.grad`; else those of dense weights
        go straight into the update and others give up their memory. It changes no result."""
        return self._keep_gradients

    @keep_gradients.setter
    def keep_gradients(self, value: bool) -> None:
        self._keep_gradients = flag("keep_gradients", value)

    @_on_own_backend
    def train_step(self, x: Array, labels: Array, sgd: SGD) -> float:
        """One step: forward, backward, update.

        Args:
            x: float32 [N, *in_shape], on the host or on the net's device; only read.
            labels: integers [N] in 0 .. classes - 1.
            sgd: updates the parameters.

        Returns: the mean loss of the batch before the update.
        Raises:
            ValueError: x or labels do not fit.
            DivergedError: an update would not have been finite, or was not in an earlier step.
                All weights are still finite, but not all were updated: the net trains on when
                weights have been loaded (`load_state`).
        """
        self.run_step(x, labels, sgd)
        self.finish_steps()
        self.step += 1
        return self._mean_loss()

    @_on_own_backend
    def start_step(self, x: Array, labels: Array, sgd: SGD) -> None:
        """As `train_step`, without waiting for a GPU: what comes of it `finish_steps` finds, and
        the loss `convnet.stepresults`."""
        self.run_step(x, labels, sgd)
        self.step += 1

    @_on_own_backend
    def finish_steps(
        self, each: Callable[[Origin | None], list[Origin | None]] = lambda origin: [origin]
    ) -> None:
        """Waits for the steps that were started.

        Args:
            each: what all processes of the job say, in their order, of what this one does.

        Raises: what was wrong with them, as `train_step`.
        """
        self._verify()
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

        Those of frozen parameters (`lr_mult` 0) are not computed and are zero.

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
        self._verify()  # before anything is made of what arrived

    @_on_own_backend
    def training_loss(self, x: Array, labels: Array) -> float:
        """The mean loss as `gradients` sees it, with the dropout masks of this step."""
        x, labels = self.on_device(x, labels)
        self.write_state()
        self._measure(x, labels, train=True)
        return self._mean_loss()

    def _measure(self, x: Array, labels: Array, train: bool) -> None:
        """Losses and ranks."""
        if self.trace:
            self.last = self.programs.losses(x, labels, train)
        else:
            self.last = self.passes(self.step_nodes).forward(x, train, labels, gradient=False)
        self._verify()

    def _verify(self) -> None:
        if self.partition is not None:
            self.partition.links.verify()

    @property
    def ranks(self) -> Array:
        """`last_rank`, where the net is: overwritten by the next step."""
        if self.last.rank is not None or not self.last.losses:
            return self.last.rank
        return np.full(
            len(self.last.losses[0][1]), UNRANKED, np.int32
        )  # no loss tells classes apart

    @property
    def last_rank(self) -> np.ndarray:
        """Rank of each label in the last step or evaluation, int32 [N]: 0 if it scored highest."""
        if self.ranks is None:
            raise RuntimeError("last_rank: nothing has been trained or evaluated yet")
        return np.array(self.backend.to_host(self.ranks))

    def _mean_loss(self) -> float:
        return mean_loss([(coeff, self.backend.to_host(loss)) for coeff, loss in self.last.losses])

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
            self._measure(inputs, answers, train=False)
            for coeff, loss in self.last.losses:
                losses[part] += np.float32(coeff) * self.backend.to_host(loss)
            ranks[part] = self.last_rank
        self.last.rank = ranks
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
        output = np.empty((len(x), *self.shapes[until]), np.float32)
        for part in _parts(len(x), batch):
            values = self._values(self.backend.asarray(x[part]), until)
            if self.partition is None:
                output[part] = self.backend.to_host(values[until])
            else:
                self.partition.collect(until, values, output[part])
        return output

    def _values(self, x: Array, until: str) -> dict[str, Array]:
        """The output of a node in test mode; of its parts on two devices."""
        ends = [until] if self.partition is None else self.partition.ends(until)
        if self.trace:
            self.last = self.programs.forward(x, ends)
        else:
            needed = set().union(*(graph.ancestors(self.all_nodes, end) for end in ends))
            nodes = [node for node in self.all_nodes if node.name in needed]
            self.last = self.passes(nodes).forward(x, False)
        self._verify()
        return self.last.values

    # ---- checks of what is fed in ---------------------------------------------------------------

    def _checked(self, x: Array, labels: Array) -> tuple[Array, Array]:
        """x and labels, wherever they are, if they can be used."""
        if not self._losses:
            raise ValueError("the net has no loss; end it with a SoftmaxXent layer to train it")
        x = checked_x(x, self.in_shape, self.backend)
        return x, checked_labels(labels, len(x), self.classes or UNRANKED, self.backend)

    def on_device(self, x: Array, labels: Array) -> tuple[Array, Array]:
        """x and labels of a batch in the net's memory, if they can be used."""
        x, labels = map(self.backend.asarray, self._checked(x, labels))
        self._recent = x, labels
        return x, labels

    @_on_own_backend
    def check_finite(self, x: Array | None = None, labels: Array | None = None) -> str | None:
        """Where NaN or infinity began, or None if there is none.

        Args:
            x, labels: as in `gradients`: a batch to run forward and backward, layer by layer, with
                a look at all that each node computes. Without them it is the last one that the net
                was given, or, if there was none, the parameters alone are looked at.

        Returns: the first node with one in its parameters or its output, "input" if x held it;
            else the first in the backward pass with one in its gradients.
        """
        if x is not None or labels is not None:
            x, labels = self.on_device(x, labels)
        elif self._recent is not None:
            x, labels = self._recent
        else:
            return divergence.in_parameters(self)
        self.write_state()
        origin = divergence.in_batch(self, x, labels)
        return origin.node if origin else None

    # ---- saving ---------------------------------------------------------------------------------

    @_on_own_backend
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
