"""cuda-convnet's rules for shapes and parameters, written out anew: what an import is held to.

It knows nothing of the importer: files are read with Python's configparser, sizes are numbers of
outputs, as in the original, and every layer is one line of its arithmetic.
Source: layer.py of computerhistory/AlexNet-Source-Code and of akrizhevsky/cuda-convnet2.
"""

from __future__ import annotations

import configparser
import math
from pathlib import Path


class Rules:
    """The layers of a definition.

    Args:
        path: the definition file.
        pixels: numbers of one image, as the net sees it.

    Attributes:
        outputs: numbers that each layer gives; parameters: that each one learns, of those layers
            that lead to a cost.
    """

    def __init__(self, path: Path, pixels: int) -> None:
        reader = configparser.ConfigParser(
            strict=False, inline_comment_prefixes=(";",), interpolation=None
        )
        reader.read_string(path.read_text(encoding="latin-1"))
        self.sections = {name: dict(reader[name]) for name in reader.sections()}
        self.pixels = pixels
        self.outputs: dict[str, int] = {}
        self.parameters: dict[str, int] = {}
        for name, keys in self.sections.items():
            self.outputs[name], self.parameters[name] = self._layer(name, keys)
        leading = self._leading()
        self.parameters = {n: count for n, count in self.parameters.items() if n in leading}

    def _leading(self) -> set[str]:
        """The layers that lead to a cost, and those whose weights they use."""
        found = {name for name, keys in self.sections.items() if keys["type"].startswith("cost.")}
        waiting = [*found]
        while waiting:
            keys = self.sections[waiting.pop()]
            sources = [word.partition("[")[0] for word in _words(keys.get("weightsource", ""))]
            for name in filter(None, [*_words(keys.get("inputs", "")), *sources]):
                if name not in found:
                    found.add(name)
                    waiting.append(name)
        return found

    def _layer(self, name: str, keys: dict[str, str]) -> tuple[int, int]:
        kind, inputs = keys["type"], [self.outputs[n] for n in _words(keys.get("inputs", ""))]
        if kind == "data":
            start, end = int(keys.get("start", 0)), int(keys.get("end", self.pixels))
            return (end - start, 0) if keys["dataidx"] == "0" else (1, 0)
        sources = _words(keys.get("weightsource", "")) or [""] * len(inputs)
        if kind == "fc":
            units = int(keys.get("outputs", keys.get("numoutputs", 0)))
            own = sum(count for count, source in zip(inputs, sources, strict=True) if not source)
            return units, units * own + units
        if kind in ("conv", "local"):
            return self._filters(kind, keys, inputs, sources)
        if kind in ("pool", "nailbed"):
            channels = int(keys["channels"])
            side = math.isqrt(inputs[0] // channels)
            if kind == "nailbed":
                return channels * math.ceil(side / int(keys["stride"])) ** 2, 0
            size = int(keys.get("sizex", keys.get("subsx", 0)))
            start, count = int(keys.get("start", 0)), int(keys.get("outputsx", 0))
            if count <= 0:
                count = math.ceil((side - start - size) / float(keys["stride"])) + 1
            return channels * count**2, 0
        if kind in ("concat", "pass"):
            return sum(inputs), 0
        if kind.startswith("cost."):
            return 1, 0
        return inputs[0], 0  # norms, blurs, neurons, dropout, sums and softmax keep the size

    @staticmethod
    def _filters(
        kind: str, keys: dict[str, str], inputs: list[int], sources: list[str]
    ) -> tuple[int, int]:
        def listed(key: str, default: str) -> list[int]:
            words = _words(keys.get(key, default))
            return [int(word) for word in (words * len(inputs) if len(words) == 1 else words)]

        channels, groups = listed("channels", ""), listed("groups", "1")
        sizes, pads, strides = (
            listed("filtersize", ""),
            listed("padding", "0"),
            listed("stride", "1"),
        )
        filters = listed("filters" if "filters" in keys else "numfilters", "")
        weights = modules = maps = 0
        rows = zip(inputs, channels, groups, sizes, pads, strides, filters, sources, strict=True)
        for count, c, g, size, pad, stride, own, source in rows:
            side = math.isqrt(count // c)
            modules = (1 + math.ceil((2 * pad + side - size) / float(stride))) ** 2
            maps = own * g
            places = modules if kind == "local" else 1
            weights += 0 if source else places * (c // g) * size**2 * maps
        shared = kind == "conv" and keys.get("sharedbiases", "1").lower() in (
            "1",
            "true",
            "yes",
            "on",
        )
        return modules * maps, weights + (maps if shared else modules * maps)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")] if text.strip() else []
