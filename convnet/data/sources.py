"""Finding the data a config asks for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from convnet.config import DataConfig
from convnet.data import cifar10, idx
from convnet.data.dataset import DataError, Dataset, expanded, mismatch, readable, shown
from convnet.data.folder.image_folder import open_folder
from convnet.data.packed.dataset import open_packed
from convnet.data.packed.manifest import is_packed
from convnet.data.packed.shards import WORK

# Test accuracy, in %, that the preset `fashion-mnist` reaches on the packaged sample.
SAMPLE_ACCURACY: float | None = 87.0

PACKAGED = "sample"  # as a path: the sample of Fashion-MNIST that comes with the package
SAMPLE_FOLDER = Path(__file__).parent / "sample"
_SYSTEM_FOLDER = Path("/usr/share/datasets")

_TITLES = {
    "fashion-mnist": "Fashion-MNIST",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}
_CLASSES = {"fashion-mnist": idx.FASHION_CLASSES, "mnist": idx.DIGITS}
# Where torchvision leaves the files inside its own folder.
_INNER_FOLDERS = {"fashion-mnist": ("", "FashionMNIST/raw"), "mnist": ("", "MNIST/raw")}


def open_data(cfg: DataConfig) -> tuple[Dataset, Dataset]:
    """Opens the training and the validation images that a configuration asks for.

    Args:
        cfg: the [data] table of a configuration. They are looked for at `cfg.path` and nowhere else
            where that is given ("sample" is the packaged sample of Fashion-MNIST). Otherwise the
            published sets are looked for in $CONVNET_DATA or its sub-folder named after the source,
            /usr/share/datasets/<source>, ~/.cache/convnet/<source> ($XDG_CACHE_HOME is respected),
            and, for fashion-mnist, in the sample that comes with the package. For the source
            "folder" the path may also be a folder of packed images.

    Returns:
        training and validation images; for the published sets, the latter are their test images.
        The descriptions say where they were found.

    Raises:
        DataError: no data there, or damaged data; or `cfg.size` for a set of fixed size.
    """
    if cfg.source == "folder":
        folder = _folder_path(cfg)
        if is_packed(folder):
            return open_packed(folder, cfg.size)
        if (folder / WORK).is_dir():
            got = "an unfinished packing; the same convnet data pack command goes on with it"
            raise mismatch(folder, "packed images", got)
        return open_folder(folder, cfg.size, cfg.val_fraction, bad_files=cfg.bad_files)
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
        f"{_TITLES[cfg.source]}: expected {_file_names(cfg.source)} at data.path (--data) or in one"
        f" of {', '.join(tried)}; got none"
    )


def _folder_path(cfg: DataConfig) -> Path:
    path = cfg.path or os.environ.get("CONVNET_DATA", "")
    if not path:
        raise DataError(
            "data.path: expected a folder with one sub-folder of images per class"
            " (--data DIR, or $CONVNET_DATA), got none"
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
    if source in _CLASSES:
        return (
            "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and"
            " t10k-labels-idx1-ubyte (or .gz)"
        )
    return f"{' or '.join(cifar10.archive_names(source))} (or their unpacked folder)"


def _open_at(source: str, place: Path) -> tuple[Dataset, Dataset] | None:
    """The set at this place, or None where nothing of it is there."""
    with readable(place, "a readable folder"):
        if source not in _CLASSES:
            found = cifar10.find_set(source, place)
            return None if found is None else cifar10.open_set(found, _TITLES[source])
        for inner in _INNER_FOLDERS[source]:
            files = idx.find_files(place / inner)
            if files is not None:
                title = f"{_TITLES[source]} from {shown(place / inner)}"
                return idx.open_set(files, _CLASSES[source], title)
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
        raise mismatch(
            "data.size",
            f"[0, 0] or [{height}, {width}], the size of every image of {_TITLES[cfg.source]}",
            f"{list(cfg.size)}; only folders of images are scaled",
        )
    return found
