"""The `convnet` command: its entry point, and the commands that train and use nets."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convnet.cli import bench, completion, data, exchange, plot, report, retrieval
from convnet.cli.arguments import Commands, CommandsHelp, Parser, chosen, integer, warn
from convnet.cli.progress import bar
from convnet.common.deprecated import notes_shown
from convnet.common.distribution import VERSION, check_package
from convnet.common.exit_codes import BAD_INPUT, DONE, FAILED, complain, explain
from convnet.common.own_code import allowed
from convnet.common.progress import shown_by

_FIRST = """\
to begin with:
  convnet train fashion-mnist          trains on a sample that is part of convnet
  convnet train folder --data IMAGES   on a folder with a sub-folder of images for each class
  convnet COMMAND --help               lists what a command takes
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments after "convnet"; None takes them from the process.

    Returns:
        The exit code: 0 done, 1 failed (also a run that diverged), 2 bad configuration or input,
        3 requested device absent, 129, 130 or 143 interrupted by SIGHUP, SIGINT or SIGTERM.
    """
    parser = _parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help()
        return BAD_INPUT
    arguments = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names may be bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    debug = arguments.debug or os.environ.get("CONVNET_DEBUG", "") not in ("", "0")
    try:
        check_package()
        display = None if getattr(arguments, "quiet", False) else bar
        with notes_shown(), allowed(getattr(arguments, "code", False)), shown_by(display):
            return int(arguments.command(arguments))
    except BrokenPipeError:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - the interpreter flushes it at exit
        return FAILED
    except KeyboardInterrupt:
        if debug:
            raise
        complain("stopped")
        return 128 + signal.SIGINT
    except Exception as error:
        if debug:
            raise
        code, message = explain(error)
        complain(message)
        return code


def _parser() -> Parser:
    parser = Parser(
        prog="convnet",
        description="Trains convolutional nets on a GPU, or on the CPU where there is none.",
        epilog=_FIRST,
        formatter_class=CommandsHelp,
    )
    parser.add_argument("--version", action="version", version=f"convnet {VERSION}")
    commands = Commands(parser)
    _add_train(commands)
    evaluate = commands.add("eval", _eval, "Measure a trained net on its validation data.")
    evaluate.argument("run", "RUN", "run folder or checkpoint file; several are averaged", "+")
    evaluate.shared("ten-crop", "json", "data", "device", "code")
    evaluate.reading()
    evaluate.flag("--nine-crop", "average over nine crops, as cuda-convnet did")
    evaluate.option("--csv", "DIR", "write classes.csv and confusion.csv to this folder")
    predict = commands.add("predict", _predict, "Name what images show.")
    predict.run("ten-crop", "json")
    predict.reading()
    predict.argument("images", "IMG", "image files, or folders of them", "+")
    predict.option("--top", "N", "classes to list", integer(1), 5)
    summary = commands.add("summary", _summary, "Show the shapes, parameters and FLOPs of a net.")
    summary.config()
    summary.flag("--program", "show the training step as the list of calls that it runs as")
    check = commands.add("gradcheck", _gradcheck, "Compare gradients with differences of the loss.")
    check.config()
    check.option("--samples", "N", "elements to try per parameter", integer(1), 8)
    check.option("--batch", "N", "random images", integer(1), 4)
    for group in (data, bench, exchange, plot, report, retrieval):
        group.add_commands(commands)
    completion.add_commands(commands, _parser)
    commands.add("presets", _presets, "List the packaged configurations.")
    doctor = commands.add("doctor", _doctor, "Show what is installed and which devices work.")
    doctor.shared("json")
    return parser


def _add_train(commands: Commands) -> None:
    train = commands.add("train", _train, "Train a net.")
    train.argument("cfg", "CFG|PRESET", "configuration file, or one of convnet presets", "?")
    train.shared("set", "data", "device", "code")
    train.option("--resume", "RUN", "continue the run in this folder")
    train.option("--init", "RUN", "start from the weights of this run where they fit")
    train.option("--run-dir", "R", "folder of the run (default: runs/<date>-<name>)")
    train.setting("--epochs", "train.epochs", "N", integer(1))
    train.setting("--precision", "train.precision", "P")
    train.setting("--threads", "train.threads", "N", integer(1))
    train.add_argument(
        "--tensorboard",
        action="append_const",
        const="train.tensorboard=true",
        dest="settings",
        default=[],
        help="as --set train.tensorboard=true",
    )
    train.add_argument("-q", "--quiet", action="store_true", help="print warnings and errors only")


# ---- commands: imports happen here, so that `convnet --help` is quick ----------------------------


def _train(arguments: argparse.Namespace) -> int:
    from convnet.report.callback import train

    options = ("cfg", "device", "run_dir", "resume", "init", "data", "quiet")
    overrides = [*arguments.overrides, *arguments.settings]
    result = train(**chosen(arguments, *options), overrides=overrides)
    if result.status == "interrupted":
        return 128 + result.signal
    return FAILED if result.status == "diverged" else DONE


def _eval(arguments: argparse.Namespace) -> int:
    from convnet.evaluation.evaluate import evaluate

    options = ("run", "data", "device", "ten_crop", "csv", "nine_crop", "overrides")
    result = evaluate(**chosen(arguments, *options), warn=warn)
    if arguments.json:
        print(json.dumps(result))
        return DONE
    nets, crops, few = result["nets"], result["crops"], result["classes"] <= 5
    parts = [f"{result['images']} images ({result['data']})"]
    if crops > 1:
        parts.append(f"{'nine' if crops == 9 else 'ten'} crops")
    if len(nets) > 1:
        parts.append(f"average of {len(nets)} nets")
        for net in nets:
            print(f"{net['run']}: {_metrics(net, few)}")
    print(f"{', '.join(parts)}: {_metrics(result, few)}")
    if arguments.csv:
        print(f"wrote {Path(arguments.csv) / 'classes.csv'} and confusion.csv")
    return DONE


def _metrics(result: dict[str, Any], few: bool) -> str:
    """The figures; of few classes (five or less) the right one is always among the first five."""
    text = f"loss {result['loss']:.4f}, top-1 {result['top1']:.2f} %"
    return text if few else f"{text}, top-5 {result['top5']:.2f} %"


def _predict(arguments: argparse.Namespace) -> int:
    from convnet.evaluation.evaluate import open_run
    from convnet.evaluation.given_images import given_images
    from convnet.evaluation.predict import predict_each, show

    asked = given_images(arguments.images)
    trained = open_run(**chosen(arguments, "run", "device", "overrides"), warn=warn)
    options = chosen(arguments, "top", "ten_crop")
    with shown_by(None if sys.stdout.isatty() else bar):  # else the answers show how far it is
        for one in predict_each(trained, asked, warn=warn, **options):
            print(json.dumps(one.as_dict()) if arguments.json else show(one))
    return DONE


def _net(arguments: argparse.Namespace, sizes_only: bool = False) -> Any:
    """The configuration that a command was given, and its net."""
    from convnet.config import load_config
    from convnet.training.nets import net_of

    cfg = load_config(arguments.config, arguments.overrides)
    return cfg, net_of(cfg, arguments.device or "auto", arguments.data, sizes_only)


def _summary(arguments: argparse.Namespace) -> int:
    cfg, net = _net(arguments, sizes_only=True)
    batch = cfg.train.batch
    print(net.program_table(batch) if arguments.program else net.summary(batch))
    return DONE


def _gradcheck(arguments: argparse.Namespace) -> int:
    import numpy as np

    from convnet.nn.gradcheck import gradcheck, table

    cfg, net = _net(arguments)
    rng = np.random.default_rng(cfg.seed)
    x = rng.standard_normal((arguments.batch, *net.in_shape), dtype=np.float32)
    labels = rng.integers(0, net.classes or 1, arguments.batch)
    rows = gradcheck(net, x, labels, arguments.samples)
    print(table(rows))
    wrong = [row.parameter for row in rows if not row.ok]
    if wrong:
        complain(f"gradcheck: the gradients of {', '.join(wrong)} are wrong")
    return FAILED if wrong else DONE


def _presets(_arguments: argparse.Namespace) -> int:
    from convnet.common.text import aligned
    from convnet.config import presets

    print(aligned([*presets().items()], left=2, totals=False))
    return DONE


def _doctor(arguments: argparse.Namespace) -> int:
    from convnet.cli.doctor import examine, show

    report = examine()
    print(json.dumps(report, indent=2) if arguments.json else show(report))
    return DONE if report["ok"] else FAILED
