"""How much memory training takes, and how much there is: asked before any of it is used."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convnet import backend as backends
from convnet.backend import Backend
from convnet.graph import Node, consumers

if TYPE_CHECKING:
    from convnet.net import Net

_CGROUP = Path("/sys/fs/cgroup")


class MemoryNeedError(ValueError):
    """A net that does not fit into the device's memory; one line with the figures."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device while a net trains.

    Attributes:
        parameters, gradients, velocities: three times the parameters; only once those of frozen
            layers.
        outputs: what the layers write going forward; output_gradients: and going back.
        workspace: scratch memory of the operations, which they share.
        batch: the input of the net, and the pictures it is made of.
    """

    parameters: int
    gradients: int
    velocities: int
    outputs: int
    output_gradients: int
    workspace: int
    batch: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, field.name) for field in dataclasses.fields(self))

    def __str__(self) -> str:
        parts = (
            f"{field.name.replace('_', ' ')} {mib(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
        )
        return f"{mib(self.total)} MiB ({', '.join(parts)})"


def mib(size: int) -> str:
    """Bytes as MiB: "1,942", or with a decimal below 100."""
    value = size / 2**20
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def training_memory(net: Net, batch: int, picture_bytes: int = 0) -> Memory:
    """What a net takes to train, in bytes.

    Args:
        net: may be of `sizes_only`.
        batch: cases a step.
        picture_bytes: of one picture, where the input is made on the device of a batch of them.

    Raises:
        MemoryNeedError: an array of the net would have too many elements; names the node.
    """
    plan = net.plan()
    learning = sum(param.size for param in net.params if param.lr_mult != 0.0)
    graded = sum(
        param.size
        for node in net.nodes
        for param in node.layer.params
        if node.share is None and node.layer.learns
    )
    with backends.use(net.backend):
        workspace = max((_workspace(node, batch) for node in net.nodes), default=0)
    return Memory(
        parameters=4 * net.parameter_count,
        gradients=4 * (graded + _shared(net)),
        velocities=4 * learning,
        outputs=sum(node.layer.output_bytes(batch) for node in net.nodes),
        output_gradients=4 * batch * _summed(net)
        + sum(node.layer.gradient_bytes(batch) for node in net.nodes if node.name in plan.learns),
        workspace=workspace,
        batch=batch * (4 * math.prod(net.in_shape) + 4 + picture_bytes),
    )


def _workspace(node: Node, batch: int) -> int:
    try:
        return node.layer.workspace_bytes(batch)
    except ValueError as error:
        raise MemoryNeedError(f"node {node.name!r} at batch {batch}: {error}") from None


def _summed(net: Net) -> int:
    """Numbers a case in the arrays that sum the gradients of nodes with several readers."""
    size, plan, readers = 0, net.plan(), consumers(net.nodes)
    for node in net.nodes:
        learning = [reader.name for reader in readers[node.name] if reader.name in plan.learns]
        if node.name in plan.learns and learning and len(readers[node.name]) > 1:
            own = learning[-1] in plan.own_dx  # it is the first to hand down its dx
            size += 0 if own else math.prod(net.shapes[node.name])
    return size


def _shared(net: Net) -> int:
    """Numbers in the parameters of several nodes, whose gradients need a second array."""
    owners = {node.share for node in net.nodes if node.share is not None}
    nodes = (node for node in net.nodes if node.name in owners and node.layer.learns)
    return sum(param.size for node in nodes for param in node.layer.params)


def available(backend: Backend) -> int | None:
    """Bytes that can still be had on a device; None where the system does not say.

    On a GPU: what is free, and what CuPy holds in reserve. On the host: what the kernel calls
    available, and no more than the limit of the container.
    """
    if backend.name == "cuda":
        return backend.free_bytes()
    found = [size for size in (_mem_available(), _cgroup_room(_CGROUP)) if size is not None]
    return min(found, default=None)


def _mem_available(path: Path = Path("/proc/meminfo")) -> int | None:
    try:
        for line in path.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _cgroup_room(folder: Path) -> int | None:
    """What is left of a container's limit; file pages that can be dropped count as free."""
    names = (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    )
    for limit_file, used_file, stat_file in names:
        try:
            limit = int((folder / limit_file).read_text())
            used = int((folder / used_file).read_text())
            stat = dict(line.split() for line in (folder / stat_file).read_text().splitlines())
            return max(0, limit - used + int(stat.get("inactive_file", 0)))
        except (OSError, ValueError):
            continue  # no such file, or "max": no limit
    return None


def check_fits(need: Memory, backend: Backend, what: str) -> int | None:
    """Compares a need with what there is, and returns that; see `available`.

    Raises:
        MemoryNeedError: it is more.
    """
    room = available(backend)
    if room is not None and need.total > room:
        raise MemoryNeedError(
            f"{what}: needs {need}, and {backend.device} has {mib(room)} MiB free; try a smaller "
            "train.batch, net or picture"
        )
    return room
