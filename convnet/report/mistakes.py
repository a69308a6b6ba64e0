"""Sections of the page on what a net gets right and wrong: samples, confusion, classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from convnet.common.names import cut
from convnet.evaluation.metrics import Metrics
from convnet.report import charts
from convnet.report.images import picture
from convnet.report.markup import Markup, element, line_of, name_of
from convnet.report.measured import Measured, Sample
from convnet.report.sections import per_cent, section
from convnet.report.story import Story

_ROWS = 1000  # of the table of classes, and classes of a confusion matrix, at most
_SMALL = 280  # classes of which the page shows each with two pixels
_PAIRS = 12  # most frequent confusions that are listed
# Attributes of `Measured`: the title and a sentence of the section with these samples.
_KINDS = (
    ("surest", "Surest and right", "Images of every kind that it is most certain of."),
    (
        "worst",
        "Worst mistakes",
        "Wrong, and the right answer seemed least likely. Its own answer comes first; a mistake "
        "here may well be one of the label.",
    ),
    (
        "closest",
        "Hardest to decide",
        "The two likeliest answers are all but equally likely.",
    ),
)


def samples(story: Story) -> list[Markup | None]:
    """The surest, the worst and the closest images; or why there are none."""
    measured = story.measured
    if measured is None:
        why = f"Samples, confusions and classes are not shown: {story.why_not}."
        return [section("samples", "What it sees", why)] if story.why_not else []
    return [
        section(key, title, note, element("div", *map(_card, samples), class_="cards"))
        for key, title, note in _KINDS
        if (samples := getattr(measured, key))
    ]


def _card(sample: Sample) -> Markup:
    """An image, its class, and bars of the likeliest classes."""
    bars = [
        element(
            "li",
            line_of(name),
            element("data", per_cent(chance), value=f"{chance:.4f}"),
            class_="right" if name == sample.label else None,
            style=f"--share:{chance:.4f}",
        )
        for name, chance in zip(sample.classes, sample.probabilities, strict=True)
    ]
    verdict, mark = ("right", "✓") if sample.right else ("wrong", "✗")
    caption = element(
        "figcaption",
        name_of(sample.label, 24, "b"),
        element("span", mark, class_=f"verdict {verdict}", role="img", aria_label=verdict),
        line_of(sample.name, "small"),
    )
    image = element(
        "div", picture(sample.pixels, f"an image of {cut(sample.label)}"), class_="frame"
    )
    return element("figure", image, caption, element("ol", *bars, class_="bars"), class_="card")


def confusion(story: Story) -> Markup | None:
    """The confusion matrix, and the most frequent confusions."""
    measured = story.measured
    if measured is None or len(story.classes) < 2:
        return None
    table, classes = measured.metrics.confusion, story.classes
    note, matrix = f"Measured on {_images(measured)}.", None
    if len(classes) <= charts.CELLS:
        matrix = charts.confusion_cells(table, classes)
        note += " A row holds the images of one class, a column what they were taken for; blue is "
        note += "right, red is wrong, and figures are per cent of the row."
    elif len(classes) <= _ROWS:
        matrix = _zoomable(table, classes)
        note += " Each row is a class, each column what its images were taken for; blue is right, "
        note += "red is wrong. Zoom in, and point at a dot to read it."
    pairs = _pairs(measured.metrics)
    content = element("div", matrix, pairs, class_="confusion")
    return section("confusion", "What it confuses", note, content)


def _images(measured: Measured) -> str:
    if measured.images == measured.of:
        return f"all {measured.of:,} validation images"
    return f"{measured.images:,} of {measured.of:,} validation images, of all classes alike"


def _zoomable(table: Any, classes: Sequence[str]) -> Markup:
    """The matrix of many classes as an image that grows, with what each dot means."""
    rows, columns = np.nonzero(table)
    cells = [rows.tolist(), columns.tolist(), table[rows, columns].tolist()]
    facts = {"classes": [cut(name, 60) for name in classes], "cells": cells}
    size = {"width": len(classes), "height": len(classes), "class_": "pixels"}
    alt = "confusion matrix, one dot a cell"
    images = [element("img", src=charts.confusion_image(table), alt=alt, **size)]
    if len(classes) > _SMALL:  # the page has no room for a pixel a cell until one zooms in
        spread = charts.confusion_image(table, spread=1)
        first = element("img", src=spread, alt=alt, data_overview=True, **size)
        hidden = element("img", src=charts.confusion_image(table), alt="", hidden=True, **size)
        images = [first, hidden]
    kinds = (("-", "out", "smaller"), ("+", "in", "larger"), ("fit", "fit", "fit"))
    buttons = [
        element("button", text, type="button", data_zoom=by, aria_label=label)
        for text, by, label in kinds
    ]
    return element(
        "div",
        element("div", *buttons, element("output", "", class_="readout"), class_="tools"),
        element("div", *images, class_="view", tabindex="0"),
        _data(facts),
        class_="matrix zoomable",
    )


def _data(facts: Any) -> Markup:
    """Values for the script; no text in them can end the element."""
    text = json.dumps(facts, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")
    return element("script", Markup(text), type="application/json")


def _pairs(metrics: Metrics) -> Markup:
    """The most frequent confusions."""
    found = metrics.confusions(_PAIRS)
    if not found:
        return element("p", "Nothing: every image was named right.", class_="note")
    items = []
    for i, j, count in found:
        share = per_cent(count / metrics.confusion[i].sum())
        one, other = (name_of(metrics.classes[at], 36) for at in (i, j))
        items.append(
            element(
                "li",
                element("span", one, " taken for ", other),
                element("data", f"{count:,} ({share})", value=count),
                style=f"--share:{count / found[0][2]:.3f}",
            )
        )
    head = element("h3", "Most frequent")
    return element("div", head, element("ol", *items, class_="bars pairs"), class_="list")


def classes(story: Story) -> Markup | None:
    """A row for each class, the hardest first."""
    measured = story.measured
    if measured is None:
        return None
    table = measured.metrics.confusion
    rows = measured.metrics.rows()
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    order = sorted(range(len(rows)), key=lambda i: (_figure(rows[i]["top1"]), i))[:_ROWS]
    words = "class", "images", "named right", "of those called so, right", "most often taken for"
    head = element("tr", *[element("th", name, scope="col") for name in words])
    lines = []
    for i in order:
        row, other = rows[i], int(wrong[i].argmax())
        share = _figure(row["top1"])
        taken = name_of(story.classes[other], 36) if wrong[i, other] else "—"
        often = element("small", f" {wrong[i, other]}") if wrong[i, other] else None
        lines.append(
            element(
                "tr",
                name_of(story.classes[i], 40, "th", scope="row"),
                element("td", f"{row['pictures']:,}", data_value=row["pictures"]),
                _bar_cell(row["top1"], share),
                element("td", _shown_share(row["precision"]), data_value=_figure(row["precision"])),
                element("td", taken, often, class_="text"),
            )
        )
    body = element("tbody", *lines)
    grid = element("table", element("thead", head), body, class_="sortable")
    note = "The hardest first."
    if len(rows) > len(order):
        note = f"The {len(order):,} hardest of {len(rows):,}."
    long = "scroll long" if len(lines) > 30 else "scroll"
    return section(
        "classes", "Class by class", note, element("div", grid, class_=long, tabindex="0")
    )


def _figure(text: str) -> float:
    """A share of `Metrics.rows`; one of nothing comes last."""
    return float(text) if text else 101.0


def _shown_share(text: str) -> str:
    return f"{float(text):.1f} %" if text else "—"


def _bar_cell(text: str, share: float) -> Markup:
    inside = element("span", _shown_share(text), style=f"--share:{min(share, 100) / 100:.3f}")
    return element("td", inside, class_="meter", data_value=share)
