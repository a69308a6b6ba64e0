"""The soak of interrupted ranks sees what it looks for, and a short one is clean."""

from __future__ import annotations

import subprocess
import sys

import pytest
import soak_ranks
from mpi import needs_mpi
from tiny import environment


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (134, ""),
        (11, "killed"),
        (1, ""),
        (143, "corrupted size vs. prev_size"),
        (15, "free(): invalid pointer"),
        (143, "==7==ERROR: AddressSanitizer: heap-use-after-free on address"),
        (0, "terminate called without an active exception"),
        (0, "Traceback (most recent call last):"),
    ],
)
def test_damage_is_seen(code, text):
    assert soak_ranks.fault(code, f"device    cpu\n{text}\n", 0) is not None


@pytest.mark.parametrize("code", [0, 143, 15, -15])
def test_a_run_may_end_like_this(code):
    text = "finishing this step, then saving (Ctrl-C again stops at once)\ninterrupted at step 3;"
    assert soak_ranks.fault(code, text, 0) is None
    assert soak_ranks.fault(code, text, 1) is not None  # ASan has written something


def test_mpiexec_may_fail_by_itself():
    text = "device    cpu\n[mpiexec@host] control_cb (pmiserv_cb.c:280): assert (!closed) failed\n"
    assert soak_ranks.fault(255, text, 0) is None
    assert soak_ranks.fault(255, "device    cpu\n", 0) == "exit code 255"
    assert soak_ranks.fault(255, text + "malloc(): invalid size\n", 0) == "damage: malloc"


def test_a_seed_makes_the_same_signals():
    plans = [soak_ranks.plan(3, number, 2, 1.0) for number in range(200)]
    assert plans == [soak_ranks.plan(3, number, 2, 1.0) for number in range(200)]
    assert {plan[0].event for plan in plans} == {"", *soak_ranks.EVENTS}
    assert {len(plan) for plan in plans} == {1, 2, 3}


@needs_mpi
def test_a_short_soak(tmp_path):
    words = [soak_ranks.__file__, tmp_path / "soak", "--runs", "3", "--seed", "5"]
    result = subprocess.run(
        [sys.executable, *map(str, words)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("3 runs, 0 not clean\n")
