"""The commands `convnet bench data` and `convnet bench train`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from convnet.cli.arguments import Commands, chosen, integers, positive


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


def _shown(arguments: argparse.Namespace) -> Callable[[object], None]:
    """Prints lines of a table as they are ready, but where JSON is wanted."""
    return (lambda line: None) if arguments.json else (lambda line: print(line, flush=True))


def _data(arguments: argparse.Namespace) -> int:
    from convnet.cli.bench_data import bench_data
    from convnet.config import load_config

    cfg, show = load_config(arguments.config, arguments.overrides), _shown(arguments)
    options = chosen(arguments, "data", "workers", "seconds")
    description, rates = bench_data(cfg, arguments.device or "auto", **options, show=show)
    show(description)
    if arguments.json:
        stages = [vars(rate) for rate in rates]
        print(json.dumps({"data": description, "batch": cfg.train.batch, "stages": stages}))
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from convnet import backend as backends
    from convnet.cli.bench_train import StepRate, bench_train, profile, profile_table
    from convnet.config import load_config

    cfg, show = load_config(arguments.config, arguments.overrides), _shown(arguments)
    device, data, batches = arguments.device or "auto", arguments.data, arguments.batch
    if arguments.profile and (len(batches) > 1 or arguments.threads):
        raise ValueError("--profile: expected one --batch and no --threads")
    show(f"device  {backends.get_all(device)[0].describe()}")
    if arguments.profile:
        batch = batches[0] if batches else cfg.train.batch
        lines = profile(cfg, device, data, batch)
        show(f"batch   {batch}\n\n{profile_table(lines)}")
        found = {"batch": batch, "nodes": [vars(line) for line in lines]}
    else:
        show(f"\n{StepRate.HEADING}")
        options = chosen(arguments, "threads", "seconds")
        rates = bench_train(cfg, device, data, batches, **options, show=show)
        found = {"steps": [vars(rate) for rate in rates]}
    if arguments.json:
        print(json.dumps(found))
    return 0
