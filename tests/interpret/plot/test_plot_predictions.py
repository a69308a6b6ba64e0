"""convnet plot RUN predictions: images, titles and bars."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from drawn import complain, count, guess, pixels_of
from PIL import Image

from convnet.cli.main import main
from convnet.data import ArrayDataset
from convnet.evaluation.evaluate import open_run
from convnet.interpret import charts, plot
from convnet.interpret.examples import choose


@pytest.mark.parametrize(("label", "place"), [("a", 0), ("b", 1), ("z", None), (None, None)])
def test_the_right_bar_is_red(label: str | None, place: int | None, tmp_path: Path) -> None:
    charts.save_chart(charts.predictions_chart([guess(label)]), tmp_path / "p.png")
    picture = pixels_of(tmp_path / "p.png")
    red, other = count(picture, charts.RIGHT), count(picture, charts.OTHER)
    assert other > 500
    if place is None:
        assert red == 0
        return
    rgb = [int(charts.RIGHT[i : i + 2], 16) for i in (1, 3, 5)]
    rows, columns = np.nonzero(np.abs(picture - rgb).max(axis=-1) <= 2)
    wide = (0.6, 0.2)[place] * 110 * 1.9
    assert columns.max() - columns.min() + 1 == pytest.approx(wide, abs=3)
    bars = picture.shape[0] - 110 * 0.28  # the bars end two spaces above the lower edge
    middle = (rows.min() + rows.max()) / 2
    assert middle == pytest.approx(bars - 110 * 0.19 * (4.5 - place), abs=4)


def test_panels_hold_image_title_and_bars() -> None:
    figure = charts.predictions_chart([guess("a"), guess(None), guess("$x$", "ab")], columns=2)
    assert len(figure.axes) == 6
    titles = [axes.get_title() for axes in figure.axes[::2]]
    assert titles == ["a", "(not known)", "$x$"]
    assert len(figure.axes[5].patches) == 2
    first, third = (figure.axes[i].get_position() for i in (0, 4))
    assert third.y1 < first.y0  # in the second line


def test_predictions_of_a_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plot", str(run), "predictions", "--device", "cpu"]
    assert main([*words, "--pick", "0,3,5,21", "--top", "3"]) == 0
    text = capsys.readouterr().out
    trained = open_run(run)
    images, _ = tiny.images(tiny.TEST, 2)
    x = (images[..., None] - trained.stats.mean) * np.float32(trained.cfg.data.scale)
    ranks = trained.net.evaluate(x.astype(np.float32), np.arange(40) % 10)[1][[0, 3, 5, 21]]
    right, among = int((ranks == 0).sum()), int((ranks < 3).sum())
    assert text == (
        f"4 images; of 4 with a known class {right} right, {among} in the first 3\n"
        f"wrote {run / 'predictions.png'}\n"
    )
    red = count(pixels_of(run / "predictions.png"), charts.RIGHT)
    assert (red > 0) == (among > 0)
    (tmp_path / "7" / "shoes").mkdir(parents=True)
    for name in ("7/shoes/a.png", "b.png"):
        Image.fromarray(images[7]).save(tmp_path / name)
    files = [str(tmp_path / "7" / "shoes" / "a.png"), str(tmp_path / "b.png")]
    out = ["-o", str(tmp_path / "p.svg")]
    assert main([*words, *files, *out]) == 0
    assert "2 images; of 1 with a known class" in capsys.readouterr().out
    assert main([*words, *files, *out, "--labels", "7,2", "--ten-crop"]) == 0
    assert "of 2 with a known class" in capsys.readouterr().out
    svg = (tmp_path / "p.svg").read_text()
    assert svg.startswith("<?xml")
    assert main([*words, *files, *out, "--labels", "7,2", "--ten-crop"]) == 0
    assert (tmp_path / "p.svg").read_text() == svg  # no dates, no random names


def test_images_are_shown_larger_than_the_net_sees_them(colour_run: Path, tmp_path: Path) -> None:
    shutil.copytree(colour_run, tmp_path / "run")
    trained = open_run(colour_run)
    assert trained.image_shape == (16, 16, 3)
    plot.plot_predictions(tmp_path / "run", count=3, device="cpu")
    assert (tmp_path / "run" / "predictions.png").is_file()


def test_chosen_images_are_of_all_classes() -> None:
    labels = np.repeat(np.arange(5), [50, 30, 10, 2, 1])
    data = ArrayDataset(np.zeros((93, 2, 2, 1), np.uint8), labels, list("abcde"))
    chosen = choose(data, 9)
    assert len(set(chosen)) == 9
    assert np.bincount(labels[chosen]).tolist() == [2, 2, 2, 2, 1]
    assert choose(data, 9) == chosen != choose(data, 9, seed=1)
    assert sorted(choose(data, 200)) == list(range(93))


def test_what_predictions_refuses(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "a.png"
    Image.new("L", (8, 8)).save(image)

    def error(*words: Any) -> str:
        return complain(capsys, run, "predictions", *words, "--device", "cpu")

    assert "labels: expected 1, one for each image, got 2" in error(image, "--labels", "1,2")
    assert "labels: expected classes of the net (0, 1, 2" in error(image, "--labels", "x")
    assert "pick: cannot be given with image files" in error(image, "--pick", 1)
    assert "expected numbers from 0 to 39, got 40" in error("--pick", "3,40")
    assert "No such file" in error(tmp_path / "none.png")
    assert "expected a name that ends in .png, .svg, .pdf, .jpg or .webp" in error(
        image, "-o", tmp_path / "p.doc"
    )
