"""`convnet import cuda-convnet`: learning rates, schedules, and what is not carried over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import definitions as d
import pytest
from definitions import built, nodes, remarks


def one_layer() -> d.Layers:
    return d.ended({}, "data")


@pytest.mark.parametrize(
    ("eps", "kind", "options"),
    [
        ("0.01", "constant", {}),
        (" 1e-2 ", "constant", {}),
        ("const[base=0.01]", "constant", {}),
        ("linear[base=0.01;tgtFactor=1000]", "linear", {"target_factor": 1000.0}),
        ("exp[base=0.01; tgtFactor=100]", "exp", {"target_factor": 100.0}),
        (
            "dexp[base=0.01;numSteps=4;tgtFactor=1000]",
            "dexp",
            {"target_factor": 1000.0, "levels": 4},
        ),
        ("DEXP[0.01;250;4]", "dexp", {"target_factor": 250.0, "levels": 4}),
    ],
)
def test_schedules(tmp_path: Path, eps: str, kind: str, options: dict[str, Any]) -> None:
    params = d.rates_for(one_layer())
    params["fc10"] |= {"epsW": eps, "epsB": eps}
    cfg = d.imported(tmp_path, one_layer(), params).cfg
    assert cfg.sgd.lr == 0.01
    assert (cfg.schedule.kind, cfg.schedule.options) == (kind, options)
    assert cfg.sgd.groups == ()


def test_layers_that_are_frozen(tmp_path: Path) -> None:
    layers = d.ended({"conv1": d.conv("data", 3)}, "conv1")
    params = d.rates_for(layers)
    params["conv1"] |= {"epsW": 0, "epsB": 0}
    net = built(d.imported(tmp_path, layers, params))
    assert [(p.name, p.lr_mult) for p in net.params if not p.lr_mult] == [
        ("conv1.w", 0.0),
        ("conv1.b", 0.0),
    ]
    params["fc10"] |= {"epsW": 0, "epsB": 0}
    found = d.imported(tmp_path, layers, params)
    assert "all learning rates are 0" in remarks(found, "notes")
    assert all(p.lr_mult == 0.0 for p in built(found).params)


def test_a_missing_weight_decay_is_none(tmp_path: Path) -> None:
    params = d.rates_for(one_layer())
    del params["fc10"]["wc"]
    assert d.imported(tmp_path, one_layer(), params).cfg.sgd.weight_decay == 0.0


def test_what_cannot_be_carried_over_is_said(tmp_path: Path) -> None:
    layers = d.ended({"conv1": d.conv("data", 3, initWFunc="mod.f(1)", randSparse=1)}, "conv1")
    layers["conv1"]["modulesX"] = 5
    layers["conv1"]["neuron"] = "nrelu"
    params = d.rates_for(layers)
    params["conv1"] |= {"wball": 3, "superEps": 1, "updatePeriod": 4, "wcNormMax": 2}
    found = d.imported(tmp_path, layers, params)
    told = remarks(found)
    keys = ("initWFunc", "randSparse", "modulesX", "neuron")
    for key in (*keys, "wball", "superEps", "updatePeriod", "wcNormMax"):
        assert f"[conv1] {key}: " in told
    assert "mod.f(1) is a Python function, which is not run; initW counts" in told
    assert "Not carried over: these change the net or its training" in found.text()


def test_layers_that_lead_nowhere_are_left_out(tmp_path: Path) -> None:
    layers = d.ended({"spare": d.fc("data", 3, neuron="relu")}, "data")
    found = d.imported(tmp_path, layers)
    assert list(nodes(found)) == ["fc10", "logprob"]
    assert "[spare]: leads to no cost: left out" in remarks(found)
    assert nodes(found)["fc10"].inputs in (None, ("input",))
