"""The commands `convnet bench data`, `convnet bench train` and `convnet bench conv`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from convnet.cli.arguments import Commands, chosen, integer, integers, positive


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
    conv = group.add("conv", _conv, "Count what each convolution does, on the virtual GPU.")
    conv.argument("config", "CFG|PRESET", "configuration file, or one of convnet presets")
    conv.shared("set", "json")
    conv.flag("--counters", "count; times are those of benchmarks/conv_throughput.py")
    size, text = (224, 224, 3), "size of the net's input (default: 224,224,3)"
    names = "--image", "--picture"  # the latter of earlier versions
    conv.add_argument(*names, metavar="H,W,C", help=text, type=counts, default=size)
    conv.option("--batch", "N", "images", integer(1, 65536), 1)
    conv.option("--passes", "P,P", "some of fprop, dgrad, wgrad", str, "fprop,dgrad,wgrad")
    conv.option("--precision", "P", "fp32, ffma, tf32 or bf16", str, "fp32")
    conv.option("--gpu", "G", "show the bound on the time on this GPU, such as h200")
    conv.option("--lines", "N", "lines of each kernel to show", integer(0, 1000), 0)
    conv.option("--against", "DIR", "compare with another build: the folder with its convnet")


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


def _conv(arguments: argparse.Namespace) -> int:
    from convnet.cli.bench_conv import PASSES, count_convs
    from convnet.config import load_config
    from convnet.counters.report import Report, run_build
    from convnet.counters.roofline import gpu_names

    if not arguments.counters:
        raise ValueError("expected --counters; times are those of benchmarks/conv_throughput.py")
    image = arguments.image
    if len(image) != 3:
        raise ValueError(f"--image: expected H,W,C, got {image}")
    passes = arguments.passes.split(",")
    if not set(passes) <= set(PASSES):
        raise ValueError(f"--passes: expected some of {', '.join(PASSES)}, got {arguments.passes}")
    if arguments.gpu not in (None, *gpu_names()):
        raise ValueError(f"--gpu: expected one of {', '.join(gpu_names())}, got {arguments.gpu}")
    cfg = load_config(arguments.config, arguments.overrides)
    report = Report(arguments.gpu, arguments.lines, _shown(arguments))
    options = chosen(arguments, "batch", "precision")
    count_convs(cfg, (image[0], image[1], image[2]), passes=passes, report=report, **options)
    report.close()
    if arguments.json:
        print(json.dumps({"rows": report.rows}))
    if arguments.against:
        command = ["-m", "convnet", "bench", "conv", arguments.config, "--counters", "--json"]
        command += [f"--set={override}" for override in arguments.overrides]
        command += ["--passes", arguments.passes, "--precision", arguments.precision]
        command += ["--batch", str(arguments.batch)]
        command += ["--picture", ",".join(map(str, image))]  # as an earlier build knows it, too
        before = json.loads(run_build(Path(arguments.against), command))["rows"]
        report.compare(before)
    return 0
