"""What fewer multiplications cost in accuracy: convolutions on the CPU against float64.

    python benchmarks/winograd_error.py

Prints the relative L2 error of direct sums (CONVNET_WINOGRAD=off) and of Winograd's algorithm.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

import reference
from cases import ConvCase

from convnet import ops

CASES = (
    ConvCase("conv1, 8 of its filters", 64, 59, 59, 3, 8, 11, 11, (4, 4), rounding="ceil"),
    ConvCase("conv2", 16, 27, 27, 96, 256, 5, 5, pad=(2, 2), groups=2),
    ConvCase("conv3", 32, 13, 13, 256, 384, 3, 3, pad=(1, 1)),
)


def main() -> None:
    print(f"{'':26}{'pass':8}{'direct':>10}{'Winograd':>10}")
    for case in CASES:
        rng = np.random.default_rng(0)
        x = np.maximum(rng.standard_normal(case.x_shape, dtype=np.float32), 0)
        w = rng.standard_normal(case.w_shape, dtype=np.float32)
        w /= np.sqrt(np.float32(w[0].size))
        dy = rng.standard_normal(case.y_shape, dtype=np.float32)
        exact = all_passes(reference, case, x, w, dy)
        direct, fewer = (computed(mode, case, x, w, dy) for mode in ("off", "always"))
        for name in exact:
            errors = [relative(results[name], exact[name]) for results in (direct, fewer)]
            print(f"{case.name:26}{name:8}{errors[0]:10.1e}{errors[1]:10.1e}", flush=True)


def computed(
    mode: str, case: ConvCase, x: np.ndarray, w: np.ndarray, dy: np.ndarray
) -> dict[str, np.ndarray]:
    os.environ["CONVNET_WINOGRAD"] = mode
    return all_passes(ops, case, x, w, dy)


def all_passes(
    library: object, case: ConvCase, x: np.ndarray, w: np.ndarray, dy: np.ndarray
) -> dict[str, np.ndarray]:
    bias = np.zeros(case.k, np.float32)
    return {
        "fprop": library.conv_fprop(x, w, bias, **case.options),
        "dgrad": library.conv_dgrad(dy, w, case.x_shape, **case.options),
        "wgrad": library.conv_wgrad(x, dy, case.w_shape, **case.options)[0],
    }


def relative(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.sqrt(np.square(found - exact).sum() / np.square(exact).sum()))


if __name__ == "__main__":
    main()
