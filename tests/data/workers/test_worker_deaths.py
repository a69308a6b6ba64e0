"""Workers that die or cannot start, jobs that fail, and memory that is not there."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from jobs import Shouting, Unstartable
from worker_sets import loader, same

from convnet.config import load_config
from convnet.data import DataError
from convnet.data.workers import feeder as feeder_module
from convnet.data.workers.pool import Pool, WorkerError, usable_cpus
from convnet.training.setup import build

pytestmark = pytest.mark.usefixtures("default_signals")


def test_too_little_memory_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(size: int) -> int:
        raise OSError(28, "No space left on device")

    expected = list(loader(folder, 0).epoch(0))
    monkeypatch.setattr(feeder_module, "shared_memory", none_left)
    text = r"data workers: expected 0 MiB of shared memory for batches, got No space left"
    with pytest.raises(DataError, match=text):
        list(loader(folder, 2).epoch(0))
    said: list[str] = []
    found = list(loader(folder, "auto", warn=said.append).epoch(0))
    assert len(said) == 1
    assert "decoding in this process instead" in said[0]
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_a_run_goes_on_without_workers_unless_it_asked_for_them(folder: Path) -> None:
    for workers, fallback in (("auto", True), (1, False)):
        settings = [f"data.workers={workers}", "train.batch=4"]
        parts = build(load_config("folder", settings), "cpu", folder)
        assert parts.loader.workers == max(1, usable_cpus() // 4) or workers == 1
        assert parts.loader.fallback is parts.validation_loader.fallback is fallback
        parts.close()


def test_a_limit_on_memory_is_found_before_decoding(folder: Path, tmp_path: Path) -> None:
    """A real lack of memory, in a process of its own; not a SIGBUS in the middle."""
    code = f"""
import resource, sys
from pathlib import Path
from convnet.training.setup import build
from convnet.config import AugmentConfig, load_config
from convnet.data import Loader
from convnet.data.folder.image_folder import open_folder
data = open_folder(Path({str(folder)!r}), (200, 200), cache_bytes=0)[0]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
print(len(list(Loader(data, 8, 1, AugmentConfig(), None, True, workers="auto").epoch())))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=tiny.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "6", done.stderr
    assert "expected 3 MiB of shared memory for batches, got File too large" in done.stderr


def test_a_worker_that_is_killed_is_replaced(folder: Path) -> None:
    expected = [list(loader(folder, 0).epoch(epoch)) for epoch in range(3)]
    said: list[str] = []
    with contextlib.closing(loader(folder, 2, warn=said.append)) as made:
        for epoch in range(3):
            found = []
            for step, batch in enumerate(made.epoch(epoch)):
                found.append(batch)
                if step == 0 and epoch:
                    assert made._feeder is not None
                    victim = made._feeder.pool.pids[0]
                    os.kill(victim, signal.SIGKILL)
            assert all(same(a, b) for a, b in zip(found, expected[epoch], strict=True))
        list(made.epoch(3))
    assert len(said) == 2, said
    assert f"data worker {victim} died, killed by SIGKILL" in said[1]


def test_a_job_that_kills_twice_is_named() -> None:
    said: list[str] = []
    with Pool(Shouting(), 2, warn=said.append) as pool, pytest.raises(WorkerError) as error:
        list(pool.ordered(["a", "die", "b", "c"]))
    assert "two died in the same job, the second by exit code 7: die" in str(error.value)
    assert len(said) == 1


def test_a_worker_that_is_killed_while_it_starts_is_replaced() -> None:
    said: list[str] = []
    with Pool(Shouting(), 1, warn=said.append) as pool:
        os.kill(pool.pids[0], signal.SIGKILL)
        assert list(pool.ordered(["a", "b"])) == ["A", "B"]
    assert len(said) == 1


def test_workers_that_keep_dying() -> None:
    said: list[str] = []

    def kill_for_ever(pool: Pool) -> None:
        while True:
            os.kill(pool.pids[0], signal.SIGKILL)
            list(pool.ordered(["a"]))

    with Pool(Shouting(), 1, warn=said.append) as pool, pytest.raises(WorkerError) as error:
        kill_for_ever(pool)
    assert len(said) == 5
    assert "6 have died, the last killed by SIGKILL (is the machine short of" in str(error.value)


def test_a_worker_that_cannot_start() -> None:
    with (
        Pool(Unstartable(), 1) as pool,
        pytest.raises(WorkerError, match=r"expected it to start, got its end \(exit code 3\)"),
    ):
        list(pool.ordered(["a"]))


def test_a_mistake_in_a_job_shows_its_traceback() -> None:
    with Pool(Shouting(), 1) as pool, pytest.raises(RuntimeError, match=r"(?s)Traceback.*KeyError"):
        list(pool.ordered(["a", "break"]))


def test_results_are_in_order_and_closing_does_not_wait() -> None:
    with Pool(Shouting(), 3) as pool:
        words = [f"w{i}" for i in range(200)]
        assert list(pool.ordered(iter(words))) == [word.upper() for word in words]
        pool.submit(0, "sleep")
        start = time.monotonic()
    assert time.monotonic() - start < 2
    with pytest.raises(WorkerError, match="the pool is closed"):
        pool.results()
    with pytest.raises(WorkerError, match="the pool is closed"):
        pool._start()
