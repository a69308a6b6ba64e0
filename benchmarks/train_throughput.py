"""Images per second of whole training steps: convnet and, where it is installed, PyTorch.

    python benchmarks/train_throughput.py [PRESET] [--batch 128] [--rounds 20] [--device cpu]
        [--precision fp32,tf32,bf16] [--peers eager,compile] [--set net.options.lrn=false]
        [--infer] [--memory]

Both train the same net from the same weights on the same batch (forward, backward, SGD with
momentum and weight decay); the outputs are compared first. Contenders take turns within one run,
and medians are compared, with the fastest of PyTorch's: eager and compiled, each in two memory
layouts (`peer_steps.py`). The precisions come one after the other, PyTorch in the precision of
convnet's. A contender that does not compile is a row that says so; the time it takes to compile is
printed, and is not in the steps. With `--infer` they give probabilities: convnet by
`net.inference`, whose filters are prepared once, and besides by `net.predict`. `--json FILE` keeps
the figures with the versions and the machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import provenance
from conv_throughput import PRECISIONS, modes
from timing import interleaved, spread

import convnet
from convnet.backend import Backend
from convnet.config import Config, load_config
from convnet.training.nets import build_net

KINDS = ("eager", "compile")
OWN = ("convnet", "convnet predict")  # the second with --infer


def main() -> None:
    args = parse()
    backend = convnet.backend.get(args.device)
    if backend.name == "cpu":
        convnet.backend.set_threads(args.threads)
    with convnet.backend.use(backend):
        run(args, backend)


def run(args: argparse.Namespace, backend: Backend) -> None:
    cfg = load_config(args.preset, overrides=args.set)
    if args.alone:
        name, precision = args.alone
        print(json.dumps(peak_memory(name, args, with_precision(args, precision), backend)))
        return
    print(f"device  {backend.describe()}")
    precisions = modes(args.precision or cfg.train.precision)
    peers = peer_names(args, backend)
    runs: list[dict[str, Any]] = []
    for precision in precisions:
        runs.append(measured(args, with_precision(args, precision), backend, peers))
        if args.json:  # what there is so far, should a later one fail
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(record(runs, args, backend), indent=2) + "\n")
    for each in runs:
        print(verdict(each))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("preset", nargs="?", default="fashion-mnist")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument(
        "--image", "--picture", type=_sizes, default=(28, 28, 1), help="H,W,C of the data"
    )
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument(
        "--precision",
        "--math",
        help=f"comma list of {', '.join(PRECISIONS)}; default: the preset's train.precision",
    )
    parser.add_argument(
        "--peers", help="comma list of eager, compile; default: both on a GPU, else eager"
    )
    parser.add_argument("--infer", action="store_true", help="probabilities instead of steps")
    parser.add_argument("--memory", action="store_true", help="also the peak memory of each, alone")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--json", type=Path)
    # The process that --memory looks at.
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for text, choices in ((args.precision, PRECISIONS), (args.peers, KINDS)):
        for name in filter(None, (text or "").split(",")):
            if name not in choices:
                parser.error(f"expected some of {', '.join(choices)}, got {name!r}")
    return args


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(","))


def with_precision(args: argparse.Namespace, precision: str) -> Config:
    return load_config(args.preset, overrides=[*args.set, f"train.precision={precision}"])


def peer_names(args: argparse.Namespace, backend: Backend) -> list[str]:
    """Of PyTorch's contenders; what they are, and what is left out, is printed."""
    if importlib.util.find_spec("torch") is None:
        print("peer    none: PyTorch is not installed")
        return []
    import peer_steps

    kinds = args.peers or ("eager,compile" if backend.name == "cuda" else "eager")
    kinds = kinds.split(",")
    note = "" if args.peers or backend.name == "cuda" else "; --peers eager,compile has both"
    print(f"peer    {peer_steps.describe(backend.name)}: {' and '.join(kinds)}{note}")
    return peer_steps.names(kinds)


# ---- contenders ---------------------------------------------------------------------------------


def measured(
    args: argparse.Namespace, cfg: Config, backend: Backend, peers: list[str]
) -> dict[str, Any]:
    """The table of one precision, printed and as a record."""
    precision = cfg.train.precision
    net = build_net(cfg, args.image, args.classes, backend.device)
    batch = make_batch(args, net)
    print(
        f"\nnet     {args.preset}, {net.parameter_count:,} parameters, "
        f"batch {args.batch}, {precision}"
    )
    rows: dict[str, dict[str, Any]] = {}
    contenders: dict[str, Callable[[], object]] = {}
    for name in peers:
        import peer_steps

        try:
            peer = peer_steps.peer(name, net, batch, precision, rates(cfg), args.infer)
        except peer_steps.PeerError as error:
            rows[name] = {"failed": str(error)}
            continue
        contenders[name] = peer.run
        rows[name] = {} if peer.compile_s is None else {"compile_s": peer.compile_s}
    for name in OWN if args.infer else OWN[:1]:
        contenders[name] = own_contender(name, net, batch, args, cfg, backend)
        rows[name] = {}
    for name, seconds in interleaved(contenders, args.rounds).items():
        rows[name] |= figures(seconds, args, net)
        if args.memory:
            rows[name]["peak_mib"] = alone(name, precision) / 2**20
    table(rows, args)
    how = "" if args.infer else net.programs.describe()
    print(f"convnet's steps: {how}" if how else "", flush=True)
    if peers:
        peer_steps.forget()
    return {"precision": precision, "steps": how, "results": rows}


def rates(cfg: Config) -> tuple[float, float, float]:
    return cfg.sgd.lr, cfg.sgd.momentum, cfg.sgd.weight_decay


def make_batch(args: argparse.Namespace, net: convnet.Net) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((args.batch, *net.in_shape), dtype=np.float32)
    return x, rng.integers(0, args.classes, args.batch).astype(np.int32)


def own_contender(
    name: str,
    net: convnet.Net,
    batch: tuple,
    args: argparse.Namespace,
    cfg: Config,
    backend: Backend,
) -> Callable[[], object]:
    x, labels = map(backend.asarray, batch)
    if args.infer and name == "convnet":
        infer = net.inference(len(x))
        return lambda: infer(x)
    if args.infer:
        return lambda: net.predict(x, batch=len(x))
    sgd = convnet.SGD(net.params, *rates(cfg))

    def step() -> None:
        net.train_step(x, labels, sgd)
        backend.synchronize()

    return step


# ---- memory -------------------------------------------------------------------------------------


def alone(name: str, precision: str) -> int:
    """The peak memory of one contender in a process of its own."""
    command = [sys.executable, *sys.argv, "--alone", name, precision]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


def peak_memory(name: str, args: argparse.Namespace, cfg: Config, backend: Backend) -> int:
    """Bytes at the peak of three steps, beyond what the process held once all was imported.

    On the CPU what Linux has resident; on a GPU what was taken of its memory.
    """
    if name not in OWN:
        import peer_steps
    before = _resident("VmRSS")
    net = build_net(cfg, args.image, args.classes, backend.device)
    batch = make_batch(args, net)
    if name in OWN:
        step = own_contender(name, net, batch, args, cfg, backend)
    else:
        step = peer_steps.peer(name, net, batch, cfg.train.precision, rates(cfg), args.infer).run
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


# ---- reporting ----------------------------------------------------------------------------------


def figures(seconds: list[float], args: argparse.Namespace, net: convnet.Net) -> dict[str, float]:
    low, middle, high = spread(seconds)
    rate = args.batch / middle
    # Forward, and twice that for the gradients of inputs and weights; the first layer needs no
    # input gradient, so this overstates a little, equally for all.
    gflops = (1 if args.infer else 3) * 2 * net.macs * rate / 1e9
    return {
        "ms": middle * 1e3,
        "q1_ms": low * 1e3,
        "q3_ms": high * 1e3,
        "images_per_s": rate,
        "gflops": gflops,
    }


def table(rows: dict[str, dict[str, Any]], args: argparse.Namespace) -> None:
    what = "batch" if args.infer else "step"
    memory = f"{'peak MiB':>10}" if args.memory else ""
    head = f"{'':24}{'ms/' + what:>10}{'quartiles':>20}{'images/s':>12}{'GFLOP/s':>10}{memory}"
    print(f"{head}{'compile s':>11}" if any("compile_s" in row for row in rows.values()) else head)
    for name, row in rows.items():
        if "failed" in row:
            print(f"{name:24}failed: {row['failed']}")
            continue
        quartiles = f"{row['q1_ms']:.2f} - {row['q3_ms']:.2f}"
        text = f"{name:24}{row['ms']:10.2f}{quartiles:>20}{row['images_per_s']:12.0f}"
        text += f"{row['gflops']:10.0f}"
        text += f"{row['peak_mib']:10,.0f}" if "peak_mib" in row else ""
        text += f"{row['compile_s']:11.1f}" if "compile_s" in row else ""
        print(text)


def verdict(run: dict[str, Any]) -> str:
    """The ratio to the fastest of PyTorch's contenders, or that there is none."""
    rows = run["results"]
    peers = {name: r["ms"] for name, r in rows.items() if name not in OWN and "ms" in r}
    if not peers:
        return f"{run['precision']}: nothing to compare with"
    best = min(peers, key=peers.__getitem__)
    ratio = peers[best] / rows["convnet"]["ms"]
    return (
        f"{run['precision']}: convnet is {ratio:.2f}x as fast as {best}, the fastest of PyTorch's"
    )


def record(runs: list[dict], args: argparse.Namespace, backend: Backend) -> dict[str, Any]:
    """The figures with all that is needed to repeat them."""
    return {
        "benchmark": "train_throughput",
        "preset": args.preset,
        "image": list(args.image),
        "classes": args.classes,
        "set": args.set,
        "peers": args.peers or "",
        "work": "inference" if args.infer else "training step",
        "batch": args.batch,
        "rounds": args.rounds,
        "device": backend.describe(),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "runs": runs,
    }


if __name__ == "__main__":
    main()
