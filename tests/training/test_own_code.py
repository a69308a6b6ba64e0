"""Nets as code: the page on it runs, and what a configuration names runs only where allowed."""

from __future__ import annotations

import inspect
import re
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT
from PIL import Image

import convnet
from convnet.cli.main import main
from convnet.common.own_code import allowed
from convnet.config import ConfigError, load_config
from convnet.data import ArrayDataset
from convnet.evaluation.evaluate import evaluate
from convnet.layers import LAYER_TYPES, Conv, Dense, Layer, SoftmaxCrossEntropy
from convnet.layers.options import options_of
from convnet.report.follow import LiveView
from convnet.report.write import write_report

CODE = """
import numpy as np
from convnet import Net, Node
from convnet.layers import Dense, Layer, SoftmaxCrossEntropy

class Twice(Layer):
    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = factor

    def fprop(self, x, train):
        return x * np.float32(self.factor), None

    def bprop(self, saved, dy):
        return dy * np.float32(self.factor), []

def tower(in_shape, classes=3, width=4, **options):
    nodes = [Node("fc", Dense(width)), Node("twice", Twice()), Node("out", Dense(classes))]
    return Net([*nodes, Node("loss", SoftmaxCrossEntropy())], in_shape, **options)

number = 3
"""
LAYERS = """
[[net.layers]]
name = "twice"
type = "mine:Twice"
factor = 3.0
[[net.layers]]
name = "out"
type = "dense"
units = 3
[[net.layers]]
name = "loss"
type = "softmax_cross_entropy"
"""
MODEL = '[net]\nmodel = "mine:tower"\noptions = { width = 5 }\n'


def write(folder: Path, net: str) -> Path:
    (folder / "mine.py").write_text(CODE)
    path = folder / "my.toml"
    data = '[data]\nsource = "folder"\nsize = [6, 6]\n'
    path.write_text(f"{data}{net}[train]\nbatch = 10\nepochs = 1\nreport = false\n")
    return path


def images(count: int = 30) -> list[ArrayDataset]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int32) % 3
    return [ArrayDataset(pixels, labels, ("a", "b", "c"), "random")] * 2


def test_the_page_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/own-code.md").read_text(), re.DOTALL)
    names = {"RUN": tmp_path / "run", "FILE": tmp_path / "net.safetensors", "__name__": "page"}
    module = types.ModuleType("page")
    vars(module).update(names)
    sys.modules["page"] = module  # as the notebook in which it would be typed
    try:
        for block in blocks:
            exec(compile(block, "own-code.md", "exec"), vars(module))
    finally:
        del sys.modules["page"]
    assert len(blocks) == 6
    assert "TrainResult(done, best top-1" in capsys.readouterr().out


@pytest.mark.parametrize("net", [MODEL, LAYERS])
def test_code_beside_a_configuration_runs_where_it_is_allowed(tmp_path: Path, net: str) -> None:
    path = write(tmp_path, net)
    with pytest.raises(ConfigError, match=r'"mine:\w+" is code, which runs only where .* --code'):
        load_config(path)
    run = tmp_path / "run"
    options = {"data": images(), "run_dir": run, "device": "cpu", "quiet": True}
    result = convnet.train(path, code=True, **options)
    (tmp_path / "mine.py").unlink()  # the run has a copy
    with pytest.raises(ConfigError, match="look at it first"):
        convnet.load(run, "cpu")
    x = np.random.default_rng(1).standard_normal((2, 6, 6, 3), dtype=np.float32)
    again = convnet.load(run, "cpu", code=True)
    assert np.array_equal(again.predict(x), result.net.predict(x))
    assert [node.layer for node in again.nodes if "Twice" in repr(node.layer)]


def test_commands_want_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, MODEL)
    assert main(["summary", str(path)]) == 2
    assert "mine:tower" in capsys.readouterr().err
    assert main(["summary", str(path), "--code"]) == 0
    assert "twice" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="look at it first"):  # and it does not last
        load_config(path)


def test_every_command_takes_a_run_with_code(tmp_path: Path, monkeypatch) -> None:
    """Where it is allowed; and refuses it otherwise."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in "abc":
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    first = '[[net.layers]]\nname = "c"\ntype = "conv"\nfilters = 4\nsize = 3\n'
    path = write(tmp_path, first + LAYERS)
    path.write_text(path.read_text().replace("size = [6, 6]", 'size = [6, 6]\npath = "images"'))
    assert main(["train", str(path), "--code", "--run-dir", "run"]) == 0
    assert main(["export", "torch", "run", "-o", "first.pth", "--code"]) == 0
    for command in (
        ["eval", "run"],
        ["predict", "run", "images/a/0.png"],
        ["report", "run"],
        *(["plot", "run", kind] for kind in ("filters", "saliency", "deconv", "activations")),
        ["plot", "run", "confusion"],
        ["plot", "run", "predictions"],
        ["export", "torch", "run", "-o", "net.pth"],
        ["import", "torch", "first.pth", "--net", "my.toml", "-o", "back"],
        ["features", "run", "-o", "f.safetensors"],
        ["search", "run", "f.safetensors", "images/a/0.png"],
    ):
        assert main(command) == 2, command
        assert main([*command, "--code"]) == 0, command


def test_functions_take_a_run_with_code(tmp_path: Path) -> None:
    options = {"data": images(), "device": "cpu"}
    run = tmp_path / "run"
    convnet.train(write(tmp_path, LAYERS), code=True, run_dir=run, quiet=True, **options)
    pixels = images()[0].images[0]
    with pytest.raises(ConfigError, match="code=True"):
        convnet.predict(run, pixels, device="cpu")
    assert len(convnet.predict(run, pixels, device="cpu", code=True)) == 1
    assert evaluate(run, code=True, **options)["images"] == 30
    assert write_report(run, code=True, **options)[1] > 0
    view = LiveView(run, **options, code=True)
    view.server.server_close()
    answers: list[bytes] = []
    thread = threading.Thread(target=lambda: answers.append(view.content()))  # as it serves
    thread.start()
    thread.join()
    assert b"all 30 validation images" in answers[0]


def test_a_class_of_this_process_alone_is_named(tmp_path: Path, capsys) -> None:
    class Local(Layer):
        def fprop(self, x, train):
            return x, None

        def bprop(self, saved, dy):
            return dy, []

    nodes = [convnet.Node("mine", Local()), convnet.Node("out", Dense(3))]
    net = convnet.Net([*nodes, convnet.Node("l", SoftmaxCrossEntropy())], (6, 6, 3), device="cpu")
    cfg = {"data": {"source": "folder"}, "train": {"batch": 10, "epochs": 1, "report": False}}
    convnet.train(cfg, net=net, data=images(), run_dir=tmp_path / "run", quiet=True)
    said = capsys.readouterr().err
    assert "mine: " in said
    assert "is found in this process alone" in said


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine:missing", "there is no missing in the module"),
        ("nowhere:tower", "cannot be imported.*ModuleNotFoundError"),
        ("mine.py:tower", "cannot be imported"),
        ("mine:number", "is no class of layers"),
        ("../mine:Twice", 'expected "package.module:name"'),
    ],
)
def test_names_that_are_no_layers(tmp_path: Path, name: str, message: str) -> None:
    path = write(tmp_path, LAYERS.replace("mine:Twice", name))
    with allowed(), pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_net_object_that_does_not_fit(tmp_path: Path) -> None:
    nodes = [convnet.Node("out", Dense(3)), convnet.Node("loss", SoftmaxCrossEntropy())]
    net = convnet.Net(nodes, (5, 6, 3), device="cpu")
    options = {"data": images(), "run_dir": tmp_path / "run", "quiet": True}
    cfg = {"data": {"source": "folder"}, "train": {"batch": 10, "epochs": 1}}
    with pytest.raises(ConfigError, match=r"inputs \(6, 6, 3\), as the data .* got one of \(5, 6"):
        convnet.train(cfg, net=net, **options)
    with pytest.raises(ConfigError, match="device: expected that of the net, cpu, got cuda"):
        convnet.train(cfg, net=net, device="cuda", **options)


def test_as_many_outputs_as_classes_are_a_setting_away(tmp_path: Path) -> None:
    layers = [
        {"name": "fc10", "type": "dense", "units": 10},
        {"name": "loss", "type": "softmax_cross_entropy"},
    ]
    table = {"net": {"layers": layers}, "train": {"batch": 10, "epochs": 1, "report": False}}
    options = {"data": images(), "run_dir": tmp_path / "run", "quiet": True, "device": "cpu"}
    with pytest.raises(ConfigError, match=r"got 10 \(--set net\.layers\.fc10\.units=3\)$"):
        convnet.train(table, **options)
    assert convnet.train(table, overrides=["net.layers.fc10.units=3"], **options).status == "done"


def test_frozen_layers_stay_frozen_in_a_copy(tmp_path: Path) -> None:
    net = convnet.models.small(in_shape=(24, 24, 3), classes=3, device="cpu")
    net.params[0].lr_mult = 0.0
    net.save(tmp_path / "net.safetensors")
    assert convnet.load(tmp_path / "net.safetensors", "cpu").params[0].frozen


def test_damaged_files_of_nets(tmp_path: Path) -> None:
    net = convnet.models.small(in_shape=(24, 24, 3), classes=3, device="cpu")
    path = tmp_path / "net.safetensors"
    net.save(path)
    content = path.read_bytes()
    for damaged in (content[:-9], content.replace(b'type\\": \\"conv', b'type\\": \\"cone')):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|unknown layer type"):
            convnet.load(path, "cpu")


def test_short_reprs() -> None:
    net = convnet.models.fashion_mnist(in_shape=(28, 28, 1), device="cpu")
    assert re.fullmatch(
        r"Net\(\d+ nodes, [\d,]+ parameters, 28x28x1 -> 10 classes, cpu\)", repr(net)
    )
    assert repr(Conv(8, 3, pad=1)) == "Conv(filters=8, size=(3, 3), pad=(1, 1))"
    sgd = convnet.SGD(net.params, lr=0.1)
    assert repr(sgd).startswith("SGD(lr=0.1, momentum=0.9, weight_decay=0.0005, ")


@pytest.mark.parametrize("kind", LAYER_TYPES.values())
def test_every_layer_keeps_its_arguments(kind: type[Layer]) -> None:
    values = {"filters": 4, "size": 3, "units": 4, "stride": 2, "n": 3, "alpha": 0.5, "std": 1.0}
    values |= {"height": 2, "width": 2, "start": 1, "stop": 3, "channels": 4}
    parameters = inspect.signature(kind.__init__).parameters.values()
    needed = {
        p.name: values[p.name] for p in parameters if p.default is p.empty and p.name in values
    }
    layer = kind(**needed)
    assert options_of(kind(**options_of(layer))) == options_of(layer)


def test_a_notebook_shows_curves_and_a_table(tmp_path: Path) -> None:
    cfg = {"net": {"model": "small"}, "data": {"source": "folder"}}
    cfg |= {"train": {"batch": 10, "epochs": 2, "report": False}}
    pixels = np.zeros((20, 24, 24, 3), np.uint8)
    sets = [ArrayDataset(pixels, np.arange(20, dtype=np.int32) % 2, ("<a>", "b"), "zeros")] * 2
    result = convnet.train(cfg, data=sets, run_dir=tmp_path / "run", device="cpu", quiet=True)
    html = result._repr_html_()
    assert html.count("<tr>") == 3
    assert html.count("<polyline") == 2
    assert "done, best top-1" in html
