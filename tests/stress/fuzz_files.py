"""Reads damaged files of every kind, many thousand a second, and counts what goes wrong.

    python tests/stress/fuzz_files.py [--attack NAME ...] [--tries N] [--seed S] [--only NUMBER]

A try damages a valid file (see mutate.py) and gives it to the function of the package that reads
such files. It must succeed, or raise the error that the function documents, in one line. Anything
else is a failure: another error, more than `SECONDS`, more than `MEMORY`, or a crash, which a
process of its own per attack makes visible. `--only` repeats one try and shows the traceback.

The last lines are a table: attack, tries, files that were read, files refused, failures.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # a process that was forked must not need other threads

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from attack import Attack
from fuzz_exchange import ATTACKS as EXCHANGE_ATTACKS
from fuzz_targets import ATTACKS as OWN_ATTACKS

ATTACKS = OWN_ATTACKS | EXCHANGE_ATTACKS
SECONDS = 5.0  # for one try, of the process's own time
MEMORY = 1 << 30  # bytes beyond what the process has before the first try
_SHOWN = 20  # failures a process describes
_COUNTS = struct.Struct("<5q")  # next try, read, refused, failed, unused: shared with the parent


class SlowError(BaseException):
    """Not an Exception, so that no reader can take it for a damaged file."""


def _too_slow(*_: object) -> None:
    raise SlowError(f"more than {SECONDS:g} seconds")


def attempt(attack: Attack, seed: int, number: int) -> bool:
    """One try; whether the file was read. Raises: what the reader raised wrongly."""
    read = attack.trial(random.Random(f"{seed}/{attack.name}/{number}"))
    try:
        read()
    except attack.allowed as error:
        text = str(error)
        if "\n" in text or not text or len(text) > 3000:
            raise AssertionError(f"expected a message of one line, got {text[:300]!r}") from error
        return False
    return True


def _work(attack: Attack, seed: int, first: int, tries: int, shared: mmap.mmap) -> None:
    """In a process of its own: all tries, or as many as it survives."""
    signal.signal(signal.SIGVTALRM, _too_slow)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    counts = [0, 0, 0]
    before = _COUNTS.unpack_from(shared)[1:4]
    for number in range(first, first + tries):
        _COUNTS.pack_into(
            shared, 0, number, *(a + b for a, b in zip(before, counts, strict=True)), 0
        )
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            counts[0 if attempt(attack, seed, number) else 1] += 1
        except (Exception, SlowError) as error:
            counts[2] += 1
            if before[2] + counts[2] <= _SHOWN:
                where = traceback.extract_tb(error.__traceback__)[-1]
                text = " ".join(str(error).split())[:300]
                place = f"{Path(where.filename).name}:{where.lineno}"
                print(
                    f"{attack.name} {number}: {type(error).__name__} at {place}: {text}", flush=True
                )
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    _COUNTS.pack_into(
        shared, 0, first + tries, *(a + b for a, b in zip(before, counts, strict=True)), 0
    )


def run(attack: Attack, seed: int, tries: int) -> tuple[int, int, int]:
    """Files read, files refused, failures."""
    shared = mmap.mmap(-1, _COUNTS.size)
    next_try = 0
    while next_try < tries:
        child = os.fork()
        if child == 0:
            try:
                _work(attack, seed, next_try, tries - next_try, shared)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        status = _wait(child, shared)
        reached, read, refused, failed, _ = _COUNTS.unpack_from(shared)
        if reached < tries:
            print(f"{attack.name} {reached}: the process ended ({status})", flush=True)
            failed += 1
            reached += 1
        _COUNTS.pack_into(shared, 0, reached, read, refused, failed, 0)
        next_try = reached
    _, read, refused, failed, _ = _COUNTS.unpack_from(shared)
    return read, refused, failed


def _wait(child: int, shared: mmap.mmap) -> str:
    """Waits for a process, and ends one that has been at the same try for a minute."""
    last, since = -1, time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {status}"
        now, number = time.monotonic(), _COUNTS.unpack_from(shared)[0]
        if number != last:
            last, since = number, now
        if now - since > 60:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--attack", action="append", choices=sorted(ATTACKS), metavar="NAME")
    parser.add_argument(
        "--tries", type=int, help="for each attack (default: its own share of 10^6)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="repeat this try")
    parser.add_argument("--json", action="store_true", help="the table as JSON")
    arguments = parser.parse_args()
    table: list[dict[str, Any]] = []
    for name in arguments.attack or ATTACKS:
        with tempfile.TemporaryDirectory(
            dir="/dev/shm" if Path("/dev/shm").is_dir() else None
        ) as at:
            attack = ATTACKS[name](Path(at))
            if arguments.only is not None:
                print("read" if attempt(attack, arguments.seed, arguments.only) else "refused")
                continue
            tries = attack.tries if arguments.tries is None else arguments.tries
            start = time.monotonic()
            read, refused, failed = run(attack, arguments.seed, tries)
            seconds = round(time.monotonic() - start, 1)
            row = {"attack": name, "tries": tries, "read": read, "refused": refused}
            table.append({**row, "failures": failed, "seconds": seconds})
            print(json.dumps(table[-1]), file=sys.stderr, flush=True)
    _show(table, arguments.json)
    return 1 if any(row["failures"] for row in table) else 0


def _show(table: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(table))
        return
    keys = ("tries", "read", "refused", "failures", "seconds")
    total: dict[str, Any] = {key: round(sum(row[key] for row in table), 1) for key in keys}
    print(f"{'attack':14}" + "".join(f"{key:>12}" for key in keys))
    for row in [*table, {"attack": "in all", **total}]:
        print(f"{row['attack']:14}" + "".join(f"{row[key]:>12,}" for key in keys))


if __name__ == "__main__":
    sys.exit(main())
