"""The table that describes a net."""

from __future__ import annotations

from convnet.common.text import aligned
from convnet.layers.graph import INPUT, input_names, learning
from convnet.layers.layer import Shape
from convnet.nn.memory import training_memory
from convnet.nn.steps import Steps
from convnet.parallel.partition import Partition


def summary_table(net: Steps, batch: int) -> str:
    """The nodes with output shapes, parameters and multiply-adds, then totals.

    Args:
        net: the net.
        batch: for which the memory of training is given.
    """
    rows: list[tuple[str, ...]] = [
        ("node", "type", "inputs", "output", "parameters", "multiply-adds")
    ]
    rows.append((INPUT, "", "", _times(net.in_shape), "", ""))
    above = INPUT
    for node in net.nodes:
        inputs = input_names(node)
        count = sum(param.size for param in node.layer.params)
        macs = node.layer.macs
        rows.append(
            (
                node.name,
                node.layer.describe(),
                "" if inputs == (above,) else ", ".join(inputs),
                _times(net.shapes[node.name]),
                f"as {node.share}" if node.share else f"{count:,}" if count else "",
                f"{macs:,}" if macs else "",
            )
        )
        above = node.name
    rows.append(("total", "", "", "", f"{net.parameter_count:,}", f"{net.macs:,}"))
    if not any(row[2] for row in rows[1:]):  # every node takes the one above
        rows = [row[:2] + row[3:] for row in rows]
    split = (
        ""
        if net.partition is None
        else f"\n\n{partition_table(net.partition, batch, net.stored.itemsize)}"
    )
    return (
        f"{aligned(rows, left=len(rows[0]) - 3)}\n"
        f"{net.flops / 1e6:,.1f} MFLOP per image forward; "
        f"{training_memory(net, batch).total / 2**20:,.1f} MiB to train with a batch of {batch}"
        f"{split}"
    )


def partition_table(partition: Partition, batch: int, itemsize: int = 4) -> str:
    """Which channels of each node are on which device, and the bytes that cross in a step, where an
    activation takes `itemsize`.

    The last two columns are what a node's output costs: sent to the device that lacks a part of it,
    and the gradients that come back.
    """
    sent: dict[str, tuple[int, int]] = {}
    wanted = learning(partition.steps)
    for node, gather in partition.gathers():
        name = partition.origin[node.name]
        there, back = gather.crossing(batch, wanted, itemsize)
        before = sent.get(name, (0, 0))
        sent[name] = (before[0] + there, before[1] + back)
    devices = [device.device for device in partition.devices]
    rows: list[tuple[str, ...]] = [("node", *devices, "sent", "sent back")]
    for name, value in partition.values.items():
        held = [f"{part.first}..{part.last - 1}" if part else "" for part in value.shards]
        rows.append((name, *held, *(_bytes(count) for count in sent.get(name, (0, 0)))))
    totals = [sum(pair[way] for pair in sent.values()) for way in (0, 1)]
    rows.append(("total", *[""] * len(devices), *map(_bytes, totals)))
    return (
        f"{aligned(rows, left=1 + len(devices))}\n"
        f"channels on each device; {_bytes(sum(totals))} cross in a step of {batch} "
        f"({partition.links.describe()})"
    )


def _bytes(count: int) -> str:
    if count == 0:
        return ""
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"


def _times(shape: Shape) -> str:
    return " x ".join(map(str, shape))
