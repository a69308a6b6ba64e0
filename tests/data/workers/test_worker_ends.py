"""Workers end with the program that started them, however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny
from jobs import Shouting
from paths import SUPPORT
from worker_sets import children, gone

from convnet.data.workers.pool import Pool

pytestmark = pytest.mark.usefixtures("default_signals")


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
