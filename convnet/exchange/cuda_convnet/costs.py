"""Costs, as losses."""

from __future__ import annotations

from typing import Any

from convnet.exchange.cuda_convnet.builder import Builder, Output
from convnet.exchange.cuda_convnet.definition import Section


def _coeff(section: Section, params: Section) -> dict[str, Any]:
    coeff = params.number("coeff")
    if section.text("children", ""):
        text = "costs are not added up for the record; each counts by itself"
        section.noted("children", text)
    return {} if coeff == 1.0 else {"coeff": coeff}


def _labels_and(b: Builder, section: Section, usual: int) -> Output:
    """The second of two inputs, the first of which is the labels."""
    labels, value = b.inputs(section, 2)
    if not labels.labels:
        raise section.error("inputs", f"expected labels first, got {labels.name}")
    if value.labels:
        raise section.error("inputs", f"expected outputs of the net second, got {value.name}")
    if labels.labels != usual:
        text = f"{labels.name} is dataIdx={labels.labels}; they are the same labels here"
        section.noted("inputs", text)
    return value


def logreg(b: Builder, section: Section, params: Section) -> Output:
    """`cost.logreg`, and `cost.ce` and `cost.crossent`, which come to the same for one class."""
    value = _labels_and(b, section, 1 if section.text("type") == "cost.logreg" else 2)
    if params.integer("topk", 1, least=1) not in (1, 5):
        text = "the errors recorded are those of the first and of five guesses"
        params.noted("topk", text)
    logits = value.softmax
    if logits is None:
        text = f"{value.name} is no softmax: its outputs are taken for the logits of one"
        section.noted("inputs", text)
        logits = b.row(section, b.act(section, value))
    options = _coeff(section, params)
    return b.add(section, section.name, "softmax_cross_entropy", [logits], **options)


def bce(b: Builder, section: Section, params: Section) -> Output:
    """`cost.bce` and `cost.dce`: a cross-entropy for each class."""
    value = _labels_and(b, section, 2)
    options = _coeff(section, params)
    weight = params.number("posWeight", 1.0)
    options |= {} if weight == 1.0 else {"pos_weight": weight}
    if value.logistic is None:
        text = f"{value.name} is not logistic: its outputs are taken for probabilities"
        section.noted("inputs", text)
        options["scores"] = False
    row = b.row(section, value.logistic or b.act(section, value))
    return b.add(section, section.name, "binary_cross_entropy", [row], **options)


def sum2(b: Builder, section: Section, params: Section) -> Output:
    """`cost.sum2`: the sum of squares."""
    options = _coeff(section, params)
    return b.add(section, section.name, "sumsquares", b.acts(section, 1), **options)
