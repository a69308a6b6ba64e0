"""Runs whose activations are stored as bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny
from runs import assert_same_end, newest

from convnet.backend import Backend
from convnet.evaluation.evaluate import evaluate
from convnet.training.checkpoint import read
from convnet.training.train import train


def test_a_run_in_bf16_learns_and_is_resumed_to_the_bit(tmp_path: Path, backend: Backend) -> None:
    device = backend.name
    cfg = tiny.config(tiny.write_data(tmp_path / "data"), train={"precision": "bf16"})
    run_dir, whole = tmp_path / "run", tmp_path / "whole"
    train(cfg, device=device, run_dir=run_dir, epochs=2, quiet=True)
    train(resume=run_dir, device=device, epochs=4, quiet=True)
    result = train(cfg, device=device, run_dir=whole, epochs=4, quiet=True)
    assert_same_end(run_dir, whole)
    assert str(result.net.stored) == "bfloat16"
    assert {array.dtype for array in read(newest(whole)).arrays.values()} >= {np.dtype(np.float32)}
    assert result.final is not None
    assert result.final["val_top1"] > 60
    assert evaluate(whole, device=device)["top1"] > 60
