"""What the command files share: a parser, kinds of values, and options that many commands have."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from convnet.common.exit_codes import BAD_INPUT
from convnet.common.typecheck import brief, did_you_mean


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, of the same form as all other errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"convnet: error: {message} (see {self.prog} --help)\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Where argparse lists all commands, the one that is meant."""
        known = action.choices
        if isinstance(action, argparse._SubParsersAction) and known and value not in known:
            message = f'"{brief(value)}": no such command{did_you_mean(value, known)}'
            raise argparse.ArgumentError(None, message)
        super()._check_value(action, value)

    def argument(self, name: str, metavar: str, text: str, nargs: str | None = None) -> None:
        """An argument that goes by its place."""
        self.add_argument(name, nargs=nargs, metavar=metavar, help=text)

    def flag(self, name: str, text: str) -> None:
        """An option that is given or not."""
        self.add_argument(name, action="store_true", help=text)

    def option(
        self,
        name: str,
        metavar: str,
        text: str,
        kind: Callable[[str], Any] = str,
        default: Any = None,
    ) -> None:
        """An option with a value; a default, where there is one, is added to the text."""
        shown = f" (default: {default})" if default not in (None, "", ()) else ""
        self.add_argument(name, metavar=metavar, help=text + shown, type=kind, default=default)

    def choice(self, name: str, text: str, *known: str) -> None:
        """An option with one of some values, of which the first is the default."""
        self.add_argument(
            name, choices=known, default=known[0], help=f"{text} (default: {known[0]})"
        )

    def setting(self, name: str, key: str, metavar: str, kind: Callable[[str], Any] = str) -> None:
        """An option with a value that overrides one key of the configuration, also one that --set
        names."""
        self.add_argument(
            name,
            action="append",
            default=[],
            type=lambda text: f"{key}={kind(text)}",
            metavar=metavar,
            dest="settings",
            help=f"as --set {key}={metavar}",
        )

    def out(self, metavar: str, text: str, required: bool = False) -> None:
        """The option -o for the file that a command writes."""
        names = ("-o", "--out", "--output")
        self.add_argument(*names, dest="out", metavar=metavar, help=text, required=required)

    def run(self, *more: str) -> None:
        """The argument RUN, the option --device, and `more` options that commands share."""
        self.argument("run", "RUN", "run folder or checkpoint file")
        self.shared("device", "code", *more)

    def reading(self) -> None:
        """The option --set of commands that take a run: how its data are read."""
        text = "how the images of the run are read: data.bad_files=skip leaves out bad files"
        self.add_argument("--set", **(_SHARED["set"] | {"help": text}))

    def config(self) -> None:
        """The argument CFG, and the options of commands that take a configuration."""
        self.argument("config", "CFG|PRESET", "configuration file, or one of convnet presets")
        self.shared("set", "data", "device", "code")

    def shared(self, *names: str) -> None:
        """Options that mean the same in every command, by their names."""
        for name in names:
            self.add_argument(f"--{name}", **_SHARED[name])


_SHARED: dict[str, dict[str, Any]] = {
    "data": {"metavar": "D", "help": "folder or file of the data"},
    "code": {
        "action": "store_true",
        "help": "let code run that the configuration or the run names: look at it first",
    },
    "debug": {"action": "store_true", "help": "show the traceback of an error"},
    "device": {
        "metavar": "D",
        "help": "auto (default), cpu, cuda, cuda:N or vgpu; or two: cuda:0,cuda:1",
    },
    "engine": {
        "choices": ("numpy", "faiss"),
        "default": "numpy",
        "help": "what searches among features (numpy)",
    },
    "json": {"action": "store_true", "help": "print JSON"},
    "set": {
        "action": "append",
        "default": [],
        "metavar": "K=V",
        "dest": "overrides",
        "help": "override a key of the configuration, for example sgd.lr=0.1; may be repeated",
    },
    "ten-crop": {
        "action": "store_true",
        "help": "average over the corners, the centre and their mirror images",
    },
}


class CommandsHelp(argparse.RawDescriptionHelpFormatter):
    """The help of a parser of commands: their names and what they do in two columns."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):  # which argparse forgets to indent
            self._action_max_length += self._indent_increment


class Commands:
    """The sub-commands of a parser, each with a function that takes the parsed arguments."""

    def __init__(self, parser: Parser, metavar: str = "COMMAND") -> None:
        self._parsers = parser.add_subparsers(required=True, metavar=metavar, parser_class=Parser)

    def add(self, name: str, function: Callable[[argparse.Namespace], int], text: str) -> Parser:
        """A command; `function` returns its exit code."""
        command = self.group(name, text)
        command.set_defaults(command=function)
        command.shared("debug")
        return command

    def group(self, name: str, text: str) -> Parser:
        """A command that has commands below it."""
        parser: Parser = self._parsers.add_parser(name, help=text, description=text)
        return parser


def chosen(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Some of the arguments, as keyword arguments of a function that calls them the same."""
    return {name: getattr(arguments, name) for name in names}


def warn(text: str) -> None:
    """Prints a warning."""
    print(f"convnet: warning: {text}", file=sys.stderr)


# ---- kinds of values -----------------------------------------------------------------------------


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """A whole number from `low` to `high`, or of at most 18 digits."""

    def convert(text: str) -> int:
        value = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else low - 1
        if not low <= value <= (value if high is None else high):
            limits = f", at least {low};" if high is None else f" from {low} to {high},"
            raise argparse.ArgumentTypeError(f'expected a whole number{limits} got "{text}"')
        return value

    return convert


def integers(low: int, high: int | None = None) -> Callable[[str], list[int]]:
    """Whole numbers with commas between them."""
    return lambda text: [integer(low, high)(word) for word in text.split(",")]


def numbers(text: str) -> list[float]:
    """Finite numbers with commas between them."""
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(map(math.isfinite, found)):
        raise argparse.ArgumentTypeError(f'expected numbers with commas between them, got "{text}"')
    return found


def positive(most: float, below: bool = False) -> Callable[[str], float]:
    """A number above 0 and up to `most`, or below that."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value <= most or (below and value == most):
            limit = f"{'below' if below else 'up to'} {most:g}"
            raise argparse.ArgumentTypeError(f'expected a number above 0 and {limit}, got "{text}"')
        return value

    return convert
