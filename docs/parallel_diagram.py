"""Draws docs/parallel.svg: the paper's net over two devices, from what the partition says.

python docs/parallel_diagram.py
"""

from __future__ import annotations

from pathlib import Path

from convnet import models
from convnet.layers.graph import consumers, learning

WIDTH, LEFT, RIGHT, BOX, STEP, TOP = 690, 16, 316, 220, 52, 52
OWN, LINK = "#4a6fa5", "#c0504d"
SHOWN = ("input", "conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8", "softmax")


def main() -> None:
    Path(__file__).with_name("parallel.svg").write_text(diagram(), encoding="utf-8")


def diagram() -> str:
    """The diagram as SVG."""
    net = models.alexnet(device="cpu:0,cpu:1", sizes_only=True)
    assert net.partition is not None
    partition = net.partition
    readers, wanted = consumers(partition.steps), learning(partition.steps)
    crossing = {}  # node that reads -> MiB that cross to and from it at a batch of 128
    for node, gather in partition.gathers():
        for reader in readers.get(node.name, ()):
            name = partition.origin[reader.name]
            crossing[name] = crossing.get(name, 0.0) + sum(gather.crossing(128, wanted)) / 2**20
    lines = []
    for row, name in enumerate(SHOWN):
        y = TOP + row * STEP
        value = partition.values[name]
        for x, held in zip((LEFT, RIGHT), value.shards, strict=True):
            if held is None:
                continue
            what = "channels" if name == "input" or name.startswith("conv") else "units"
            label = f"{name}: {what} {held.first} to {held.last - 1}"
            lines.append(
                f'<rect x="{x}" y="{y}" width="{BOX}" height="26" rx="5" class="box"/>'
                f'<text x="{x + BOX / 2}" y="{y + 17.5}" class="mid">{label}</text>'
            )
        if row:
            lines += arrows(name, y, crossing.get(name), value.shards)
    height = TOP + len(SHOWN) * STEP + 12
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" \
font-family="sans-serif" font-size="13">
<title>The paper's net over two devices</title>
<defs>{tip("own", OWN)}{tip("link", LINK)}</defs>
<style>.box{{fill:#eef3fa;stroke:{OWN}}} .mid{{text-anchor:middle;fill:#1b2a41}}
.own{{stroke:{OWN};stroke-width:1.4;marker-end:url(#own)}}
.link{{stroke:{LINK};stroke-width:1.4;marker-end:url(#link)}}
.note{{fill:{LINK}}}</style>
<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
<text x="{LEFT + BOX / 2}" y="30" class="mid" font-size="15">first device</text>
<text x="{RIGHT + BOX / 2}" y="30" class="mid" font-size="15">second device</text>
<text x="{WIDTH - 12}" y="22" class="note" text-anchor="end">crosses in a step</text>
<text x="{WIDTH - 12}" y="38" class="note" text-anchor="end">of 128 images</text>
{chr(10).join(lines)}
</svg>
"""


def tip(name: str, colour: str) -> str:
    """An arrow head."""
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        f'markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
    )


def arrows(name: str, y: int, mib: float | None, held: list) -> list[str]:
    """From the row above into this one; red where numbers cross."""
    first, second = LEFT + BOX / 2, RIGHT + BOX / 2
    above, here = y - STEP + 27, y - 1
    found = []
    if name != "conv1" or held[0]:
        found.append(f'<line x1="{first}" y1="{above}" x2="{first}" y2="{here}" class="own"/>')
    if held[1] and name != "conv1":
        found.append(f'<line x1="{second}" y1="{above}" x2="{second}" y2="{here}" class="own"/>')
    if mib:
        if held[1]:
            found.append(line(first + 40, above, second - 40, here))
        if name != "conv1":
            found.append(line(second - 40, above, first + 40, here))
        found.append(
            f'<text x="{WIDTH - 12}" y="{y + 17}" class="note" text-anchor="end">'
            f"{mib:.1f} MiB</text>"
        )
    return found


def line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" class="link"/>'


if __name__ == "__main__":
    main()
