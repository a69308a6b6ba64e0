"""convnet plot RUN filters: every weight has its place and colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import complain, net, pixels_of

from convnet.cli.main import main
from convnet.config import load_config
from convnet.data import DataError
from convnet.interpret.montage import filter_sheet
from convnet.interpret.plot import plot_filters, read_filters, towers_of
from convnet.layers import LRN, Conv, MaxPool, ReLU
from convnet.training.checkpoint import read
from convnet.training.nets import build_net


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
