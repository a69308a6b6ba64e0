"""A run that an earlier version began: it loads, it is measured as it was, and it trains on.

`earlier_run/` is the folder of a run that was stopped in its fifth epoch of six, as version 0.1.0
wrote it before it had subpackages; the log is left out. The data are those of `tiny.py`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny

import convnet
from convnet.cli.main import main
from convnet.config import load_config
from convnet.training.run_folder import read_metrics

EARLIER = Path(__file__).parent / "earlier_run"
BEST = max(
    (r for r in read_metrics(EARLIER / "metrics.jsonl") if r["kind"] == "epoch"),
    key=lambda record: record["val_top1"],
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # old names of keys


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EARLIER, tmp_path / "run"))


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(tiny.write_data(tmp_path / "data"))


def test_it_loads(run: Path) -> None:
    net = convnet.load(run, device="cpu")
    images, labels = tiny.images(tiny.TEST, 2)
    mean = tiny.images(tiny.TRAIN, 1)[0].mean(axis=0)
    x = ((images - mean) / 256)[..., None].astype(np.float32)
    right = 100 * (net.predict(x).argmax(axis=1) == labels).mean()
    assert right == pytest.approx(BEST["val_top1"])


def test_it_is_measured(run: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = convnet.evaluation.evaluate.evaluate(run, data=data, device="cpu")
    for name in ("loss", "top1", "top5"):
        assert found[name] == pytest.approx(BEST[f"val_{name}"], rel=1e-4)
    assert main(["eval", str(run), "--data", data, "--device", "cpu"]) == 0
    assert f"top-1 {BEST['val_top1']:.2f} %" in capsys.readouterr().out


def test_it_trains_on(run: Path, data: str) -> None:
    before = read_metrics(run / "metrics.jsonl")
    result = convnet.train(resume=run, data=data, device="cpu", quiet=True)
    assert result.status == "done"
    assert result.net.step == 6 * tiny.STEPS
    assert result.history[: len(before)] == before
    assert result.final is not None
    assert result.final["epoch"] == 6
    assert result.final["val_loss"] < BEST["val_loss"]
    cfg = load_config(run / "config.toml")
    assert cfg.net.lr_mult == {"fc2": 2.0}
    assert cfg.sgd.groups[0].momentum == 0.5
    assert [layer.name for layer in cfg.net.layers] == [node.name for node in result.net.nodes]


def test_the_name_train_is_a_function() -> None:
    """And stays one when the modules of training are imported."""
    import convnet.training.train as module

    assert convnet.train.__wrapped__ is module.train  # which it follows by the run's page
    assert callable(convnet.train)
    with pytest.raises(ModuleNotFoundError):
        __import__("convnet.train")
