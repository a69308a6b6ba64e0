"""Few images to train on, with as many threads as there were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_series import write_data

import convnet


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = convnet.backend.get("cpu").module.thread_count()
    yield
    convnet.backend.set_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))
