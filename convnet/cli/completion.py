"""The command `convnet completion SHELL`: what the Tab key needs to know."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

from convnet.cli.arguments import Commands, Parser
from convnet.common.distribution import require
from convnet.common.exit_codes import DONE

# What arguments are, by their names in the help.
_FILES = (
    *("CAFFEMODEL", "CODES", "D", "DATA", "DEF", "F", "FILE", "IMG", "INDEX", "MODEL", "OUT"),
    *("PARAMS", "PROTOTXT", "QUERIES", "RUN"),
)
_FOLDERS = ("DIR", "PACKED", "R")
_CONFIGURATIONS = ("CFG|PRESET", "PRESET|CFG")
_SHELLS = ("bash", "zsh", "tcsh")

_PREAMBLE = {
    "bash": """
_convnet_presets() {
  compgen -W "%s" -- "$1"
  _shtab_compgen_files "$1"
}
""",
    "zsh": """
_convnet_presets() {
  compadd %s
  _files
}
""",
}


def add_commands(commands: Commands, parser: Callable[[], Parser]) -> None:
    """Adds `completion` to the sub-commands of `convnet`; `parser` makes all of them."""
    text = "Print what makes the Tab key complete commands, options, presets and files."
    completion = commands.add("completion", lambda given: _completion(given, parser()), text)
    completion.add_argument("shell", choices=_SHELLS, help="which shell")


def _completion(arguments: argparse.Namespace, parser: Parser) -> int:
    from convnet.config import presets

    shtab = require("shtab", "completion", "convnet completion")
    ways = {"bash": "_convnet_presets", "zsh": "_convnet_presets", "tcsh": "f"}
    kinds = dict.fromkeys(_FILES, shtab.FILE) | dict.fromkeys(_FOLDERS, shtab.DIRECTORY)
    kinds |= dict.fromkeys(_CONFIGURATIONS, ways)
    for action in _actions(parser):
        if action.type in (None, str) and action.metavar in kinds:
            action.complete = kinds[action.metavar]  # type: ignore[attr-defined]
    names = " ".join(presets())
    preamble = {shell: text % names for shell, text in _PREAMBLE.items()}
    print(shtab.complete(parser, arguments.shell, preamble=preamble))
    return DONE


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments and options of a parser and of the commands below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in dict.fromkeys(action.choices.values()):
                yield from _actions(below)
