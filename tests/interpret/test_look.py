"""`convnet plot saliency`, `deconv` and `activations`: their rules, and what the images hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import trees
from PIL import Image

from convnet import ops
from convnet.cli.main import main
from convnet.evaluation.evaluate import open_run, validation_sets
from convnet.interpret.deconvolution import deconvolve, layers_shown, strongest
from convnet.interpret.receptive_field import receptive_field
from convnet.interpret.saliency import gradient_map, occlusion_map
from convnet.interpret.views import cropped_pixels, read_inputs
from convnet.layers import LRN, Conv, Dense, MaxPool, ReLU, SoftmaxCrossEntropy
from convnet.nn.net import Net, Node
from convnet.training.train import train


def net(*layers: Any, in_shape: tuple[int, int, int] = (14, 13, 2)) -> Net:
    ends = [Dense(3, init="xavier"), SoftmaxCrossEntropy()]
    named = [(f"n{place}", layer) for place, layer in enumerate(layers)]
    nodes = [Node(name, layer) for name, layer in (*named, ("fc", ends[0]), ("out", ends[1]))]
    return Net(nodes, in_shape, seed=2)


def some(one: Net, node: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.standard_normal((3, *one.in_shape), dtype=np.float32)
    return x, rng.standard_normal((3, *one.shapes[node]), dtype=np.float32)


def test_without_relu_and_lrn_it_is_the_gradient(backend, rng):
    one = net(Conv(6, 3, init="he"), MaxPool(3, 2), Conv(4, 3, pad=1, groups=2, init="he"))
    x, dy = some(one, "n2", rng)
    expected = one.input_gradient(x, node="n2", dy=dy)
    np.testing.assert_allclose(deconvolve(one, x, "n2", dy), expected, rtol=0, atol=2e-6)
    with_relu = net(Conv(6, 3, init="he"), ReLU(), Conv(4, 3, init="he"))
    x, dy = some(with_relu, "n2", rng)
    gradient = with_relu.input_gradient(x, node="n2", dy=dy)
    assert np.abs(deconvolve(with_relu, x, "n2", dy) - gradient).max() > 0.1


@pytest.mark.parametrize("fused", [False, True])
def test_what_comes_back_is_rectified(rng, fused):
    layers = [Conv(6, 3, init="he", relu=True)] if fused else [Conv(6, 3, init="he"), ReLU()]
    one = net(*layers, LRN(alpha=1.0), in_shape=(8, 8, 2))
    node = f"n{len(layers)}"
    x, dy = some(one, node, rng)
    expected = ops.conv_dgrad(np.maximum(dy, 0), one.params[0].data, x.shape)
    np.testing.assert_allclose(deconvolve(one, x, node, dy), expected, atol=1e-5)


def test_a_unit_sees_its_window_and_nothing_else(rng):
    one = net(Conv(6, 5, stride=2, pad=1, init="he"), MaxPool(3, 2), Conv(4, 3, pad=1, init="he"))
    assert receptive_field(one, "n0", 1, 2) == ((1, 5), (3, 7))
    for row, column in ((0, 0), (1, 2)):
        x, dy = some(one, "n2", rng)
        dy[...] = 0
        dy[:, row, column] = 1
        (top, bottom), (left, right) = receptive_field(one, "n2", row, column)
        dx = np.abs(one.input_gradient(x, node="n2", dy=dy)).max(axis=(0, 3))
        inside = np.zeros_like(dx, bool)
        inside[max(0, top) : bottom + 1, max(0, left) : right + 1] = True
        assert dx[~inside].max(initial=0) == 0
        assert dx[inside].max() > 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on colour images in class folders, cropped."""
    folder = tmp_path_factory.mktemp("look")
    data = trees.class_folders(folder / "pictures")
    layers = [
        {"name": "conv1", "type": "conv", "filters": 6, "size": 3, "init": "he"},
        {"name": "relu1", "type": "relu"},
        {"name": "lrn1", "type": "lrn"},
        {"name": "pool1", "type": "maxpool", "size": 3, "stride": 2},
        {"name": "conv2", "type": "conv", "filters": 5, "size": 3, "init": "he", "relu": True},
        {"name": "fc3", "type": "dense", "units": 3, "init": "xavier"},
        {"name": "softmax", "type": "softmax_cross_entropy"},
    ]
    cfg = tiny.config(data, data={"source": "folder", "size": [16, 16]}, train={"epochs": 2})
    cfg |= {"net": {"layers": layers}, "augment": {"crop": [12, 12]}}
    train(cfg, device="cpu", run_dir=folder / "run", quiet=True)
    return folder / "run"


def test_units_and_their_strongest_images(run: Path) -> None:
    trained = open_run(run, "cpu")
    assert layers_shown(trained.net) == {"conv1": "relu1", "conv2": "conv2"}
    (data,) = validation_sets([trained])
    numbers = list(range(len(data)))
    y = trained.net.forward(read_inputs(trained, data, numbers), "relu1")
    units = strongest(trained, data, numbers, "relu1", 3)
    assert units
    for unit in units:
        own = y[unit.images, unit.places[:, 0], unit.places[:, 1], unit.channel]
        np.testing.assert_array_equal(own, unit.values)
        tops = np.sort(y[..., unit.channel].max(axis=(1, 2)))[::-1]
        np.testing.assert_array_equal(own, tops[: len(own)])


def test_maps_of_an_image(run: Path) -> None:
    trained = open_run(run, "cpu")
    (data,) = validation_sets([trained])
    x = read_inputs(trained, data, [0, 1])
    assert x.shape == (2, 12, 12, 3)
    assert gradient_map(trained, x, np.array([0, 2])).shape == (2, 12, 12)
    assert 0 < np.abs(occlusion_map(trained, x[0], 1)).max() <= 1
    trained.net.node_of("fc3").layer.params[0].data[...] = 0  # the answer depends on nothing
    assert np.abs(occlusion_map(trained, x[0], 1)).max() == 0
    assert gradient_map(trained, x, np.array([0, 2])).max() == 0
    pixels = np.arange(16 * 16 * 3).reshape(16, 16, 3).astype(np.uint8)
    np.testing.assert_array_equal(cropped_pixels(trained, pixels), pixels[2:14, 2:14])
    doubled = pixels.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(cropped_pixels(trained, doubled), doubled[4:28, 4:28])


def test_the_images_are_written(run: Path, tmp_path: Path, capsys: Any) -> None:
    for kind, options, said in (
        ("saliency", ["--count", "3"], "3 images: the gradient at each"),
        ("deconv", ["--units", "2"], "conv2: units "),
        ("activations", ["--pick", "1"], "validation 1 in 3 layers"),
    ):
        assert main(["plot", str(run), kind, *options, "--device", "cpu"]) == 0
        assert said in capsys.readouterr().out
        first = (run / f"{kind}.png").read_bytes()
        out = tmp_path / "again.png"
        assert main(["plot", str(run), kind, *options, "--device", "cpu", "-o", str(out)]) == 0
        assert out.read_bytes() == first
        with Image.open(out) as image:
            assert len(image.getcolors(1 << 24) or ()) > 50
    capsys.readouterr()
    for words, error in (
        (["deconv", "--layer", "conv3"], "layer: expected a convolution, got 'conv3'"),
        (["activations", "--pick", "1,2"], "expected one image, got several"),
        (["saliency", "--pick", "999"], "validation images: expected numbers from 0"),
    ):
        assert main(["plot", str(run), *words, "--device", "cpu"]) == 2
        assert error in capsys.readouterr().err
