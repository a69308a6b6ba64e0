"""The data sets of a configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from convnet.config import Config
from convnet.data import DataError, Dataset, open_data
from convnet.data.dataset import expanded
from convnet.data.sources import PACKAGED

Data = str | os.PathLike[str] | Sequence[Dataset] | None


def with_path(cfg: Config, data: Data) -> Config:
    """The configuration with `data.path` replaced by `data`, if that is a path, and absolute, so
    that a run can be resumed from another folder."""
    path = os.fspath(data) if isinstance(data, (str, os.PathLike)) else cfg.data.path
    if path and not (path == PACKAGED and cfg.data.source == "fashion-mnist"):
        path = str(expanded(path).absolute())
    return replace(cfg, data=replace(cfg.data, path=path))


def open_sets(cfg: Config, data: Data = None) -> tuple[Dataset, Dataset]:
    """The training and validation sets.

    Args:
        cfg: its `data` table.
        data: a path that replaces `data.path`, or the two sets themselves.

    Raises:
        DataError: missing, damaged or unsuitable data.
    """
    if data is None or isinstance(data, (str, os.PathLike)):
        return open_data(with_path(cfg, data).data)
    train, validation = data
    if train.shape != validation.shape or train.classes != validation.classes:
        raise DataError(
            f"validation data: expected {train.shape} and {len(train.classes)} classes as in the "
            f"training data, got {validation.shape} and {len(validation.classes)}"
        )
    return train, validation
