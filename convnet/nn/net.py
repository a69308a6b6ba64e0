"""Net: a graph of layers that trains (`convnet.nn.steps`), evaluates and predicts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convnet import backend as backends
from convnet.common.checks import check_bool, check_int
from convnet.common.deprecated import renamed_keyword
from convnet.layers.graph import Node
from convnet.layers.layer import Array
from convnet.layers.loss import UNRANKED
from convnet.nn import saved, weights
from convnet.nn.inference import Inference
from convnet.nn.input_gradient import input_gradient
from convnet.nn.inputs import checked_x
from convnet.nn.memory import training_memory
from convnet.nn.program_table import program_table
from convnet.nn.saved import NodeTable
from convnet.nn.steps import Steps, on_own_backend
from convnet.nn.summary import summary_table
from convnet.optim.sgd import SGD

__all__ = ["Net", "Node"]


class Net(Steps):
    """A net of named layers.

    Args:
        nodes: see `Node`; a loss among them makes the net trainable.
        in_shape: (H, W, C) or (C,) of one input, without the batch.
        device: "auto", "cpu", "cuda", "cuda:N", "vgpu", or a Backend; or two of a kind that
            share the net, as "cuda:0,cuda:1" or "cpu:0,cpu:1" (see `convnet.parallel.partition`).
        seed: 0 or more, of the initial weights and of dropout. Each node draws from a stream of its
            own name, so that adding a node changes no other's weights.
        trace: false runs every layer by itself, operation by operation, with the same results.
        sizes_only: the parameters have shapes and take no memory: a net to describe, not to run.
        devices: the devices as a sequence, in place of `device`.
        precision: in which layers multiply that have none of their own; see `convnet.ops`.
            "bf16": activations and their gradients are bfloat16 too, where the device stores that
            (`stored`); weights, velocities, sums, losses and what is returned are float32.

    Attributes:
        nodes: in the order they run; shapes: name -> output shape without the batch.
        params: of all nodes, each once, with names like "conv1.w"; on two devices those of each,
            "conv1.w@0" and "conv1.w@1".
        backend: the device, or the first one; partition: over two devices, or None.
        seed; step: training steps done, which also counts dropout's masks.
        programs: what its passes are run as; see `convnet.nn.programs`.
        gradient_ready: told of each parameter whose gradient is complete while `gradients` runs.
        last, diverged: see `convnet.nn.steps`.

    Raises: ValueError for a graph or sizes that do not fit, naming the node.
    """

    @renamed_keyword("math", "precision")
    def __init__(
        self,
        nodes: Iterable[Node],
        in_shape: Iterable[int],
        device: str | backends.Backend = "auto",
        seed: int = 0,
        trace: bool = True,
        sizes_only: bool = False,
        devices: Sequence[str | backends.Backend] | None = None,
        precision: str = "fp32",
    ) -> None:
        on = backends.get_all(device if devices is None else devices)
        super().__init__(nodes, in_shape, on, seed, sizes_only, precision)
        self.trace = check_bool("trace", trace)

    # ---- what the net is ------------------------------------------------------------------------

    def memory_bytes(self, batch: int) -> int:
        """The memory that training takes on all devices together, in bytes; see
        `convnet.nn.memory`.

        Args:
            batch: samples a step.

        Raises: MemoryNeedError: an array would have too many elements.
        """
        return training_memory(self, batch).total

    def summary(self, batch: int = 1) -> str:
        """A table of the nodes: output shapes, parameters and multiply-adds per image.

        Args:
            batch: samples a step, for the memory of training.
        """
        return summary_table(self, batch)

    def program_table(self, batch: int) -> str:
        """The training step as the list of calls that it is; see `convnet.nn.program_table`.

        Args:
            batch: samples a step.
        """
        traced = self.programs.trace_training((batch, *self.in_shape), SGD(self.params))
        return program_table(traced.program, traced.trace)

    # ---- testing --------------------------------------------------------------------------------

    @property
    def ranks(self) -> Array:
        """`last_rank`, where the net is: overwritten by the next step."""
        if self.last.rank is not None or not self.last.losses:
            return self.last.rank
        count = len(self.last.losses[0][1])
        return np.full(count, UNRANKED, np.int32)  # no loss tells classes apart

    @property
    def last_rank(self) -> np.ndarray:
        """Rank of each label in the last step or evaluation, int32 [N]: 0 if it scored highest."""
        if self.ranks is None:
            raise RuntimeError("last_rank: nothing has been trained or evaluated yet")
        return np.array(self.backend.to_host(self.ranks))

    @on_own_backend
    def evaluate(self, x: Array, labels: Array, batch: int = 256) -> tuple[np.ndarray, np.ndarray]:
        """The loss and the rank of each sample, in test mode.

        Args:
            x, labels: as in `train_step`, any number of samples.
            batch: how many are run at a time, which bounds the memory.

        Returns: (float32 [N], int32 [N]: 0 where the label scored highest).
        Raises: ValueError: x or labels do not fit.
        """
        x, labels = self.checked(x, labels)
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
        """Probabilities of the classes.

        Args:
            x: as in `train_step`, any number of samples.
            batch: how many are run at a time, which bounds the memory.

        Returns: float32 [N, classes] on the host; for a net that does not classify, the input of
        its last loss, or else its last output.
        Raises: ValueError: x does not fit.
        """
        return self.forward(x, self.result, batch)

    @on_own_backend
    def forward(self, x: Array, until: str, batch: int = 256) -> np.ndarray:
        """The output of one node in test mode.

        Args:
            x, batch: as in `predict`.
            until: the name of the node.

        Returns: float32 [N, ...] on the host.
        Raises: ValueError: x does not fit, or there is no such node.
        """
        until = self.known(until)
        x = checked_x(x, self.in_shape, self.backend, self.stored)
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
        self.last = self.runner.forward(x, ends)
        self._verify()
        return self.last.values

    def inference(self, batch: int, until: str | None = None) -> Inference:
        """A snapshot for inference: `predict` with a copy of the weights as they are now, prepared
        once for a batch size: filters transformed, blocked or split as the products want them.

            infer = net.inference(batch=1)
            probs = infer(x)

        Args:
            batch: samples a run.
            until: the name of the node whose output is wanted; by default that of `predict`.

        Returns: a function of x [N, *in_shape] that returns float32 [N, ...] on the host; see
        `convnet.nn.inference`.
        Raises: ValueError: there is no such node.
        """
        return Inference(self, batch, self.known(until or self.result))

    @on_own_backend
    def input_gradient(
        self,
        x: Array,
        labels: Array | None = None,
        node: str | None = None,
        dy: Array | None = None,
        batch: int = 256,
    ) -> np.ndarray:
        """The gradient at the input, in test mode: of each sample's loss, or of the output of a
        node.

            dx = net.input_gradient(x, labels)              # d loss / d x
            dx = net.input_gradient(x, node="fc8", dy=dy)   # d sum(dy * y) / d x

        Args:
            x: as in `train_step`, any number of samples; it is as the net takes it, mean and scale
                of the data included.
            labels: integers [N]; the losses are those of the net, not divided by N.
            node: in place of labels, the name of a node, which is no loss.
            dy: float32 [N, *output], what each number of its output y is multiplied by.
            batch: how many samples are run at a time, which bounds the memory.

        Returns: float32 [N, *in_shape] on the host. Of a net over two devices, it is that of a copy
            on the first of them, which has to have room for it.

        Raises: ValueError: something does not fit.

        Source: Simonyan, Vedaldi, Zisserman, "Deep inside convolutional networks", 2013, section 3.
        """
        return input_gradient(on_one_device(self), x, labels, node, dy, batch)

    @on_own_backend
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
            origin = self.find_in_parameters()
            return origin.node if origin else None
        self.write_state()
        origin = self.find_origin(x, labels)
        return origin.node if origin else None

    # ---- the net as a value ---------------------------------------------------------------------

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.in_shape))
        outputs = f" -> {self.classes} classes" if self.classes else ""
        return (
            f"Net({len(self.nodes)} nodes, {self.parameter_count:,} parameters, {shape}{outputs}, "
            f"{self.device})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """For `copy.deepcopy` and pickle: the net on the same devices, with its state."""
        facts = {
            "state": None if self.sizes_only else self.state(),
            "step": self.step,
            "keep_gradients": self.keep_gradients,
        }
        options = {
            "in_shape": self.in_shape,
            "devices": [backend.device for backend in self.backends],
            "seed": self.seed,
            "trace": self.trace,
            "sizes_only": self.sizes_only,
            "precision": self.precision,
        }
        return remade, (saved.tables(self.nodes), options, facts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the net to one file: its layers, and parameters and velocities.

        `convnet.load` reads it. A layer of your own is kept by its name, "module:Class", and its
        arguments by the attributes of the same names.

        Args:
            path: a file, .safetensors; one that is there is replaced at once.

        Raises:
            ValueError: a layer whose options are not plain values, or no attributes of it.
            OSError: it cannot be written.
        """
        facts = {
            "in_shape": list(self.in_shape),
            "seed": self.seed,
            "precision": self.precision,
            "step": self.step,
        }
        saved.save(Path(path), facts, self.nodes, self.state())

    # ---- saving ---------------------------------------------------------------------------------

    @on_own_backend
    def state(self, copy: bool = True) -> dict[str, np.ndarray]:
        """All parameters and velocities.

        Args:
            copy: false: they may be the net's own arrays, which the next step changes.

        Returns: "conv1.w" and "conv1.w:velocity", float32 on the host.
        """
        return weights.state(self.splits, copy)

    @on_own_backend
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
        whole = self.whole_params
        problems = weights.misfits(whole, state, strict)
        if all(param.name in state and param.name not in problems for param in whole):
            self.forget_divergence()
        weights.load(self.splits, {key: state[key] for key in state if key not in problems})
        return list(problems.values())


def on_one_device(net: Net) -> Net:
    """The net itself; of one over two devices, a copy on the first of them."""
    if net.partition is None:
        return net
    make, (nodes, options, facts) = net.__reduce__()
    return make(nodes, {**options, "devices": options["devices"][:1]}, facts)


def remade(nodes: Sequence[NodeTable], options: Mapping[str, Any], facts: Mapping[str, Any]) -> Net:
    """A net of tables, on its devices and with its state.

    Args:
        nodes: of `convnet.nn.saved.tables`.
        options: keyword arguments of `Net`.
        facts: "state", "step", and "keep_gradients" where it is set.
    """
    net = Net([table.node() for table in nodes], **options)
    if facts["state"] is not None:
        net.load_state(facts["state"])
    net.step = facts["step"]
    net.keep_gradients = facts.get("keep_gradients", False)
    return net


def _parts(count: int, batch: int) -> list[slice]:
    batch = check_int("batch", batch)
    return [slice(start, min(start + batch, count)) for start in range(0, count, batch)]
