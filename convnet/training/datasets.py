"""The data sets of a configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from convnet.config import Config
from convnet.data import DataError, Dataset, from_indexable, open_data
from convnet.data.dataset import expanded
from convnet.data.sources import PACKAGED

Data = str | os.PathLike[str] | Sequence[Any] | Mapping[str, Any] | None


def with_path(cfg: Config, data: Data) -> Config:
    """The configuration with `data.path` replaced by `data`, if that is a path, and absolute, so
    that a run can be resumed from another folder. Of sets it says that they were given."""
    if data is not None and not isinstance(data, (str, os.PathLike)):
        train, _ = sets_of(data)
        height, width, _ = train.shape
        given = replace(cfg.data, source="given", path="", size=(height, width))
        given = replace(given, resize=getattr(train, "resize", cfg.data.resize))
        return replace(cfg, data=given)
    path = os.fspath(data) if isinstance(data, (str, os.PathLike)) else cfg.data.path
    if path and not (path == PACKAGED and cfg.data.source == "fashion-mnist"):
        path = str(expanded(path).absolute())
    return replace(cfg, data=replace(cfg.data, path=path))


_VALIDATION = ("validation", "val", "valid", "test")  # splits of dictionaries, the first there is


def sets_of(data: Sequence[Any] | Mapping[str, Any]) -> tuple[Dataset, Dataset]:
    """The training and the validation set of a pair: each a data set, a pair of arrays (images,
    labels), or anything else that `convnet.data.from_indexable` takes. Of a dictionary of splits,
    as Hugging Face has it, "train" and "validation", or "val", "valid" or else "test".

    Raises: DataError: no pair, or no data sets.
    """
    if isinstance(data, Mapping):
        found = [name for name in _VALIDATION if name in data]
        if "train" not in data or not found:
            names = ", ".join(map(repr, data))[:200]
            raise DataError(
                f"data: expected splits 'train' and 'validation' or 'test', got {names}"
            )
        data = data["train"], data[found[0]]
    if len(data) != 2:
        raise DataError(f"data: expected (training set, validation set), got {len(data)} of them")
    train, validation = (d if isinstance(d, Dataset) else from_indexable(d) for d in data)
    return train, validation


def open_sets(cfg: Config, data: Data = None, training: bool = True) -> tuple[Dataset, Dataset]:
    """The training and validation sets.

    Args:
        cfg: its `data` table.
        data: a path that replaces `data.path`, or the two sets themselves; see `sets_of`.
        training: as for `convnet.data.open_data`.

    Raises:
        DataError: missing, damaged or unsuitable data.
    """
    if data is None or isinstance(data, (str, os.PathLike)):
        return open_data(with_path(cfg, data).data, training)
    train, validation = sets_of(data)
    if train.shape != validation.shape or train.classes != validation.classes:
        raise DataError(
            f"validation data: expected {train.shape} and {len(train.classes)} classes as in the "
            f"training data, got {validation.shape} and {len(validation.classes)}"
        )
    return train, validation
