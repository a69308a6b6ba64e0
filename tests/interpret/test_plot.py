"""`convnet plot`: what the images show, by their pixels, and what is refused."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import trees
from PIL import Image

from convnet.cli.main import main
from convnet.common.typecheck import ConfigError
from convnet.config import load_config
from convnet.data import ArrayDataset, DataError
from convnet.evaluation.evaluate import evaluate, open_run
from convnet.interpret import charts, fonts, plot
from convnet.interpret.curves import joined_windows, thinned
from convnet.interpret.examples import choose
from convnet.interpret.montage import Panel, filter_sheet, neighbour_rows, save_image
from convnet.interpret.plot import plot_filters, read_filters, towers_of
from convnet.layers import LRN, Conv, Dense, MaxPool, ReLU, SoftmaxCrossEntropy
from convnet.nn.net import Net, Node
from convnet.training.checkpoint import read
from convnet.training.nets import build_net
from convnet.training.train import train

matplotlib = pytest.importorskip("matplotlib")
FigureCanvasAgg = pytest.importorskip("matplotlib.backends.backend_agg").FigureCanvasAgg


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs on grey images of ten classes."""
    folder = tmp_path_factory.mktemp("plot")
    data = tiny.write_data(folder / "data")
    train(tiny.config(data), device="cpu", run_dir=folder / "run", quiet=True)
    return folder / "run"


@pytest.fixture(scope="module")
def colour_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the paper's kind of net, two towers, on colour images in class folders."""
    folder = tmp_path_factory.mktemp("colour")
    data = trees.class_folders(folder / "pictures")
    net = {
        "layers": [
            {"name": "conv1", "type": "conv", "filters": 12, "size": [4, 5], "init": "he"},
            {"name": "relu1", "type": "relu"},
            {"name": "lrn1", "type": "lrn", "groups": 2},
            {"name": "pool1", "type": "maxpool", "size": 3, "stride": 2},
            {"name": "conv2", "type": "conv", "filters": 8, "size": 3, "groups": 2, "init": "he"},
            {"name": "fc3", "type": "dense", "units": 3, "init": "xavier"},
            {"name": "softmax", "type": "softmax_cross_entropy"},
        ]
    }
    cfg = tiny.config(data, data={"source": "folder", "size": [16, 16]}, train={"epochs": 1})
    cfg |= {"net": net, "augment": {}}
    train(cfg, device="cpu", run_dir=folder / "run", quiet=True)
    return folder / "run"


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB")).astype(int)


def count(pixels: np.ndarray, colour: str) -> int:
    """How many pixels have this colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels - rgb).max(axis=-1) <= 2).sum())


# ---- filters -------------------------------------------------------------------------------------


def test_every_weight_has_its_place_and_colour(rng: np.random.Generator) -> None:
    w = rng.standard_normal((24, 3, 2, 3)).astype(np.float32)
    sheet = np.array(filter_sheet(w, towers=2, scale=4)).astype(int)
    top = np.abs(w).max()
    gap, step_y, step_x = 1, 3 * 4 + 1, 2 * 4 + 1
    for number in range(24):
        tower, (row, column) = number // 12, divmod(number % 12, 12)
        y = gap + (tower + row) * step_y + tower * (4 * gap + 4 - gap)
        x = gap + column * step_x
        panel = sheet[y : y + 12, x : x + 8]
        expected = np.rint(127.5 + 127.5 * w[number] / top).repeat(4, 0).repeat(4, 1)
        np.testing.assert_array_equal(panel, expected)
    between = sheet[gap + step_y - gap : gap + step_y + 4 * gap + 4 - gap]
    assert (between == 255).all()  # the towers are apart
    assert len(between) == 8


def test_zero_is_grey_and_faint_filters_stay_faint() -> None:
    w = np.zeros((2, 2, 2, 1), np.float32)
    w[0], w[1, 0, 0] = 1.0, 0.1
    shared = np.array(filter_sheet(w, scale=1)).astype(int)
    each = np.array(filter_sheet(w, scale=1, each=True)).astype(int)
    assert (shared[1:3, 1:3] == 255).all()
    assert shared[1, 4].tolist() == [140] * 3
    assert shared[2, 5].tolist() == [128] * 3
    assert each[1, 4].tolist() == [255] * 3
    nothing = np.array(filter_sheet(np.zeros((2, 2, 2, 1), np.float32), scale=1))
    assert nothing[1, 1].tolist() == [128] * 3
    with pytest.raises(DataError, match="expected finite weights"):
        filter_sheet(np.full((1, 2, 2, 1), np.nan, np.float32))


def test_a_ragged_last_row_stays_in_its_tower() -> None:
    w = np.ones((34, 2, 2, 1), np.float32)
    w[17:] = -1
    sheet = np.array(filter_sheet(w, towers=2, scale=2)).astype(int)
    rows = sheet[:, 3, 0]  # through the first filter of each row
    assert [int(value) for value in rows[[2, 7]]] == [255, 255]
    dark = np.flatnonzero((sheet == 0).all(axis=2).any(axis=1))
    assert len(dark) == 8  # two rows of panels
    assert (sheet[dark[4] + 1, :4] == 0).any()


def test_other_channels_are_tiles_of_their_own(rng: np.random.Generator) -> None:
    w = rng.standard_normal((3, 2, 2, 5)).astype(np.float32)
    sheet = np.array(filter_sheet(w, scale=1)).astype(int)
    top = np.abs(w).max()
    for k in range(3):
        for c in range(5):
            panel = sheet[1 + 3 * k : 3 + 3 * k, 1 + 3 * c : 3 + 3 * c]
            expected = np.rint(127.5 + 127.5 * w[k, :, :, c] / top)
            np.testing.assert_array_equal(panel, np.repeat(expected[..., None], 3, 2))


def test_filters_of_a_run(
    run: Path, colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", str(run), "filters"]) == 0
    out = run / "filters.png"
    assert capsys.readouterr().out == f"8 filters 3x3x1 of conv1\nwrote {out}\n"
    shown = pixels_of(out)
    assert (shown == shown[..., :1]).all()  # grey
    assert main(["plot", str(colour_run), "filters", "-o", str(tmp_path / "f.png")]) == 0
    assert "12 filters 4x5x3 of conv1, 2 towers of 6\n" in capsys.readouterr().out
    assert (pixels_of(tmp_path / "f.png").std(axis=2) > 20).any()  # in colour
    words = ["plot", str(colour_run), "filters", "--layer", "conv2", "-o", str(tmp_path / "g.png")]
    assert main(words) == 0
    assert "8 filters 3x3x6 of conv2, 2 towers of 4\n" in capsys.readouterr().out
    path, text = plot_filters(colour_run, tmp_path / "h.png", "conv2", most=4)
    assert text.endswith("; the first 2 of each tower, 4 of their channels")
    checkpoint = colour_run / "checkpoints" / "best.safetensors"
    path, _ = plot_filters(checkpoint, layer="fc3", towers=1, scale=3, each=True)
    assert path == checkpoint.parent / "filters.png"
    path.unlink()
    again = tmp_path / "again.png"
    plot_filters(run, again)
    assert again.read_bytes() == out.read_bytes()


def test_the_filters_are_those_of_the_checkpoint(colour_run: Path) -> None:
    checkpoint = read(colour_run / "checkpoints" / "best.safetensors")
    filters = read_filters(checkpoint)
    assert (filters.layer, filters.towers) == ("conv1", 2)
    np.testing.assert_array_equal(filters.w, checkpoint.arrays["conv1.w"])


def net(*layers: tuple[str, Any]) -> Net:
    nodes = [Node(name, layer) for name, layer in layers]
    return Net(
        [*nodes, Node("fc", Dense(3)), Node("out", SoftmaxCrossEntropy())], (16, 16, 3), "cpu"
    )


@pytest.mark.parametrize(
    ("layers", "towers"),
    [
        ([("r", ReLU()), ("p", MaxPool(2, 2)), ("d", Conv(4, 3, groups=4))], 4),
        ([("n", LRN(groups=2)), ("d", Conv(4, 3, groups=4))], 2),
        ([("n", LRN()), ("d", Conv(4, 3, groups=4))], 1),  # a norm across the towers
        ([("d", Conv(4, 3)), ("e", Conv(4, 3, groups=2))], 1),  # a convolution that reads all
        ([("d", Conv(3, 3, groups=3))], 1),  # 4 filters are no three towers
        ([], 1),
    ],
)
def test_towers(layers: list[tuple[str, Any]], towers: int) -> None:
    filters = 4 if towers != 1 or len(layers) != 1 else 6
    first = Conv(filters, 3)
    made = net(("c", first), *layers)
    expected = 3 if filters == 6 else towers
    assert towers_of(made, made.nodes[0]) == expected


def test_towers_of_the_papers_nets() -> None:
    for preset, towers in (("alexnet", 2), ("alexnet-half", 1), ("fashion-mnist", 1)):
        shape = (28, 28, 1) if preset == "fashion-mnist" else (256, 256, 3)
        made = build_net(load_config(preset), shape, 10, "cpu", sizes_only=True)
        assert towers_of(made, made.nodes[0]) == towers


def complain(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    try:
        code = main(["plot", *map(str, words)])
    except SystemExit as error:
        code = int(error.code or 0)
    error = capsys.readouterr().err
    assert code == 2, error
    assert error.startswith("convnet: error: ")
    assert error.count("\n") == 1
    return error


def test_what_filters_refuses(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "expected one with filters, got 'conv2'; did you mean \"conv1\"" in complain(
        capsys, run, "filters", "--layer", "conv2"
    )
    assert "towers: expected a divisor of 8 filters, got 3" in complain(
        capsys, run, "filters", "--towers", 3
    )
    assert "expected a name that ends in .png" in complain(
        capsys, run, "filters", "-o", tmp_path / "f.xyz"
    )
    assert "No such file" in complain(capsys, run, "filters", "-o", tmp_path / "x" / "f.png")
    assert "no such run folder" in complain(capsys, tmp_path / "x", "filters")
    assert '"filter": no such command; did you mean "filters"?' in complain(capsys, run, "filter")
    assert list(tmp_path.iterdir()) == []


# ---- predictions ---------------------------------------------------------------------------------


def guess(label: str | None, classes: str = "abcde") -> charts.Guess:
    grey = np.full((40, 40, 3), 128, np.uint8)
    likely = (0.6, 0.2, 0.1, 0.06, 0.04)[: len(classes)]
    return charts.Guess(grey, label, tuple(classes), likely)


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


# ---- curves and confusion ------------------------------------------------------------------------


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


# ---- libraries and files -------------------------------------------------------------------------


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
