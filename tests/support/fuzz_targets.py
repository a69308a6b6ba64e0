"""What fuzz_files.py attacks: for each kind of file valid ones, how to damage them, its reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attack import Attack
from fuzz_data import cifar, idx_files, images, label_lists, meta_mat, packed, pickles
from fuzz_runs import checkpoints, configs, indices, layer_definitions, metrics, overrides, runs

ATTACKS: dict[str, Callable[[Path], Attack]] = {
    "pickle": pickles,
    "cifar": cifar,
    "idx": idx_files,
    "meta.mat": meta_mat,
    "labels": label_lists,
    "picture": images,
    "packed": packed,
    "config": configs,
    "override": overrides,
    "definition": layer_definitions,
    "checkpoint": checkpoints,
    "run": runs,
    "metrics": metrics,
    "index": indices,
}
