"""The `convnet import` and `convnet export` commands."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from convnet.cli.arguments import Commands, Parser, chosen, integer, numbers, positive, warn
from convnet.common.exit_codes import DONE
from convnet.common.files import replace
from convnet.common.progress import progress
from convnet.data.sources import PUBLISHED

if TYPE_CHECKING:
    from convnet.exchange.imported_run import Imported


def add_commands(commands: Commands) -> None:
    """Adds `import`, `export`, and what they know."""
    kinds = Commands(
        commands.group("import", "Turn another program's net into one of ours."), "KIND"
    )
    _add_cuda_convnet(kinds)
    torch = kinds.add("torch", _torch, "Make a run of a state dict of PyTorch (docs/importing.md).")
    torch.argument("file", "FILE", "a file of torch.save, or .safetensors")
    torch.option(
        "--net", "PRESET|CFG", "the net (default: the preset with these shapes)", default=""
    )
    torch.option("--std", "S,S,S", "of images from 0 to 1 (default: torchvision's)", numbers)
    torch.shared("code")
    _add_run(torch, "of images from 0 to 1 (default: torchvision's)")
    caffe = kinds.add("caffe", _caffe, "Make a run of a net of Caffe (docs/importing.md).")
    caffe.argument("prototxt", "PROTOTXT", "its definition")
    caffe.argument("caffemodel", "CAFFEMODEL", "its weights")
    caffe.option("--mean-file", "FILE", "mean image to subtract, .binaryproto")
    caffe.option(
        "--scale", "S", "multiplies the difference (default: as in PROTOTXT)", positive(1e6)
    )
    caffe.option("--size", "N", "to which images are resized (default: 256)", integer(1), 0)
    text = (
        "how: cut off, filled up with the edges' colour, or out of proportion as Caffe's tools do"
    )
    caffe.choice("--resize", text, "crop", "pad", "stretch")
    caffe.choice("--order", "of the net's channels", "BGR", "RGB")
    _add_run(caffe, "of 0 to 255, in the net's order (default: as in PROTOTXT, or ImageNet's)")
    kinds = Commands(commands.group("export", "Write a trained net for another program."), "KIND")
    torch = kinds.add("torch", _export_torch, "Write the weights of a run as a state dict.")
    torch.argument("run", "RUN", "run folder or checkpoint file")
    torch.out("FILE", "a file that ends in .pth, .pt or .safetensors", required=True)
    onnx = kinds.add("onnx", _export_onnx, "Write a run as an ONNX model.")
    onnx.argument("run", "RUN", "run folder or checkpoint file")
    onnx.out("FILE", "a file that ends in .onnx", required=True)
    for kind in (torch, onnx):
        kind.shared("code")


def _add_run(command: Parser, mean: str) -> None:
    """The options of commands that make a run of weights."""
    command.out("RUN", "folder of the run (default: runs/<date>-<name>)")
    command.option("--mean", "M,M,M", f"mean to subtract, {mean}", numbers)
    command.option("--classes", "FILE", "names of the classes, a line each", default="")


def _add_cuda_convnet(kinds: Commands) -> None:
    text = "Read cuda-convnet's layer definition and parameter files (docs/importing.md)."
    cuda = kinds.add("cuda-convnet", _cuda_convnet, text)
    cuda.argument("definition", "DEF", "layer definition file")
    cuda.argument("parameters", "PARAMS", "layer parameter file")
    cuda.out("FILE", "configuration to write (default: DEF's name.toml)")
    cuda.flag("--force", "write over a file that is there")
    cuda.option("--init", "MODEL", "a saved model, whose weights go to FILE's name.safetensors")
    cuda.option("--meta", "FILE", "batches.meta of MODEL's data, with the mean image")
    text = "the data (default: by channels and classes)"
    cuda.add_argument("--source", default="", choices=(*PUBLISHED, "folder"), help=text)
    cuda.option("--size", "N", "images of a folder (default: as --meta, or 256)", integer(1), 0)
    cuda.option("--crop", "N", "train on crops NxN, and mirror them", integer(1), 0)
    cuda.option("--batch", "N", "images per step", integer(1), 128)
    cuda.option("--epochs", "N", "epochs to train", integer(1), 10)


def _cuda_convnet(arguments: argparse.Namespace) -> int:
    from convnet.exchange.cuda_convnet.convert import import_files
    from convnet.exchange.cuda_convnet.saved import read_meta, write_checkpoint

    definition = Path(arguments.definition)
    output = Path(arguments.out or f"{definition.stem}.toml")
    report, weights = output.with_suffix(".report.txt"), output.with_suffix(".safetensors")
    if output.suffix != ".toml":
        raise ValueError(f"{output}: expected a name that ends in .toml")
    for path in (output, report, *([weights] if arguments.init else [])):
        if path.exists() and not arguments.force:
            raise ValueError(f"{path}: is there already; --force writes over it, -o names another")
    options, meta = chosen(arguments, "source", "size", "crop", "batch", "epochs"), None
    if arguments.meta and not arguments.init:
        raise ValueError("--meta: expected with --init MODEL, whose data it describes")
    if arguments.meta:
        meta = read_meta(Path(arguments.meta))
    options["size"] = arguments.size or (meta.side(3) if meta and meta.mean.size % 3 == 0 else 256)
    with progress("importing", "files"):
        found = import_files(definition, arguments.parameters, **options, name=output.stem)
    way = f"convnet train {output}" + (" --device cuda:0,cuda:1" if len(found.gpus) > 1 else "")
    said = ""
    if arguments.init:
        with progress("importing", "files"):
            said = write_checkpoint(weights, Path(arguments.init), found, meta)
        way += f" --init {weights}"
    origin = f"# cuda-convnet's {definition.name} and {Path(arguments.parameters).name}; {way}"
    toml, text = f"{origin}\n{found.toml}".encode(), found.text().encode()
    replace(output, toml)
    replace(report, text)
    print(found.text())
    print(f"wrote {output} and {report}; train it with: {way}")
    if said:
        print(f"wrote {weights}; use it with: convnet predict {weights} IMAGE\n{said}")
    return DONE


def _torch(arguments: argparse.Namespace) -> int:
    from convnet.exchange.torch.importer import import_torch

    options = chosen(arguments, "out", "net", "mean", "std", "classes")
    with progress("importing", "files"):
        found = import_torch(arguments.file, **options)
    return _made(found)


def _caffe(arguments: argparse.Namespace) -> int:
    from convnet.exchange.caffe.importer import import_caffe

    if arguments.mean and arguments.mean_file:
        raise ValueError("expected --mean or --mean-file, got both")
    options = chosen(arguments, "out", "scale", "size", "resize", "order", "classes")
    mean = arguments.mean_file or arguments.mean
    with progress("importing", "files"):
        found = import_caffe(arguments.prototxt, arguments.caffemodel, mean=mean, **options)
    return _made(found)


def _made(found: Imported) -> int:
    for note in found.notes:
        print(note)
    print(f"{found.layers} layers, {found.parameters:,} parameters")
    print(f"wrote {found.run}; use it with: convnet predict {found.run} IMAGE")
    return DONE


def _export_torch(arguments: argparse.Namespace) -> int:
    from convnet.exchange.torch.exporter import export_torch

    with progress("exporting", "files"):
        written = export_torch(arguments.run, arguments.out, warn)
    return _wrote(written)


def _export_onnx(arguments: argparse.Namespace) -> int:
    from convnet.exchange.onnx.exporter import export_onnx

    with progress("exporting", "files"):
        written = export_onnx(arguments.run, arguments.out, warn)
    return _wrote(written)


def _wrote(paths: Iterable[Path]) -> int:
    for path in paths:
        print(f"wrote {path}")
    return DONE
