"""How fast each convolution is: against the machine's limits and against PyTorch.

    python benchmarks/conv_throughput.py                     # the paper's convolutions, batch 128
    python benchmarks/conv_throughput.py --net fashion-mnist --image 28,28,1
    python benchmarks/conv_throughput.py --shape 128,13,13,256,384,3,3 --pad 1
    python benchmarks/conv_throughput.py --ops lrn,maxpool,lrn_maxpool,dense
    python benchmarks/conv_throughput.py --precision fp32,tf32,bf16
    python benchmarks/conv_throughput.py --device vgpu --counters --batch 2 --gpu h200

Each pass of each layer is first checked against float64 at a sample of its results, then timed in
turns with PyTorch's two memory layouts (where PyTorch is installed; `cudnn.benchmark` is on). The
last columns are the ratio to the faster of those, and the kernel that a product takes. *limit*
is the share of what is possible: of the fastest matrix product, or for layers that only move memory
of a copy, both measured in the same run (limits.py). A turn is some calls one after the other; on a
GPU those of products are CUDA graphs, PyTorch's too, so that nothing of Python's is measured. The
first layer's dgrad is left out, as training does not need it. `--json FILE` keeps the figures,
`--plot FILE` draws a roofline.

With `--counters`, on the virtual GPU, nothing is timed: each pass runs once and what its kernels do
is counted, exactly (convnet.counters); `--gpu` adds the bound that follows for a GPU, `--lines` the
lines of the source that cost most, `--against DIR` what differs from another build (of `pip install
--target DIR`). Take a small batch: a convolution of batch 128 takes minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import limits
import provenance
from replay import Replay
from timing import interleaved, spread, turns
from work import Ready, Work
from workloads import of_net, of_shape

import convnet
from convnet import ops
from convnet.backend import Backend
from convnet.config import load_config
from convnet.counters.counts import counted
from convnet.counters.report import Report, run_build
from convnet.counters.roofline import gpu_names
from convnet.training.nets import build_net


def main() -> None:
    args = arguments()
    backend = convnet.backend.get(args.device)
    if backend.name == "cpu":
        convnet.backend.set_threads(args.threads)
    with convnet.backend.use(backend):  # NumPy arrays are the CPU's, unless it is said
        if args.counters:
            count(args, backend)
        else:
            run(args, backend)


def run(args: argparse.Namespace, backend: Backend) -> None:
    print(f"device  {backend.describe()}")
    args.precision = modes(args.precision)
    machines = {mode: limits.measure(backend, precision=mode) for mode in args.precision}
    for mode, machine in machines.items():
        print(f"limits  {mode}: {machine}")
    peers = importlib.util.find_spec("torch") is not None
    if peers:
        import peer_ops

        print(f"peer    {peer_ops.describe(backend)}")
    else:
        print("peer    none: PyTorch is not installed")
    print(f"\n{HEADER}", flush=True)
    rows = []
    replay = Replay(backend)
    for work in works(args, backend):
        rows.append(measure(work, machines[work.precision], peers, replay, args))
        print(line(rows[-1]), flush=True)
    summary(rows)
    if args.json:
        record = header(backend, machines, args) | {"rows": rows}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(record, indent=2) + "\n")
    if args.plot:
        from roofline import draw

        draw(rows, machines[args.precision[0]], backend.describe(), args.plot)


def count(args: argparse.Namespace, backend: Backend) -> None:
    """What `--counters` shows instead of times."""
    args.precision = modes(args.precision)
    report = Report(args.gpu, args.lines, print)
    for work in works(args, backend):
        ready = work.prepare()
        ready.check()  # which runs it: what is made once is made
        with counted(backend.module) as kernels:
            ready.run()
        name = f"{work.name} {work.step} {work.precision}"
        report.add(name, kernels, shape=work.text, kernel=kernel(work))
    report.close()
    record = {"benchmark": "conv_throughput --counters", "device": backend.describe()}
    record |= {"commit": provenance.commit(), "batch": args.batch, "gpu": args.gpu}
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(record | {"rows": report.rows}, indent=2) + "\n")
    if args.against:
        report.compare(rows_of(args.against))


def rows_of(build: Path) -> list[dict]:
    """The same, by another build of the package."""
    options = iter(sys.argv[1:])
    command = [str(Path(__file__).resolve())]
    for option in options:  # as given, but for the files
        if option in ("--against", "--json"):
            next(options)
        elif not option.startswith(("--against=", "--json=")):
            command.append(option)
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "rows.json"
        run_build(build, [*command, "--json", str(output)])
        return json.loads(output.read_text())["rows"]


def modes(wanted: str) -> list[str]:
    """Those of the precisions that are something of their own on the device in use."""
    found = []
    for mode in wanted.split(","):
        said = ops.precision_description(mode)
        if said.startswith("as "):
            print(f"precision {mode}: left out, {said}")
        else:
            print(f"precision {mode}: {said}")
            found.append(mode)
    if not found:
        sys.exit(f"--precision: expected a mode that this device has, got {wanted}")
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_work_arguments(parser)
    parser.add_argument("--ops", default="conv", help=f"comma list of {', '.join(KINDS)}")
    parser.add_argument(
        "--precision", "--math", default="fp32", help="comma list of fp32, ffma, tf32, bf16"
    )
    parser.add_argument("--passes", default="", help="comma list of fprop, dgrad, wgrad, bprop")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="write a plot to this file; needs matplotlib")
    parser.add_argument("--counters", action="store_true", help="count instead of timing (vgpu)")
    parser.add_argument("--gpu", choices=gpu_names(), help="with --counters: the bound on this GPU")
    parser.add_argument("--lines", type=int, default=0, help="with --counters: lines to show")
    parser.add_argument("--against", type=Path, metavar="DIR", help="with --counters: a build")
    args = parser.parse_args()
    for text, choices in ((args.ops, KINDS), (args.passes, PASSES), (args.precision, PRECISIONS)):
        for name in filter(None, text.split(",")):
            if name not in choices:
                parser.error(f"expected some of {', '.join(choices)}, got {name!r}")
    return args


def add_work_arguments(parser: argparse.ArgumentParser) -> None:
    """What is measured: for `works`, which also takes --ops, --precision and --passes."""
    parser.add_argument("--net", default="alexnet", help="a preset whose layers are measured")
    parser.add_argument("--image", "--picture", default="224,224,3", help="H,W,C of its input")
    parser.add_argument("--shape", help="instead of a net: N,H,W,C,K,R,S of one convolution")
    parser.add_argument("--stride", type=int, default=1, help="of --shape")
    parser.add_argument("--pad", type=int, default=0, help="of --shape")
    parser.add_argument("--groups", type=int, default=1, help="of --shape")
    parser.add_argument("--batch", type=int, default=128)


KINDS = ("conv", "dense", "lrn", "maxpool", "lrn_maxpool")
PASSES = ("fprop", "dgrad", "wgrad", "bprop")
PRECISIONS = ("fp32", "ffma", "tf32", "bf16")


def works(args: argparse.Namespace, backend: Backend) -> list[Work]:
    if args.shape:
        sizes = numbers(args.shape, 7, "--shape")
        found = of_shape(backend, sizes, args.stride, args.pad, args.groups, args.precision)
    else:
        image = numbers(args.image, 3, "--image")
        net = build_net(load_config(args.net), image, 1000, "cpu")
        found = of_net(backend, net, args.batch, args.ops.split(","), args.precision)
    passes = args.passes.split(",") if args.passes else PASSES
    return [work for work in found if work.step in passes]


def numbers(text: str, count: int, option: str) -> tuple[int, ...]:
    try:
        values = tuple(int(value) for value in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count or min(values) < 1:
        sys.exit(f"{option}: expected {count} positive numbers like 1,2,3, got {text!r}")
    return values


def measure(
    work: Work, machine: limits.Limits, peers: bool, replay: Replay, args: argparse.Namespace
) -> dict:
    """One row of the table. Times are medians, in milliseconds."""
    ready = work.prepare()
    error = ready.check()
    contenders = {"convnet": (ready.queue, ready.finish)}
    if peers:
        import peer_ops

        for name, call in peer_ops.contenders(work, ready).items():
            contenders[name] = call, peer_ops.finish
    once = {name: turns(*calls, 1) for name, calls in contenders.items()}
    # A short call is repeated, so that a turn lasts long enough to be timed and not to be noise.
    repeats = max(1, math.ceil(0.02 / max(interleaved(once, 1)["convnet"][0], 1e-6)))
    batches = graphs(work, ready, contenders, repeats, replay)
    captured = bool(batches)
    batches = batches or {name: turns(*calls, repeats) for name, calls in contenders.items()}
    times = {
        name: [second / repeats for second in seconds]
        for name, seconds in interleaved(batches, args.rounds, warmup=1).items()
    }
    low, middle, high = spread(times["convnet"])
    others = {name: spread(seconds)[1] for name, seconds in times.items() if name != "convnet"}
    gflops, gbytes = work.flops / middle / 1e9, work.bytes / middle / 1e9
    # What the roofline allows: the slower of computing and moving.
    least = max(work.flops / machine.gemm, work.bytes / machine.copy) / 1e9
    return {
        "layer": work.name,
        "pass": work.step,
        "precision": work.precision,
        "shape": work.text,
        "kernel": kernel(work),
        "ms": middle * 1e3,
        "q1_ms": low * 1e3,
        "q3_ms": high * 1e3,
        "gflops": gflops,
        "gbytes": gbytes,
        "flops": work.flops,
        "bytes": work.bytes,
        "limit_share": least / middle,
        "bound": "compute" if work.flops / machine.gemm > work.bytes / machine.copy else "memory",
        "error": error,
        "peers_ms": {name: seconds * 1e3 for name, seconds in others.items()},
        "turns": "CUDA graphs" if captured else "calls",
        "ratio": min(others.values()) / middle if others else None,
    }


def graphs(
    work: Work, ready: Ready, contenders: dict[str, Any], repeats: int, replay: Replay
) -> dict[str, Callable[[], object]]:
    """The turns as CUDA graphs, which are the device's time alone; of all contenders, or none."""
    if replay.problem or work.kind not in ("conv", "dense"):  # others of PyTorch's need autograd
        return {}
    found = {"convnet": replay.turn(ready.queue, repeats, 0)}
    if replay.problem:
        return {}
    for name, (call, _) in contenders.items():
        if name == "convnet":
            continue
        import peer_ops

        try:
            found[name] = peer_ops.replayed(call, repeats)
        except RuntimeError as error:
            replay.problem = str(error).strip().partition("\n")[0] or type(error).__name__
            print(f"turns   calls one by one: {name} could not be captured: {replay.problem}")
            return {}
    return found


def kernel(work: Work) -> str:
    """Which one a convolution or a dense layer takes; of other layers there is one."""
    if work.kind not in ("conv", "dense"):
        return ""
    shapes = work.shapes["x"], work.shapes["w"]
    how = {"precision": work.precision, "dtype": work.dtype}
    if work.kind == "dense":
        return ops.dense_kernel(work.step, *shapes, **how)
    return ops.conv_kernel(work.step, *shapes, **how, **work.options)


HEADER = (
    f"{'layer':9}{'pass':7}{'precision':11}{'shape':40}{'ms':>9}{'GFLOP/s':>9}{'GB/s':>7}{'limit':>13}"
    f"{'error':>9}{'NCHW ms':>10}{'NHWC ms':>10}{'ratio':>7}  kernel"
)


def line(row: dict) -> str:
    limit = f"{row['limit_share']:.0%} {row['bound']}"
    text = (
        f"{row['layer']:9}{row['pass']:7}{row['precision']:11}{row['shape']:40}{row['ms']:9.4f}{row['gflops']:9.0f}"
        f"{row['gbytes']:7.1f}{limit:>13}{row['error']:9.1e}"
    )
    for name in ("NCHW", "NHWC"):
        peer = row["peers_ms"].get(f"PyTorch {name}")
        text += f"{'-' if peer is None else format(peer, '.4f'):>10}"
    ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}x"
    return f"{text}{ratio:>7}  {row['kernel']}".rstrip()


def summary(rows: list[dict]) -> None:
    for mode in dict.fromkeys(row["precision"] for row in rows):
        of_mode = [row for row in rows if row["precision"] == mode and row["ratio"]]
        for step in (*PASSES, "all"):
            ratios = [row["ratio"] for row in of_mode if step in ("all", row["pass"])]
            if ratios:
                mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
                least = f"least {min(ratios):.2f}x"
                print(f"{mode} {step}: {mean:.2f}x PyTorch (geometric mean), {least}")


def header(backend: Backend, machines: dict[str, limits.Limits], args: argparse.Namespace) -> dict:
    machine = machines[args.precision[0]]
    return {
        "benchmark": "conv_throughput",
        "ops": args.ops,
        "device": backend.describe(),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "batch": args.batch,
        "rounds": args.rounds,
        "copy_gbytes": machine.copy,
        "gemm_gflops": machine.gemm,
        "gemm_by": machine.gemm_by,
        "gemm_gflops_of": {precision: each.gemm for precision, each in machines.items()},
    }


if __name__ == "__main__":
    main()
