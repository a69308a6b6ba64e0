"""Searching files of features and codes: the images that are nearest to others.

An index is what `convnet features` or `convnet hash` has written. Source: paper, section 6.1 and
figure 4, right.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convnet.common.typecheck import brief
from convnet.config import DataConfig
from convnet.config.reading import Place, section
from convnet.data import DataError, Dataset
from convnet.data.dataset import mismatch, shown
from convnet.evaluation.evaluate import as_warning, open_run, validation_sets
from convnet.interpret.examples import Example, from_files, from_set, large_image
from convnet.interpret.montage import Panel, neighbour_rows, save_image
from convnet.retrieval import tensor_file
from convnet.retrieval.features import FORMAT, VERSION, features_of, net_facts
from convnet.retrieval.hashing import Encoder, HashSettings, learn_codes
from convnet.retrieval.image_set import (
    PARTS,
    SOURCE_KEYS,
    Joined,
    Source,
    data_facts,
    image_names,
    open_source,
)
from convnet.retrieval.knn import Euclidean, Neighbours, Vectors, nearest_codes
from convnet.retrieval.tensor_file import TensorFile

CODES = "convnet codes"
Run = str | os.PathLike[str]


class Index:
    """An open file of features or codes.

    Args:
        file: what `convnet.retrieval.features` or `write_codes` has written.
        engine: as for `convnet.retrieval.knn.Euclidean`; for features.

    Attributes:
        kind: "features" or "codes"; facts: what the file says of itself.
        labels: int32 [N], -1 where there are none; classes: their names.
    """

    def __init__(self, file: TensorFile, engine: str = "numpy") -> None:
        self.file, self.facts, self.path = file, file.facts, file.path
        self.kind = "codes" if self.facts.get("format") == CODES else "features"
        try:
            _check_facts(self.facts)
            _check_arrays(file.arrays, self.kind)
            self.encoder = _encoder(file) if self.kind == "codes" else None
        except DataError as error:
            raise DataError(f"{shown(self.path)}: damaged index ({error})") from None
        self.rows = file.arrays[self.kind]
        self.labels: npt.NDArray[np.int32] = np.asarray(file.arrays["labels"])
        self.classes: tuple[str, ...] = tuple(self.facts["classes"])
        self._search = Euclidean(len(self.rows), self._read, engine)

    def _read(self, first: int, last: int) -> Vectors:
        part: Vectors = self.rows[first:last]
        return part

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def bytes_per_image(self) -> int:
        return int(self.rows.shape[1]) * self.rows.dtype.itemsize

    def encode(self, features: Vectors) -> np.ndarray:
        """Features as this index compares them: themselves, or their codes."""
        return features if self.encoder is None else self.encoder(features)

    def nearest(self, features: Vectors, k: int) -> Neighbours:
        """The k nearest images for features float32 [Q, D] of the same layer.

        Raises: DataError: k out of range, or features of another size.
        """
        return self.nearest_encoded(self.encode(features), k)

    def nearest_encoded(self, queries: np.ndarray, k: int) -> Neighbours:
        """As `nearest`, for what `encode` has returned."""
        if self.kind == "codes":
            return nearest_codes(queries, self.rows, k)
        return self._search.nearest(queries, k)

    def name(self, number: int) -> str:
        """The file that an image was made from, or its part and number."""
        if "name_ends" not in self.file.arrays:
            return f"{self.facts['data']['part']} {number}"
        ends = self.file.arrays["name_ends"]
        start = int(ends[number - 1]) if number else 0
        text = self.file.arrays["names"][start : int(ends[number])].tobytes()
        return shown(text.decode(errors="surrogateescape"))

    def label(self, number: int) -> str | None:
        """The name of an image's class, or None."""
        label = int(self.labels[number])
        return self.classes[label] if 0 <= label < len(self.classes) else None


def open_index(path: Run, engine: str = "numpy", check: bool = True) -> Index:
    """Opens a file of features or codes.

    Args:
        path: the file.
        engine: as for `Index`.
        check: read all of it and compare its checksum (about a second a gigabyte).

    Raises: DataError: missing, unfinished, damaged, of a later version, or no index at all.
    """
    place = Path(path)
    unfinished = place.with_name(place.name + ".part")
    if not place.exists() and unfinished.exists():
        raise DataError(
            f"{shown(place)}: not complete yet ({shown(unfinished)}); the same convnet features"
            " command goes on with it"
        )
    file = tensor_file.open_tensors(place)
    if file.facts.get("format") not in (FORMAT, CODES):
        raise mismatch(place, "features or codes", "another file")
    version = file.facts.get("version")
    if version != VERSION:
        got = f"{brief(str(version))}; a newer convnet has made it"
        raise mismatch(place, f"version {VERSION}", got)
    if check:
        file.verify()
    return Index(file, engine)


def _check_facts(facts: dict[str, Any]) -> None:
    """Whether a file says of itself what `write_features` says. Raises: DataError: what it lacks.

    The path of its images is checked by `indexed_images`.
    """
    for table, key, what in (("net", "layer", "layer"), ("data", "part", "images")):
        said = facts.get(table)
        if not isinstance(said, dict) or not isinstance(said.get(key), str):
            raise DataError(f"it does not say of which {what}")
    classes = facts.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise DataError("its classes are no names")


def _take(arrays: Mapping[str, np.ndarray], name: str, dtype: npt.DTypeLike, axes: int) -> Any:
    """An array of a file. Raises: DataError: it is not there, empty, or of another type or rank."""
    array = arrays.get(name)
    if array is None or array.dtype != dtype or array.ndim != axes or not array.size:
        raise DataError(f"no {name} in it, or of another type")
    return array


def _check_arrays(arrays: Mapping[str, np.ndarray], kind: str) -> None:
    """Whether the arrays of a file fit. Raises: DataError: which does not."""
    rows = _take(arrays, kind, np.uint8 if kind == "codes" else np.float32, 2)
    labels = _take(arrays, "labels", np.int32, 1)
    if len(labels) != len(rows):
        raise DataError("its arrays do not fit")
    if "name_ends" in arrays:
        ends, names = _take(arrays, "name_ends", np.int64, 1), arrays.get("names")
        if names is None or names.dtype != np.uint8 or names.ndim != 1 or len(ends) != len(labels):
            raise DataError("its names do not fit")
        bounds = [0, int(ends[0]), int(ends[-1]), names.size]
        if bounds != sorted(bounds) or (np.diff(ends) < 0).any():
            raise DataError("its names do not fit")


def _encoder(file: TensorFile) -> Encoder:
    """The encoder in a file of codes. Raises: DataError: it is not whole."""
    arrays, said = file.arrays, file.facts.get("encoder")
    if not isinstance(said, dict) or type(said.get("layers")) is not int:
        raise DataError("it does not describe its encoder")
    scale = said.get("scale")
    if not isinstance(scale, float | int) or not 0 < scale < math.inf:
        raise DataError("the scale of its encoder is none")
    mean, threshold = (_take(arrays, name, np.float32, 1) for name in ("mean", "threshold"))
    weights = [
        (
            _take(arrays, f"encoder{i}.w", np.float32, 2),
            _take(arrays, f"encoder{i}.b", np.float32, 1),
        )
        for i in range(min(said["layers"], len(arrays)))
    ]
    bits = len(weights[-1][1]) if weights else 0
    if len(threshold) != bits or arrays["codes"].shape[1] != -(-bits // 8):
        raise DataError("the codes are not those of its encoder")
    try:
        copies = [(np.array(w), np.array(b)) for w, b in weights]
        return Encoder(np.array(mean), float(scale), copies, np.array(threshold))
    except ValueError as error:
        raise DataError(str(error)) from None


# ---- codes ---------------------------------------------------------------------------------------


def write_codes(
    features: Run,
    out: Run,
    settings: HashSettings,
    device: str = "auto",
) -> tuple[Index, float]:
    """Learns codes from a file of features and writes them, with their encoder.

    Args:
        features: what `convnet features` has written.
        out: the file, .safetensors; must not be there yet.
        settings, device: as for `convnet.retrieval.hashing.learn_codes`.

    Returns: the open index of codes, and the part of the variance that they leave unexplained.
    Raises: DataError: unsuitable features, or `out` is there; DeviceError; OSError.
    """
    path = Path(out)
    if path.exists():
        raise mismatch(path, "a new file", "one that is there; remove it first")
    index = open_index(features)
    if index.kind != "features":
        raise mismatch(index.path, "features", "codes")
    learned = learn_codes(index.rows, settings, device)
    encoder = learned.encoder
    about = {
        **vars(settings),
        "hidden": list(settings.sizes(index.rows.shape[1])),
        "layers": len(encoder.layers),
        "scale": encoder.scale,
        "unexplained": learned.loss,
        "size": len(encoder.mean),
    }
    held = ("labels", "names", "name_ends")
    arrays = {name: index.file.arrays[name] for name in held if name in index.file.arrays}
    arrays |= {"mean": encoder.mean, "threshold": encoder.threshold}
    for i, (w, b) in enumerate(encoder.layers):
        arrays |= {f"encoder{i}.w": w, f"encoder{i}.b": b}
    tensors = {"codes": ("uint8", (len(index), -(-encoder.bits // 8)))}
    temporary = path.with_name(path.name + ".tmp")
    try:
        facts = {**index.facts, "format": CODES, "encoder": about}
        file = tensor_file.create(temporary, facts, tensors, arrays)
        for start in range(0, len(index), 8192):
            rows = index.rows[start : start + 8192]
            file.arrays["codes"][start : start + len(rows)] = encoder(rows)
        file.seal()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return open_index(path, check=False), learned.loss


# ---- queries -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """A query and its nearest images, nearest first.

    Attributes:
        query: the image.
        numbers: places of its neighbours in the index, from 0.
        distances: their distances: Euclidean, or bits that differ.
        names, labels: the names of their files, and of their classes where these are known.
    """

    query: Example
    numbers: tuple[int, ...]
    distances: tuple[float, ...]
    names: tuple[str, ...]
    labels: tuple[str | None, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        keys = ("number", "distance", "name", "class")
        rows = zip(self.numbers, self.distances, self.names, self.labels, strict=True)
        neighbours = [dict(zip(keys, row, strict=True)) for row in rows]
        return {"query": self.query.name, "class": self.query.label, "neighbours": neighbours}


def search(
    run: Run,
    index: Index,
    images: Sequence[Run] = (),
    pick: Sequence[int] = (),
    k: int = 6,
    data: Run | None = None,
    device: str | None = None,
    warn: Callable[[str], None] = as_warning,
    code: bool = False,
) -> list[Found]:
    """The images of an index that are nearest to others in a layer of a net.

    Args:
        run: the run that the index was made with.
        index: features or codes.
        images: image files.
        pick: numbers of validation images of the run.
        k: how many neighbours.
        data: where the validation images are, if no longer where the run had them.
        device, warn, code: as for `convnet.evaluation.evaluate.open_run`.

    Returns: for each query, its k neighbours, nearest first.
    Raises: DataError: an index of another net, no query, or an image that cannot be used;
        CheckpointError, RunError, DeviceError.
    """
    trained = open_run(run, device, warn, code=code)
    layer = str(index.facts["net"]["layer"])
    if layer not in trained.net.shapes or net_facts(trained, layer) != index.facts["net"]:
        raise mismatch(index.path, f"features of {trained.checkpoint.path}", "those of another net")
    examples = list(from_files(trained, images)) if images else []
    if pick:
        (validation,) = validation_sets([trained], data)
        examples += from_set(validation, pick, "validation")
    if not examples:
        raise DataError(
            "search: expected images to search for (IMG... or --pick N,N,...), got none"
        )
    queries = features_of(trained, layer, np.stack([one.pixels for one in examples]))
    near = index.nearest(queries, k)
    found = []
    for example, row, distances in zip(examples, near.indices, near.distances, strict=True):
        numbers = tuple(row.tolist())
        names, labels = tuple(map(index.name, numbers)), tuple(map(index.label, numbers))
        found.append(Found(example, numbers, tuple(distances.tolist()), names, labels))
    return found


def indexed_images(index: Index, data: Run | None = None) -> Dataset:
    """The images of an index, opened where they were, or at `data`.

    Raises: DataError: they are not there, or are others.
    """
    said = index.facts["data"]
    where = {key: said[key] for key in SOURCE_KEYS if key in said}
    if data is not None:
        where["path"] = os.fspath(data)
    cfg = section(DataConfig, where, Place(shown(index.path), "data"))
    if said["part"] not in PARTS:
        raise DataError(f"{shown(index.path)}: damaged index (it does not say of which images)")
    dataset, _ = open_source(Source(cfg, said["part"]))
    if data_facts(dataset, image_names(dataset))["sha256"] != said.get("sha256"):
        raise DataError(
            f"{shown(index.path)}: the images have changed since it was made"
            f" ({dataset.description})"
        )
    return dataset


def draw(found: Sequence[Found], index: Index, out: Run, data: Run | None = None) -> None:
    """An image with a row for each query: the query, then its neighbours (paper, figure 4).

    Args:
        found: what `search` has returned.
        index: in which.
        out: the file, .png or another of Pillow's.
        data: the path of the images of the index, if they have moved.

    Raises: DataError: the images are gone or have changed. OSError.
    """
    dataset = indexed_images(index, data)
    rows = []
    for one in found:
        row = [Panel(one.query.shown, (one.query.label or "", "query"))]
        for number, distance, label in zip(one.numbers, one.distances, one.labels, strict=True):
            same = None if None in (label, one.query.label) else label == one.query.label
            text = distance_text(index, distance)
            title = label or Path(index.name(number)).name
            row.append(Panel(_image(dataset, number), (title, text), same))
        rows.append(row)
    save_image(neighbour_rows(rows), Path(out))


def distance_text(index: Index, distance: float) -> str:
    """A distance in this index as people read it."""
    if index.kind == "features":
        return f"{distance:.4g}"
    return f"{distance:.0f} bit{'' if distance == 1 else 's'}"


def _image(dataset: Dataset, number: int) -> npt.NDArray[np.uint8]:
    one: Dataset = dataset
    if isinstance(dataset, Joined):
        one, number = dataset.place(number)
    return large_image(one, number, one.read([number])[0])
