"""The last hidden layer of a net for a whole data set, in a file that search takes.

Source: paper, section 6.1: images that are close in the last hidden layer look alike to the net.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convnet.common.files import lock_file, replace, sync_folder
from convnet.common.progress import progress
from convnet.common.reading import JSON, parse_json, read_text
from convnet.common.typecheck import did_you_mean
from convnet.data import DataError, Dataset
from convnet.data.dataset import Images, mismatch, shown
from convnet.evaluation.evaluate import Trained, as_warning, loader_of, open_run
from convnet.evaluation.predict import batches
from convnet.layers import Dense, graph
from convnet.nn.net import Net
from convnet.retrieval import tensor_file
from convnet.retrieval.image_set import Part, data_facts, image_names, open_source, source_for
from convnet.retrieval.tensor_file import TensorFile

FORMAT, VERSION = "convnet features", 1
UNFINISHED = ".part"  # ends the name of a file that is being written
_EVERY = 2.0  # seconds between the moments from which an interrupted run goes on


# ---- what a net says of images -----------------------------------------------------------------


def last_hidden(net: Net) -> str:
    """The node whose output the last dense layer takes.

    Raises: DataError: the net has no layer below its last dense one.
    """
    last = net.nodes[-1].name
    above = graph.ancestors(net.nodes, last)
    dense = [n for n in net.nodes if n.name in above and isinstance(n.layer, Dense)]
    inputs = graph.input_names(dense[-1]) if dense else (graph.INPUT,)
    if inputs[0] == graph.INPUT:
        raise DataError("layer: expected a net with a hidden layer, got none; --layer names one")
    return inputs[0]


def checked_layer(net: Net, layer: str | None) -> str:
    """`layer`, or the last hidden one.

    Raises: DataError: there is no such node, or it is the loss's.
    """
    if layer is None:
        return last_hidden(net)
    if layer not in net.shapes:
        raise DataError(f"layer: no node {layer!r}{did_you_mean(layer, net.shapes)}")
    return layer


def features_of(trained: Trained, layer: str, pixels: Images) -> npt.NDArray[np.float32]:
    """A layer's output in test mode, float32 [N, D], for images uint8 [N, H, W, C]."""
    found = [
        trained.net.forward(trained.prepare(batch), layer, len(batch))
        for batch in batches(trained, pixels)
    ]
    return np.concatenate(found).reshape(len(pixels), -1)


def net_facts(trained: Trained, layer: str) -> dict[str, Any]:
    """What features depend on besides the images: a digest of the net and of how it is fed."""
    cfg = trained.cfg
    how = {
        "net": trained.checkpoint.state["config"]["net"],  # as written: names may change since
        "mean": cfg.data.mean,
        "scale": cfg.data.scale,
        "crop": list(cfg.augment.crop),
        "picture": list(trained.image_shape),
    }
    digest = hashlib.sha256(json.dumps(how, sort_keys=True, default=str).encode())
    for name, array in sorted(trained.checkpoint.arrays.items()):
        if not name.endswith(":velocity"):
            digest.update(f"\n{name} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return {"sha256": digest.hexdigest(), "layer": layer, "picture": list(trained.image_shape)}


# ---- writing -------------------------------------------------------------------------------------


@dataclass
class Written:
    """The result of `write_features`.

    Attributes:
        path: the file; layer, count, size: the node, images, and numbers an image.
        done_before: images that an earlier, interrupted call had done.
        seconds: what this call took.
    """

    path: Path
    layer: str
    count: int
    size: int
    done_before: int
    seconds: float


def write_features(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    layer: str | None = None,
    part: Part = "train",
    device: str | None = None,
    warn: Callable[[str], None] = as_warning,
    code: bool = False,
) -> Written:
    """Writes the output of a layer, in test mode, for every image of a set.

    The file is written in place and mapped, so that memory holds a batch at a time. A call that was
    interrupted, however suddenly, goes on where it was when it is repeated, with the same bits.

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file.
        data: as `data.path` of the configuration; None: the data of the run. For a run on folders
            also a folder of images without classes.
        out: the file, .safetensors. Until it is complete it is called OUT.part.
        layer: a node; by default the input of the last dense layer.
        part: "train", "val" (validation), or "all": training first.
        device, warn, code: as for `convnet.evaluation.evaluate.open_run`.

    Returns:
        the file, and what was done.

    Raises:
        DataError: unsuitable data; or `out` is there, of another net, layer or data.
        CheckpointError, RunError, DeviceError; OSError: it cannot be written.
    """
    start = time.monotonic()
    trained = open_run(run, device, warn, code=code)
    layer = checked_layer(trained.net, layer)
    source = source_for(trained, data, part)
    dataset, labelled = open_source(source)
    if dataset.shape != trained.image_shape:
        got = dataset.shape
        raise mismatch(dataset.description, f"images {trained.image_shape} as in training", got)
    names = image_names(dataset)
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "net": net_facts(trained, layer),
        "data": {**source.as_dict(), **data_facts(dataset, names)},
        "classes": list(dataset.classes) if labelled else [],
    }
    size = int(np.prod(trained.net.shapes[layer]))
    path = Path(out)
    if path.exists():
        _check_same(tensor_file.open_tensors(path), facts, path, "holds")
        _progress_path(path).unlink(missing_ok=True)
        return Written(path, layer, len(dataset), size, len(dataset), time.monotonic() - start)
    with _unfinished(path, facts, dataset, names, size, labelled) as (file, done):
        _fill(file, trained, layer, dataset, done, warn)
        file.seal()
        file.path.replace(path)
        sync_folder(path.parent)
    _progress_path(path).unlink(missing_ok=True)
    return Written(path, layer, len(dataset), size, done, time.monotonic() - start)


def _check_same(file: TensorFile, facts: dict[str, Any], path: Path, verb: str) -> None:
    """Raises DataError where a file is of another net or other data than `facts` are."""
    whats = {"format": "another kind", "net": "another net or layer", "data": "other images"}
    for key, what in whats.items():
        then, now = file.facts.get(key), facts[key]
        if key == "data" and isinstance(then, dict):  # the same images, wherever they lie now
            then, now = ({k: one.get(k) for k in ("sha256", "pictures")} for one in (then, now))
        if then != now:
            raise DataError(
                f"{shown(path)}: {verb} features of {what}; remove it or name another file"
            )


def _progress_path(path: Path) -> Path:
    return path.with_name(f"{path.name}{UNFINISHED}.json")


@contextlib.contextmanager
def _unfinished(
    path: Path,
    facts: dict[str, Any],
    dataset: Dataset,
    names: list[str] | None,
    size: int,
    labelled: bool,
) -> Iterator[tuple[TensorFile, int]]:
    """OUT.part, made or taken up again and locked, and how many of its rows are done."""
    place = path.with_name(path.name + UNFINISHED)
    begun = _rows_done(_progress_path(path)) if place.exists() else None
    if begun is not None:
        _check_same(tensor_file.open_tensors(place), facts, place, "was begun with")
    try:
        handle = lock_file(place)
    except BlockingIOError:
        raise DataError(f"{shown(place)}: another process is writing this file") from None
    try:
        if begun is not None:
            yield tensor_file.open_tensors(place, write=True), min(begun, len(dataset))
            return
        arrays = {"labels": dataset.labels if labelled else np.full(len(dataset), -1, np.int32)}
        if names:
            held = [name.encode(errors="surrogateescape") for name in names]
            arrays["names"] = np.frombuffer(b"".join(held), np.uint8)
            arrays["name_ends"] = np.cumsum(list(map(len, held)), dtype=np.int64)
        large = {"features": ("float32", (len(dataset), size))}
        file = tensor_file.create(place, facts, large, arrays)
        _save_progress(path, 0)
        yield file, 0
    finally:
        os.close(handle)


def _rows_done(path: Path) -> int | None:
    """What the progress file says; None where there is none to go on from."""
    try:
        said = parse_json(read_text(path, JSON))
    except (OSError, ValueError):
        return None
    rows = said.get("rows") if isinstance(said, dict) else None
    return rows if type(rows) is int and rows >= 0 else None


def _save_progress(path: Path, rows: int) -> None:
    text = json.dumps({"rows": rows}).encode()
    replace(_progress_path(path), text)


def _fill(
    file: TensorFile,
    trained: Trained,
    layer: str,
    dataset: Dataset,
    done: int,
    warn: Callable[[str], None],
) -> None:
    """Computes the rows that are missing, in the batches in which all would be computed."""
    rows, batch = file.arrays["features"], min(trained.cfg.train.batch, len(dataset))
    loader = loader_of(trained, dataset, batch, warn)
    path = file.path.with_name(file.path.name.removesuffix(UNFINISHED))
    first = done // batch
    at, saved = first * batch, time.monotonic()
    steps = contextlib.closing(loader.epoch(0, first))  # type: ignore[type-var]
    with steps as batches, progress("features", "images") as tell:
        for step in batches:
            found = trained.net.forward(trained.prepare(step), layer, len(step))
            if not np.isfinite(found).all():
                raise mismatch(layer, "finite features", "NaN or infinity")
            rows[at : at + len(step)] = found.reshape(len(step), -1)
            at += len(step)
            tell(at, len(dataset))
            if time.monotonic() - saved > _EVERY:
                file.flush()
                _save_progress(path, at)
                saved = time.monotonic()
