"""The paper's net, layer by layer: what was computed beside what was measured on a GPU."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

# Of x, w and y at batch 128; products that are formed; with groups, w is that of one group deep.
Sizes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
LAYERS: dict[str, Sizes] = {
    "conv1": ((128, 224, 224, 3), (96, 11, 11, 3), (128, 55, 55, 96)),
    "conv2": ((128, 27, 27, 96), (256, 5, 5, 48), (128, 27, 27, 256)),
    "conv3": ((128, 13, 13, 256), (384, 3, 3, 256), (128, 13, 13, 384)),
    "conv4": ((128, 13, 13, 384), (384, 3, 3, 192), (128, 13, 13, 384)),
    "conv5": ((128, 13, 13, 384), (256, 3, 3, 192), (128, 13, 13, 256)),
    "fc6": ((128, 9216), (4096, 9216), (128, 4096)),
    "fc7": ((128, 4096), (4096, 4096), (128, 4096)),
    "fc8": ((128, 4096), (1000, 4096), (128, 1000)),
}
PASSES = ("fprop", "dgrad", "wgrad")
PRECISIONS = ("fp32", "tf32", "bf16")
# TFLOP/s of the data sheets for TF32 and bf16, without sparsity; by a word in a device's name.
# Float32 accuracy takes three TF32 products.
DATASHEETS = {"H200": (494, 989), "H100": (494, 989), "A100": (156, 312), "GH200": (494, 989)}
# A row of the table of docs/kernels.md that has what was computed.
COMPUTED = re.compile(r"^\| (\w+) (fprop|dgrad|wgrad) \|(.*)\|$", re.MULTILINE)


def flops(layer: str) -> float:
    _, w, y = LAYERS[layer]
    return 2.0 * math.prod(y) * math.prod(w[1:])


def intensity(layer: str) -> float:
    """Flops for each byte of memory, if every array is moved once."""
    return flops(layer) / (4 * sum(map(math.prod, LAYERS[layer])))


def peak(device: str, mode: str) -> float | None:
    """FLOP/s of the data sheet; None for a device that is not listed."""
    for word, (tf32, bf16) in DATASHEETS.items():
        if re.search(rf"\b{word}\b", device):
            return 1e12 * {"fp32": tf32 / 3, "tf32": tf32, "bf16": bf16}[mode]
    return None


def computed(page: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """The expected shares of each layer and pass, from docs/kernels.md: for fp32, tf32, bf16. The
    last table that has them counts, but for the one that is made of all this."""
    found = {}
    own = re.sub(r"<!-- results: expected.*?<!-- end of results -->", "", page, flags=re.DOTALL)
    for layer, step, rest in COMPUTED.findall(own):
        shares = re.findall(r"\| (\d+%) ", rest + " ")
        if layer in LAYERS and len(shares) == len(PRECISIONS):
            found[layer, step] = tuple(shares)
    return found


def measured(folder: Path) -> tuple[str, dict[tuple[str, str, str], float]]:
    """The device of a folder of results, and the milliseconds of each layer, pass and mode."""
    device, times = "", {}
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text())
        if record.get("benchmark") != "conv_throughput" or record["batch"] != 128:
            continue
        device = record["device"]
        for row in record["rows"]:
            times[row["layer"], row["pass"], row.get("precision", "fp32")] = row["ms"]
    return device, times


def comparison(page: str, folders: list[Path]) -> str:
    """A table of all layers and passes; for each mode the share of the data sheet's rate that was
    computed, then what was measured on each machine that has results."""
    shares = computed(page)
    machines = {folder.name: measured(folder) for folder in folders}
    machines = {name: found for name, found in machines.items() if found[1]}
    head = ["layer, pass", "flops a byte"]
    for mode in PRECISIONS:
        head += [f"`{mode}`: computed", *(machines or {"measured": 0})]
    rows = [head, ["---"] * len(head)]
    for layer in LAYERS:
        for step in PASSES:
            if (layer, step) not in shares:
                continue
            cells = [f"{layer} {step}", f"{intensity(layer):.0f}"]
            for mode, share in zip(PRECISIONS, shares[layer, step], strict=True):
                cells.append(share)
                cells += [_share(found, layer, step, mode) for found in machines.values()] or [""]
            rows.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n"


def _share(
    found: tuple[str, dict[tuple[str, str, str], float]], layer: str, step: str, mode: str
) -> str:
    device, times = found
    ms = times.get((layer, step, mode))
    if ms is None:
        return ""
    rate, most = flops(layer) / ms * 1e3, peak(device, mode)
    return f"{ms:.3f} ms" if most is None else f"{rate / most:.0%}, {ms:.3f} ms"
