"""The `convnet` command."""

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

from convnet.cli.bench import add_commands as add_bench_commands
from convnet.cli.data import add_commands as add_data_commands
from convnet.cli.exchange import add_commands as add_import_commands
from convnet.cli.plot import add_commands as add_plot_commands
from convnet.cli.retrieval import add_commands as add_search_commands
from convnet.common.deprecated import notes_shown
from convnet.common.distribution import VERSION, check_package
from convnet.common.exit_codes import BAD_INPUT, DONE, FAILED, complain, explain


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments after "convnet"; None takes them from the process.

    Returns:
        The exit code: 0 done, 1 failed (also a run that diverged), 2 bad configuration or input,
        3 requested device absent, 129, 130 or 143 interrupted by SIGHUP, SIGINT or SIGTERM.
    """
    arguments = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names may be bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    debug = arguments.debug or os.environ.get("CONVNET_DEBUG", "") not in ("", "0")
    try:
        check_package()
        with notes_shown():
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


# ---- arguments ----------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Errors as one line of the same form as all others."""

    def error(self, message: str) -> Any:
        self.exit(BAD_INPUT, f"convnet: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="convnet",
        description="Trains convolutional nets on a GPU, or on the CPU where there is none.",
    )
    parser.add_argument("--version", action="version", version=f"convnet {VERSION}")
    shared = _Parser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, parents=[shared])
        command.set_defaults(command=function)
        return command

    train = add("train", _train, "Train a net.")
    train.add_argument("config", nargs="?", metavar="CFG|PRESET", help="see: convnet presets")
    train.add_argument("--resume", metavar="RUN", help="continue the run in this folder")
    train.add_argument(
        "--init", metavar="RUN", help="start from the weights of this run where they fit"
    )
    train.add_argument("--tensorboard", action="store_true", help="as --set train.tensorboard=true")
    train.add_argument(
        "--run-dir", metavar="R", help="folder of the run (default: runs/<date>-<name>)"
    )
    train.add_argument("--epochs", type=_positive, metavar="N", help="as --set train.epochs=N")
    train.add_argument("--threads", type=_positive, metavar="N", help="as --set train.threads=N")
    train.add_argument("-q", "--quiet", action="store_true", help="print warnings and errors only")
    _config_options(train)

    evaluate = add("eval", _eval, "Measure a trained net on its validation data.")
    evaluate.add_argument(
        "run", nargs="+", metavar="RUN", help="run folder or checkpoint file; several are averaged"
    )
    crops = evaluate.add_mutually_exclusive_group()
    crops.add_argument(
        "--ten-crop", action="store_true", help="average over corners, centre and mirror images"
    )
    crops.add_argument(
        "--nine-crop", action="store_true", help="average over nine crops, as cuda-convnet did"
    )
    evaluate.add_argument(
        "--csv", metavar="DIR", help="write classes.csv and confusion.csv to this folder"
    )
    evaluate.add_argument("--json", action="store_true", help="print a JSON object")
    _data_options(evaluate)

    predict = add("predict", _predict, "Name what images show.")
    predict.add_argument("run", metavar="RUN", help="run folder or checkpoint file")
    predict.add_argument("images", nargs="+", metavar="IMG", help="image files")
    predict.add_argument("--top", type=_positive, default=5, metavar="N", help="classes to list")
    predict.add_argument(
        "--ten-crop", action="store_true", help="average over corners, centre and mirror images"
    )
    predict.add_argument("--json", action="store_true", help="print a JSON object an image")
    _data_options(predict, data=False)

    summary = add("summary", _summary, "Show the shapes, parameters and FLOPs of a net.")
    summary.add_argument("config", metavar="CFG|PRESET")
    summary.add_argument(
        "--program", action="store_true", help="show the training step as the calls that it is"
    )
    _config_options(summary)

    check = add("gradcheck", _gradcheck, "Compare a net's gradients with differences of its loss.")
    check.add_argument("config", metavar="CFG|PRESET")
    check.add_argument("--samples", type=_positive, default=8, metavar="N", help="per parameter")
    check.add_argument("--batch", type=_positive, default=4, metavar="N", help="random images")
    _config_options(check)

    add_data_commands(commands, shared)
    add_bench_commands(commands, shared, _config_options)
    add_import_commands(commands, shared)
    add_plot_commands(commands, shared)
    add_search_commands(commands, shared)
    add("presets", _presets, "List the packaged configurations.")
    doctor = add("doctor", _doctor, "Show what is installed and which devices can be used.")
    doctor.add_argument("--json", action="store_true", help="print a JSON object")
    return parser


def _config_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="K=V",
        dest="overrides",
        help="override a key of the configuration, for example sgd.lr=0.1; may be repeated",
    )
    _data_options(command)


def _data_options(command: argparse.ArgumentParser, data: bool = True) -> None:
    if data:
        command.add_argument("--data", metavar="D", help="folder or file of the data")
    command.add_argument(
        "--device",
        metavar="D",
        help="auto (default), cpu, cuda, cuda:N or emulator; or two: cuda:0,cuda:1",
    )


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number, at least 1; got "{text}"')
    return number


# ---- commands: imports happen here, so that `convnet --help` is quick ----------------------------


def _train(arguments: argparse.Namespace) -> int:
    from convnet.training.train import train

    if arguments.config is None and arguments.resume is None:
        raise ValueError("train: expected a configuration file, a preset or --resume RUN")
    if arguments.resume is not None and arguments.run_dir is not None:
        raise ValueError("train: --run-dir cannot go with --resume, which names the run folder")
    overrides = list(arguments.overrides)
    if arguments.threads is not None:
        overrides.append(f"train.threads={arguments.threads}")
    if arguments.tensorboard:
        overrides.append("train.tensorboard=true")
    if arguments.resume is not None and arguments.init is not None:
        raise ValueError("train: --init cannot go with --resume: the run has its weights")
    result = train(
        arguments.config,
        device=arguments.device,
        epochs=arguments.epochs,
        run_dir=arguments.run_dir,
        resume=arguments.resume,
        init=arguments.init,
        data=arguments.data,
        overrides=overrides,
        quiet=arguments.quiet,
    )
    if result.status == "interrupted":
        return 128 + result.signal
    return FAILED if result.status == "diverged" else DONE


def _eval(arguments: argparse.Namespace) -> int:
    from convnet.evaluation.evaluate import evaluate

    result = evaluate(
        arguments.run,
        data=arguments.data,
        device=arguments.device,
        warn=_warn,
        ten_crop=arguments.ten_crop,
        csv=arguments.csv,
        nine_crop=arguments.nine_crop,
    )
    if arguments.json:
        print(json.dumps(result))
        return DONE
    nets = result["nets"]
    several = len(nets) > 1
    for net in nets if several else []:
        print(f"{net['run']}: {_figures(net)}")
    ways = [{1: "", 9: "nine crops", 10: "ten crops"}[result["views"]]] * (result["views"] > 1)
    ways += [f"average of {len(nets)} nets"] * several
    samples = f"{result['cases']} images ({result['data']})"
    print(f"{', '.join([samples, *ways])}: {_figures(result)}")
    if arguments.csv:
        print(f"wrote {Path(arguments.csv) / 'classes.csv'} and confusion.csv")
    return DONE


def _figures(result: dict[str, Any]) -> str:
    return f"loss {result['loss']:.4f}, top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} %"


def _predict(arguments: argparse.Namespace) -> int:
    from convnet.evaluation.predict import predict, show

    found = predict(
        arguments.run,
        arguments.images,
        device=arguments.device,
        top=arguments.top,
        warn=_warn,
        ten_crop=arguments.ten_crop,
    )
    for prediction in found:
        print(json.dumps(prediction.as_dict()) if arguments.json else show(prediction))
    return DONE


def _summary(arguments: argparse.Namespace) -> int:
    from convnet.config import load_config
    from convnet.training.setup import net_of

    cfg = load_config(arguments.config, arguments.overrides)
    net = net_of(cfg, arguments.device or "auto", arguments.data, sizes_only=True)
    batch = cfg.train.batch
    print(net.program_table(batch) if arguments.program else net.summary(batch))
    return DONE


def _gradcheck(arguments: argparse.Namespace) -> int:
    import numpy as np

    from convnet.config import load_config
    from convnet.nn.gradcheck import gradcheck, table
    from convnet.training.setup import net_of

    cfg = load_config(arguments.config, arguments.overrides)
    net = net_of(cfg, arguments.device or "auto", arguments.data)
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
    from convnet.config import presets

    known = presets()
    width = max(map(len, known))
    for name, text in known.items():
        print(f"{name:{width}}  {text}")
    return DONE


def _doctor(arguments: argparse.Namespace) -> int:
    from convnet.cli.doctor import examine, show

    report = examine()
    print(json.dumps(report, indent=2) if arguments.json else show(report))
    return DONE if report["ok"] else FAILED


def _warn(text: str) -> None:
    print(f"convnet: warning: {text}", file=sys.stderr)
