"""Evaluation by ten crops, by several nets, and class by class."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import Image

from convnet.cli.main import main
from convnet.config import AugmentConfig
from convnet.data import ArrayDataset, DataError
from convnet.evaluation.crops import Crop, crops_of
from convnet.evaluation.evaluate import Trained, evaluate, open_run
from convnet.evaluation.metrics import Metrics
from convnet.evaluation.predict import predict
from convnet.ops import softmax_xent
from convnet.training.run_folder import RunError
from convnet.training.train import train

CROP = {"augment": {"pad": 0, "crop": [6, 5], "mirror": True}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs of one epoch: other seeds, and the last of other crops and batches."""
    folder = tmp_path_factory.mktemp("runs")
    other = {"augment": {"crop": [7, 7], "pad": 0}, "train": {"batch": 32}, "data": {"scale": 0.01}}
    for name, seed, changes in (("a", 3, {}), ("b", 4, {}), ("c", 5, other)):
        cfg = tiny.config(data, **{**CROP, **changes, "seed": seed})
        train(cfg, device="cpu", epochs=1, run_dir=folder / name, quiet=True)
    return [folder / name for name in "abc"]


def by_hand(run: Path, ten_crop: bool, size: int = tiny.TEST) -> np.ndarray:
    """Mean probabilities of the test images, from slices of the images and `Net.predict`."""
    trained = open_run(run, "cpu")
    pixels, _ = tiny.images(tiny.TEST, 2)
    x = (pixels[:size, :, :, None] - trained.stats.mean) * np.float32(trained.cfg.data.scale)
    height, width = trained.cfg.augment.crop
    down, right = 8 - height, 8 - width
    places = [(down // 2, right // 2)]
    if ten_crop:
        places += [(0, 0), (0, right), (down, 0), (down, right)]
    seen = []
    for top, left in places:
        crop = x[:, top : top + height, left : left + width]
        for part in (crop, crop[:, :, ::-1]) if ten_crop else (crop,):
            seen.append(trained.net.predict(np.ascontiguousarray(part, np.float32)))
    assert len(seen) == (10 if ten_crop else 1)
    return np.mean(np.array(seen, np.float64), axis=0)


def figures(probabilities: np.ndarray) -> dict[str, float]:
    labels = np.arange(len(probabilities)) % 10
    own = probabilities[np.arange(len(labels)), labels]
    rank = (probabilities > own[:, None]).sum(axis=1)
    top = {f"top{k}": 100.0 * np.mean(rank < k) for k in (1, 5)}
    return {"loss": -np.log(own).mean(), **top}


def agree(found: dict[str, Any], expected: dict[str, float]) -> None:
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-5)


def test_ten_crops_against_slices(runs: list[Path]) -> None:
    for run in runs:
        expected = figures(by_hand(run, True))
        found = evaluate(run, device="cpu", ten_crop=True)
        agree(found, expected)
        assert (found["crops"], found["images"]) == (10, tiny.TEST)
        assert abs(expected["loss"] - figures(by_hand(run, False))["loss"]) > 1e-4


def test_the_average_of_nets(runs: list[Path]) -> None:
    for ten_crop in (False, True):
        each = [by_hand(run, ten_crop) for run in runs]
        found = evaluate(runs, device="cpu", ten_crop=ten_crop)
        agree(found, figures(np.mean(each, axis=0)))
        assert [net["run"] for net in found["nets"]] == [str(run) for run in runs]
        for net, probabilities in zip(found["nets"], each, strict=True):
            agree(net, figures(probabilities))
        assert "checkpoint" not in found


def test_a_ragged_last_batch_counts_once(runs: list[Path], data: Path) -> None:
    """40 images in batches of 16 and of 40, and a set of one image."""
    for ten_crop in (False, True):
        small = evaluate(runs[0], device="cpu", ten_crop=ten_crop)
        trained = open_run(runs[0], "cpu")
        assert trained.cfg.train.batch == 16
        agree(small, figures(by_hand(runs[0], ten_crop)))
        pixels, labels = tiny.images(tiny.TEST, 2)
        one = ArrayDataset(pixels[:1, :, :, None], labels[:1], trained.classes)
        agree(
            evaluate(runs[0], data=(one, one), device="cpu", ten_crop=ten_crop),
            figures(by_hand(runs[0], ten_crop, 1)),
        )


def test_one_net_and_the_centre_are_the_validation_of_training(runs: list[Path]) -> None:
    record = [line for line in tiny.metrics(runs[0]) if line["kind"] == "epoch"][-1]
    found = evaluate(runs[0], device="cpu")
    assert [found[key] for key in ("loss", "top1", "top5")] == [
        record[f"val_{key}"] for key in ("loss", "top1", "top5")
    ]
    assert found["nets"] == [{key: found.get(key, str(runs[0])) for key in found["nets"][0]}]
    assert evaluate([runs[0]], device="cpu") == found


def test_crops() -> None:
    shape, augment = (9, 12, 3), AugmentConfig(crop=(4, 5))
    assert crops_of(shape, augment, False) == [Crop(2, 3, False)]
    corners = [(0, 0), (0, 7), (5, 0), (5, 7), (2, 3)]
    assert crops_of(shape, augment, True) == [
        Crop(*place, mirror) for mirror in (False, True) for place in corners
    ]
    whole = crops_of(shape, AugmentConfig(), True)
    assert set(whole) == {Crop(0, 0, False), Crop(0, 0, True)}
    wide = crops_of((8, 8, 1), AugmentConfig(crop=(10, 10), pad=1), True)
    assert {view[:2] for view in wide} == {(0, 0), (0, -2), (-2, 0), (-2, -2), (-1, -1)}


def test_equal_crops_are_computed_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny.config(data, augment={"crop": [0, 0], "pad": 0})
    train(cfg, device="cpu", epochs=1, run_dir=tmp_path / "run", quiet=True)
    calls = 0
    predict_ = convnet_net().predict

    def count(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return predict_(self, *arguments)

    monkeypatch.setattr(convnet_net(), "predict", count)
    found = evaluate(tmp_path / "run", device="cpu", ten_crop=True)
    assert calls == 2 * 3  # the image and its mirror image, in three batches
    assert found["crops"] == found["views"] == 10


def convnet_net() -> Any:
    from convnet.nn.net import Net

    return Net


def test_predict_takes_ten_crops(runs: list[Path], tmp_path: Path) -> None:
    pixels, _ = tiny.images(3, 2)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    for ten_crop in (False, True):
        found = predict(runs[0], paths, device="cpu", top=10, ten_crop=ten_crop)
        for prediction, row in zip(found, by_hand(runs[0], ten_crop, 3), strict=True):
            named = dict(zip(prediction.classes, prediction.probabilities, strict=True))
            assert [named[str(k)] for k in range(10)] == pytest.approx(list(row), rel=1e-5)


# ---- tables -------------------------------------------------------------------------------------


def test_metrics() -> None:
    metrics = Metrics(("a", "b", "c"))
    metrics.add(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]), np.array([0, 1]))
    metrics.add(np.array([[1.0, 0.0, 0.0]]), np.array([1]))
    assert metrics.confusion.tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 0]]
    losses = [-np.log(0.5), -np.log(0.2), -np.log(np.finfo(np.float32).tiny)]
    assert metrics.means() == pytest.approx(
        {"loss": np.mean(losses), "top1": 100 / 3, "top5": 100.0}
    )
    assert metrics.rows() == [
        _row("a", 1, 1, 1, "100.00", "100.00", 2, "50.00"),
        _row("b", 2, 0, 2, "0.00", "100.00", 0, ""),
        _row("c", 0, 0, 0, "", "", 1, "0.00"),
    ]


def _row(*values: Any) -> dict[str, Any]:
    keys = ("class", "pictures", "right", "right_in_five", "top1", "top5", "named", "precision")
    return dict(zip(keys, values, strict=True))


def test_ties_rank_as_in_training(rng: np.random.Generator) -> None:
    """Whole-number logits tie often; ranks of their softmax must be those of the operation."""
    logits = rng.integers(0, 4, (200, 12)).astype(np.float32)
    labels = rng.integers(0, 12, 200).astype(np.int32)
    _, _, rank = softmax_xent(logits, labels, dlogits=False)
    ranked, plain = Metrics("x" * 12), Metrics("x" * 12)
    exps = np.exp(logits.astype(np.float64))
    plain.add(exps / exps.sum(axis=1, keepdims=True), labels)
    ranked.add_ranked(np.zeros(200), rank, labels, labels)
    assert plain.tally.right == ranked.tally.right
    assert plain.in_five.tolist() == ranked.in_five.tolist()


@pytest.mark.parametrize("ways", [[], ["--ten-crop"]])
def test_csv(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], ways: list[str]
) -> None:
    folder = tmp_path / "new" / "tables"
    words = ["eval", str(runs[0]), "--device", "cpu", *ways]
    assert main([*words, "--csv", str(folder)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1] == f"wrote {folder}/classes.csv and confusion.csv"
    assert ("ten crops" in out[0]) == bool(ways)
    guesses = by_hand(runs[0], bool(ways)).argmax(axis=1)
    with (folder / "confusion.csv").open(newline="") as file:
        square = list(csv.reader(file))
    assert square[0] == ["class", *map(str, range(10))]
    counts = np.array([row[1:] for row in square[1:]], int)
    expected = np.zeros((10, 10), int)
    np.add.at(expected, (np.arange(tiny.TEST) % 10, guesses), 1)
    assert counts.tolist() == expected.tolist()
    with (folder / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["right"]) for row in rows] == expected.diagonal().tolist()
    assert sum(int(row["pictures"]) for row in rows) == tiny.TEST
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == out[:1]  # the same figures without tables


def test_names_that_csv_must_quote(tmp_path: Path) -> None:
    names = ("a,b", 'say "hm"', "line\nbreak", "bad \udcff byte")
    metrics = Metrics(names)
    metrics.add(np.eye(4), np.arange(4))
    metrics.write(tmp_path)
    with (tmp_path / "confusion.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == ["class", *names[:3], "bad \\udcff byte"]


# ---- the command line, and what is refused ------------------------------------------------------


def test_eval_of_several(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", *map(str, runs[:2]), "--device", "cpu", "--ten-crop"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": loss ")[0] for line in lines[:2]] == [str(run) for run in runs[:2]]
    assert lines[2].startswith("40 images (MNIST ")
    assert "), ten crops, average of 2 nets: loss " in lines[2]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert f"loss {found['loss']:.4f}, top-1 {found['top1']:.2f} %" in lines[2]


def small_set(count: int, classes: int = 10, first: str = "0") -> ArrayDataset:
    images, labels = tiny.images(tiny.TEST, 2)
    few = np.flatnonzero(labels < classes)[:count]
    names = [first, *map(str, range(1, classes))]
    return ArrayDataset(images[few][..., None], labels[few], names)


def test_nets_that_do_not_go_together(runs: list[Path], data: Path, tmp_path: Path) -> None:
    def run(name: str, one: ArrayDataset) -> Path:
        table = tiny.config("", **CROP)
        table["net"]["layers"][4]["units"] = len(one.classes)
        table["train"] |= {"batch": 8}
        train(table, device="cpu", data=(one, one), epochs=1, run_dir=tmp_path / name, quiet=True)
        return tmp_path / name

    best = runs[0] / "checkpoints" / "best.safetensors"
    few = run("few", small_set(20, 5))
    with pytest.raises(DataError, match=rf"expected the 10 classes of {best}, got 5"):
        evaluate([runs[0], few], device="cpu")
    renamed = run("renamed", small_set(40, 10, "zero"))
    with pytest.raises(DataError, match=r"got others: class 0 is 'zero' instead of '0'"):
        evaluate([runs[0], renamed], device="cpu")

    elsewhere = tiny.write_data(tmp_path / "elsewhere")
    table = tiny.config(elsewhere)
    train(table, device="cpu", epochs=1, run_dir=tmp_path / "else", quiet=True)
    with pytest.raises(DataError, match=rf"expected the data of {best}, mnist {data}; got mnist "):
        evaluate([runs[0], tmp_path / "else"], device="cpu")
    assert evaluate([runs[0], tmp_path / "else"], data=data, device="cpu")["images"] == tiny.TEST

    with pytest.raises(RunError, match="no such run folder"):
        evaluate([runs[0], tmp_path / "absent"], device="cpu")
    with pytest.raises(RunError, match="expected a run, got none"):
        evaluate([], device="cpu")


def test_other_labels_are_other_data(
    runs: list[Path], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same folder, split otherwise by each net's own configuration."""
    import convnet.evaluation.evaluate as module

    original = module._validation_set

    def other(net: Trained, given: Any) -> Any:
        found = original(net, given)
        count = tiny.TEST if net.cfg.seed == 3 else 30
        return ArrayDataset(found.images[:count], found.labels[:count], found.classes)

    monkeypatch.setattr(module, "_validation_set", other)
    with pytest.raises(DataError, match=r"expected the 40 validation images of .*, got 30"):
        evaluate([runs[0], runs[2]], device="cpu")


def test_tables_that_cannot_be_written(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "below"):
        assert main(["eval", str(runs[0]), "--device", "cpu", "--csv", str(folder)]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"convnet: error: {folder}: ")
        assert printed.err.count("\n") == 1
