"""Interrupts runs of several processes over MPI at every kind of moment, and looks for damage.

    python tests/stress/soak_ranks.py FOLDER [--runs 500] [--seed 1] [--ranks 2] [--asan]

Each run takes up a training with `--resume` (or begins one), gets a SIGTERM at a random moment and
must end as a run may end: saved, killed before it could, or done. What it prints must not speak of
a damaged heap, a failed assertion or a traceback. `--asan` preloads AddressSanitizer, for an
installation built with CONVNET_SANITIZE=address, and gives Python's objects to its malloc; MPI, its
end and that of the interpreter are then looked at as well. Other checks of a heap come by the
environment: MALLOC_PERTURB_, PYTHONMALLOC, a preloaded library. The same seed makes the same
moments. FOLDER keeps the output of each run that was not clean, and what ASan wrote; SIGTERM to the
soak itself ends it after the run in progress, with the table so far.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from tiny import command, environment, write_config, write_data

# What a rank tells the soak when it comes there, and for how long after it the signal may come.
EVENTS = {"mpi": 0.5, "train": 0.4, "save": 0.03, "validate": 0.05, "leave": 0.05, "finalize": 0.03}
DAMAGE = re.compile(
    r"AddressSanitizer|corrupt|malloc|free\(\)|double.linked|[Aa]ssert|Fatal|Traceback|"
    r"Segmentation|Bus error|terminate called|[Ss]tack smash|MPI_ERR|Abort\("
)
HYDRA = re.compile(r"^\[(proxy|mpiexec).*\n?", re.MULTILINE)
ENDS = (0, 128 + signal.SIGTERM, signal.SIGTERM, -signal.SIGTERM)
EPOCHS = 3  # of a whole run, after which the next begins a new one
TIMEOUT = 180.0


@dataclass(frozen=True)
class Signal:
    """A SIGTERM, `delay` seconds after the ranks have told of an event so often in all.

    Without an event: after the signal before it, or after the start.
    """

    delay: float
    event: str = ""
    times: int = 0


def plan(seed: int, number: int, ranks: int, startup: float) -> list[Signal]:
    """The signals of a run; `startup` is how long the processes take to begin to train."""
    rng = random.Random(f"{seed} {number}")

    def at(event: str) -> Signal:
        times = rng.choice((1, ranks))  # when the first is there, or the last
        if event in ("save", "validate"):
            times += ranks * rng.randrange(3)
        return Signal(rng.uniform(0, EVENTS[event]), event, times)

    moment = rng.choice(("start", *EVENTS))
    if moment == "start":
        signals = [Signal(rng.uniform(0, startup))]
    elif moment in ("leave", "finalize") and rng.random() < 0.7:
        signals = [at("train"), at(moment)]  # leave because of a signal
    else:
        signals = [at(moment)]
    if rng.random() < 0.3:
        signals.append(Signal(rng.uniform(0, 0.3)))
    return signals


def fault(code: int, text: str, reports: int) -> str | None:
    """What is wrong with the end of a run; None where it may end like this.

    Args:
        code: of mpiexec: done, interrupted and saved, or SIGTERM before a rank could handle it.
        text: all that was printed. Hydra, MPICH's mpiexec, complains and ends with 255 where the
            signal meets the end of MPI; that is not of the ranks.
        reports: files that ASan has written.
    """
    own = HYDRA.sub("", text)
    found = DAMAGE.search(own)
    if found or reports:
        return f"damage: {found.group() if found else 'a report of ASan'}"
    if code not in ENDS and not (code == 255 and own != text):
        return f"exit code {code}"
    return None


# ---- a rank -------------------------------------------------------------------------------------


def rank_main(pipe: str, words: list[str]) -> int:
    """The `convnet` command, which tells where it is."""
    import atexit

    handle = os.open(pipe, os.O_WRONLY)

    def tell(event: str) -> None:
        os.write(handle, f"{event}\n".encode())

    atexit.register(tell, "finalize")  # mpi4py calls MPI_Finalize later, after the interpreter
    from convnet.cli import main as cli
    from convnet.training import trainer
    from convnet.training.run_folder import RunFolder

    def telling(event: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            tell(event)
            return plain(*arguments, **options)

        return call

    RunFolder.save = telling("save", RunFolder.save)
    trainer.measure = telling("validate", trainer.measure)
    trainer.Trainer.run = telling("train", trainer.Trainer.run)
    tell("mpi")
    try:
        return cli.main(words)
    finally:
        tell("leave")


# ---- the soak -----------------------------------------------------------------------------------


class Soak:
    """A folder with a data set, a training in it, and what was found."""

    def __init__(self, folder: Path, ranks: int, asan: bool) -> None:
        self.folder, self.ranks = folder, ranks
        folder.mkdir(parents=True, exist_ok=True)
        train = {"batch": 16, "epochs": EPOCHS, "checkpoint_steps": 2, "log_steps": 2, "threads": 1}
        self.config = write_config(folder / "tiny.toml", write_data(folder / "data"), train=train)
        self.run_dir, self.pipe = folder / "run", folder / "pipe"
        self.pipe.unlink(missing_ok=True)
        os.mkfifo(self.pipe)
        self.reader = os.open(self.pipe, os.O_RDWR | os.O_NONBLOCK)
        self.startup = 10.0
        self.variables = _asan(folder / "asan") if asan else {}
        places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.mpiexec = shutil.which("mpiexec", path=places) or sys.exit("mpiexec is not installed")

    def words(self) -> list[str]:
        """The command of the next run."""
        resume = ["--resume", self.run_dir]
        if self._over():
            shutil.rmtree(self.run_dir, ignore_errors=True)
            resume = [self.config, "--run-dir", self.run_dir]
        python, options, rest = (
            sys.executable,
            [__file__, "--rank", self.pipe],
            command("train")[4:],
        )
        settings = [f"{key}={value}" for key, value in self.variables.items()]
        return [str(word) for word in (
            self.mpiexec, "-n", self.ranks, "env", *settings, python, *options, *rest,
            *resume, "--device", "cpu",
        )]  # fmt: skip

    def _over(self) -> bool:
        """Whether the training has been done, or never got as far as its configuration."""
        log = self.run_dir / "log.txt"
        done = log.exists() and "done: best" in log.read_text()
        return done or not (self.run_dir / "config.toml").exists()

    def run(self, plan: list[Signal]) -> tuple[int, str]:
        """The exit code of a run and what it printed."""
        while self._event(0):
            pass  # of a rank that lived longer than its mpiexec
        with (self.folder / "output.txt").open("w+") as output:
            process = subprocess.Popen(
                self.words(), cwd=self.folder, env=environment(), stdout=output, stderr=output
            )
            told: collections.Counter[str] = collections.Counter()
            start = time.monotonic()
            for each in plan:
                if each.event:
                    self._wait(process, each, told, start)
                time.sleep(each.delay)
                if process.poll() is None:
                    process.terminate()
            try:
                code = process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            output.seek(0)
            return code, output.read()

    def _wait(
        self,
        process: subprocess.Popen[bytes],
        until: Signal,
        told: collections.Counter[str],
        start: float,
    ) -> None:
        """Waits for the event of a signal, or until there is nothing to wait for."""
        while told[until.event] < until.times and process.poll() is None:
            if time.monotonic() - start > TIMEOUT:
                return
            for event in self._event(0.2):
                told[event] += 1
                if event == "train" and told[event] == 1:
                    self.startup = time.monotonic() - start

    def _event(self, seconds: float) -> list[str]:
        if not select.select([self.reader], [], [], seconds)[0]:
            return []
        return os.read(self.reader, 1 << 16).decode().split()

    def reports(self) -> list[Path]:
        """What ASan has written and was not put away yet."""
        return list(self.folder.glob("asan.*"))

    def keep(self, number: int, plan: list[Signal], fault: str) -> None:
        """Puts what a run has left into a folder of its own."""
        kept = self.folder / f"fault-{number}"
        kept.mkdir(exist_ok=True)
        (kept / "plan.txt").write_text(f"{plan}\n{fault}\n")
        for path in [self.folder / "output.txt", *self.reports()]:
            path.rename(kept / path.name)
        if self.run_dir.exists():
            self.run_dir.rename(kept / "run")


def _asan(log: Path) -> dict[str, str]:
    """The variables of a rank under AddressSanitizer."""
    words = ["g++", "-print-file-name=libasan.so", "-print-file-name=libstdc++.so"]
    libraries = [
        subprocess.run([words[0], word], capture_output=True, text=True, check=True).stdout.strip()
        for word in words[1:]
    ]
    return {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": f"detect_leaks=0:exitcode=99:log_path={log}",
        "PYTHONMALLOC": "malloc",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="the number of the first run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--asan", action="store_true")
    arguments = parser.parse_args()
    soak = Soak(arguments.folder.absolute(), arguments.ranks, arguments.asan)
    table: collections.Counter[tuple[str, int]] = collections.Counter()
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    faults = 0
    for number in range(arguments.first, arguments.first + arguments.runs):
        if stop:
            break
        todo = plan(arguments.seed, number, soak.ranks, soak.startup)
        code, text = soak.run(todo)
        wrong = fault(code, text, len(soak.reports()))
        moments = "+".join(each.event or f"{each.delay:.2f} s" for each in todo)
        table[todo[0].event or "start", code] += 1
        print(f"{number:4} {moments:24} exit {code:4}  {wrong or 'clean'}", flush=True)
        if wrong:
            faults += 1
            soak.keep(number, todo, wrong)
    for (moment, code), count in sorted(table.items()):
        print(f"{moment:9} exit {code:>4}: {count} runs")
    print(f"{sum(table.values())} runs, {faults} not clean")
    return 1 if faults else 0


if __name__ == "__main__":
    if sys.argv[1] == "--rank":
        sys.exit(rank_main(sys.argv[2], sys.argv[3:]))
    sys.exit(main())
