"""Images per second of whole training steps: convnet and, where it is installed, PyTorch.

    python benchmarks/train_throughput.py [PRESET] [--batch 128] [--rounds 20] [--device cpu]
        [--set net.options.lrn=false] [--infer] [--memory]

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
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from timing import interleaved, spread

import convnet
from convnet.build import build_net
from convnet.config import load_config

LAYOUTS = ("PyTorch NCHW", "PyTorch NHWC")


def main() -> None:
    args = parse()
    cfg = load_config(args.preset, overrides=args.set)
    backend = convnet.backend.get(args.device)
    if backend.name == "cpu":
        convnet.backend.set_threads(args.threads)
    if args.alone:
        print(json.dumps(peak_memory(args.alone, args, cfg, backend)))
        return
    net = build_net(cfg, args.picture, args.classes, backend.device)
    print(f"device  {backend.describe()}")
    print(f"net     {args.preset}, {net.parameter_count:,} parameters, batch {args.batch}")
    batch = make_batch(args, net)
    contenders: dict[str, Callable[[], object]] = {}
    if importlib.util.find_spec("torch") is None:
        print("peer    none: PyTorch is not installed")
    else:
        for name in LAYOUTS:
            contenders[name] = torch_contender(name, net, batch, args, cfg, backend)
    contenders["convnet"] = own_contender(net, batch, args, cfg, backend)
    times = interleaved(contenders, args.rounds)
    peaks = {}
    if args.memory:
        peaks = {name: alone(name) for name in contenders}
    report(times, peaks, args, net, backend)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("preset", nargs="?", default="fashion-mnist")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--picture", type=_sizes, default=(28, 28, 1), help="H,W,C of the data")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--infer", action="store_true", help="probabilities instead of steps")
    parser.add_argument("--memory", action="store_true", help="also the peak memory of each, alone")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # the process that --memory looks at
    return parser.parse_args()


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(","))


def make_batch(args: argparse.Namespace, net: convnet.Net) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((args.batch, *net.in_shape), dtype=np.float32)
    return x, rng.integers(0, args.classes, args.batch).astype(np.int32)


def own_contender(
    net: convnet.Net, batch: tuple, args: argparse.Namespace, cfg: Any, backend: Any
) -> Callable[[], object]:
    x, labels = map(backend.asarray, batch)
    if args.infer:
        return lambda: net.predict(x, batch=len(x))
    sgd = convnet.SGD(net.params, cfg.sgd.lr, cfg.sgd.momentum, cfg.sgd.weight_decay)

    def step() -> None:
        net.train_step(x, labels, sgd)
        backend.synchronize()

    return step


def torch_contender(
    name: str, net: convnet.Net, batch: tuple, args: argparse.Namespace, cfg: Any, backend: Any
) -> Callable[[], object]:
    """A training step (or inference) of PyTorch in one memory layout, checked against `net`."""
    import torch
    from peer_torch import torch_net

    x, labels = batch
    device = "cuda" if backend.name == "cuda" else "cpu"
    if backend.name == "cpu":
        torch.set_num_threads(backend.module.thread_count())
    layout = torch.channels_last if name.endswith("NHWC") else torch.contiguous_format
    model = torch_net(net).to(device=device, memory_format=layout)
    images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    images = images.to(device=device, memory_format=layout)
    targets = torch.from_numpy(labels.astype(np.int64)).to(device)
    model.eval()

    def infer(images: Any = images) -> np.ndarray:
        with torch.inference_mode():
            return torch.softmax(model(images), 1).cpu().numpy()

    error = float(np.abs(infer(images[:8]) - net.predict(x[:8])).max())
    print(f"check   {name} {torch.__version__}: largest difference {error:.1e}", file=sys.stderr)
    if not error < 1e-4:
        raise SystemExit("the nets do not compute the same; nothing was timed")
    if args.infer:
        return infer
    model.train()
    optimizer = torch.optim.SGD(
        model.parameters(), cfg.sgd.lr, momentum=cfg.sgd.momentum, weight_decay=cfg.sgd.weight_decay
    )
    return _step(model, images, targets, optimizer)


def alone(name: str) -> int:
    """The peak memory of one contender in a process of its own."""
    done = subprocess.run(
        [sys.executable, *sys.argv, "--alone", name], check=True, capture_output=True, text=True
    )
    return int(json.loads(done.stdout.splitlines()[-1]))


def peak_memory(name: str, args: argparse.Namespace, cfg: Any, backend: Any) -> int:
    """Bytes at the peak of three steps, beyond what the process held once all was imported.

    On the CPU what Linux has resident; on a GPU what was taken of its memory.
    """
    if name != "convnet":
        import peer_torch  # noqa: F401
    before = _resident("VmRSS")
    net = build_net(cfg, args.picture, args.classes, backend.device)
    batch = make_batch(args, net)
    if name == "convnet":
        step = own_contender(net, batch, args, cfg, backend)
    else:
        step = torch_contender(name, net, batch, args, cfg, backend)
        del net
    if backend.name == "cuda":
        return _peak_of_gpu(step)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    for _ in range(3):
        step()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    raise SystemExit(f"/proc/self/status: expected a line {field}")


def _peak_of_gpu(step: Callable[[], object]) -> int:
    """Bytes of the whole GPU in use after three steps; both sides keep what they have taken."""
    import cupy

    for _ in range(3):
        step()
    free, total = cupy.cuda.runtime.memGetInfo()
    return int(total - free)


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
    times: dict[str, list[float]],
    peaks: dict[str, int],
    args: argparse.Namespace,
    net: convnet.Net,
    backend: Any,
) -> None:
    rows: dict[str, dict[str, float]] = {}
    what = "batch" if args.infer else "step"
    memory = f"{'peak MiB':>10}" if peaks else ""
    print(f"\n{'':16}{'ms/' + what:>10}{'quartiles':>20}{'images/s':>12}{'GFLOP/s':>10}{memory}")
    for name, seconds in times.items():
        low, middle, high = spread(seconds)
        rate = args.batch / middle
        # Forward, and twice that for the gradients of inputs and weights; the first layer needs no
        # input gradient, so this overstates a little, equally for all.
        gflops = (1 if args.infer else 3) * 2 * net.macs * rate / 1e9
        rows[name] = {
            "ms": middle * 1e3,
            "q1_ms": low * 1e3,
            "q3_ms": high * 1e3,
            "images_per_s": rate,
        }
        peak = ""
        if peaks:
            rows[name]["peak_mib"] = peaks[name] / 2**20
            peak = f"{peaks[name] / 2**20:10,.0f}"
        quartiles = f"{low * 1e3:.1f} - {high * 1e3:.1f}"
        print(f"{name:16}{middle * 1e3:10.1f}{quartiles:>20}{rate:12.0f}{gflops:10.0f}{peak}")
    peers = {name: row["ms"] for name, row in rows.items() if name != "convnet"}
    if peers:
        best = min(peers, key=peers.__getitem__)
        ratio = peers[best] / rows["convnet"]["ms"]
        print(f"\nconvnet is {ratio:.2f}x as fast as {best}, the faster of PyTorch's layouts")
    if args.json:
        args.json.write_text(json.dumps(record(rows, args, backend), indent=2) + "\n")


def record(rows: dict, args: argparse.Namespace, backend: Any) -> dict:
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
        "picture": list(args.picture),
        "classes": args.classes,
        "set": args.set,
        "work": "inference" if args.infer else "training step",
        "batch": args.batch,
        "rounds": args.rounds,
        "device": backend.describe(),
        "commit": commit,
        "versions": versions,
        "results": rows,
    }


if __name__ == "__main__":
    main()
