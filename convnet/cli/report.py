"""The command `convnet report RUN`."""

from __future__ import annotations

import argparse
from pathlib import Path

from convnet.cli.arguments import Commands, chosen, integer, warn
from convnet.common.exit_codes import DONE


def add_commands(commands: Commands) -> None:
    """Adds `report` to the sub-commands of `convnet`."""
    text = "Write a run as one page that opens in any browser: curves, samples, confusions."
    report = commands.add("report", _report, text)
    report.argument("run", "RUN", "run folder")
    report.out("FILE", "default: report.html in the run's folder")
    report.flag("--follow", "serve the page on this machine, and load it again as the run goes on")
    report.option("--port", "N", "with --follow (default: a free one)", integer(0, 65535))
    report.shared("data", "device", "code")


def _report(arguments: argparse.Namespace) -> int:
    from convnet.report.write import write_report

    if arguments.follow:
        return _follow(arguments)
    options = chosen(arguments, "run", "out", "data", "device")
    path, size = write_report(**options, warn=warn)
    print(f"one page, {size / 1e6:.2f} MB\nwrote {path}")
    return DONE


def _follow(arguments: argparse.Namespace) -> int:
    from convnet.report.follow import LiveView

    options = chosen(arguments, "data", "device", "code")
    view = LiveView(Path(arguments.run), **options, warn=warn, port=arguments.port or 0)
    print(f"{view.address} shows the run; Ctrl-C ends this", flush=True)
    try:
        view.serve()
    except KeyboardInterrupt:
        print()
    return DONE
