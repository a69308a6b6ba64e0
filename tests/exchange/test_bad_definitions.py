"""Definitions that no net can be made of: file, section and key are named."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import definitions as d
import pytest

from convnet.common.typecheck import ConfigError


def changed(change: Any) -> tuple[d.Layers, d.Layers]:
    """A net of two layers and its parameters, with something wrong."""
    layers = d.ended(
        {
            "conv1": d.conv("data", 3),
            "pool1": d.pool("conv1", 4),
            "norm": {"type": "rnorm", "inputs": "pool1", "channels": 4, "size": 3},
            "drop": {"type": "dropout", "inputs": "norm"},
        },
        "drop",
    )
    params = d.rates_for(layers)
    change(layers, params)
    return layers, params


BAD = [
    (lambda n, p: n["conv1"].pop("type"), r"layers.cfg: \[conv1\] type: missing"),
    (
        lambda n, p: n["conv1"].update(type="conf"),
        r'layers.cfg: \[conv1\] type: unknown layer type "conf"; did you mean "conv"\?',
    ),
    (lambda n, p: n["conv1"].pop("filters"), r"layers.cfg: \[conv1\] filters: missing"),
    (
        lambda n, p: n["conv1"].update(filters="many"),
        r'layers.cfg: \[conv1\] filters: expected a whole number, got "many"',
    ),
    (
        lambda n, p: n["conv1"].update(filters="4,4"),
        r"layers.cfg: \[conv1\] filters: expected 1 values, one for each input; got 2",
    ),
    (lambda n, p: n["conv1"].update(stride=0), r"\[conv1\] stride: expected at least 1, got 0"),
    (lambda n, p: n["conv1"].update(padding=-1), r"\[conv1\] padding: expected at least 0"),
    (
        lambda n, p: n["conv1"].update(filterSize=99),
        r"layers.cfg: \[conv1\] .*window: expected a height of at most 34",
    ),
    (lambda n, p: n["conv1"].update(groups=2), r"\[conv1\] groups: expected a divisor of 3"),
    (
        lambda n, p: n["conv1"].update(neuron="rellu"),
        r'layers.cfg: \[conv1\] neuron: unknown neuron "rellu"; did you mean "relu"\?',
    ),
    (
        lambda n, p: n["conv1"].update(neuron="tanh"),
        r'\[conv1\] neuron: expected tanh\[a,b\], got "tanh"',
    ),
    (
        lambda n, p: n["conv1"].update(neuron="tanh[1,x]"),
        r'\[conv1\] neuron: expected a number for b, got "x"',
    ),
    (
        lambda n, p: n["conv1"].update(sharedBiases="perhaps"),
        r'\[conv1\] sharedBiases: expected true or false, got "perhaps"',
    ),
    (
        lambda n, p: n["conv1"].update(inputs="dada"),
        r'\[conv1\] inputs: no layer above is called "dada"; did you mean "data"\?',
    ),
    (
        lambda n, p: n["conv1"].update(inputs="pool1"),
        r'\[conv1\] inputs: no layer above is called "pool1"; it comes later',
    ),
    (
        lambda n, p: n["conv1"].update(inputs="labels"),
        r"\[conv1\] inputs: labels are labels, which only a cost can take",
    ),
    (
        lambda n, p: n["conv1"].update(weightSource="conv9"),
        r"\[conv1\] weightSource: there are no weights 'conv9' above",
    ),
    (
        lambda n, p: n["fc10"].update(weightSource="conv1"),
        r"\[fc10\] weightSource: expected a layer of type fc, got conv",
    ),
    (
        lambda n, p: n["conv1"].update(weightSource="a,b"),
        r"\[conv1\] weightSource: expected 1 values",
    ),
    (
        lambda n, p: n["conv1"].update(gpu="zero"),
        r'\[conv1\] gpu: expected whole numbers, got "zero"',
    ),
    (
        lambda n, p: n["pool1"].update(pool="middle"),
        r'\[pool1\] pool: expected max, maxabs or avg, got "middle"',
    ),
    (
        lambda n, p: n["pool1"].update(channels=5),
        r"\[pool1\] channels: expected 4 as conv1 gives, got 5",
    ),
    (
        lambda n, p: n["pool1"].update(outputsX=99),
        r"\[pool1\] outputsX: expected at most 16, got 99",
    ),
    (lambda n, p: n["pool1"].update(start=40), r"\[pool1\] start: nothing is left"),
    (lambda n, p: n["norm"].update(size=40), r"\[norm\] n: expected at most 16"),
    (lambda n, p: p.pop("norm"), r"params.cfg: \[norm\] missing: the layer of this name"),
    (lambda n, p: p["norm"].pop("pow"), r"params.cfg: \[norm\] pow: missing"),
    (lambda n, p: p["norm"].update(scale=-1), r"params.cfg: \[norm\] scale: expected a positive"),
    (
        lambda n, p: p.update(drop={"keep": 0}),
        r"params.cfg: \[drop\] keep: expected a number above 0 and at most 1, got 0",
    ),
    (lambda n, p: p.pop("conv1"), r"params.cfg: \[conv1\] missing: the layer of this name"),
    (lambda n, p: p["conv1"].pop("epsW"), r"params.cfg: \[conv1\] epsW: missing$"),
    (
        lambda n, p: p["conv1"].update(espW=p["conv1"].pop("epsW")),
        r'params.cfg: \[conv1\] epsW: missing; is it the unknown key "espW"\?',
    ),
    (
        lambda n, p: p["conv1"].update(epsW="fast"),
        r'params.cfg: \[conv1\] epsW: unknown schedule "fast" \(known: const, dexp, exp, linear',
    ),
    (
        lambda n, p: p["conv1"].update(epsW="dexp[base=1;tgtFactor=2]"),
        r"params.cfg: \[conv1\] epsW: dexp: numSteps is missing",
    ),
    (
        lambda n, p: p["conv1"].update(epsW="exp[base=1;speed=2]"),
        r"params.cfg: \[conv1\] epsW: exp: expected base, tgtFactor; got 'speed=2'",
    ),
    (
        lambda n, p: p["conv1"].update(epsW="exp[base=1;tgtFactor=0]"),
        r"params.cfg: \[conv1\] epsW: exp: tgtFactor: expected more, got 0",
    ),
    (lambda n, p: p["conv1"].update(epsW=-1), r"params.cfg: \[conv1\] epsW: expected 0 or more"),
    (lambda n, p: p["conv1"].update(momW=1), r"\[conv1\] momW: expected a number from"),
    (
        lambda n, p: p["conv1"].update(wc="nan"),
        r"\[conv1\] wc: expected a finite number",
    ),
    (
        lambda n, p: p["conv1"].update(wc=-1),
        r"\[conv1\] wc: expected 0 or more, got -1",
    ),
    (lambda n, p: p.pop("logprob"), r"params.cfg: \[logprob\] coeff: missing"),
    (lambda n, p: n.pop("logprob"), r"layers.cfg: expected a cost layer, as cost.logreg; got none"),
    (
        lambda n, p: n["logprob"].update(inputs="probs,labels"),
        r"\[logprob\] inputs: expected labels first, got probs",
    ),
    (lambda n, p: n["logprob"].update(inputs="probs"), r"\[logprob\] inputs: expected 2, got 1"),
    (lambda n, p: n["labels"].update(dataIdx=7), r"\[labels\] dataIdx: expected 0 \(images\), 1"),
    (lambda n, p: n["data"].update(end=99999), r"\[data\] end: expected a number from 1 to 3072"),
    (
        lambda n, p: n["drop"].update(type="eltsum", inputs="norm,conv1"),
        r"\[drop\] inputs: expected inputs of one size, got 1024 and 4096 numbers",
    ),
    (
        lambda n, p: n["drop"].update(type="eltmax", inputs="norm"),
        r"\[drop\] inputs: expected two or more, got 1",
    ),
]


def test_an_indented_line_is_part_of_the_one_above(tmp_path: Path) -> None:
    layers, params = (d.text(part) for part in changed(lambda n, p: None))
    with pytest.raises(ConfigError) as caught:
        d.imported(tmp_path, layers.replace("\nfilters=", "\n filters="), params)
    message = str(caught.value)
    assert "[conv1] channels: " in message
    assert message.endswith("; the line below is indented, and so continues this one")


@pytest.mark.parametrize(("change", "expected"), BAD)
def test_bad_definitions_name_file_section_and_key(
    tmp_path: Path, change: Any, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        d.imported(tmp_path, *changed(change))


def test_no_file_whatever_is_in_it_ends_in_anything_but_a_clear_error(tmp_path: Path) -> None:
    """Lines lost, doubled, swapped and cut; values exchanged; letters changed."""
    rng = random.Random(7)
    whole = [d.text(part) for part in changed(lambda n, p: None)]
    values = ["", "0", "-3", "1e9", "999999999999", "4,4", "nan", "[", "%(x)s", "data,labels", "é"]
    good = bad = 0
    for _ in range(300):
        texts = list(whole)
        for _ in range(rng.randint(1, 3)):
            which = rng.randrange(2)
            lines = texts[which].split("\n")
            at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
            kind = rng.randrange(6)
            if kind == 0:
                del lines[at]
            elif kind == 1:
                lines[at], lines[other] = lines[other], lines[at]
            elif kind == 2:
                lines.insert(at, lines[other])
            elif kind == 3 and "=" in lines[at]:
                lines[at] = f"{lines[at].partition('=')[0]}={rng.choice(values)}"
            elif kind == 4:
                lines[at] = lines[at][: rng.randint(0, len(lines[at]))]
            else:
                place = rng.randint(0, len(lines[at]))
                lines[at] = lines[at][:place] + rng.choice("x=[];#%\t 9") + lines[at][place + 1 :]
            texts[which] = "\n".join(lines)
        try:
            found = d.imported(tmp_path, *texts)
        except ConfigError as error:
            message = str(error)
            assert ".cfg: " in message, message
            assert "\n" not in message, message
            assert len(message) < 500, message
            bad += 1
        else:
            assert found.cfg.net.layers
            good += 1
    assert good > 30 < bad
