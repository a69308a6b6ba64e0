"""Ablations and uneven classes, from end to end, and what their variants are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import ablations
import pytest
import relu_vs_tanh
import trees
import uneven
from cifar_files import write_binary
from series import Results
from tiny_series import SVG, curve, lines, planned, words


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
