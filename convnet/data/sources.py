"""Finding the data a config asks for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from convnet.config import DataConfig
from convnet.data import cifar10, idx
from convnet.data.dataset import DataError, Dataset, expanded, mismatch, readable, shown
from convnet.data.folder.image_folder import open_folder
from convnet.data.packed.dataset import open_packed
from convnet.data.packed.manifest import is_packed
from convnet.data.packed.shards import WORK
from convnet.data.webdataset import open_shards

# Test accuracy, in %, that the preset `fashion-mnist` reaches on the packaged sample.
SAMPLE_ACCURACY: float | None = 87.0

GIVEN = "given"  # as a source: the sets were given to `convnet.train`, in Python
PACKAGED = "sample"  # as a path: the sample of Fashion-MNIST that comes with the package
SAMPLE_FOLDER = Path(__file__).parent / "sample"
_SYSTEM_FOLDER = Path("/usr/share/datasets")


class Published(NamedTuple):
    """A published set.

    Attributes:
        title: its name.
        shape: (H, W, C) of its images.
        classes: how many it has.
        names: of the classes, for sets in IDX files; CIFAR's files have them.
        torchvision: where torchvision leaves IDX files inside its own folder.
    """

    title: str
    shape: tuple[int, int, int]
    classes: int
    names: tuple[str, ...] = ()
    torchvision: str = ""


PUBLISHED = {
    "cifar10": Published("CIFAR-10", (32, 32, 3), 10),
    "cifar100": Published("CIFAR-100", (32, 32, 3), 100),
    "mnist": Published("MNIST", (28, 28, 1), 10, idx.DIGITS, "MNIST/raw"),
    "fashion-mnist": Published(
        "Fashion-MNIST", (28, 28, 1), 10, idx.FASHION_CLASSES, "FashionMNIST/raw"
    ),
}


def open_data(cfg: DataConfig, training: bool = True) -> tuple[Dataset, Dataset]:
    """Opens the training and the validation images that a configuration asks for.

    Args:
        cfg: the [data] table of a configuration. They are looked for at `cfg.path` and nowhere else
            where that is given ("sample" is the packaged sample of Fashion-MNIST). Otherwise the
            published sets are looked for in $CONVNET_DATA or its sub-folder named after the source,
            /usr/share/datasets/<source>, ~/.cache/convnet/<source> ($XDG_CACHE_HOME is respected),
            and, for fashion-mnist, in the sample that comes with the package. For the source
            "folder" the path may also be a folder of packed images; for "webdataset" it is a folder
            of shards.
        training: whether the training images are wanted; if not, those of a folder with `train/`
            and `val/` are not checked.

    Returns:
        training and validation images; for the published sets, the latter are their test images.
        The descriptions say where they were found.

    Raises:
        DataError: no data there, or damaged data; or `cfg.size` for a set of fixed size.
    """
    if cfg.source == GIVEN and not cfg.path:
        raise mismatch(
            "data.source",
            "the sets that the run was given in Python (data=(training set, validation set)), or "
            "a path with --data",
            "neither: no other data take their place",
        )
    if cfg.source in ("folder", GIVEN):
        folder = _folder_path(cfg)
        if is_packed(folder):
            return open_packed(folder, cfg.size, resize=cfg.resize)
        if (folder / WORK).is_dir():
            got = "an unfinished packing; the same convnet data pack command goes on with it"
            raise mismatch(folder, "packed images", got)
        return open_folder(
            folder,
            cfg.size,
            cfg.val_fraction,
            bad_files=cfg.bad_files,
            resize=cfg.resize,
            copies=cfg.copies,
            training=training,
        )
    if cfg.source == "webdataset":
        return open_shards(_folder_path(cfg), cfg.size, cfg.val_fraction, cfg.resize)
    if cfg.source == "fashion-mnist" and cfg.path == PACKAGED:
        return _checked_size(cfg, _open_sample())
    tried: list[str] = []
    for place in _places(cfg):
        found = _open_at(cfg.source, place)
        if found is not None:
            return _checked_size(cfg, found)
        if cfg.path:
            got = "a folder without them" if place.is_dir() else "another file"
            got = got if place.exists() else "no such file or folder"
            raise mismatch(place, _file_names(cfg.source), got)
        tried.append(shown(place))
    if cfg.source == "fashion-mnist":
        return _checked_size(cfg, _open_sample())
    raise DataError(
        f"{PUBLISHED[cfg.source].title}: expected {_file_names(cfg.source)} at data.path (--data)"
        f" or in one of {', '.join(tried)}; got none"
    )


def _folder_path(cfg: DataConfig) -> Path:
    path = cfg.path or os.environ.get("CONVNET_DATA", "")
    if not path:
        what = "shards" if cfg.source == "webdataset" else "one sub-folder of images per class"
        raise DataError(
            f"data.path: expected a folder with {what} (--data DIR, or $CONVNET_DATA), got none"
        )
    return expanded(path)


def _places(cfg: DataConfig) -> Iterator[Path]:
    """Where to look, in order."""
    if cfg.path:
        yield expanded(cfg.path)
        return
    variable = os.environ.get("CONVNET_DATA", "")
    if variable:
        folder = expanded(variable)
        if not folder.exists():
            raise mismatch("$CONVNET_DATA", "a folder", f"{shown(folder)}: no such file")
        yield folder
        yield folder / cfg.source
    yield _SYSTEM_FOLDER / cfg.source
    cache = os.environ.get("XDG_CACHE_HOME", "") or "~/.cache"
    yield expanded(cache) / "convnet" / cfg.source


def _file_names(source: str) -> str:
    """What to look for, as said in messages."""
    if PUBLISHED[source].names:
        return (
            "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and"
            " t10k-labels-idx1-ubyte (or .gz)"
        )
    return f"{' or '.join(cifar10.archive_names(source))} (or their unpacked folder)"


def _open_at(source: str, place: Path) -> tuple[Dataset, Dataset] | None:
    """The set at this place, or None where nothing of it is there."""
    published = PUBLISHED[source]
    with readable(place, "a readable folder"):
        if not published.names:
            found = cifar10.find_set(source, place)
            return None if found is None else cifar10.open_set(found, published.title)
        for folder in (place, place / published.torchvision):
            if (files := idx.find_files(folder)) is not None:
                title = f"{published.title} from {shown(folder)}"
                return idx.open_set(files, published.names, title)
    return None


def _open_sample() -> tuple[Dataset, Dataset]:
    files = idx.find_files(SAMPLE_FOLDER)
    if files is None:
        got = "none; install the package again"
        raise mismatch(SAMPLE_FOLDER, "the packaged sample of Fashion-MNIST", got)
    train, test = idx.open_set(files, idx.FASHION_CLASSES, "packaged sample of Fashion-MNIST")
    hint = "only a sample, the whole set has 60,000 and 10,000"
    if SAMPLE_ACCURACY is not None:
        hint += f"; expect about {SAMPLE_ACCURACY:g} % test accuracy"
    hint += "; for the whole set: apt install dataset-fashion-mnist, or --data DIR"
    train.description += f" ({hint})"
    test.description += " (only a sample)"
    return train, test


def _checked_size(cfg: DataConfig, found: tuple[Dataset, Dataset]) -> tuple[Dataset, Dataset]:
    height, width, _ = found[0].shape
    if tuple(cfg.size) not in ((0, 0), (height, width)):
        of = f"the size of every image of {PUBLISHED[cfg.source].title}"
        got = f"{list(cfg.size)}; only folders of images are scaled"
        raise mismatch("data.size", f"[0, 0] or [{height}, {width}], {of}", got)
    return found
