"""Layers without weights: data, pools, norms, neurons, dropout, sums and joins."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from convnet.common.typecheck import did_you_mean
from convnet.exchange.cuda_convnet.builder import Builder, Output
from convnet.exchange.cuda_convnet.definition import Section
from convnet.layers.graph import INPUT

Translate = Callable[[Builder, Section, Section], Output]

# cuda-convnet's neurons: our layer, and the names of its arguments.
_NEURONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "logistic": ("sigmoid", ()),
    "abs": ("abs", ()),
    "relu": ("relu", ()),
    "softrelu": ("softplus", ()),
    "square": ("square", ()),
    "sqrt": ("sqrt", ()),
    "log": ("log", ("a",)),
    "tanh": ("tanh", ("a", "b")),
    "brelu": ("brelu", ("a",)),
    "linear": ("affine", ("a", "b")),
    "drelu": ("drelu", ("a",)),
    "nrelu": ("relu", ()),
    "abstanh": ("tanh", ("a", "b")),
}


def data(b: Builder, section: Section, _params: Section) -> Output:
    """The images (0), the labels (1), or the labels as a 0 or 1 for each class (2)."""
    index = section.integer("dataIdx", least=0)
    if index in (1, 2):
        for key in ("start", "end"):
            if section.text(key, ""):
                section.changed(key, "labels are taken whole")
        return Output("", (1,) if index == 1 else (b.classes,), labels=index, name=section.name)
    if index != 0:
        raise section.error(
            "dataIdx",
            "expected 0 (images), 1 (labels) or 2 (labels as 0 and 1); data of other kinds "
            f"are not supported; got {index}",
        )
    whole = Output(INPUT, b.in_shape, name=section.name)
    count = math.prod(b.in_shape)
    start, end = section.integer("start", 0, least=0), section.integer("end", count)
    if not start < end <= count:
        raise section.error("end", f"expected a number from {start + 1} to {count}, got {end}")
    if (start, end) == (0, count):
        return whole
    plane = b.in_shape[0] * b.in_shape[1]
    if start % plane or end % plane:
        row = b.row(section, whole)
        return b.add(section, section.name, "slice", [row], start=start, stop=end)
    channels = {"start": start // plane, "stop": end // plane}
    return b.add(section, section.name, "slice", [whole], **channels)


# ---- pools --------------------------------------------------------------------------------------


def pool(b: Builder, section: Section, params: Section) -> Output:
    """A pool; where it does not begin at the first pixel or end at the last, with a crop."""
    value = b.only_image(section)
    kind = section.text("pool").strip().lower()
    summed = any(part.text("sum", "") and part.boolean("sum") for part in (section, params))
    kinds = {"max": "maxpool", "maxabs": "maxabspool", "avg": "sumpool" if summed else "avgpool"}
    if kind == "rand":
        raise section.error("pool", "stochastic pooling (rand) is not carried over: no such layer")
    if kind not in kinds:
        raise section.error("pool", f'expected max, maxabs or avg, got "{kind}"')
    size = section.integer("sizeX", least=1)
    stride = section.integer("stride", least=1)
    start, outputs = section.integer("start", 0), section.integer("outputsX", 0)
    wanted = [
        outputs if outputs > 0 else 1 + math.ceil((side - start - size) / stride)
        for side in value.shape[:2]
    ]
    if min(wanted) < 1:
        raise section.error("start", f"nothing is left of {value.shape[:2]} from {start} on")
    if start > 0:
        rest = {"height": value.shape[0] - start, "width": value.shape[1] - start}
        if min(rest.values()) < 1:
            raise section.error("start", f"expected less than {min(value.shape[:2])}, got {start}")
        value = b.add(
            section, f"{section.name}/rest", "crop", [value], top=start, left=start, **rest
        )
    options: dict[str, Any] = {"size": size, "stride": stride}
    options |= {"pad": -start} if start < 0 else {}
    last = len(b.nodes)
    made = b.add(section, section.name, kinds[kind], [value], **options)
    if list(made.shape[:2]) == wanted:
        return made
    if made.shape[0] < wanted[0] or made.shape[1] < wanted[1]:
        raise section.error("outputsX", f"expected at most {made.shape[0]}, got {wanted[0]}")
    del b.nodes[last:]  # again, under another name: its first outputs are what is wanted
    del b.shapes[made.node]
    made = b.add(section, f"{section.name}/all", kinds[kind], [value], **options)
    return b.add(section, section.name, "crop", [made], height=wanted[0], width=wanted[1])


# ---- norms --------------------------------------------------------------------------------------


def norm(b: Builder, section: Section, params: Section) -> Output:
    """Normalization within a channel (rnorm, cnorm) or across channels (cmrnorm)."""
    kind = section.text("type")
    section.rename("sizeX", "size")
    value = b.only_image(section)
    if kind == "rnorm" and section.text("crossMap", "") and section.boolean("crossMap"):
        section.noted("crossMap", "taken for type=cmrnorm")
        kind = "cmrnorm"
    size = section.integer("size", least=1)
    blocked = section.boolean("blocked", False)
    for key in ("scale", "pow", "minDiv"):
        if key in section and key not in params:
            params.items[key.lower()] = section.items[key.lower()]
            where = "is in the definition, as in older versions"
            section.noted(key, where)
    scale, power = params.number("scale"), params.number("pow")
    least = params.number("minDiv", 1.0)
    for key, got in (("scale", scale), ("pow", power), ("minDiv", least)):
        if got < 0.0 or (key == "minDiv" and got == 0.0):
            raise params.error(key, f"expected a positive number, got {got:g}")
    common: dict[str, Any] = {"k": least, "alpha": scale, "beta": power, "alpha_mode": "mean"}
    if kind != "cmrnorm":
        if blocked:
            section.ignored("blocked", f"means nothing for {kind}")
        return b.add(section, section.name, kind, [value], n=size, **common)
    if not blocked:
        return b.add(section, section.name, "lrn", [value], n=size, **common)
    return _blocks(b, section, value, size, {**common, "alpha": scale / size, "alpha_mode": "sum"})


def _blocks(
    b: Builder, section: Section, value: Output, size: int, common: dict[str, Any]
) -> Output:
    """Blocks of `size` channels, each normalized by all of itself; the last may be smaller."""
    channels = value.shape[2]
    full = channels // size * size
    if full in (0, channels):
        groups = max(1, full // size)
        options = {"n": 2 * min(size, channels), "groups": groups, **common}
        return b.add(section, section.name, "lrn", [value], **options)
    parts = []
    for word, start, stop in (("full", 0, full), ("last", full, channels)):
        wish = f"{section.name}/{word}"
        part = b.add(section, f"{wish}/channels", "slice", [value], start=start, stop=stop)
        groups = full // size if word == "full" else 1
        parts.append(b.add(section, wish, "lrn", [part], n=2 * size, groups=groups, **common))
    return b.add(section, section.name, "concat", parts)


# ---- neurons ------------------------------------------------------------------------------------


def neuron(b: Builder, section: Section, _params: Section) -> Output:
    """A layer that is a neuron."""
    value = b.acts(section, 1)[0]
    return apply_neuron(b, section, value, section.name, section.text("neuron"))


def apply_neuron(b: Builder, section: Section, value: Output, wish: str, text: str) -> Output:
    """The neuron of a layer, as nodes above it."""
    text = text.strip()
    match = re.fullmatch(r"(\w+)\s*(?:\[([^\]]*)\])?", text)
    kind = match[1].lower() if match else ""
    if kind == "ident" and match and match[2] is None:
        return value
    if not match or kind not in _NEURONS:
        hint = did_you_mean(kind, ["ident", *_NEURONS])
        raise section.error("neuron", f'unknown neuron "{text}"{hint}')
    layer, names = _NEURONS[kind]
    words = [word for word in (match[2] or "").split(",") if word.strip()]
    if len(words) != len(names):
        form = f"{kind}[{','.join(names)}]" if names else kind
        raise section.error("neuron", f'expected {form}, got "{text}"')
    options: dict[str, Any] = {}
    for name, word in zip(names, words, strict=True):
        options[name] = section.read("neuron", word.strip(), float, f"a number for {name}")
    if kind == "nrelu":
        section.changed("neuron", "nrelu: without its noise")
    if kind == "abstanh":  # a |tanh(b x)|
        inner = b.add(section, f"{wish}/tanh", "tanh", [value], a=1.0, b=options["b"])
        inner = b.add(section, f"{wish}/abs", "abs", [inner])
        return b.add(section, wish, "affine", [inner], a=options["a"], b=0.0)
    made = b.add(section, wish, layer, [value], **options)
    return Output(
        made.node,
        made.shape,
        name=section.name,
        logistic=value if kind == "logistic" else None,
    )


# ---- the rest -----------------------------------------------------------------------------------


def softmax(b: Builder, section: Section, _params: Section) -> Output:
    """A softmax; a node of its own only where something besides its cost takes it."""
    value = b.row(section, b.acts(section, 1)[0])
    return Output("", value.shape, softmax=value, name=section.name)


def dropout(b: Builder, section: Section, params: Section) -> Output:
    """`dropout` scales in training, `dropout2` and the older `hs` in testing, as the paper does.

    With `enable=false` the first does nothing, and the others scale in training too.
    """
    value = b.acts(section, 1)[0]
    place = params if "keep" in params else section
    keep = place.number("keep", 0.5)
    if not 0.0 < keep <= 1.0:
        raise place.error("keep", f"expected a number above 0 and at most 1, got {keep:g}")
    mode = "inverted" if section.text("type") == "dropout" else "paper"
    if not params.boolean("enable", True):
        if mode == "paper" and keep < 1.0:
            params.noted("enable", f"off: nothing is dropped, and all is multiplied by {keep:g}")
            return b.add(section, section.name, "affine", [value], a=keep, b=0.0)
        params.noted("enable", "off: nothing is dropped")
        keep = 1.0
    drop = float(f"{1.0 - keep:.12g}")
    return b.add(section, section.name, "dropout", [value], drop=drop, mode=mode)


def eltsum(b: Builder, section: Section, params: Section) -> Output:
    """A weighted sum, element by element."""
    values = b.alike(section, b.acts(section))
    place = params if "coeffs" in params else section
    coeffs = place.numbers("coeffs", len(values), 1.0)
    if len(values) == 1:
        if coeffs == [1.0]:
            return values[0]
        return b.add(section, section.name, "affine", values, a=coeffs[0], b=0.0)
    options = {} if set(coeffs) == {1.0} else {"coeffs": coeffs}
    return b.add(section, section.name, "sum", values, **options)


def eltmax(b: Builder, section: Section, _params: Section) -> Output:
    """The largest, element by element."""
    values = b.alike(section, b.acts(section))
    if len(values) < 2:
        raise section.error("inputs", "expected two or more, got 1")
    return b.add(section, section.name, "max", values)


def concat(b: Builder, section: Section, _params: Section) -> Output:
    """`concat` and `pass`: one input after the other."""
    values = b.acts(section)
    if len(values) == 1:
        return values[0]
    if len({value.shape[:-1] for value in values}) > 1:
        values = [b.row(section, value) for value in values]
    return b.add(section, section.name, "concat", values)


def crop(b: Builder, section: Section, _params: Section) -> Output:
    """A square cut out of an image."""
    value = b.only_image(section)
    left = section.integer("startX", least=0)
    top = section.integer("startY", left, least=0)
    size = section.integer("sizeX", least=1)
    options = {"top": top, "left": left, "height": size, "width": size}
    return b.add(section, section.name, "crop", [value], **options)


def blur(b: Builder, section: Section, _params: Section) -> Output:
    """A Gaussian over each channel."""
    value = b.only_image(section)
    size, std = section.integer("filterSize", least=1), section.number("stdev")
    if std <= 0.0:
        raise section.error("stdev", f"expected a number above 0, got {std:g}")
    return b.add(section, section.name, "blur", [value], size=size, std=std)


def nailbed(b: Builder, section: Section, _params: Section) -> Output:
    """Every stride-th pixel; without `start`, as many are left out before the first as after the
    last."""
    value = b.only_image(section)
    stride, side = section.integer("stride", least=1), value.shape[0]
    count = -(-side // stride)
    start = section.integer("start", (side - stride * (count - 1)) // 2, least=0)
    return b.add(section, section.name, "nailbed", [value], stride=stride, start=start)
