"""Inference: the forward pass of a net with the weights of one moment, prepared once.

`Net.predict` reads the weights as they are, so each run makes of them what the products want:
filters transformed for Winograd's algorithm, blocked, or split for tensor cores. Here the calls
that depend on weights alone are made when the snapshot is taken, and only the others in each run.
"""

from __future__ import annotations

import copy

import numpy as np

from convnet import backend as backends
from convnet.common.checks import check_int
from convnet.layers.layer import Array, Layer
from convnet.nn.inputs import checked_x
from convnet.nn.program_table import program_table
from convnet.nn.rewrite import prepared_filters, rewrite
from convnet.nn.run import Runnable
from convnet.nn.steps import Steps
from convnet.nn.trace import PythonOp, Tensor


class Inference:
    """The forward pass of a net in test mode, with a copy of its weights; see `Net.inference`.

    What the net learns, loads or is set to afterwards does not change it.

    Args:
        net: whose weights are copied now.
        batch: samples a run, 1 or more.
        until: the name of the node whose output is wanted.

    Attributes:
        batch, until: those.
        threads: of the host, for which its memory was planned.
    """

    def __init__(self, net: Steps, batch: int, until: str) -> None:
        self.batch, self.until = check_int("batch", batch), until
        self.threads = net.backend.threads
        self._net, self._out_shape = net, net.shapes[until]
        ends = [until] if net.partition is None else net.partition.ends(until)
        shape = (self.batch, *net.in_shape)
        with backends.use(net.backend):
            self._traced = net.programs.trace_forward(shape, ends)
            self._prepare()
            self._x = net.backend.zeros(shape, net.stored)
            self._runnable = _bound(Runnable(self._traced.program, self._traced.trace, []))
            self._runnable.fill({self._traced.x: self._x})

    def __call__(self, x: Array) -> np.ndarray:
        """The output of the node.

        Args:
            x: float32 [N, *in_shape], on the host or on the net's device; only read. N may be any
                number: `batch` samples are run at a time, in the last run perhaps fewer.

        Returns: float32 [N, ...] on the host.
        Raises:
            ValueError: x does not fit.
            RuntimeError: the host has another number of threads now.
        """
        net, device = self._net, self._net.backend
        if device.threads != self.threads:
            raise RuntimeError(
                f"inference: it was made for {self.threads} threads, and now there are "
                f"{device.threads}; make it anew"
            )
        with backends.use(device):
            x = checked_x(x, net.in_shape, device, net.stored)
            output = np.empty((len(x), *self._out_shape), np.float32)
            for start in range(0, len(x), self.batch):
                part = device.asarray(x[start : start + self.batch])
                with device.active():
                    self._x[: len(part)] = part
                net.programs.run_one(self._runnable)
                self._collect(output[start : start + self.batch])
        return output

    @property
    def constant_bytes(self) -> int:
        """Memory of its weights and of what was made of them, on all devices."""
        return sum(root.nbytes for root in self._traced.program.constants)

    def table(self) -> str:
        """Its calls, those that were made once first; see `convnet.nn.program_table`."""
        return program_table(self._traced.program, self._traced.trace, self._once)

    # ---- the snapshot ---------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Makes what depends on weights alone, and copies what other calls read of them."""
        program = self._traced.program
        rewrite(program, [prepared_filters])
        own = {id(param.data) for param in self._net.params}
        weights = {root for root in program.roots_read if id(root.array) in own}
        self._once = program.take_constant(weights)
        made = _bound(Runnable(self._once, self._traced.trace, []))
        made.run()
        constants = {root: made.array(root) for root in self._once.outputs}
        for root in program.roots_read & weights:
            constants[root] = _copied(root)
        for root, array in constants.items():
            root.kind, root.array = "constant", array
        for call in program.calls:
            if isinstance(call.op, PythonOp) and "layer" in call.args:
                call.args["layer"] = _own(call["layer"])

    def _collect(self, output: np.ndarray) -> None:
        """Copies the results of the first samples, as many as there is room for."""
        partition = self._net.partition
        arrays = {
            name: self._runnable.array(tensor)[: len(output)]
            for name, tensor in self._traced.outputs.items()
        }
        if partition is None:
            output[...] = self._net.backend.to_host(arrays[self.until])
        else:
            partition.links.verify()
            partition.collect(self.until, arrays, output)


def _bound(runnable: Runnable) -> Runnable:
    """The program, bound to memory of its own for intermediate results."""
    devices = [device.real for device in runnable.trace.devices]
    sizes = zip(devices, runnable.sizes, strict=True)
    runnable.blocks = [device.empty((size,), np.uint8) for device, size in sizes]
    return runnable


def _copied(root: Tensor) -> Array:
    device = root.traced_on.real
    array = device.empty(root.shape, root.dtype)
    with device.active():
        array[...] = root.array
    return array


def _own(layer: Layer) -> Layer:
    """A copy of a layer that runs as Python: it reads its parameters itself."""
    return copy.deepcopy(layer, {id(layer.random): layer.random})
