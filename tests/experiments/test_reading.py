"""Experiments: how results are summed up, drawn and put into the documents."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import ablations
import numpy as np
import precisions
import pytest
import relu_vs_tanh
import uneven
from drawing import Curve, Row, curves, rows, ticks
from parts import Part, chosen
from paths import ROOT
from series import Results
from tables import Measured, difference, markdown, measured, put_into
from tiny_series import SVG, curve

from convnet.data import ArrayDataset, DataError


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
