"""Kills training runs with SIGKILL at random moments, resumes them, and compares the end, to the
bit, with that of a run that was left alone.

    python tests/stress/kill_and_resume.py --tries 100 [--seed 1] [--kinds plain,workers,ranks]

A try begins a run of one kind, kills it one to three times, and lets it end. The kinds are taken
in turn: one process; one with workers that decode; two or three ranks; two ranks with workers.
Killed are the process that trains, a worker, one rank, the ranks one after the other, mpiexec, or
all at once. After each death nothing may be left running. Ranks need mpi4py and mpiexec.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import numpy as np
import tiny
from mpi import MPIEXEC, OPEN_MPI
from PIL import Image
from runs import assert_same_end, newest

from convnet.config import load_config

# As `convnet`, for images that seem not to fit in memory.
_COMMAND = """
import sys
from convnet.cli import main as cli
from convnet.data.folder.image_folder import open_folder
open_folder.__kwdefaults__["cache_bytes"] = 0
sys.exit(cli.main(sys.argv[1:]))
"""
_MARK = "CONVNET_KILLED_RUN"
_LIMIT = 120.0  # seconds for a run to end


@dataclass(frozen=True)
class Kind:
    """What sort of run: `ranks` processes, each with `workers` that decode."""

    name: str
    ranks: int
    workers: int
    epochs: int

    def victims(self) -> list[str]:
        found = ["all at once"]
        found += ["a worker"] * (self.workers > 0)
        found += ["one rank", "ranks one by one", "mpiexec"] if self.ranks > 1 else ["trainer"]
        return found


KINDS = [  # workers are started anew for every validation, hence fewer epochs
    Kind("plain", 1, 0, 12),
    Kind("workers", 1, 2, 3),
    Kind("ranks", 2, 0, 8),
    Kind("ranks", 3, 0, 8),
    Kind("ranks and workers", 2, 1, 3),
]


def write_images(folder: Path) -> Path:
    """The images of `tiny` as files, in a folder for each class."""
    images, labels = tiny.images(tiny.TRAIN, 1)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / f"class{label}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.repeat(image[:, :, None], 3, axis=2)).save(path)
    return folder


class Run:
    """A run of one kind, in its folder; begun, killed and resumed by `start`."""

    def __init__(self, kind: Kind, config: Path, folder: Path) -> None:
        self.kind, self.config, self.folder = kind, config, folder
        self.mark = uuid.uuid4().hex
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        begun = any((self.folder / name).exists() for name in ("config.toml", "checkpoints"))
        words = ["--resume", self.folder] if begun else [self.config, "--run-dir", self.folder]
        words = [sys.executable, "-P", "-c", _COMMAND, "train", *words, "--device", "cpu", "-q"]
        if self.kind.ranks > 1:
            words = [MPIEXEC, "-n", self.kind.ranks, *words]
        self.process = subprocess.Popen(
            [str(word) for word in words],
            env=tiny.environment(**OPEN_MPI, **{_MARK: self.mark}, CONVNET_MPI_TIMEOUT="30"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        return self.process

    def processes(self) -> dict[int, str]:
        """The living processes of the run and what each is, by number."""
        found = {}
        wanted = f"{_MARK}={self.mark}".encode()
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted not in (place / "environ").read_bytes():
                    continue
                if "\nState:\tZ" in (place / "status").read_text():
                    continue
                words = (place / "cmdline").read_bytes()
                worker, trainer = b"convnet.data.workers.worker" in words, b"cache_bytes" in words
                launched = self.kind.ranks > 1 and int(place.name) == self.process.pid
                what = "worker" if worker else "trainer" if trainer and not launched else "launcher"
                found[int(place.name)] = what
        return found

    def kill(self, victim: str, rng: random.Random) -> bool:
        """Kills; whether the run has to end by that."""
        there = self.processes()
        kinds = {"a worker": "worker", "trainer": "trainer", "one rank": "trainer"}
        kinds |= {"ranks one by one": "trainer", "mpiexec": "launcher"}
        pids = [pid for pid, what in there.items() if kinds.get(victim, what) == what]
        rng.shuffle(pids)
        if victim == "mpiexec":
            pids = [self.process.pid]
        elif victim in ("a worker", "one rank"):
            pids = pids[:1]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if victim == "ranks one by one":
                time.sleep(rng.uniform(0.0, 0.05))
        return victim != "a worker"

    def wait(self) -> tuple[int, str]:
        """Waits until nothing of the run is left; its exit code and what it has said."""
        _, err = self.process.communicate(timeout=_LIMIT)
        end = time.monotonic() + 15.0
        while left := self.processes():
            if time.monotonic() > end:
                raise AssertionError(f"left running: {sorted(left.values())}")
            time.sleep(0.05)
        return self.process.returncode, err.decode(errors="replace")

    def clear(self) -> None:
        """Ends what may be left of the run."""
        for pid in self.processes() if self.process else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()


def wait_for_lines(run: Run, lines: int) -> None:
    """Until metrics.jsonl has so many lines, or the run has ended."""
    file, end = run.folder / "metrics.jsonl", time.monotonic() + _LIMIT
    while run.process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            if len(file.read_bytes().splitlines()) >= lines:
                return
        time.sleep(0.002)


def one_try(run: Run, whole: Path, rng: random.Random) -> list[str]:
    """Runs, kills and compares; returns what was killed, and where it stood."""
    killed: list[str] = []
    lines, most = 0, len(tiny.metrics(whole))
    try:
        for _ in range(rng.randint(1, 3)):
            run.start()
            if rng.random() < 0.1:
                time.sleep(rng.uniform(0.0, 1.0))  # while it starts
            else:
                lines = rng.randint(lines, most)
                wait_for_lines(run, lines)
                time.sleep(rng.uniform(0.0, 0.02))
            if run.process.poll() is not None:
                break
            victim = rng.choice(run.kind.victims())
            ends = run.kill(victim, rng)
            killed.append(f"{victim} at {newest(run.folder).stem}")
            code, err = run.wait()
            if ends and code == 0:
                killed[-1] += " (too late)"
            if not ends and code != 0:
                raise AssertionError(f"a worker's death ended the run: {err}")
        run.start()
        code, err = run.wait()
        if code != 0:
            raise AssertionError(f"resuming ended with {code}: {err}")
        assert_same_end(run.folder, whole)
    finally:
        run.clear()
    return killed


def main() -> int:
    """Runs the tries; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default="plain,workers,ranks,ranks and workers")
    arguments = parser.parse_args()
    kinds = [kind for kind in KINDS if kind.name in arguments.kinds.split(",")]
    failures, killed, count = 0, Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        train = {"checkpoint_steps": 3, "keep": 2}
        data = {"source": "folder", "path": str(write_images(base / "pictures")), "size": [8, 8]}
        plain = tiny.write_config(base / "plain.toml", tiny.write_data(base / "data"), train=train)
        files = tiny.write_config(base / "files.toml", "", train=train, data=data)
        wholes = {}
        for kind in kinds:
            changes = [f"data.workers={kind.workers}", f"train.epochs={kind.epochs}"]
            config = base / f"{kind.name} {kind.ranks}.toml"
            config.write_text(load_config(files if kind.workers else plain, changes).to_toml())
            run = Run(kind, config, base / f"whole {kind.name} {kind.ranks}")
            run.start()
            code, err = run.wait()
            if code != 0:
                print(f"{kind}: the run that nothing disturbs ended with {code}: {err}")
                return 1
            wholes[kind] = config, run.folder
        for number in range(arguments.tries):
            kind = kinds[number % len(kinds)]
            config, whole = wholes[kind]
            run = Run(kind, config, base / "run")
            start = time.monotonic()
            try:
                what = one_try(run, whole, random.Random(arguments.seed * 100_003 + number))
                killed.update(text.partition(" at ")[0] for text in what if "(too" not in text)
                verdict = f"equal; killed: {', '.join(what) or 'not in time'}"
            except (AssertionError, subprocess.TimeoutExpired) as error:
                failures += 1
                verdict = f"FAILED: {error}"
            count[f"{kind.name} {kind.ranks}"] += 1
            seconds = time.monotonic() - start
            print(
                f"{number:4d} {kind.name:17} x {kind.ranks}  {seconds:5.1f} s  {verdict}",
                flush=True,
            )
            shutil.rmtree(run.folder, ignore_errors=True)
    print(f"{arguments.tries - failures} of {arguments.tries} equal to the bit; {dict(count)}")
    print(f"killed: {dict(killed)}")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
