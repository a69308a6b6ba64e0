"""The `convnet import` commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from convnet.common.exit_codes import DONE
from convnet.common.files import replace


def add_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Adds `import` and what can be imported."""
    text = "Turn the net of another program into a configuration."
    parser = commands.add_parser("import", help=text, description=text)
    kinds = parser.add_subparsers(required=True, metavar="KIND", parser_class=type(shared))
    about = "Read cuda-convnet's layer definition and parameter files (docs/importing.md)."
    cuda = kinds.add_parser("cuda-convnet", help=about, description=about, parents=[shared])
    cuda.set_defaults(command=_cuda_convnet)
    cuda.add_argument("definition", metavar="DEF", help="layer definition file")
    cuda.add_argument("parameters", metavar="PARAMS", help="layer parameter file")
    cuda.add_argument(
        "-o", "--output", metavar="FILE", help="configuration to write (default: DEF's name.toml)"
    )
    cuda.add_argument("--force", action="store_true", help="write over a file that is there")
    cuda.add_argument(
        "--source",
        default="",
        choices=("cifar10", "cifar100", "mnist", "fashion-mnist", "folder"),
        help="the data (default: by channels and classes)",
    )
    cuda.add_argument("--size", type=_side, default=256, metavar="N", help="images of a folder")
    cuda.add_argument(
        "--crop", type=_side, default=0, metavar="N", help="train on crops NxN, and mirror them"
    )
    cuda.add_argument("--batch", type=_side, default=128, metavar="N", help="images a step")
    cuda.add_argument("--epochs", type=_side, default=10, metavar="N", help="how long to train")


def _side(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f'expected a whole number, at least 1; got "{text}"')
    return int(text)


def _cuda_convnet(arguments: argparse.Namespace) -> int:
    from convnet.exchange.cuda_convnet.convert import import_files

    definition = Path(arguments.definition)
    output = Path(arguments.output or f"{definition.stem}.toml")
    report = output.with_suffix(".report.txt")
    if output.suffix != ".toml":
        raise ValueError(f"{output}: expected a name that ends in .toml")
    for path in (output, report):
        if path.exists() and not arguments.force:
            raise ValueError(f"{path}: is there already; --force writes over it, -o names another")
    found = import_files(
        definition,
        arguments.parameters,
        source=arguments.source,
        size=arguments.size,
        crop=arguments.crop,
        batch=arguments.batch,
        epochs=arguments.epochs,
        name=output.stem,
    )
    way = f"convnet train {output}" + (" --device cuda:0,cuda:1" if len(found.gpus) > 1 else "")
    origin = f"# cuda-convnet's {definition.name} and {Path(arguments.parameters).name}; {way}"
    toml, told = f"{origin}\n{found.toml}".encode(), found.text().encode()
    replace(output, lambda file: file.write(toml))
    replace(report, lambda file: file.write(told))
    print(found.text())
    print(f"wrote {output} and {report}; train it with: {way}")
    return DONE
