"""Training steps and inference of two versions of convnet, each in an environment of its own.

    python benchmarks/two_versions.py OLD_PYTHON [NEW_PYTHON] [--nets alexnet,cifar10-quick]
        [--batch 128,16] [--rounds 9] [--threads 2] [--json FILE]

OLD_PYTHON and NEW_PYTHON (by default this one) are interpreters with a version installed. Both make
the nets of the presets, and take turns within one run: a turn is some calls that last a tenth of a
second together, or one. Medians are compared. Then, for each version by itself: the peak memory of
a process that makes three steps of the first net at the first batch size, and how many Python
frames come between `net.train_step` and the first operation in a step that runs again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import provenance
from timing import spread

NETS = "alexnet,fashion-mnist,cifar10-80sec,cifar10-quick"
IMAGES = {"alexnet": (256, 256, 3), "fashion-mnist": (28, 28, 1)}  # (32, 32, 3) of the others

# What a process of either version runs: makes a net, and then a turn for every line that it reads.
WORKER = """
import json, resource, sys, time
import numpy as np
import convnet
from convnet.config import load_config
try:
    from convnet.training.nets import build_net
except ImportError:  # before there were subpackages
    from convnet.build import build_net
task = json.loads(sys.argv[1])
convnet.backend.set_threads(task["threads"])
cfg = load_config(task["net"], overrides=task["set"])
net = build_net(cfg, tuple(task["image"]), task["classes"], "cpu")
sgd = convnet.SGD(net.params, lr=1e-4, momentum=0.9, weight_decay=5e-4)
rng = np.random.default_rng(1)
x = rng.standard_normal((task["batch"], *net.in_shape), dtype=np.float32)
labels = rng.integers(0, task["classes"], task["batch"]).astype(np.int32)

def step():
    return net.train_step(x, labels, sgd)

def frames():
    found = []
    def saw(frame, event, called):
        owner = getattr(called, "__self__", None)
        modules = getattr(called, "__module__", None), type(owner).__module__
        if event == "call":
            found.append(frame.f_code.co_name)
        elif event == "c_call" and called.__name__ != "thread_count":  # which is only asked
            if any(str(each).startswith("convnet") for each in modules):
                sys.setprofile(None)
    sys.setprofile(saw)
    try:
        step()
    finally:
        sys.setprofile(None)
    return len(found)

if task["kind"] == "infer":
    prepared = getattr(net, "inference", None)
    infer = prepared(task["batch"]) if prepared else net.predict
    call = lambda: infer(x)
else:
    call = step
for _ in range(3):
    call()
if task["kind"] == "alone":
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak": peak, "frames": frames()}), flush=True)
    sys.exit()
start = time.perf_counter()
call()
calls = max(1, int(0.1 / (time.perf_counter() - start)))
print(calls, flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    print((time.perf_counter() - start) / calls, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", metavar="OLD_PYTHON")
    parser.add_argument("new", metavar="NEW_PYTHON", nargs="?", default=sys.executable)
    parser.add_argument("--nets", default=NETS, help="comma list of presets")
    parser.add_argument("--batch", default="128,16", help="comma list")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    versions = {"old": args.old, "new": args.new}
    batches = [int(size) for size in args.batch.split(",")]
    rows = []
    for net in args.nets.split(","):
        tasks = [task(net, "step", size, args.threads) for size in batches]
        if net == "alexnet":
            tasks.append(task(net, "infer", 1, args.threads) | {"set": ["net.options.lrn=false"]})
        for each in tasks:
            times = in_turns(versions, each, args.rounds)
            row = {"net": net, "kind": each["kind"], "batch": each["batch"], "seconds": times}
            rows.append(row)
            print(line(row), flush=True)
    memory = task(args.nets.split(",")[0], "alone", batches[0], args.threads)
    alone = {name: json.loads(run_worker(python, memory)) for name, python in versions.items()}
    for name, found in alone.items():
        print(f"{name}: peak {found['peak'] / 2**20:,.0f} MiB, {found['frames']} Python frames")
    if args.json:
        record = {"rows": rows, "alone": alone, "commit": provenance.commit()}
        record |= {"versions": provenance.versions(), "threads": args.threads}
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def task(net: str, kind: str, batch: int, threads: int) -> dict[str, Any]:
    """What a worker is told."""
    image = IMAGES.get(net, (32, 32, 3))
    classes = 1000 if net == "alexnet" else 10
    found = {"net": net, "kind": kind, "batch": batch, "threads": threads, "set": []}
    return found | {"image": image, "classes": classes}


def in_turns(versions: dict[str, str], each: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Seconds of a call by version and turn."""
    workers = {name: start_worker(python, each) for name, python in versions.items()}
    try:
        times: dict[str, list[float]] = {name: [] for name in workers}
        for worker in workers.values():
            read(worker)  # the number of calls in a turn: it is ready
        for _ in range(rounds):
            for name, worker in workers.items():
                assert worker.stdin is not None
                worker.stdin.write("\n")
                worker.stdin.flush()
                times[name].append(float(read(worker)))
        return times
    finally:
        for worker in workers.values():
            worker.kill()
            worker.communicate()


def start_worker(python: str, each: dict[str, Any]) -> subprocess.Popen[str]:
    """A process of a version, which runs a turn for each line."""
    command = [python, "-W", "ignore", "-c", WORKER, json.dumps(each)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd="/")


def run_worker(python: str, each: dict[str, Any]) -> str:
    """What a worker prints that takes no turns."""
    with start_worker(python, each) as worker:
        return read(worker)


def read(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    found = worker.stdout.readline()
    if not found:
        raise SystemExit(f"two_versions: {worker.args[0]} ended early")  # type: ignore[index]
    return found


def line(row: dict[str, Any]) -> str:
    """Medians of a row, and their ratio."""
    low, middle, high = zip(*(spread(times) for times in row["seconds"].values()), strict=True)
    text = f"{row['net']:15} {row['kind']:6} {row['batch']:4}"
    for at in range(len(middle)):
        text += f" {1e3 * middle[at]:9.2f} ms ({1e3 * low[at]:.2f} - {1e3 * high[at]:.2f})"
    return f"{text}  {middle[0] / middle[1]:.2f}x"


if __name__ == "__main__":
    main()
