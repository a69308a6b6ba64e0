"""How much memory training takes, and how much there is: asked before any of it is used.

A net over two devices takes memory on both. Two GPUs have each their own; logical devices of the
host share its memory, and so do several processes on one machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convnet.backend import Backend
from convnet.nn.plan import plan
from convnet.nn.steps import Steps
from convnet.optim.sgd import SGD

TEST_BATCH = 256  # how many samples `Net.evaluate` runs at a time
_CGROUP = Path("/sys/fs/cgroup")


class MemoryNeedError(ValueError):
    """A net that does not fit into the device's memory; one line with the figures."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device while a net trains.

    Attributes:
        parameters, velocities: of all layers, and of those that are not frozen.
        gradients: of parameters, where they are kept.
        activations: the block that holds whatever else a step computes: outputs of layers, their
            gradients, gradients that go straight into the update, workspaces (`convnet.nn.plan`);
            as large as the largest program needs it, of training or of validation.
        batch: the input of the net, and the images it is made of.
    """

    parameters: int
    velocities: int
    gradients: int
    activations: int
    batch: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(dataclasses.astuple(self))

    def __add__(self, other: Memory) -> Memory:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Memory(*map(sum, pairs))

    def __str__(self) -> str:
        parts = (f"{name} {mib(size)}" for name, size in vars(self).items())
        return f"{mib(self.total)} MiB ({', '.join(parts)})"


def mib(size: int) -> str:
    """Bytes as MiB: "1,942", or with a decimal below 100."""
    value = size / 2**20
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def training_memory(net: Steps, batch: int, image_bytes: int = 0) -> Memory:
    """What a net takes to train, in bytes, on all its devices together.

    Args:
        net: may be of `sizes_only`.
        batch: samples a step.
        image_bytes: of one image, where the input is made on the device of a batch of them.

    Raises:
        MemoryNeedError: an array of the net would have too many elements; names the node.
    """
    return together(device_memory(net, batch, image_bytes))


def together(needs: Sequence[Memory]) -> Memory:
    """The sums over devices."""
    return functools.reduce(operator.add, needs)


def device_memory(net: Steps, batch: int, image_bytes: int = 0) -> list[Memory]:
    """What a net takes to train on each of its devices; the input is on the first.

    Args, Raises: as `training_memory`.
    """
    images = batch * (net.stored.itemsize * math.prod(net.in_shape) + 4 + image_bytes)
    shape = (batch, *net.in_shape)
    try:
        training = net.programs.trace_training(shape, SGD(net.params))
        testing = net.programs.trace_losses((min(batch, TEST_BATCH), *net.in_shape), train=False)
    except ValueError as error:
        raise MemoryNeedError(f"at batch {batch}: {error}") from None
    blocks = [
        max(plan(traced.program, number).size for traced in (training, testing))
        for number in range(len(net.backends))
    ]
    return [
        _memory_on(net, device, block, images if device is net.backend else 0)
        for device, block in zip(net.backends, blocks, strict=True)
    ]


def _memory_on(net: Steps, device: Backend, block: int, images: int) -> Memory:
    params = [param for node in net.running(device) for param in node.layer.params]
    sizes = {id(param): 4 * param.size for param in params}
    learned = {id(param): 4 * param.size for param in params if not param.frozen}
    kept = net.keep_gradients or net.gradient_ready is not None
    return Memory(
        parameters=sum(sizes.values()),
        velocities=sum(learned.values()),
        gradients=sum(learned.values()) if kept else 0,
        activations=block,
        batch=images,
    )


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
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (line.split() for line in path.read_text().splitlines())
        return 1024 * int({name: size for name, size, *_ in lines}["MemAvailable:"])
    return None


def _cgroup_room(folder: Path) -> int | None:
    """What is left of a container's limit; file pages that can be dropped count as free."""
    names = (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    )
    for version in names:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
            limit, used, stat = ((folder / name).read_text() for name in version)
            cached = dict(line.split() for line in stat.splitlines()).get("inactive_file", 0)
            return max(0, int(limit) - int(used) + int(cached))
    return None


def check_fits(
    need: Memory, devices: Sequence[Backend], what: str, processes: int = 1
) -> int | None:
    """Compares what is needed with what is `available`, and returns the latter.

    Args:
        need: of one process.
        devices: the one whose memory it is, or those that share the memory of the host.
        what: needs it.
        processes: how many share that memory.

    Returns: bytes for each process; None where they are not known.
    Raises:
        MemoryNeedError: it is more.
    """
    room = available(devices[0])
    if room is None:
        return None
    room //= processes
    if need.total > room:
        names = " and ".join(device.device for device in devices)
        raise MemoryNeedError(
            f"{what}: needs {need}{' in each process' if processes > 1 else ''}, and {names} "
            f"{'has' if len(devices) == 1 else 'have'} {mib(room)} MiB free"
            f"{' for each' if processes > 1 else ''}; try a smaller train.batch, net or image"
        )
    return room


@dataclass(frozen=True)
class Fit:
    """What training takes on each device, and what was free there before.

    Attributes:
        devices: their names; needs: what is taken there.
        rooms: bytes that are free on each, or for all together where they share the memory of the
            host; of that, the part of this process. None where that is not known.
    """

    devices: tuple[str, ...]
    needs: tuple[Memory, ...]
    rooms: tuple[int | None, ...]

    def lines(self, batch: int, processes: int = 1) -> list[str]:
        """For the reader of a run: the whole, and each of several devices.

        Args:
            batch: of all processes; processes: how many take this.
        """
        several = f" in each of {processes} processes" if processes > 1 else ""
        count, shared = len(self.devices), len(self.rooms) == 1
        lines = [f"{together(self.needs)} to train at batch {batch}{several}"]
        lines[0] += _free(self.rooms[0] if shared else None)
        if count > 1:
            rooms = [None] * count if shared else self.rooms
            each = zip(self.devices, self.needs, rooms, strict=True)
            lines += [f"{mib(need.total)} MiB on {name}{_free(room)}" for name, need, room in each]
        return lines


def _free(room: int | None) -> str:
    return "" if room is None else f"; {mib(room)} MiB are free"


def checked(
    net: Steps,
    batch: int,
    image_bytes: int,
    what: str,
    processes: int = 1,
    summed: bool = False,
) -> Fit:
    """What training takes, checked against what is available.

    Args:
        net, batch, image_bytes: as for `training_memory`.
        what, processes: as for `check_fits`.
        summed: the gradients are summed over processes, which takes as much memory again: on one
            GPU that GPU's, else the host's.

    Raises:
        MemoryNeedError: there is not as much, or an array would have too many elements.
    """
    devices, needs = net.backends, device_memory(net, batch, image_bytes)
    if summed and (net.backend.name != "cuda" or len(devices) == 1):
        needs = [
            dataclasses.replace(need, gradients=need.gradients + need.velocities) for need in needs
        ]
    if net.backend.name == "cuda":
        if len(devices) > 1:
            names = " and ".join(device.device for device in devices)
            what = f"{what} ({mib(together(needs).total)} MiB on {names})"
        rooms = [check_fits(need, [gpu], what) for gpu, need in zip(devices, needs, strict=True)]
    else:
        rooms = [check_fits(together(needs), devices, what, processes)]
    return Fit(tuple(device.device for device in devices), tuple(needs), tuple(rooms))
