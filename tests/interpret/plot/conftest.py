"""Runs that the pictures are of."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import trees

from convnet.training.train import train


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
