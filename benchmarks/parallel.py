"""Two devices, and K processes: how much faster a step gets, and what it moves.

    python benchmarks/parallel.py devices [--device cpu:0,cpu:1 | cuda:0,cuda:1] [--net alexnet]
    mpiexec -n 1 python benchmarks/parallel.py ranks; mpiexec -n 2 ...; mpiexec -n 4 ...

`devices` trains the same net on one device and on two, in turns, and checks first that both compute
the same loss. The links are timed on their own, with the blocks of the net, and beside them a plain
copy, which is the most that the memory of one machine gives.

`ranks` prints one line for a job of K processes: the same batch whatever K, so that the lines of
several jobs show the speed-up (seconds of one process over those of K) and the efficiency (that
over K). Logical CPU devices, and processes of one machine, share its cores: there the numbers say
what the scheme costs, not what it gains.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
from timing import interleaved, spread

from convnet import backend, models
from convnet.layers.graph import learning
from convnet.nn.net import Net
from convnet.optim.sgd import SGD
from convnet.parallel.ranks import local_device
from convnet.parallel.ranks import ranks as job_ranks
from convnet.training.data_parallel import Parallel

Step = Callable[[], float]


def make(name: str, device: str, batch: int) -> tuple[Net, Step]:
    """A net with random data, and its training step."""
    net = models.MODELS[name](device=device, seed=1)
    rng = np.random.default_rng(2)
    x = net.backend.asarray(rng.standard_normal((batch, *net.in_shape), dtype=np.float32))
    labels = rng.integers(0, net.shapes[net.nodes[-1].name][0], batch)
    sgd = SGD(net.params, lr=1e-4)
    return net, lambda: net.train_step(x, labels, sgd)


def seconds_of_links(net: Net, batch: int, rounds: int) -> tuple[float, float]:
    """Seconds that all transfers of a step take one after the other, and plain copies of them."""
    assert net.partition is not None
    blocks = []
    wanted = learning(net.step_nodes)
    for _, node in net.partition.gathers():
        for part in node.columns:
            if part.device is node.device:
                continue
            rows = batch * node.rows
            there = part.device, node.device
            for source, target in (there, there[::-1]) if part.node in wanted else (there,):
                link = net.partition.links.between(source, target)
                blocks.append((link, source.zeros((rows, part.count)),
                               target.zeros((rows, part.count)), part.count))  # fmt: skip
    host = [np.ones(src.shape, np.float32) for _, src, _, _ in blocks]
    room = [np.empty_like(array) for array in host]

    def links() -> None:
        for link, src, dst, cols in blocks:
            link.copy("benchmark", dst, 0, src, 0, cols)
            link.target.synchronize()

    def copies() -> None:
        for array, to in zip(host, room, strict=True):
            np.copyto(to, array)

    times = interleaved({"links": links, "copies": copies}, rounds)
    return spread(times["links"])[1], spread(times["copies"])[1]


def devices(args: argparse.Namespace) -> None:
    """One device against two."""
    pair = backend.get_all(args.device)
    if len(pair) != 2:
        raise SystemExit("parallel: --device: expected two devices, such as cpu:0,cpu:1")
    backend.set_threads(args.threads)
    single = pair[0].device if pair[0].name == "cuda" else pair[0].name
    _, step = make(args.net, single, args.batch)
    two, both = make(args.net, args.device, args.batch)
    assert two.partition is not None
    first, second = step(), both()
    if abs(first - second) > 1e-5 * abs(first):
        raise SystemExit(f"parallel: one device has a loss of {first}, two of {second}")
    times = interleaved({"one": step, "two": both}, args.rounds, warmup=4)
    links, copies = seconds_of_links(two, args.batch, args.rounds)
    moved = two.partition.moved(args.batch)
    print(f"{args.net}, batch {args.batch}; {pair[0].describe()}")
    print(f"links: {two.partition.links.describe()}")
    middle = {}
    for name, found in times.items():
        low, middle[name], high = spread(found)
        print(f"{name:18} {1e3 * middle[name]:8.1f} ms ({1e3 * low:.1f} to {1e3 * high:.1f})")
    gain = middle["one"] / middle["two"]
    print(f"speed-up {gain:.2f}, efficiency {50 * gain:.0f} %")
    print(
        f"moved {moved / 2**20:.1f} MiB a step, in {1e3 * links:.1f} ms without compute: "
        f"{moved / links / 1e9:.1f} GB/s; a plain copy {moved / copies / 1e9:.1f}"
    )


def ranks(args: argparse.Namespace) -> None:
    """One job of K processes."""
    among = job_ranks()
    device = local_device(args.device, among)
    backend.set_threads(args.threads)
    net = models.MODELS[args.net](device=device, seed=1)
    first, last = among.share(args.batch)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((args.batch, *net.in_shape), dtype=np.float32)[first:last]
    labels = rng.integers(0, net.shapes[net.nodes[-1].name][0], args.batch)[first:last]
    parallel = Parallel(net, among)
    sgd = SGD(net.params, lr=1e-4)
    times = []
    for turn in range(2 + args.rounds):
        among.any(False)  # all begin together
        start = time.perf_counter()
        parallel.train_step(net.backend.asarray(x), labels, sgd, args.batch)
        (result,) = parallel.results()
        if turn >= 2:
            times.append(time.perf_counter() - start)
    low, middle, high = spread(times)
    if among.first:
        size = 4 * net.parameter_count / 2**20
        print(
            f"{among.size} processes of {args.threads} threads, {args.net}, batch {args.batch}: "
            f"{1e3 * middle:.1f} ms a step ({1e3 * low:.1f} to {1e3 * high:.1f}), "
            f"{args.batch / middle:.0f} images/s; {size:.1f} MiB of gradients summed; "
            f"loss {result.loss:.6f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("devices", "ranks"))
    parser.add_argument("--device", help="default: cpu:0,cpu:1 for devices, cpu for ranks")
    parser.add_argument("--net", default="alexnet", choices=sorted(models.MODELS))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    args.device = args.device or ("cpu:0,cpu:1" if args.what == "devices" else "cpu")
    {"devices": devices, "ranks": ranks}[args.what](args)


if __name__ == "__main__":
    main()
