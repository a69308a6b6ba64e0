"""Worker processes: the same batches for any number of them, and nothing left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from jobs import Shouting, Unstartable
from paths import SUPPORT
from PIL import Image

from convnet.config import AugmentConfig, load_config
from convnet.data import Batch, DataError, Loader, statistics
from convnet.data.folder.image_folder import FolderDataset, open_folder
from convnet.data.workers import feeder as feeder_module
from convnet.data.workers.feeder import Feeder
from convnet.data.workers.pool import Pool, WorkerError, usable_cpus
from convnet.training.setup import build

pytestmark = pytest.mark.usefixtures("default_signals")

VARIED = AugmentConfig(crop=(10, 8), pad=1, mirror=True, colour_noise=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(60):
        path = root / ("cat", "dog")[number % 2] / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (14, 13, 3), np.uint8)).save(path)
    return root


def sets(folder: Path) -> tuple[FolderDataset, FolderDataset]:
    return open_folder(folder, (12, 12), cache_bytes=0)


def loader(folder: Path, workers: Any, train: bool = True, **options: Any) -> Loader:
    data = sets(folder)[0]
    return Loader(data, 8, 1, VARIED, statistics(data), train, workers=workers, **options)


def same(a: Batch, b: Batch) -> bool:
    names = ("images", "labels", "offsets", "mirror", "noise", "indices")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether this process ends, as one that runs or as a zombie, within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
                time.sleep(0.02)
                continue
        return True
    return False


def children(pid: int) -> list[int]:
    """The child processes of a process, whichever of its threads has started them."""
    while True:
        lists = Path(f"/proc/{pid}/task").glob("*/children")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread just ended
            return [int(word) for path in lists for word in path.read_text().split()]


def shared_names() -> set[str]:
    """Names of shared memory that could be ours (multiprocessing's are psm_...)."""
    found = os.listdir("/dev/shm")  # noqa: PTH208
    return {name for name in found if name.startswith(("psm_", "tmp", "convnet"))}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test may leave a child process (also no zombie) or a name in /dev/shm behind."""
    before = shared_names()
    yield
    gc.collect()
    names = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(os.getpid())]
    assert [name for name in names if b"convnet.data.workers.worker" in name or not name] == []
    assert shared_names() <= before


# ---- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [True, False])
def test_batches_do_not_depend_on_the_number_of_workers(folder: Path, train: bool) -> None:
    expected = [list(loader(folder, 0, train).epoch(epoch)) for epoch in (0, 1)]
    for workers in (1, 3) if train else (2,):
        with contextlib.closing(loader(folder, workers, train)) as made:
            for epoch in (0, 1):
                found = list(made.epoch(epoch))
                assert len(found) == len(expected[epoch]) == (6 if train else 7)
                assert all(same(a, b) for a, b in zip(found, expected[epoch], strict=True))
            rest = list(made.epoch(1, start_step=4))
            assert all(same(a, b) for a, b in zip(rest, expected[1][4:], strict=True))


def test_workers_live_from_epoch_to_epoch_of_training(folder: Path) -> None:
    with contextlib.closing(loader(folder, 2)) as made:
        pids = []
        for epoch in range(2):
            for _ in made.epoch(epoch):
                pass
            assert made._feeder is not None
            pids.append(made._feeder.pool.pids)
        assert pids[0] == pids[1]
        assert len(set(pids[0])) == 2
    assert all(gone(pid) for pid in pids[0])
    evaluating = loader(folder, 2, train=False)
    assert len(list(evaluating.epoch())) == 7
    assert evaluating._feeder is None


def test_sets_in_memory_need_no_workers(folder: Path) -> None:
    data = open_folder(folder, (12, 12))[0]
    made = Loader(data, 8, 1, AugmentConfig(), None, True, workers=3)
    assert len(list(made.epoch())) == 6
    assert made._feeder is None


@pytest.mark.parametrize("how", ["close", "drop", "error"])
def test_leaving_an_epoch_ends_the_workers(folder: Path, how: str) -> None:
    made = loader(folder, 2)
    batches = made.epoch(0)
    first = next(batches)
    assert made._feeder is not None
    pids = made._feeder.pool.pids
    if how == "close":
        batches.close()  # type: ignore[attr-defined]
    elif how == "error":
        with pytest.raises(ZeroDivisionError):
            batches.throw(ZeroDivisionError)  # type: ignore[attr-defined]
    del batches
    gc.collect()
    assert all(gone(pid) for pid in pids)
    again = list(made.epoch(0))  # from new workers
    made.close()
    assert same(again[0], first)
    assert len(again) == 6


def test_a_loader_that_is_dropped_ends_its_workers(folder: Path) -> None:
    made = loader(folder, 2)
    assert len(list(made.epoch(0))) == 6
    assert made._feeder is not None
    pids = made._feeder.pool.pids
    del made
    gc.collect()
    assert all(gone(pid) for pid in pids)


def test_an_error_arrives_at_its_batch(folder: Path, tmp_path: Path) -> None:
    data = sets(folder)[0]
    made = Loader(data, 8, 1, AugmentConfig(), None, False, workers=2)
    data.listing = data.listing.take(np.arange(len(data)))
    broken = str(tmp_path / "broken.png")
    Path(broken).write_bytes(b"nothing")
    real = data.items
    data.items = lambda wanted: [  # type: ignore[method-assign]
        broken if index == 20 else item for index, item in zip(wanted, real(wanted), strict=True)
    ]
    batches = made.epoch()
    assert [len(next(batches)) for _ in range(2)] == [8, 8]
    with pytest.raises(DataError, match=r"broken.png: expected an image, got a file that starts"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)


def test_wrong_numbers_of_workers(folder: Path) -> None:
    with pytest.raises(ValueError, match=r'workers of at least 0 or "auto", got -1'):
        loader(folder, -1)


# ---- memory --------------------------------------------------------------------------------------


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


# ---- deaths --------------------------------------------------------------------------------------


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


_PARENT = """
import os, sys, time
from pathlib import Path
from convnet.training.setup import build
from convnet.config import AugmentConfig, load_config
from convnet.data import Loader
from convnet.data.folder.image_folder import open_folder
data = open_folder(Path(sys.argv[1]), (12, 12), cache_bytes=0)[0]
loader = Loader(data, 8, 1, AugmentConfig(), None, True, workers=3)
for batch in loader.epoch():
    print(*loader._feeder.pool.pids, flush=True)
    if sys.argv[2] == "error":
        raise SystemExit("an error")
    time.sleep(600)
"""


_LEFT = """
import atexit, sys, time
from pathlib import Path
from convnet.config import AugmentConfig
from convnet.data import Loader
from convnet.data.folder.image_folder import open_folder
data = open_folder(Path(sys.argv[1]), (12, 12), cache_bytes=0)[0]
batches = Loader(data, 2, 1, AugmentConfig(), None, True, workers=2, prefetch=1000).epoch()
next(batches)
atexit.register(time.sleep, 1)
"""


def test_a_program_that_ends_within_an_epoch_says_nothing(folder: Path) -> None:
    """Its workers last until it ends: none is missed, and replaced, in between."""
    words = [sys.executable, "-P", "-c", _LEFT, str(folder)]
    done = subprocess.run(
        words, env=tiny.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT", "error"])
def test_workers_end_with_their_parent(folder: Path, how: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", _PARENT, str(folder), how],
        env=tiny.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 3
        if how.startswith("SIG"):
            os.kill(parent.pid, signal.Signals[how])
        _, err = parent.communicate(timeout=60)
    assert all(gone(pid) for pid in pids)
    assert err.count("Traceback") == (how == "SIGINT"), err


_BUSY_PARENT = """
import sys, time
from convnet.data.workers.pool import Pool
from jobs import Shouting
pool = Pool(Shouting(), 1)
assert list(pool.ordered(["a"])) == ["A"]
pool.submit(0, sys.argv[1])
print(*pool.pids, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker ends after its job")
@pytest.mark.parametrize("job", ["read", "hold"])
def test_a_worker_ends_with_its_parent_also_within_a_job(tmp_path: Path, job: str) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _BUSY_PARENT, f"{job} {fifo}"],
        env=tiny.environment(PYTHONPATH=str(SUPPORT)),
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        end = time.monotonic() + 30
        while not Path(f"{fifo}.begun").exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.1)
        parent.kill()
        parent.wait()
        try:
            assert gone(worker, 2.0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)


def test_a_worker_whose_parent_is_gone_before_it_looks() -> None:
    ours, theirs = socket.socketpair()
    words = f"{os.getppid()}, {theirs.fileno()}, None"
    code = f"from convnet.data.workers.worker import main; main({words})"
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=tiny.environment(),
            pass_fds=[theirs.fileno()],
            timeout=60,
            check=False,
        )
    assert done.returncode == 0


def test_workers_outlive_the_thread_that_started_them() -> None:
    """Those of the first minute, and one that was started in the place of a dead one."""
    said: list[str] = []
    made: list[Pool] = []

    def starts() -> None:
        pool = Pool(Shouting(), 2, warn=said.append)
        made.append(pool)
        list(pool.ordered(["a", "b"]))
        os.kill(pool.pids[0], signal.SIGKILL)
        while not said:
            list(pool.ordered(["a", "b"]))

    thread = threading.Thread(target=starts)
    thread.start()
    thread.join()
    with made[0] as pool:
        pids = pool.pids
        time.sleep(0.3)
        assert list(pool.ordered(["a", "b", "c"])) == ["A", "B", "C"]
        assert pool.pids == pids
    assert len(said) == 1
    threads = [thread.name for thread in threading.enumerate()]
    assert threads.count("convnet-workers") <= 1  # one is perhaps just ending


_FORKING = """
import os, sys
from pathlib import Path
from convnet.config import AugmentConfig
from convnet.data import Loader
from convnet.data.folder.image_folder import open_folder
data = open_folder(Path(sys.argv[1]), (12, 12), cache_bytes=0)[0]
loader = Loader(data, 8, 1, AugmentConfig(), None, True, workers=2)
batches = loader.epoch()
next(batches)
pids = loader._feeder.pool.pids
if (child := os.fork()) == 0:
    for going_on in (lambda: next(batches), lambda: next(loader.epoch())):
        try:
            going_on()
        except RuntimeError as error:
            print(error, flush=True)
    fresh = Loader(data, 8, 1, AugmentConfig(), None, True, workers=1)
    print(len(list(fresh.epoch())), flush=True)
    sys.exit(5)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(len(list(batches)), loader._feeder.pool.pids == pids)
"""


def test_a_forked_process_leaves_the_workers_to_its_parent(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _FORKING, str(folder)],
        env=tiny.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 5, done.stderr
    assert lines[0].startswith("Loader: expected the process that began this epoch, got one forked")
    assert lines[1].startswith("data workers: they belong to process ")
    assert lines[2:] == ["6", "5", "5 True"]


_TRAINING = """
import sys
from convnet.cli import main as cli
from convnet.data.folder.image_folder import open_folder
open_folder.__kwdefaults__["cache_bytes"] = 0  # as for a set that does not fit in memory
sys.exit(cli.main(sys.argv[1:]))
"""


def test_ctrl_c_in_training(folder: Path, tmp_path: Path) -> None:
    """The signal goes to the whole process group, as from a terminal: saved, and nothing left."""
    words = ["train", "folder", "--data", str(folder), "--device", "cpu", "--run-dir", "run"]
    words += ["--set", "data.workers=2", "--set", "data.size=[72, 72]", "--set", "train.batch=8"]
    words += ["--epochs", "1000", "--set", "train.log_steps=1"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _TRAINING, *words],
        env=tiny.environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        while "epoch 1/1000  step" not in (line := process.stdout.readline()):
            assert line, process.communicate()[1]
        pids = children(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "resume with: convnet train --resume run" in out
    assert "Traceback" not in err
    assert len(pids) >= 2  # those of training; perhaps those of validation, too
    assert all(gone(pid) for pid in pids)


def test_feeder_alone(folder: Path) -> None:
    """Batches of different sizes, more of them than the ring holds."""
    data = sets(folder)[0]
    wanted = [np.arange(n) for n in (7, 1, 5, 7, 2, 3, 7)]
    feeder = Feeder(data, 7, 2)
    for _ in range(2):
        found = list(feeder.stream(wanted))
        for images, indices in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(images, data.read(indices))
    assert list(feeder.stream([])) == []
    assert len(feeder.pool.pids) == 2
    early = feeder.stream(wanted)
    next(early)
    early.close()  # what is under way would be written into the next stream's memory
    assert feeder.pool.pids == []
    feeder.close()
    feeder.close()


# ---- with several processes that train -----------------------------------------------------------


@pytest.mark.parametrize("train", [True, False])
def test_workers_decode_only_this_process_s_share(
    folder: Path, train: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three processes, whose batches of 8 are 2, 3 and 3 together; the last in testing is of 4."""
    asked: list[int] = []
    stream = Feeder.stream

    def spy(self: Feeder, batches: Any) -> Any:
        return stream(self, (asked.extend(batch) or batch for batch in batches))

    monkeypatch.setattr(Feeder, "stream", spy)
    whole = list(loader(folder, 0, train).epoch(1))
    shares = []
    for rank in range(3):
        share = lambda count, rank=rank: (count * rank // 3, count * (rank + 1) // 3)  # noqa: E731
        plain = list(loader(folder, 0, train, share=share).epoch(1))
        asked.clear()
        with contextlib.closing(loader(folder, 2, train, share=share)) as with_workers:
            batches = list(with_workers.epoch(1))
        assert len(batches) == len(plain)
        assert all(map(same, batches, plain))
        assert asked == [index for batch in plain for index in batch.indices]
        shares.append(batches)
    for parts, batch in zip(zip(*shares, strict=True), whole, strict=True):
        for name in ("images", "labels", "offsets", "mirror", "indices"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            np.testing.assert_array_equal(joined, getattr(batch, name))


def test_a_process_without_a_share_of_the_last_batch(folder: Path) -> None:
    with contextlib.closing(loader(folder, 1, False, share=lambda count: (0, count // 8))) as few:
        assert [len(batch) for batch in few.epoch(0)] == [1] * (few.steps_per_epoch - 1)
    with contextlib.closing(loader(folder, 1, False, share=lambda count: (0, 0))) as none:
        assert list(none.epoch(0)) == []
