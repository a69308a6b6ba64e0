"""Sections of the page: how the net learned, what it is, what it finds alike, how to repeat it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convnet.common.names import cut
from convnet.interpret.curves import curves_of
from convnet.layers.graph import INPUT
from convnet.report import charts
from convnet.report.charts import Line
from convnet.report.images import filter_pictures, picture
from convnet.report.markup import Markup, element, line_of
from convnet.report.measured import Neighbour, Sample
from convnet.report.story import FIVE, Story

_FILTERS = 256  # that are shown, at most
_FILTER_BYTES = 600_000  # of all of them together


def section(key: str, title: str, note: object, *content: object) -> Markup:
    """A section: its heading, a sentence on it, and what it shows."""
    said = element("p", note, class_="note") if note else None
    return element("section", element("h2", title), said, *content, id=key)


def per_cent(share: float) -> str:
    """A share of 1 in per cent, for people."""
    value = 100.0 * share
    if 99.5 <= value < 100.0:
        return ">99 %" if value < 99.95 else "100 %"
    return f"{value:.0f} %" if value >= 0.95 else "<1 %"


def curves(story: Story) -> Markup | None:
    """The curves: loss, error and learning rate; None before there are any."""
    if not story.records:
        return None
    curves = curves_of(story.records)
    named = story.net is None or story.net.classes is not None

    def lines(key: str, value: Any) -> list[Line]:
        steps = [value(record[key]) for record in curves.steps]
        training = [value(record[key]) for record in curves.epochs]
        validation = [value(record[f"val_{key}"]) for record in curves.epochs]
        return [
            Line("", curves.at_step, steps, "steps"),
            Line("training", curves.at_epoch, training, "train"),
            Line("validation", curves.at_epoch, validation, "validation"),
        ]

    drawn = [charts.line_chart("Loss", lines("loss", float), curves.unit)]
    if named:
        errors = lines("top1", lambda right: 100.0 - right)
        if curves.five and len(story.classes) > FIVE:
            five = [100.0 - record["val_top5"] for record in curves.epochs]
            errors.append(Line("validation, top 5", curves.at_epoch, five, "five"))
        drawn.append(charts.line_chart("Error, %", errors, curves.unit))
    rates = [record["lr"] for record in curves.steps]
    few = len(set(rates)) <= 8
    rate = Line("", curves.at_step, rates, "rate")
    drawn.append(charts.line_chart("Learning rate", [rate], curves.unit, log=few))
    note = "Training images are those it learns from; validation images it only is tested on."
    return section("curves", "How it learned", note, element("div", *drawn, class_="charts"))


def filters(story: Story) -> Markup | None:
    """The filters of the first layer; None where the net has none to show."""
    if story.filters is None:
        return None
    layer, w = story.filters
    count, height, width, channels = w.shape
    note = f"The {count} filters of {layer}, {height} by {width} weights each: what the first "
    note += "layer looks for everywhere in an image. Mid-grey is zero."
    if channels not in (1, 3):
        w = w[..., :1]
        note += f" Of {channels} channels the first is shown."
    most = max(1, min(_FILTERS, _FILTER_BYTES // w[0].size))
    note += f" The first {most} are shown." if count > most else ""
    shown = element("div", *filter_pictures(w[:most]), class_="filters")
    return section("filters", "What it looks for", note, shown)


def neighbours(story: Story) -> Markup | None:
    """Images with those nearest to them; None where there are none."""
    measured = story.measured
    if measured is None or not measured.rows:
        return None
    rows = []
    for query, others in measured.rows:
        cells: list[tuple[Sample | Neighbour, str, str]] = [(query, "query", "query")]
        cells += [(each, cut(each.label), "same" if each.same else "other") for each in others]
        figures = [
            element(
                "figure", picture(one.pixels, alt), line_of(one.label, "figcaption"), class_=kind
            )
            for one, alt, kind in cells
        ]
        rows.append(element("div", *figures, class_="row"))
    note = "On the left an image it had never seen; beside it the training images that look most "
    note += f"alike to the net (nearest in {measured.layer}, among {measured.searched:,}). A red "
    note += "frame: another class."
    return section("neighbours", "What it finds alike", note, element("div", *rows, class_="rows"))


def net(story: Story) -> Markup | None:
    """The nodes of the net; None before the first checkpoint."""
    net = story.net
    if net is None:
        return None
    rows = [(INPUT, "", net.in_shape, "")]
    for node in net.nodes:
        count = sum(param.size for param in node.layer.params)
        weights = f"as {node.share}" if node.share else f"{count:,}" if count else ""
        rows.append((node.name, node.layer.describe(), net.shapes[node.name], weights))
    words = [
        element("th", name, scope="col", class_="text" if name == "what" else None)
        for name in ("node", "what", "output", "weights")
    ]
    lines = [
        element(
            "tr",
            element("th", name, scope="row"),
            element("td", what, class_="text"),
            element("td", _size(shape)),
            element("td", weights),
        )
        for name, what, shape, weights in rows
    ]
    head = element("thead", element("tr", *words))
    table = element("table", head, element("tbody", *lines))
    note = f"{net.parameter_count:,} weights; {net.macs / 1e6:,.1f} million multiply-adds an image."
    return section("net", "The net", note, element("div", table, class_="scroll", tabindex="0"))


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def again(story: Story) -> Markup:
    """The command, the configuration, and what else it takes to repeat the run."""
    facts = [
        ("data", story.data),
        ("seed", str(story.cfg.seed)),
        ("device", story.device),
        ("convnet", story.version),
        ("weights of step", f"{story.step:,}" if story.step else ""),
    ]
    pairs = [
        element("div", element("dt", key), element("dd", value)) for key, value in facts if value
    ]
    command = element("pre", element("code", story.command), tabindex="0")
    config = element(
        "details",
        element("summary", "config.toml, with every default"),
        element("pre", element("code", story.cfg.to_toml()), tabindex="0"),
    )
    note = "The same command gives the same weights, to the bit, on the same kind of machine."
    return section(
        "again", "Repeat it", note, command, element("dl", *pairs, class_="facts"), config
    )
