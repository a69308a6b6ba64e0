"""Builds the list of layers of a configuration, checking each one's sizes as it is added."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from convnet.common.typecheck import ConfigError, did_you_mean
from convnet.exchange.cuda_convnet.definition import Section
from convnet.layers import LAYER_TYPES, Loss
from convnet.layers.graph import INPUT

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Output:
    """The output of a layer of a definition.

    Attributes:
        node: name of the node that computes it; empty for labels, and for a softmax that no layer
            has needed yet.
        shape: (H, W, C), or (C,).
        labels: 1 for labels, 2 for labels with a 0 or 1 for each class; else 0.
        softmax: the logits, where it is their softmax.
        logistic: likewise, where it is their logistic function.
        name: name of the layer in the definition.
    """

    node: str
    shape: Shape
    labels: int = 0
    softmax: Output | None = None
    logistic: Output | None = None
    name: str = ""


class Builder:
    """The layers of the configuration so far.

    Args:
        definition: the sections of the layer definition; in_shape: (H, W, C) of the images as the
            net gets them; classes: of the data.

    Attributes:
        nodes: tables of `[[net.layers]]`, in order; values: by the definition's names.
        gpus: that the definition names, in the order in which it does.
        taken: (layer, index) of weights that other layers use too.
        owners: (layer, index) of weights -> the node that has them.
    """

    def __init__(self, definition: dict[str, Section], in_shape: Shape, classes: int) -> None:
        self.definition, self.in_shape, self.classes = definition, in_shape, classes
        self.nodes: list[dict[str, Any]] = []
        self.shapes: dict[str, Shape] = {INPUT: in_shape}
        self.values: dict[str, Output] = {}
        self.gpus: list[int] = []
        self.taken: set[tuple[str, int]] = set()
        self.owners: dict[tuple[str, int], str] = {}
        self._made: dict[tuple[str, Any], Output] = {}

    # ---- nodes ----------------------------------------------------------------------------------

    def name(self, wish: str) -> str:
        """A name that a node may have and that none has yet."""
        clean = re.sub(r"[^A-Za-z0-9_/-]", "_", wish) or "_"
        found, number = clean, 1
        while found in self.shapes:
            number += 1
            found = f"{clean}_{number}"
        return found

    def add(
        self, section: Section, wish: str, kind: str, inputs: list[Output], **options: Any
    ) -> Output:
        """Adds a node.

        Args:
            section: of the definition, for messages; wish: the name, if it is free.
            kind: a key of `LAYER_TYPES`; options: its arguments, and `share`.
            inputs: values of nodes.

        Raises:
            ConfigError: sizes or arguments that do not fit, naming file and section.
        """
        name, share = self.name(wish), options.pop("share", None)
        try:
            layer = LAYER_TYPES[kind](**options)
            layer.sizes_only = True
            shapes = [value.shape for value in inputs]
            rng = np.random.default_rng(0)
            shape = tuple(layer.setup(shapes if layer.multi_input else shapes[0], rng))
        except ValueError as error:
            raise ConfigError(f"{section.origin}: [{section.name}] {error}") from None
        table: dict[str, Any] = {"name": name, "type": kind}
        above = self.nodes[-1]["name"] if self.nodes else INPUT
        sources = [value.node for value in inputs]
        table |= {} if sources == [above] else {"inputs": sources}
        table |= {"share": share} if share else {}
        table |= options
        table["_inputs"] = sources
        self.nodes.append(table)
        self.shapes[name] = shape
        return Output(name, shape, name=section.name)

    # ---- values ---------------------------------------------------------------------------------

    def inputs(self, section: Section, count: int | None = None) -> list[Output]:
        """The inputs that a section names.

        Raises:
            ConfigError: a name that no section above has, or another number of them.
        """
        names = section.words("inputs")
        for name in names:
            if name not in self.values:
                later = "; it comes later" if name in self.definition else ""
                hint = later or did_you_mean(name, self.values)
                raise section.error("inputs", f'no layer above is called "{name}"{hint}')
        if count is not None and len(names) != count:
            raise section.error("inputs", f"expected {count}, got {len(names)}")
        return [self.values[name] for name in names]

    def acts(self, section: Section, count: int | None = None) -> list[Output]:
        """The inputs, as outputs of nodes."""
        return [self.act(section, value) for value in self.inputs(section, count)]

    def act(self, section: Section, value: Output) -> Output:
        """A value as the output of a node."""
        if value.labels:
            raise section.error("inputs", f"{value.name} are labels, which only a cost can take")
        if value.node:
            return value
        assert value.softmax is not None
        return self._once(section, value.name, "probabilities", value.softmax)

    def _once(
        self, section: Section, wish: str, kind: str, value: Output, **options: Any
    ) -> Output:
        """A node that several layers may want, made when the first does."""
        key = (f"{kind} of {value.node}", tuple(options.items()))
        if key not in self._made:
            self._made[key] = self.add(section, wish, kind, [value], **options)
        return self._made[key]

    def image(self, section: Section, value: Output, channels: int) -> Output:
        """A value as an image of so many channels."""
        if len(value.shape) == 3 and value.shape[2] == channels:
            return value
        count = math.prod(value.shape)
        side = math.isqrt(count // channels)
        if side * side * channels != count:
            raise section.error(
                "channels",
                f"expected {value.shape[-1]} as {value.name or value.node} gives, got {channels}"
                if len(value.shape) == 3
                else f"the {count} outputs of {value.name} are no square image of {channels}",
            )
        if len(value.shape) == 3:
            section.noted(
                "channels",
                f"{value.name} gives {value.shape[2]}; its numbers are taken as {channels} planes "
                f"of {side}x{side}, as cuda-convnet did",
            )
        row = self.row(section, value)
        return self._once(section, f"{value.node}_image", "unflatten_chw", row, channels=channels)

    def only_image(self, section: Section) -> Output:
        """The one input of a section as an image of as many channels as it says."""
        return self.image(section, self.acts(section, 1)[0], section.integer("channels", least=1))

    def row(self, section: Section, value: Output) -> Output:
        """A value as one row of numbers, in cuda-convnet's order: plane after plane."""
        if len(value.shape) == 1:
            return value
        return self._once(section, f"{value.node}_planes", "flatten_chw", value)

    def alike(self, section: Section, values: list[Output]) -> list[Output]:
        """Values in one shape, for sums and the like.

        Raises:
            ConfigError: they have different sizes.
        """
        if len({value.shape for value in values}) == 1:
            return values
        if len({math.prod(value.shape) for value in values}) > 1:
            sizes = " and ".join(str(math.prod(value.shape)) for value in values)
            raise section.error("inputs", f"expected inputs of one size, got {sizes} numbers")
        return [self.row(section, value) for value in values]

    # ---- the end --------------------------------------------------------------------------------

    def used_nodes(self) -> list[dict[str, Any]]:
        """The nodes that lead to a loss; the others are reported and left out.

        Raises:
            ConfigError: there is no loss.
        """
        by_name = {node["name"]: node for node in self.nodes}
        losses = [n["name"] for n in self.nodes if issubclass(LAYER_TYPES[n["type"]], Loss)]
        if not losses:
            origin = next(iter(self.definition.values())).origin if self.definition else "?"
            raise ConfigError(f"{origin}: expected a cost layer, as cost.logreg; got none")
        needed: set[str] = set()
        waiting = list(losses)
        while waiting:
            name = waiting.pop()
            if name != INPUT and name not in needed:
                needed.add(name)
                waiting += by_name[name]["_inputs"]
                waiting += [by_name[name]["share"]] if "share" in by_name[name] else []
        leads = {*needed, INPUT, ""}
        for name, value in self.values.items():
            if value.node not in leads and value.labels == 0:
                text = "leads to no cost: left out (cuda-convnet refused it)"
                self.definition[name].changed("", text)
        # What is left out is the input of nothing that is left, so that a node without `inputs`
        # still has the node above it for one.
        return [
            {key: item for key, item in node.items() if not key.startswith("_")}
            for node in self.nodes
            if node["name"] in needed
        ]
