"""ReLU against tanh, from end to end, and the search for a rate."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import relu_vs_tanh
from tiny_series import SVG, curve, lines, words


def test_figure_from_end_to_end(data: Path, tmp_path: Path, capsys: Any) -> None:
    given = words(data, tmp_path, "--target", "60", "--plot", str(tmp_path / "figure.svg"))
    assert relu_vs_tanh.main(given) == 0
    printed = capsys.readouterr().out
    held = lines(tmp_path / "results.jsonl")
    assert held[0]["settings"]["target"] == 60.0
    assert held[0]["settings"]["train"].startswith("160 pictures")
    for neuron in ("relu", "tanh"):
        found = [run for run in held[1:] if run["run"].startswith(neuron)]
        assert [run["run"].split("-")[-1] for run in found] == ["seed1", "seed2"]
        assert len({run["run"].split("-seed")[0] for run in found}) == 1  # one learning rate
        assert all(len(run["epochs"]) == 2 and run["status"] == "done" for run in found)
        assert all(0.0 <= run["test_error"] <= 100.0 for run in found)
        assert sum(run["run"].startswith(f"search-{neuron}-") for run in held[1:]) >= 4
    assert "| 60 % |" in printed
    root = ElementTree.parse(tmp_path / "figure.svg").getroot()
    assert len(list(root.iter(f"{SVG}polyline"))) == 2 * (2 + 1) + 2  # runs, means, legend

    before = (tmp_path / "results.jsonl").read_bytes()
    assert relu_vs_tanh.main(given) == 0  # nothing is made again
    again = capsys.readouterr().out
    assert "done after" not in again
    assert (tmp_path / "results.jsonl").read_bytes() == before
    assert printed.endswith(again.lstrip("\n"))
    assert relu_vs_tanh.main([*given, "--report"]) == 0


def figure(scores: dict[float, float], seen: list[float], monkeypatch: Any) -> relu_vs_tanh.Figure:
    """A figure whose runs take as many epochs as `scores` says, by power of ten; others never."""
    made = object.__new__(relu_vs_tanh.Figure)

    def score(neuron: str, rate: float, limit: float) -> tuple[float, float]:
        power = math.log10(rate / relu_vs_tanh.FIRST_RATE)
        nearest = min(scores, key=lambda at: abs(at - power))
        seen.append(rate)
        return (scores[nearest] if abs(nearest - power) < 0.01 else math.inf), abs(power)

    monkeypatch.setattr(made, "score", score, raising=False)
    return made


def test_search_goes_on_at_its_edge(monkeypatch: Any) -> None:
    seen: list[float] = []
    scores = {0.0: 9.0, 0.5: 8.0, 1.0: 5.0, 1.5: 7.0, 0.75: 4.0, 1.25: 6.0}
    assert figure(scores, seen, monkeypatch).best_rate("relu") == 0.0562  # 0.01 * 10**0.75
    assert len(seen) == len(set(seen))  # each rate once
    assert max(seen) == 0.316  # beyond the best: a worse one on both sides
    assert {0.0316, 0.1, 0.178} <= set(seen)


def test_search_turns_to_smaller_rates(monkeypatch: Any) -> None:
    seen: list[float] = []
    scores = {-1.0: 3.0, -0.5: 4.0, 0.0: 5.0, -1.5: 8.0, -1.25: 6.0, -0.75: 3.5}
    assert figure(scores, seen, monkeypatch).best_rate("tanh") == 0.001


def test_search_ends_where_nothing_learns(monkeypatch: Any) -> None:
    seen: list[float] = []
    assert figure({99.0: 1.0}, seen, monkeypatch).best_rate("relu") == 0.01
    assert all(1e-5 <= rate <= 10.0 for rate in seen)


def test_rank_prefers_the_target_then_the_error() -> None:
    def run(status: str, *errors: float) -> dict[str, Any]:
        return {"status": status, "epochs": curve(*errors)}

    ranks = [
        relu_vs_tanh.rank(run("stopped", 40.0, 9.0), 10.0, 90.0),
        relu_vs_tanh.rank(run("done", 40.0, 30.0, 9.0), 10.0, 90.0),
        relu_vs_tanh.rank(run("done", 40.0, 11.0), 10.0, 90.0),
        relu_vs_tanh.rank(run("done", 40.0, 12.0), 10.0, 90.0),
        relu_vs_tanh.rank(run("diverged"), 10.0, 90.0),
    ]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize(("shape", "stride"), [((28, 28, 1), 1), ((64, 64, 3), 2)])
def test_four_layers(shape: tuple[int, ...], stride: int) -> None:
    for weights in ("own", "2012"):
        for neuron in ("relu", "tanh"):
            layers = relu_vs_tanh.four_layers(shape, 10, neuron, weights)
            assert [layer["type"] for layer in layers].count("conv") == 3
            assert [layer["type"] for layer in layers].count(neuron) == 3
            assert layers[0]["stride"] == stride
            assert (layers[0]["init"] == "gaussian") == (weights == "2012")
