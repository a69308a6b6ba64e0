"""A definition of cuda-convnet, trained on folders of classes."""

from __future__ import annotations

from pathlib import Path

import definitions as d
import numpy as np
from PIL import Image

from convnet.cli.main import main
from convnet.evaluation.predict import predict


def test_imported_nets_train_on_folders_of_classes(tmp_path: Path, capsys) -> None:
    """Which are of another number than the definition's: the error names the setting."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog", "猫")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for copy in range(20):
            pixels = rng.integers(0, 90, (16, 16, 3)) + 150 * np.eye(3, dtype=int)[number]
            Image.fromarray(pixels.astype(np.uint8)).save(
                tmp_path / "images" / name / f"{copy}.png"
            )
    layers = d.ended({"conv1": d.conv("data", 3, 8, neuron="relu")}, "conv1")
    files, out = d.write(tmp_path, layers), str(tmp_path / "net.toml")
    options = ["--source", "folder", "--size", "16", "--batch", "10", "--epochs", "5", "-o", out]
    assert main(["import", "cuda-convnet", *map(str, files), *options]) == 0
    command = ["train", out, "--data", str(tmp_path / "images"), "--device", "cpu"]
    run = str(tmp_path / "run")
    assert main([*command, "--run-dir", run]) == 2
    setting = "net.layers.fc10.units=3"
    assert f"got 10 (--set {setting})" in capsys.readouterr().err
    assert (
        main([*command, "--run-dir", run, "--set", setting, "--set", "data.val_fraction=0.3"]) == 0
    )
    found = predict(run, [tmp_path / "images" / "猫" / "0.png"], "cpu")[0]
    assert found.classes[0] == "猫"
