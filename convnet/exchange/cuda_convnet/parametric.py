"""Layers with weights: `fc`, `conv` and `local`, with one or several inputs, shared or not.

A matrix for each input, whose products are added, and one bias. A layer whose weights another one
uses, or that uses another's, has its bias in a node of its own: cuda-convnet shares the weights
alone, and here nodes share all that they have.
"""

from __future__ import annotations

import re
from typing import Any

from convnet.exchange.cuda_convnet.builder import Builder, Output
from convnet.exchange.cuda_convnet.definition import Section, flag
from convnet.exchange.cuda_convnet.rates import Rate, read_rates

HINTS = ("partialSum", "sumWidth")  # of speed: they say nothing about the net
_KINDS = {"fc": "dense", "conv": "conv", "local": "local"}
_SAME = "@"  # begins what stands for another input of the same layer; no node has it in its name
# Initial values from functions, and the key that counts instead.
_FUNCTIONS = {"initWFunc": "initW", "initBFunc": "initB", "initCFunc": ""}
# For each key of a window: its default, if it has one, and the least that it may be.
_WINDOW = {
    "filters": (None, 1),
    "groups": (1, 1),
    "filterSize": (None, 1),
    "stride": (1, 1),
    "padding": (0, 0),
    "channels": (None, 1),
}
_UNSUPPORTED = ("superEps", "superMom", "wcNormMin", "wcNormMax")  # unless they are 0


class ParametricLayers:
    """Translates layers with weights.

    Args:
        builder: builds the net; gets the nodes.

    Attributes:
        rates: name of a parameter -> how it learns.
        sources: name of a parameter -> the layer whose it is, and which of its matrices; -1 for its
            biases.
    """

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.rates: dict[str, Rate] = {}
        self.sources: dict[str, tuple[str, int]] = {}

    def __call__(self, section: Section, params: Section) -> Output:
        """Adds the nodes of one layer.

        Args:
            section: the layer's section of the definition.
            params: the layer's section of the parameter file.
        """
        b, name = self.builder, section.name
        inputs = b.acts(section)
        kind, count = section.text("type"), len(inputs)
        for key, instead in _FUNCTIONS.items():
            if function := section.text(key, ""):
                counts = f"; {instead} counts" if instead else ""
                section.changed(key, f"{function} is a Python function, which is not run{counts}")
        std = section.numbers("initW", count, 0.01)
        bias_init = section.number("initB", 0.0)
        if kind == "fc":
            units = section.integer("outputs", least=1)
            options: list[dict[str, Any]] = [{"units": units} for _ in inputs]
        else:
            options = self._windows(section, count)
            channels = section.integers("channels", count)
            inputs = [b.image(section, *each) for each in zip(inputs, channels, strict=True)]
        tied = kind == "fc" or (kind == "conv" and section.boolean("sharedBiases", True))
        sources = self._sources(section, kind, count)
        taken = any((name, index) in b.taken for index in range(count))
        apart = any(sources) or taken or (kind == "conv" and not tied)
        products = []
        for index, (value, own) in enumerate(zip(inputs, options, strict=True)):
            if sources[index].startswith(_SAME):  # of another input of this layer
                sources[index] = b.owners[name, int(sources[index].removeprefix(_SAME))]
            with_bias = index == 0 and not apart
            own |= {"std": std[index]} if not sources[index] else {"share": sources[index]}
            own |= {"bias_init": bias_init} if with_bias and bias_init else {}
            own |= {} if with_bias else {"bias": False}
            wish = name if count == 1 and not apart else f"{name}/{index}"
            products.append(b.add(section, wish, _KINDS[kind], [value], **own))
            b.owners[name, index] = sources[index] or products[-1].node
            if not sources[index]:
                self.sources[f"{products[-1].node}.w"] = (name, index)
        made = products[0]
        bias = f"{made.node}.b"
        if count > 1:
            made = b.add(section, f"{name}/sum" if apart else name, "sum", products)
        if apart:
            start = {"bias_init": bias_init} if bias_init else {}
            start |= {} if tied else {"tied": False}
            made = b.add(section, name, "bias", [made], **start)
            bias = f"{made.node}.b"
        self.sources[bias] = (name, -1)
        self._rates(section, params, [value.node for value in products], sources, bias)
        return made

    def _windows(self, section: Section, count: int) -> list[dict[str, Any]]:
        """The arguments of a convolution, for each input."""
        for hint in HINTS:
            section.text(hint, "")
        self._sparse(section, count)
        if section.integer("modulesX", 0) > 0:
            section.changed("modulesX", "ignored: outputs follow from the sizes")
        columns = [section.integers(key, count, *limits) for key, limits in _WINDOW.items()]
        found = []
        for filters, groups, size, stride, pad, channels in zip(*columns, strict=True):
            if channels % groups:
                text = f"expected a divisor of {channels} channels, got {groups}"
                raise section.error("groups", text)
            options: dict[str, Any] = {"filters": filters * groups, "size": size}
            options |= {"pad": pad} if pad else {}
            options |= {"stride": stride, "rounding": "ceil"} if stride > 1 else {}
            options |= {"groups": groups} if groups > 1 else {}
            found.append(options)
        return found

    def _sparse(self, section: Section, count: int) -> None:
        """Filters that see channels at random, which groups of neighbouring ones stand in for."""
        words = section.spread("randSparse", count, "0")
        if not any(section.read("randSparse", word, flag, "true or false") for word in words):
            section.text("filterChannels", "")
            return
        text = "connections at random are not supported: groups are of neighbouring channels"
        section.changed("randSparse", text)
        channels, groups = section.integers("channels", count), section.integers("groups", count, 1)
        own = [c // g for c, g in zip(channels, groups, strict=True)]
        if "filterChannels" in section and section.integers("filterChannels", count) != own:
            text = f"groups of neighbouring channels have {own}; filters of other sizes at random"
            raise section.error("filterChannels", f"{text} are not carried over")

    def _sources(self, section: Section, kind: str, count: int) -> list[str]:
        """For each input, the node whose weights it uses; empty for weights of its own."""
        b, words = self.builder, section.words("weightSource", "," * (count - 1))
        if len(words) != count:
            raise section.miscounted("weightSource", count, len(words))
        found = []
        for index, word in enumerate(words):
            if not word:
                found.append("")
                continue
            name, number = source_of(section, word)
            if name == section.name and number < index:  # another input of the same layer
                found.append(f"{_SAME}{number}")
                continue
            if (name, number) not in b.owners:
                raise section.error("weightSource", f"there are no weights {word!r} above")
            other = b.definition[name].text("type")
            if other != kind:
                raise section.error("weightSource", f"expected a layer of type {kind}, got {other}")
            found.append(b.owners[name, number])
        return found

    def _rates(
        self, section: Section, params: Section, nodes: list[str], sources: list[str], bias: str
    ) -> None:
        count = len(nodes)
        bases = read_rates(params, "epsW", count)
        momenta = params.numbers("momW", count)
        decays = params.numbers("wc", count, 0.0)
        for index, node in enumerate(nodes):
            base, schedule = bases[index]
            rate = Rate(base, schedule, momenta[index], decays[index])
            self._check(params, rate, "epsW", "momW")
            if not sources[index]:
                self.rates[f"{node}.w"] = rate
            elif self.rates[f"{sources[index]}.w"] != rate:
                text = f"those of {sources[index]}, whose weights it uses, count"
                params.noted("epsW, momW, wc", text)
        base, schedule = read_rates(params, "epsB", 1)[0]
        self.rates[bias] = Rate(base, schedule, params.number("momB"))
        self._check(params, self.rates[bias], "epsB", "momB")
        if max(params.numbers("wball", count, 0.0)) > 0.0:
            text = "weights are not kept within a ball: there is no such limit here"
            params.changed("wball", text)
        for key in _UNSUPPORTED:
            if any(params.numbers(key, count, 0.0)):
                params.changed(key, "not supported, left out")
        if params.integer("updatePeriod", 0) > 1:
            params.changed("updatePeriod", "weights are updated in every step")

    @staticmethod
    def _check(params: Section, rate: Rate, eps: str, mom: str) -> None:
        if rate.base < 0.0:
            raise params.error(eps, f"expected 0 or more, got {rate.base:g}")
        if not 0.0 <= rate.momentum < 1.0:
            raise params.error(mom, f"expected a number from 0 to below 1, got {rate.momentum:g}")
        if rate.decay < 0.0:
            raise params.error("wc", f"expected 0 or more, got {rate.decay:g}")


def source_of(section: Section, word: str) -> tuple[str, int]:
    """("conv6", 2) of "conv6[2]"; "conv6" alone stands for its first weights."""
    match = re.fullmatch(r"([^\s\[\]]+)(?:\[(\d+)\])?", word)
    if not match:
        raise section.error("weightSource", f"expected layer or layer[number], got {word!r}")
    return match[1], int(match[2] or 0)
