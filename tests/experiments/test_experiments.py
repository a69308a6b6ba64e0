"""The scripts in experiments/: what they measure and draw, and that the tables and plots in
docs/ are those of the results files."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ablations
import numpy as np
import precisions
import pytest
import relu_vs_tanh
import trees
import uneven
from cifar_files import write_binary
from drawing import Curve, Row, curves, rows, ticks
from parts import Part, chosen
from paths import ROOT
from series import Results
from tables import Measured, difference, markdown, measured, put_into
from tiny_series import curve, lines, planned, words, write_data

import convnet
from convnet.data import ArrayDataset, DataError

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = convnet.backend.get("cpu").module.thread_count()
    yield
    convnet.backend.set_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


# ---- arithmetic ---------------------------------------------------------------------------------


def test_mean_and_spread() -> None:
    found = measured([9.0, 10.0, 14.0])
    assert found == Measured(11.0, pytest.approx(math.sqrt(7.0)), 3)  # (4 + 1 + 9) / 2
    assert str(found) == "11.00 ± 2.65"
    assert str(measured([9.0])) == "9.00"
    assert measured([1.0, math.inf]).mean == math.inf
    with pytest.raises(ValueError, match="expected at least one value, got none"):
        measured([])


def test_difference() -> None:
    apart = difference(Measured(12.0, 3.0, 3), Measured(10.0, 4.0, 5))
    assert apart == Measured(2.0, 5.0, 3)


@pytest.mark.parametrize(
    ("values", "reading"),
    [
        ([10.0, 14.0], "within the spread"),  # 12 ± 2.83 beside 10 ± 1.41
        ([20.0, 22.0], "worse"),
        ([2.0, 4.0], "better"),
        ([20.0], "one seed"),
    ],
)
def test_reading(values: list[float], reading: str) -> None:
    assert ablations.compared(measured(values), measured([9.0, 11.0]))[1] == reading


def test_markdown() -> None:
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| :-- | --: |\n| 1 | 2 |"


def test_table_in_a_document(tmp_path: Path) -> None:
    document = tmp_path / "text.md"
    document.write_text("a\n<!-- one -->\nold\n<!-- end -->\nb\n<!-- two -->\n<!-- end -->\n")
    put_into(document, "one", "| new |")
    put_into(document, "two", "| 2 |")
    assert document.read_text() == (
        "a\n<!-- one -->\n| new |\n<!-- end -->\nb\n<!-- two -->\n| 2 |\n<!-- end -->\n"
    )
    with pytest.raises(ValueError, match="expected <!-- three --> and <!-- end -->"):
        put_into(document, "three", "")


@pytest.mark.parametrize(
    ("target", "epochs"),
    [
        (70.0, 0.5),  # half way between guessing, 90 %, and 50 %
        (50.0, 1.0),
        (25.0, 2.25),  # a quarter of the way from 30 to 10, in the third epoch
        (10.0, 3.0),
        (9.0, math.inf),
        (95.0, 0.0),  # guessing does it
    ],
)
def test_epochs_to_the_target(target: float, epochs: float) -> None:
    found = relu_vs_tanh.epochs_to(target, curve(50.0, 30.0, 10.0, 40.0), chance=90.0)
    assert found == pytest.approx(epochs)


def test_a_worse_epoch_before_the_target_does_not_count() -> None:
    found = relu_vs_tanh.epochs_to(20.0, curve(30.0, 40.0, 10.0, 5.0), chance=90.0)
    assert found == pytest.approx(2.0 + 20.0 / 30.0)


# ---- images -------------------------------------------------------------------------------------


def test_part_of_a_set() -> None:
    images = np.arange(5 * 4 * 6, dtype=np.uint8).reshape(5, 4, 6, 1)
    whole = ArrayDataset(images, [0, 1, 0, 1, 1], ["a", "b"])
    part = Part(whole, np.array([4, 1]), crop=(2, 2))
    assert part.shape == (2, 2, 1)
    assert part.labels.tolist() == [1, 1]
    np.testing.assert_array_equal(part.read([1]), images[1:2, 1:3, 2:4])
    with pytest.raises(DataError, match="crop: expected at most 4 x 6, got 5 x 2"):
        Part(whole, crop=(5, 2))


def test_chosen_images() -> None:
    found = chosen(10, 100, "--images")
    assert len(set(found.tolist())) == 10
    assert found.tolist() == sorted(found.tolist())
    assert found.tolist() == chosen(10, 100, "--images").tolist()
    assert found.tolist() != list(range(10))
    assert chosen(0, 7, "--images").tolist() == list(range(7))
    with pytest.raises(DataError, match=r"--sample: expected at most 7, .* got 8"):
        chosen(8, 7, "--sample")


def test_ticks() -> None:
    assert ticks(0.0, 24.0) == [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]
    assert ticks(10.1, 10.9) == [10.0, 10.2, 10.4, 10.6, 10.8, 11.0]
    assert len(ticks(3.0, 3.0)) == 2
    with pytest.raises(ValueError, match="expected finite numbers"):
        ticks(0.0, math.inf)


def test_curves_lie_where_they_should() -> None:
    text = curves("t", [Curve([(0, 100), (10, 0)], "a < b")], "x", "y", level=50.0)
    root = ElementTree.fromstring(text)
    path = next(root.iter(f"{SVG}polyline")).attrib["points"].split()
    assert path == ["64.0,44.0", "700.0,368.0"]
    assert "a < b" in [found.text for found in root.iter(f"{SVG}text")]


def test_rows_have_a_dot_for_each_value() -> None:
    root = ElementTree.fromstring(rows("t", [Row("a", [1, 2, 3]), Row("b", [3, 5])], "x"))
    places = [float(dot.attrib["cx"]) for dot in root.iter(f"{SVG}circle")]
    assert len(places) == 5
    assert places[0] < places[1] < places[2] == places[3] < places[4]


# ---- ReLU and tanh ------------------------------------------------------------------------------


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


# ---- ablations ----------------------------------------------------------------------------------


def test_ablations_from_end_to_end(data: Path, tmp_path: Path, capsys: Any) -> None:
    given = words(data, tmp_path, "--epochs", "1", "--plot", str(tmp_path / "table.svg"))
    assert ablations.main([*given, "--only", "no-lrn,no-crops"]) == 0
    names = [run["run"] for run in lines(tmp_path / "results.jsonl")[1:]]
    assert names == [f"{name}-seed{n}" for n in (1, 2) for name in ("whole", "no-lrn", "no-crops")]
    printed = capsys.readouterr().out
    assert "| without response normalization | 3.3 |" in printed
    assert ablations.TEN_CROPS in printed
    assert "convolution" not in printed
    assert len(list(ElementTree.parse(tmp_path / "table.svg").getroot().iter(f"{SVG}circle"))) == 8

    assert ablations.main([*given, "--only", "no-conv3"]) == 0  # only what is not there yet
    printed = capsys.readouterr().out
    assert [line.split(":")[0] for line in printed.splitlines() if ": done" in line] == [
        "no-conv3-seed1",
        "no-conv3-seed2",
    ]
    assert "| without convolution 3 | 7 |" in printed


def test_each_variant_differs_in_its_part_only() -> None:
    plan = planned("folder", (64, 64, 3))
    whole = plan.config(ablations.VARIANTS["whole"], 1)
    assert whole.augment.crop == (56, 56)
    assert whole.augment.mirror
    assert whole.augment.colour_noise == 0.1
    types = [layer.type for layer in whole.net.layers]
    assert [types.count(kind) for kind in ("conv", "lrn", "maxpool", "dropout")] == [5, 2, 3, 2]
    for name, variant in ablations.VARIANTS.items():
        made = plan.config(variant, 1)
        assert (made.sgd, made.schedule, made.train) == (whole.sgd, whole.schedule, whole.train)
        assert (made.augment != whole.augment) == bool(variant.augment)
        assert (made.net != whole.net) == bool(variant.net), name
        if name.startswith("no-conv"):
            gone = {layer.name for layer in whole.net.layers} - {
                layer.name for layer in made.net.layers
            }
            assert gone == {name.removeprefix("no-"), f"relu{name[-1]}"}
    crops = plan.config(ablations.VARIANTS["no-crops"], 1)
    assert crops.augment.crop == (0, 0)
    assert plan.centre.train.shape == (56, 56, 3)


def test_which_images_a_variant_sees() -> None:
    """Without random crops training and test see the centre; ten crops are only for the whole."""
    plan = planned("folder", (64, 64, 3))
    seen: dict[str, Any] = {}

    class Noted:
        def run(self, name: str, config: Any, sets: Any, ten_crop: bool) -> None:
            seen[name] = (sets.train.shape[:2], sets.test.shape[:2], config.seed, ten_crop)

    plan.series = Noted()  # type: ignore[assignment]
    plan.arguments.seeds = 2
    plan.run(["whole", "no-crops"])
    assert seen == {
        "whole-seed1": ((64, 64), (64, 64), 1, True),
        "no-crops-seed1": ((56, 56), (56, 56), 1, False),
        "whole-seed2": ((64, 64), (64, 64), 2, True),
        "no-crops-seed2": ((56, 56), (56, 56), 2, False),
    }


def test_pools_without_overlap_give_the_same_sizes() -> None:
    from convnet.training.nets import build_net

    plan = planned("folder", (28, 28, 1))
    sizes = []
    for name in ("whole", "no-overlap"):
        net = build_net(plan.config(ablations.VARIANTS[name], 1), (28, 28, 1), 4, "cpu", True)
        sizes.append([net.shapes[f"pool{i}"] for i in (1, 2, 5)])
    assert sizes[0] == sizes[1]
    assert sizes[0][-1] == (3, 3, 40)


def test_ablations_of_the_paper_s_net() -> None:
    plan = planned("folder", (256, 256, 3), "alexnet")
    made = {name: plan.config(variant, 1) for name, variant in ablations.VARIANTS.items()}
    assert made["whole"].augment.crop == (224, 224)
    assert made["whole"].schedule.kind == "plateau"
    assert made["no-lrn"].net.options["lrn"] is False
    assert made["no-conv4"].net.options["without"] == ("conv4",)
    assert made["no-crops"].augment.crop == (0, 0)
    assert made["no-crops"].augment.mirror


def test_variants_that_fit_the_images() -> None:
    assert "no-colour-noise" not in ablations.wanted(None, 1)
    assert "no-colour-noise" in ablations.wanted(None, 3)
    assert ablations.wanted("no-conv1,no-lrn", 1) == ["whole", "no-lrn", "no-conv1"]


def test_a_run_that_diverged_counts_as_guessing(tmp_path: Path) -> None:
    results = Results(tmp_path / "r.jsonl", {"classes": 4})
    done = {"status": "done", "epochs": curve(9.0), "test_error": 11.0, "ten_crop_error": 10.0}
    results.add({"run": "whole-seed1", **done})
    results.add({"run": "no-lrn-seed1", "status": "diverged", "epochs": []})
    assert ablations.errors(results, "no-lrn") == [75.0]
    assert ablations.errors(results, "no-lrn", "training_error") == [75.0]
    assert ablations.errors(results, "whole", "training_error") == [9.0]
    assert "| without response normalization | 3.3 | 1 | 75.00 | +64.00 |" in ablations.table(
        results
    )


# ---- other data ---------------------------------------------------------------------------------


def test_images_in_colour_from_folders(tmp_path: Path, capsys: Any) -> None:
    folders = trees.class_folders(tmp_path / "images")
    given = ["--source", "folder", "--data", str(folders), "--size", "32", "--batch", "8"]
    given += ["--epochs", "1", "--seeds", "1", "--threads", "1", "--runs", str(tmp_path / "runs")]
    given += ["--results", str(tmp_path / "results.jsonl"), "--device", "cpu"]
    assert ablations.main([*given, "--only", "no-colour-noise"]) == 0
    printed = capsys.readouterr().out
    assert "| without colour noise | 4.1 |" in printed
    settings = lines(tmp_path / "results.jsonl")[0]["settings"]
    assert settings["shape"] == [32, 32, 3]
    assert settings["classes"] == 3


def test_cifar10(tmp_path: Path) -> None:
    write_binary(tmp_path / "data", "cifar10")
    given = ["--source", "cifar10", "--data", str(tmp_path / "data"), "--batch", "15"]
    given += ["--epochs", "1", "--seeds", "1", "--threads", "1", "--runs", str(tmp_path / "runs")]
    given += ["--results", str(tmp_path / "results.jsonl"), "--device", "cpu"]
    assert relu_vs_tanh.main([*given, "--target", "25", "--weights", "own"]) == 0
    settings = lines(tmp_path / "results.jsonl")[0]["settings"]
    assert settings["shape"] == [32, 32, 3]
    assert settings["source"] == "cifar10"


# ---- the documents ------------------------------------------------------------------------------


def test_a_rare_class(data: Path, tmp_path: Path, capsys: Any) -> None:
    """Few images of it are trained, all of it are tested, and the table counts what was right."""
    given = words(data, tmp_path, "--epochs", "1", "--set", "augment.crop=[0,0]", "--rare", "3")
    assert uneven.main([*given, "--percent", "3", "--only", "weights,balanced"]) == 0
    settings, *runs = lines(tmp_path / "results.jsonl")
    assert settings["settings"]["train"].startswith("148 pictures")  # 144 of others
    names = ("today", "weights", "balanced")
    assert [run["run"] for run in runs] == [f"{name}-seed{n}" for n in (1, 2) for name in names]
    assert all(run["images"] == [4] * 10 for run in runs)
    for run in runs:
        assert sum(run["right"]) == pytest.approx(0.4 * (100.0 - run["test_error"]))
    hits = ", ".join(str(run["right"][3]) for run in runs if run["run"].startswith("weights"))
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("| class weights |"))
    assert row.endswith(f"| {hits} of 4 |")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--only", "wieghts"], 'unknown variant "wieghts"; did you mean "weights"?'),
        (["--only", "today", "--rare", "10"], 'unknown class "10"'),
    ],
)
def test_what_an_uneven_set_has_not_is_named(
    data: Path, tmp_path: Path, given: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        uneven.main([*words(data, tmp_path), *given])


RESULTS = sorted((ROOT / "experiments" / "results").glob("*.jsonl"))


OF_PRECISIONS = [path for path in RESULTS if path.stem.startswith("precisions-")]


@pytest.mark.parametrize("path", OF_PRECISIONS, ids=lambda path: path.stem)
def test_tables_of_precisions_are_those_of_the_results(path: Path) -> None:
    text = (ROOT / "docs" / "precision.md").read_text(encoding="utf-8")
    runs = precisions.read_runs(path)
    for table in precisions.tables(runs).values():
        assert table in text
    picture = (ROOT / "docs" / f"{path.stem}.svg").read_text(encoding="utf-8")
    assert picture == precisions.plot(path.stem.removeprefix("precisions-"), runs)


@pytest.mark.parametrize("path", [path for path in RESULTS if path not in OF_PRECISIONS])
def test_tables_in_the_documents_are_those_of_the_results(path: Path) -> None:
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    results = Results(path)
    if path.name.startswith("uneven"):
        assert uneven.table(results) in text
        return
    study = relu_vs_tanh if path.name.startswith("relu") else ablations
    assert study.table(results) in text
    picture = ROOT / "docs" / f"{path.stem}.svg"
    assert picture.read_text(encoding="utf-8") == study.plot(results)
