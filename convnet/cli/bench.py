"""The commands `convnet bench data` and `convnet bench train`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from convnet.cli.data import Group, number, whole


def add_commands(commands: Any, shared: argparse.ArgumentParser, options: Any) -> None:
    """Adds `bench` to the sub-commands of `convnet`.

    Args:
        commands: what `add_subparsers` returned.
        shared: a parser with the options of all commands.
        options: adds the options of a command that takes a configuration.
    """
    group = Group(commands, shared, "bench", "Measure speed.")
    data = group.add("data", _data, "Measure the data pipeline alone, by stage.")
    _add_measuring(data, options, 3.0)
    data.add_argument(
        "--workers", type=_counts, default=[], metavar="N,N", help="numbers of workers to try"
    )
    train = group.add("train", _train, "Measure training steps alone, on images of noise.")
    _add_measuring(train, options, 5.0)
    train.add_argument(
        "--batch", type=_counts, default=[], metavar="N,N", help="batch sizes to try"
    )
    train.add_argument(
        "--threads", type=_counts, default=[], metavar="N,N", help="numbers of threads to try (cpu)"
    )
    train.add_argument("--profile", action="store_true", help="show where a step spends its time")


def _add_measuring(bench: argparse.ArgumentParser, options: Any, seconds: float) -> None:
    bench.add_argument("config", metavar="CFG|PRESET")
    bench.add_argument(
        "--seconds", type=_seconds, default=seconds, metavar="S", help="a measurement"
    )
    bench.add_argument("--json", action="store_true", help="print a JSON object")
    options(bench)


def _counts(text: str) -> list[int]:
    return [whole(1, 65536)(word) for word in text.split(",")]


def _seconds(text: str) -> float:
    if not 0 < number(text) <= 3600:
        raise argparse.ArgumentTypeError(f'expected a number above 0, up to 3600; got "{text}"')
    return number(text)


def _data(arguments: argparse.Namespace) -> int:
    from convnet.cli.bench_data import Rate, bench_data
    from convnet.config import load_config

    def show(rate: Rate) -> None:
        if not arguments.json:
            print(f"{rate.stage:28} {rate.images_per_s:12,.0f} images/s", flush=True)

    cfg = load_config(arguments.config, arguments.overrides)
    device = arguments.device or "auto"
    description, rates = bench_data(
        cfg, device, arguments.data, arguments.workers, arguments.seconds, show
    )
    if arguments.json:
        stages = [vars(rate) for rate in rates]
        print(json.dumps({"data": description, "batch": cfg.train.batch, "stages": stages}))
    else:
        print(description)
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from convnet import backend as backends
    from convnet.cli.bench_train import StepRate, bench_train, profile, profile_table
    from convnet.config import load_config

    cfg = load_config(arguments.config, arguments.overrides)
    device = arguments.device or "auto"
    if arguments.profile and (len(arguments.batch) > 1 or arguments.threads):
        raise ValueError("--profile: expected one --batch and no --threads")
    if not arguments.json:
        print(f"device  {backends.get_all(device)[0].describe()}")
    if arguments.profile:
        batch = arguments.batch[0] if arguments.batch else cfg.train.batch
        lines = profile(cfg, device, arguments.data, batch)
        if arguments.json:
            print(json.dumps({"batch": batch, "nodes": [vars(line) for line in lines]}))
        else:
            print(f"batch   {batch}\n\n{profile_table(lines)}")
        return 0
    if not arguments.json:
        print(
            f"\n{'batch':>6}{'threads':>9}{'ms/step':>11}{'images/s':>11}{'GFLOP/s':>10}{'MiB':>9}"
        )

    def show(rate: StepRate) -> None:
        if not arguments.json:
            print(
                f"{rate.batch:6}{rate.threads:9}{rate.ms:11.2f}{rate.images_per_s:11,.0f}"
                f"{rate.gflops:10.0f}{rate.memory / 2**20:9,.0f}",
                flush=True,
            )

    rates = bench_train(
        cfg, device, arguments.data, arguments.batch, arguments.threads, arguments.seconds, show
    )
    if arguments.json:
        print(json.dumps({"steps": [vars(rate) for rate in rates]}))
    return 0
