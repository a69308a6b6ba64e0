"""convnet plot RUN curves and confusion, and how any picture is drawn and written."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from drawn import complain, count, guess, pixels_of
from PIL import Image

from convnet.cli.main import main
from convnet.common.typecheck import ConfigError
from convnet.evaluation.evaluate import evaluate
from convnet.interpret import charts, fonts, plot
from convnet.interpret.curves import joined_windows, thinned
from convnet.interpret.montage import Panel, neighbour_rows, save_image

matplotlib = pytest.importorskip("matplotlib")


FigureCanvasAgg = pytest.importorskip("matplotlib.backends.backend_agg").FigureCanvasAgg


def test_curves_are_those_of_the_metrics(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(run), "curves"]) == 0
    assert capsys.readouterr().out == f"3 epochs, 30 steps\nwrote {run / 'curves.png'}\n"
    records = tiny.metrics(run)
    figure = charts.curves_chart(records, "a $ title")
    loss, error, rate = figure.axes
    epochs = [record for record in records if record["kind"] == "epoch"]
    lines = {line.get_label(): line.get_xydata() for line in loss.lines}
    expected = [[record["epoch"], record["val_loss"]] for record in epochs]
    np.testing.assert_allclose(lines["validation"], expected)
    lines = {line.get_label(): line.get_xydata() for line in error.lines}
    expected = [[record["epoch"], 100 - record["top1"]] for record in epochs]
    np.testing.assert_allclose(lines["training"], expected)
    assert rate.lines[0].get_xdata()[-1] == 3.0  # the last step is the end of the third epoch
    shown = pixels_of(run / "curves.png")
    assert count(shown, charts.TRAINING) > 50
    assert count(shown, charts.VALIDATION) > 50


def test_curves_of_a_run_without_a_whole_epoch(tmp_path: Path) -> None:
    record = {"kind": "step", "epoch": 1, "step": 3, "loss": 2.0, "top1": 10.0, "lr": 0.1}
    text = "".join(json.dumps({**record, "step": step}) + "\n" for step in (3, 6))
    (tmp_path / "metrics.jsonl").write_text(text + '{"kind": "st')
    path, said = plot.plot_curves(tmp_path)
    assert said == "0 epochs, 6 steps"
    assert path == tmp_path / "curves.png"
    assert charts.curves_chart([record], "").axes[0].get_xlabel() == "step"


def test_what_curves_refuses(run: Path, tmp_path: Path, capsys: Any) -> None:
    assert "no metrics in this folder yet" in complain(capsys, tmp_path, "curves")
    assert "expected the folder of a run" in complain(
        capsys, run / "checkpoints" / "best.safetensors", "curves"
    )
    assert "expected the folder of a run" in complain(capsys, tmp_path / "x", "curves")


def test_confusion_is_that_of_eval(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(run), "confusion", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    right = evaluate(run, device="cpu")["top1"]
    assert lines[0] == f"40 images, {right:.2f} % right"
    assert lines[-1] == f"wrote {run / 'confusion.png'}"
    assert sum(int(line.split(": ")[1]) for line in lines[1:-1]) <= round(40 * (100 - right) / 100)
    assert main(["plot", str(run), "confusion", "--ten-crop", "--device", "cpu"]) == 0


def test_cells_hold_shares_of_their_row() -> None:
    table = np.array([[3, 1], [0, 8]])
    figure = charts.confusion_chart(table, ["cat", "dog"], "title")
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[75, 25], [0, 100]])
    assert {(text.get_position(), text.get_text()) for text in axes.texts} == {
        ((0, 0), "75"),
        ((1, 0), "25"),
        ((0, 1), ""),
        ((1, 1), "100"),
    }
    assert [text.get_text() for text in axes.get_xticklabels()] == ["cat", "dog"]
    many = charts.confusion_chart(np.zeros((300, 300), int), [str(i) for i in range(300)], "")
    assert not many.axes[0].texts


@pytest.mark.parametrize("kind", ["jpg", "webp", "pdf", "svg", "png"])
def test_formats(kind: str, tmp_path: Path) -> None:
    first = {
        "jpg": b"\xff\xd8",
        "webp": b"RIFF",
        "pdf": b"%PDF",
        "svg": b"<?xml",
        "png": b"\x89PNG",
    }
    path = tmp_path / f"p.{kind}"
    charts.save_chart(charts.predictions_chart([guess("a")]), path)
    content = path.read_bytes()
    assert content.startswith(first[kind])
    charts.save_chart(charts.predictions_chart([guess("a")]), path)
    assert path.read_bytes() == content
    if kind in ("jpg", "webp", "png"):
        save_image(Image.new("RGB", (4, 4)), path)
        assert path.read_bytes().startswith(first[kind])


def test_without_matplotlib(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for kind in ("curves", "predictions", "confusion"):
        error = complain(capsys, run, kind, "-o", tmp_path / "p.png")
        assert "matplotlib is not installed: pip install 'convnet-kernels[plot]'" in error
    with pytest.raises(ConfigError):
        charts.predictions_chart([guess("a")])
    assert main(["plot", str(run), "filters", "-o", str(tmp_path / "f.png")]) == 0


def test_captions_without_a_font_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = Panel(np.zeros((4, 4, 1), np.uint8), ("Größe, 大きさ " + 50 * "x",))
    known = np.array(neighbour_rows([[panel]]))
    monkeypatch.setattr(fonts, "known_fonts", lambda: ())
    assert fonts.drawable(["cat", "大", "Ūße"]) == (["cat", "class 1", "Usse"], 2)
    assert "1 name has characters that no font here has" in fonts.lacking_text(["cat", "大"])
    other = np.array(neighbour_rows([[panel]]))
    assert known.shape == other.shape
    assert (known != other).any()


LONG = "a name of a class that is much longer than there is room for in any picture"


def overlapping(labels: list[Any], canvas: Any) -> list[str]:
    """Texts that cover another's, each grown by nothing."""
    boxes = [label.get_window_extent(canvas.get_renderer()) for label in labels]
    return [
        label.get_text()
        for place, label in enumerate(labels)
        for other in boxes[:place]
        if label.get_text() and boxes[place].padded(-1).overlaps(other.padded(-1))
    ]


@pytest.mark.parametrize("count", [2, 60, 1000])
def test_a_confusion_matrix_of_real_names(count: int, tmp_path: Path) -> None:
    kinds = (LONG, "猫と犬の写真", "cat", "$x_1$")
    names = [f"{kinds[number % 4]} {number}" for number in range(count)]
    rng = np.random.default_rng(count)
    figure = charts.confusion_chart(rng.poisson(0.4, (count, count)), names, LONG)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes = figure.axes[0]
    for labels in (axes.get_yticklabels(), axes.get_xticklabels() if count != 2 else []):
        if count == 60 or labels is not axes.get_xticklabels():
            assert overlapping([one for one in labels if one.get_visible()], canvas) == []
    charts.save_chart(figure, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        assert max(image.size) < 2000
        pixels = np.array(image.convert("L"))
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert edge.min() > 250  # nothing is cut off


def test_a_cell_of_many_classes_shows_the_largest() -> None:
    table = np.zeros((1000, 1000), int)
    table[0, 999], table[0, 0] = 3, 1
    image = charts.confusion_chart(table, [str(i) for i in range(1000)], "").axes[0].images[0]
    shown = np.asarray(image.get_array())
    assert shown.shape == (250, 250)
    assert (shown[0, -1], shown[0, 0]) == (75, 25)


def test_a_short_window_makes_no_spike() -> None:
    def step(at: int, loss: float) -> dict[str, Any]:
        place = {"kind": "step", "epoch": 1 + (at > 101), "step": at}
        return {**place, "loss": loss, "top1": 50.0, "lr": 0.1}

    records = [step(50, 2.0), step(100, 1.0), step(101, 9.0), step(151, 0.5), step(201, 0.4)]
    joined = joined_windows(records)
    assert [record["step"] for record in joined] == [50, 101, 151, 201]
    assert joined[1]["loss"] == pytest.approx((50 * 1.0 + 9.0) / 51)
    assert joined_windows(joined) == joined
    assert joined_windows([]) == []
    x, y = thinned(list(range(1000)), [float(i % 2) for i in range(1000)])
    assert len(x) <= 300
    assert set(y) == {0.5}
    figure = charts.curves_chart(records, "")
    assert figure.axes[0].lines[0].get_ydata().max() == 2.0


@pytest.mark.parametrize(
    "rates",
    [
        [0.017, 0.0074, 0.00034],  # a few steps of a cosine
        [10.0**-power for power in (2, 3, 4, 5) for _ in range(4)],  # divided three times
        [0.1, 0.1, 0.02, 0.02],
        [0.1],
    ],
)
def test_rates_have_room_and_labels_apart(rates: list[float]) -> None:
    records = [
        {"kind": "step", "epoch": 1, "step": 10 * at, "loss": 1.0, "top1": 50.0, "lr": rate}
        for at, rate in enumerate(rates, 1)
    ]
    figure = charts.curves_chart(records, "")
    FigureCanvasAgg(figure).draw()
    rate = figure.axes[2]
    low, high = rate.get_ylim()
    assert 0 <= low < min(rates)
    assert max(rates) < high < 3 * max(rates)
    boxes = [
        label.get_window_extent()
        for label, place in zip(rate.get_yticklabels(), rate.get_yticks(), strict=True)
        if low <= place <= high and label.get_text()
    ]
    edges = sorted((box.y0, box.y1) for box in boxes)
    assert len(edges) > 1
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(edges))


def test_two_classes_have_no_top_five(tmp_path: Path) -> None:
    record = {"loss": 1.0, "top1": 60.0, "lr": 0.1, "val_loss": 1.0, "val_top1": 55.0}
    epoch = {"kind": "epoch", "epoch": 1, "step": 9, **record, "val_top5": 100.0}
    figure = charts.curves_chart([{"kind": "step", "epoch": 1, "step": 9, **record}, epoch], "")
    labels = [line.get_label() for line in figure.axes[1].lines]
    assert "validation, top-5" not in labels


def test_an_image_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.new("RGB", (4, 4))
    save_image(picture, tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def fail(self: Any, file: Any, **options: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match=r"No space left on device.*a\.png"):
        save_image(picture, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
