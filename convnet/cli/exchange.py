"""The `convnet import` commands."""

from __future__ import annotations

import argparse
from pathlib import Path

from convnet.cli.arguments import Commands, chosen, integer
from convnet.common.exit_codes import DONE
from convnet.common.files import replace
from convnet.data.sources import PUBLISHED


def add_commands(commands: Commands) -> None:
    """Adds `import` and what can be imported."""
    group = commands.group("import", "Turn the net of another program into a configuration.")
    cuda = Commands(group, "KIND").add(
        "cuda-convnet",
        _cuda_convnet,
        "Read cuda-convnet's layer definition and parameter files (docs/importing.md).",
    )
    cuda.argument("definition", "DEF", "layer definition file")
    cuda.argument("parameters", "PARAMS", "layer parameter file")
    cuda.out("FILE", "configuration to write (default: DEF's name.toml)")
    cuda.flag("--force", "write over a file that is there")
    text = "the data (default: by channels and classes)"
    cuda.add_argument("--source", default="", choices=(*PUBLISHED, "folder"), help=text)
    cuda.option("--size", "N", "height and width of the images of a folder", integer(1), 256)
    cuda.option("--crop", "N", "train on crops NxN, and mirror them", integer(1), 0)
    cuda.option("--batch", "N", "images per step", integer(1), 128)
    cuda.option("--epochs", "N", "epochs to train", integer(1), 10)


def _cuda_convnet(arguments: argparse.Namespace) -> int:
    from convnet.exchange.cuda_convnet.convert import import_files

    definition = Path(arguments.definition)
    output = Path(arguments.out or f"{definition.stem}.toml")
    report = output.with_suffix(".report.txt")
    if output.suffix != ".toml":
        raise ValueError(f"{output}: expected a name that ends in .toml")
    for path in (output, report):
        if path.exists() and not arguments.force:
            raise ValueError(f"{path}: is there already; --force writes over it, -o names another")
    options = chosen(arguments, "source", "size", "crop", "batch", "epochs")
    found = import_files(definition, arguments.parameters, **options, name=output.stem)
    way = f"convnet train {output}" + (" --device cuda:0,cuda:1" if len(found.gpus) > 1 else "")
    origin = f"# cuda-convnet's {definition.name} and {Path(arguments.parameters).name}; {way}"
    toml, text = f"{origin}\n{found.toml}".encode(), found.text().encode()
    replace(output, toml)
    replace(report, text)
    print(found.text())
    print(f"wrote {output} and {report}; train it with: {way}")
    return DONE
