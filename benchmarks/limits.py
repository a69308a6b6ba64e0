"""What the machine can do at most: copies and matrix products, measured in the run that uses them.

python benchmarks/limits.py [--device auto] [--threads 0]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from timing import interleaved

import convnet
from convnet import ops
from convnet.backend import Backend

COPY_BYTES = 256 << 20  # far more than any cache holds
SQUARE, BATCH = 3072, 2048  # of the matrix product
TINY = 64  # the virtual GPU rehearses: bytes and sides that many times smaller


@dataclass(frozen=True)
class Limits:
    """GB/s of a copy (bytes read plus bytes written), GFLOP/s of the fastest matrix product, and
    which one that was."""

    copy: float
    gemm: float
    gemm_by: str

    def __str__(self) -> str:
        return f"copy {self.copy:.1f} GB/s, matrix product {self.gemm:.0f} GFLOP/s ({self.gemm_by})"


def measure(backend: Backend, rounds: int = 5, precision: str = "fp32") -> Limits:
    """The limits of this device, now: of several ways to do it, the fastest median, and of a
    matrix product in `precision`."""
    scale = TINY if backend.name == "vgpu" else 1
    copied, square, batch = COPY_BYTES // scale, SQUARE // scale, BATCH // scale
    copies = interleaved(_copies(backend, copied), rounds)
    fastest_copy = min(statistics.median(seconds) for seconds in copies.values())
    rates = {
        name: 2.0 * square * square * batch / statistics.median(seconds) / 1e9
        for name, seconds in interleaved(
            _products(backend, batch, square, precision), rounds
        ).items()
    }
    best = max(rates, key=rates.__getitem__)
    return Limits(2 * copied / fastest_copy / 1e9, rates[best], best)


def _copies(backend: Backend, size: int) -> dict[str, Callable[[], object]]:
    # Rows of 4096 floats, as peer_copy copies them over the same threads that kernels run on.
    # Both are written first: memory that never was may be one page of zeros, in the cache.
    source, target = (
        backend.empty((size // 4 // 4096, 4096)),
        backend.empty((size // 4 // 4096, 4096)),
    )
    source.fill(1.0)
    target.fill(0.0)

    def copy() -> None:
        ops.peer_copy(target, source)
        backend.synchronize()

    def library() -> None:
        target[...] = source
        backend.synchronize()

    return {"convnet": copy, backend.xp.__name__: library}


def _products(
    backend: Backend, batch: int, square: int, precision: str
) -> dict[str, Callable[[], object]]:
    rng = np.random.default_rng(0)
    x_host = rng.standard_normal((batch, square), dtype=np.float32)
    w_host = rng.standard_normal((square, square), dtype=np.float32)
    x, w = backend.asarray(x_host), backend.asarray(w_host)
    y = backend.empty((batch, square))

    def own() -> None:
        ops.dense_fprop(x, w, precision=precision, out=y)
        backend.synchronize()

    def library() -> None:
        backend.xp.matmul(x, w.T, out=y)
        backend.synchronize()

    products: dict[str, Callable[[], object]] = {"convnet's dense layer": own}
    if precision in ("fp32", "ffma"):
        products[backend.xp.__name__] = library
    if importlib.util.find_spec("torch") is not None:
        import torch

        device = f"cuda:{backend.index}" if backend.name == "cuda" else "cpu"
        torch_x, torch_w = (torch.from_numpy(a).to(device) for a in (x_host, w_host))
        torch_y = torch.empty((batch, square), device=device)
        if precision == "bf16":
            torch_x, torch_w, torch_y = (a.bfloat16() for a in (torch_x, torch_w, torch_y))

        def peer() -> None:
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            torch.mm(torch_x, torch_w.T, out=torch_y)
            if device != "cpu":
                torch.cuda.synchronize()

        products["PyTorch"] = peer
    return products


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    args = parser.parse_args()
    backend = convnet.backend.get(args.device)
    if backend.name == "cpu":
        convnet.backend.set_threads(args.threads)
    print(f"device  {backend.describe()}")
    print(f"limits  {measure(backend)}")


if __name__ == "__main__":
    main()
