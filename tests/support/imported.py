"""Definitions of cuda-convnet that are converted, and batches for the nets."""

from __future__ import annotations

import definitions as d
import numpy as np


def batch(rng: np.random.Generator, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    x = rng.standard_normal((count, 32, 32, 3), dtype=np.float32)
    return x, rng.integers(0, 10, count)


def small() -> d.Layers:
    return {
        "conv1": d.conv("data", 3, 4, stride=3),
        "pool1": d.pool("conv1", 4),
    }


def of_everything() -> d.Layers:
    """All types but the costs that want other labels."""
    return d.ended(
        {
            **small(),
            "local1": {**d.conv("pool1", 4, 2, groups=2), "type": "local"},
            "rnorm1": {"type": "rnorm", "inputs": "local1", "channels": 4, "size": 3},
            "cnorm1": {"type": "cnorm", "inputs": "rnorm1", "channels": 4, "size": 2},
            "cmrnorm1": {"type": "cmrnorm", "inputs": "cnorm1", "channels": 4, "size": 3},
            "blocked": {
                "type": "cmrnorm",
                "inputs": "cnorm1",
                "channels": 4,
                "size": 3,
                "blocked": 1,
            },
            "sum": {"type": "eltsum", "inputs": "cmrnorm1,blocked", "coeffs": "0.5,-1.5"},
            "blurred": {
                "type": "blur",
                "inputs": "sum",
                "channels": 4,
                "filterSize": 3,
                "stdev": 1,
            },
            "largest": {"type": "eltmax", "inputs": "blurred,pool1"},
            "absolute": d.pool("largest", 4, "maxabs", start=-1, sizeX=2),
            "total": d.pool("largest", 4, "avg", start=1, sum=1, outputsX=1),
            "nails": {"type": "nailbed", "inputs": "largest", "channels": 4, "stride": 2},
            "joined": {"type": "concat", "inputs": "absolute,total,nails"},
            "dropped": {"type": "dropout", "inputs": "joined"},
            "hidden": d.fc("dropped", 12, neuron="logistic"),
            "again": {"type": "dropout2", "inputs": "hidden", "keep": 0.75},
            "older": {"type": "hs", "inputs": "again", "keep": 0.5},
            "some": {"type": "softmax", "inputs": "older"},
            "passed": {"type": "pass", "inputs": "some,again"},
            "half": {"type": "neuron", "inputs": "passed", "neuron": "linear[2,0]"},
        },
        "half",
    )
