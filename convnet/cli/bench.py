"""The commands `convnet bench data` and `convnet bench train`."""

from __future__ import annotations

import argparse
import json

from convnet.cli.arguments import Commands, integers, positive


def add_commands(commands: Commands) -> None:
    """Adds `bench` to the sub-commands of `convnet`."""
    group = Commands(commands.group("bench", "Measure speed."))
    data = group.add("data", _data, "Measure the data pipeline alone, by stage.")
    train = group.add("train", _train, "Measure training steps alone, on images of noise.")
    for command, seconds in ((data, 3.0), (train, 5.0)):
        command.config()
        command.shared("json")
        command.option("--seconds", "S", "duration of each measurement", positive(3600), seconds)
    counts = integers(1, 65536)
    data.option("--workers", "N,N", "numbers of workers to try", counts, ())
    train.option("--batch", "N,N", "batch sizes to try", counts, ())
    train.option("--threads", "N,N", "numbers of threads to try (cpu)", counts, ())
    train.flag("--profile", "show where a step spends its time")


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
    device, data = arguments.device or "auto", arguments.data
    if arguments.profile and (len(arguments.batch) > 1 or arguments.threads):
        raise ValueError("--profile: expected one --batch and no --threads")
    if not arguments.json:
        print(f"device  {backends.get_all(device)[0].describe()}")
    if arguments.profile:
        batch = arguments.batch[0] if arguments.batch else cfg.train.batch
        lines = profile(cfg, device, data, batch)
        if arguments.json:
            print(json.dumps({"batch": batch, "nodes": [vars(line) for line in lines]}))
        else:
            print(f"batch   {batch}\n\n{profile_table(lines)}")
        return 0

    def show(rate: StepRate) -> None:
        if not arguments.json:
            print(rate, flush=True)

    if not arguments.json:
        print(f"\n{StepRate.HEADING}")
    rates = bench_train(
        cfg, device, data, arguments.batch, arguments.threads, arguments.seconds, show
    )
    if arguments.json:
        print(json.dumps({"steps": [vars(rate) for rate in rates]}))
    return 0
