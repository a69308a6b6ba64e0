"""How far imported and exported nets are from what the other program computes; a table.

    pip install torch onnxruntime
    python tests/stress/exchange_errors.py

Weights are drawn at random, images too. A row is the largest relative error (L2) of the logits and
the largest of the probabilities. PyTorch and onnxruntime run; what Caffe and cuda-convnet compute
is written out in float64, in tests/exchange. The round trips are compared bit by bit.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "support"), str(TESTS / "exchange")]

import numpy as np
import test_caffe
import test_paper_program
from foreign import random_run, softmax
from foreign_files import HEAD, OLD, TODAY, caffemodel, model_weights, random_weights, saved

from convnet.config import load_config, presets
from convnet.evaluation.evaluate import open_run
from convnet.exchange.caffe.importer import import_caffe
from convnet.exchange.cuda_convnet.saved import weights_of
from convnet.exchange.onnx.exporter import export_onnx
from convnet.exchange.torch.exporter import export_torch, state_dict
from convnet.exchange.torch.importer import import_torch
from convnet.nn.net import Net
from convnet.training.nets import net_of

Row = tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def main() -> None:
    """Prints a line for each."""
    print("| net | logits | probabilities |\n|---|---|---|")
    for makers in (of_torch, of_caffe, of_cuda_convnet, onnx):
        with tempfile.TemporaryDirectory() as folder:
            for name, logits, expected, chances, expected_chances in makers(Path(folder)):
                error = np.linalg.norm(logits - expected) / np.linalg.norm(expected)
                worst = np.abs(chances - expected_chances).max()
                print(f"| {name} | {error:.1e} | {worst:.1e} |", flush=True)


def of_torch(folder: Path) -> Iterator[Row]:
    """torchvision's AlexNet, saved by PyTorch in each of its formats; and back, bit by bit."""
    import torch
    from safetensors.torch import save_file

    nn, k = torch.nn, (64, 192, 384, 256, 256)
    features: list[Any] = [nn.Conv2d(3, k[0], 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    features += [nn.Conv2d(k[0], k[1], 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    for i in (2, 3, 4):
        features += [nn.Conv2d(k[i - 1], k[i], 3, 1, 1), nn.ReLU()]
    dense = [nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096)]
    net = nn.Module()
    net.features = nn.Sequential(*features, nn.MaxPool2d(3, 2))
    net.classifier = nn.Sequential(*dense, nn.ReLU(), nn.Linear(4096, 1000))
    net.eval()
    x = np.random.default_rng(0).standard_normal((4, 224, 224, 3), dtype=np.float32)
    with torch.no_grad():
        there = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        expected = net.classifier(net.features(there).flatten(1)).numpy()
    for kind in ("zip", "before 1.6", "safetensors"):
        file = folder / ("a.safetensors" if kind == "safetensors" else "a.pth")
        if kind == "safetensors":
            save_file(net.state_dict(), file)
        else:
            torch.save(net.state_dict(), file, _use_new_zipfile_serialization=kind == "zip")
        run = import_torch(file, folder / kind).run
        trained = open_run(run, "cpu")
        yield f"torchvision's AlexNet, {kind}", *_found(trained.net, x, expected)
    export_torch(run, folder / "back.pth")
    back = torch.load(folder / "back.pth", weights_only=True)
    assert all(torch.equal(back[name], values) for name, values in net.state_dict().items())
    assert list(state_dict(trained)) == list(net.state_dict())


def of_caffe(folder: Path) -> Iterator[Row]:
    """A net of every kind of layer that bvlc_alexnet has, in both forms of definitions."""
    weights = random_weights()
    x = np.random.default_rng(0).uniform(-128, 128, (4, 3, 13, 13))
    expected = test_caffe.logits(weights, x)
    for name, text, old in (("layer", TODAY, False), ("layers", OLD, True)):
        (folder / "a.prototxt").write_text(HEAD + text)
        (folder / "a.caffemodel").write_bytes(caffemodel(weights, old))
        run = import_caffe(folder / "a.prototxt", folder / "a.caffemodel", folder / name).run
        rgb = np.ascontiguousarray(x[:, ::-1].transpose(0, 2, 3, 1), np.float32)
        yield f"Caffe, `{name}`", *_found(open_run(run, "cpu").net, rgb, expected)


def of_cuda_convnet(folder: Path) -> Iterator[Row]:
    """A saved model of convolutions, one of them in groups, a local and a dense layer."""
    weights = model_weights()
    (folder / "model").write_bytes(saved(weights, True))
    found = test_paper_program.imported_model(folder)
    net = net_of(found.cfg, "cpu")
    net.load_state(weights_of(folder / "model", found))
    x = np.random.default_rng(0).uniform(-128, 128, (4, 32, 32, 3)).astype(np.float32)
    expected = test_paper_program.logits(weights, x.transpose(0, 3, 1, 2).astype(np.float64))
    yield "a saved model of cuda-convnet", *_found(net, x, expected)


def onnx(folder: Path) -> Iterator[Row]:
    """Every preset at its full size, as onnxruntime computes it."""
    import onnxruntime

    for name in presets():
        cfg = load_config(name)
        classes = net_of(cfg, "cpu", sizes_only=True).classes
        run = random_run(folder / name, cfg.to_dict(), classes or 0)
        export_onnx(run, folder / "net.onnx")
        net = open_run(run, "cpu").net
        x = np.random.default_rng(0).standard_normal((1, *net.in_shape), dtype=np.float32)
        session = onnxruntime.InferenceSession(str(folder / "net.onnx"))
        given = {"image": np.ascontiguousarray(x.transpose(0, 3, 1, 2))}
        logits, chances = session.run(["logits", "probabilities"], given)
        found = _found(net, x, logits)
        yield f"`{name}` in onnxruntime", found[0], found[1], found[2], chances
        for path in (run / "checkpoints").iterdir():
            path.unlink()


def _found(net: Net, x: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, ...]:
    """Logits, those expected, probabilities, those expected."""
    loss = next(node for node in net.nodes if node.name == net.result)
    logits = net.forward(x, str(loss.inputs[0]))
    return logits, expected, net.predict(x), softmax(expected.astype(np.float64))


if __name__ == "__main__":
    main()
