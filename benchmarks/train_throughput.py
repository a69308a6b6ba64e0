"""Images per second of whole training steps: convnet and, where it is installed, PyTorch.

    python benchmarks/train_throughput.py [PRESET] [--batch 128] [--rounds 20] [--device cpu]

Both train the same net from the same weights on the same batch (forward, backward, SGD with
momentum and weight decay); the outputs are compared first. Contenders take turns within one run,
and medians are compared, PyTorch in its better layout. `--json FILE` keeps the figures with the
versions and the machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from timing import interleaved, spread

import convnet
from convnet.build import build_net
from convnet.config import load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("preset", nargs="?", default="fashion-mnist")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--picture", default="28,28,1", help="H,W,C of the data")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    cfg = load_config(args.preset)
    picture = tuple(int(size) for size in args.picture.split(","))
    backend = convnet.backend.get(args.device)
    if backend.name == "cpu":
        convnet.backend.set_threads(args.threads)
    net = build_net(cfg, picture, args.classes, backend.device)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((args.batch, *net.in_shape), dtype=np.float32)
    labels = rng.integers(0, args.classes, args.batch).astype(np.int32)
    print(f"device  {backend.describe()}")
    print(f"net     {args.preset}, {net.parameter_count:,} parameters, batch {args.batch}")

    contenders: dict[str, Callable[[], object]] = {}
    if importlib.util.find_spec("torch") is None:
        print("peer    none: PyTorch is not installed")
    else:
        contenders |= torch_steps(net, x, labels, cfg, backend)
    sgd = convnet.SGD(net.params, cfg.sgd.lr, cfg.sgd.momentum, cfg.sgd.weight_decay)
    device_x, device_labels = backend.asarray(x), backend.asarray(labels)

    def step() -> None:
        net.train_step(device_x, device_labels, sgd)
        backend.synchronize()

    contenders["convnet"] = step
    times = interleaved(contenders, args.rounds)
    report(times, args, net, backend)


def torch_steps(
    net: convnet.Net, x: np.ndarray, labels: np.ndarray, cfg: object, backend: object
) -> dict[str, Callable[[], object]]:
    """One PyTorch training step per memory layout, checked against `net` first."""
    import torch
    from peer_torch import torch_net

    device = "cuda" if backend.name == "cuda" else "cpu"
    if backend.name == "cpu":
        torch.set_num_threads(backend.module.thread_count())
    expected = net.predict(x[:8])
    steps: dict[str, Callable[[], object]] = {}
    for name, layout in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
        model = torch_net(net).to(device=device, memory_format=layout)
        images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        images = images.to(device=device, memory_format=layout)
        targets = torch.from_numpy(labels.astype(np.int64)).to(device)
        model.eval()
        with torch.no_grad():
            got = torch.softmax(model(images[:8]), 1).cpu().numpy()
        error = float(np.abs(got - expected).max())
        print(f"check   PyTorch {torch.__version__} {name}: largest difference {error:.1e}")
        if not error < 1e-4:
            raise SystemExit("the nets do not compute the same; nothing was timed")
        model.train()
        optimizer = torch.optim.SGD(
            model.parameters(),
            cfg.sgd.lr,
            momentum=cfg.sgd.momentum,
            weight_decay=cfg.sgd.weight_decay,
        )
        steps[f"PyTorch {name}"] = _step(model, images, targets, optimizer)
    return steps


def _step(model: object, images: object, targets: object, optimizer: object) -> Callable[[], None]:
    import torch

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def report(
    times: dict[str, list[float]], args: argparse.Namespace, net: convnet.Net, backend: object
) -> None:
    rows = {}
    print(f"\n{'':16}{'ms/step':>10}{'quartiles':>20}{'images/s':>12}{'GFLOP/s':>10}")
    for name, seconds in times.items():
        low, middle, high = spread(seconds)
        rate = args.batch / middle
        # Forward, and twice that for the gradients of inputs and weights; the first layer needs no
        # input gradient, so this overstates a little, equally for all.
        gflops = 3 * 2 * net.macs * rate / 1e9
        rows[name] = {
            "ms": middle * 1e3,
            "q1_ms": low * 1e3,
            "q3_ms": high * 1e3,
            "images_per_s": rate,
        }
        quartiles = f"{low * 1e3:.1f} - {high * 1e3:.1f}"
        print(f"{name:16}{middle * 1e3:10.1f}{quartiles:>20}{rate:12.0f}{gflops:10.0f}")
    peers = {name: row["ms"] for name, row in rows.items() if name != "convnet"}
    if peers:
        best = min(peers, key=peers.__getitem__)
        ratio = peers[best] / rows["convnet"]["ms"]
        print(f"\nconvnet is {ratio:.2f}x as fast as {best}, the faster of PyTorch's layouts")
    if args.json:
        args.json.write_text(json.dumps(record(rows, args, backend), indent=2) + "\n")


def record(rows: dict, args: argparse.Namespace, backend: object) -> dict:
    """The figures with all that is needed to repeat them."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    if importlib.util.find_spec("torch") is not None:
        import torch

        versions["torch"] = torch.__version__
    return {
        "benchmark": "train_throughput",
        "preset": args.preset,
        "batch": args.batch,
        "rounds": args.rounds,
        "device": backend.describe(),
        "commit": commit,
        "versions": versions,
        "results": rows,
    }


if __name__ == "__main__":
    main()
