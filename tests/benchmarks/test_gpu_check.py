"""benchmarks/gpu_check.sh: its words, and the time that its parts may take."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from paths import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu_check.sh"
TEXT = SCRIPT.read_text()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--quickly"], "unknown option --quickly"),
        (["build", "test"], "expected one of build smoke conv .*, got test"),
        (["--minutes"], "--minutes: expected a value"),
        (["--minutes", "nine"], "--minutes: expected a whole number, got nine"),
    ],
)
def test_bad_words(words, problem):
    done = subprocess.run(["bash", SCRIPT, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(f"gpu_check.sh: {problem}", done.stderr.strip())


def test_every_step_is_a_function_and_explained():
    steps = re.search(r"^STEPS=\((.*)\)$", TEXT, re.MULTILINE)[1].split()
    for step in steps:
        assert re.search(rf"^{step}\(\) {{", TEXT, re.MULTILINE), step
        assert re.search(rf"^# .*\b{step}\b", TEXT, re.MULTILINE), step


def test_no_part_takes_longer_than_a_call():
    limits = [int(n) for n in re.findall(r"part \S+ (\d+) ", TEXT)]
    assert len(limits) > 10
    assert max(limits) <= 480


# The script's own functions, with parts that take no, or too much, time.
PARTS = """
set -uo pipefail
state=$PWD out=$PWD step=demo minutes=$1 begun=0 UNFINISHED=75
{functions}
SECONDS=$2
part quick 10 true; a=$?
part fails 10 false; b=$?
part late "$3" touch late; c=$?
together $a $b; together_1=$?
together $a $c; together_2=$?
part quick 10 false; again=$?
echo "$a $b $c $together_1 $together_2 $again"
"""


def said(tmp_path: Path, minutes: int, elapsed: int, limit: int) -> list[str]:
    functions = re.findall(
        r"^(?:left|part|together)\(\) \{\n.*?^\}\n", TEXT, re.MULTILINE | re.DOTALL
    )
    assert len(functions) == 3
    script = PARTS.replace("{functions}", "".join(functions))
    command = ["bash", "-c", script, "demo", str(minutes), str(elapsed), str(limit)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


@pytest.mark.skipif(shutil.which("timeout") is None, reason="needs timeout of coreutils")
@pytest.mark.parametrize(
    ("minutes", "elapsed", "limit", "expected"),
    [
        (9, 0, 400, "0 1 0 1 0 0"),
        (9, 200, 400, "0 1 75 1 75 0"),  # it does not fit into what is left
        (0, 5000, 400, "0 1 0 1 0 0"),  # no limit
    ],
)
def test_a_part_begins_only_where_it_fits(tmp_path, minutes, elapsed, limit, expected):
    assert said(tmp_path, minutes, elapsed, limit) == expected.split()
    assert (tmp_path / "late").exists() == (expected.split()[2] == "0")
    assert (tmp_path / "quick.done").exists()
    assert not (tmp_path / "fails.done").exists()
    assert "== quick [" in (tmp_path / "demo.log").read_text()
    times = (tmp_path / "times.txt").read_text().splitlines()
    assert [line.split()[0] for line in times][:2] == ["quick", "fails"]


def test_the_first_part_of_a_call_is_cut_to_it(tmp_path):
    functions = "".join(
        re.findall(r"^(?:left|part)\(\) \{\n.*?^\}\n", TEXT, re.MULTILINE | re.DOTALL)
    )
    script = "state=$PWD out=$PWD step=demo minutes=9 begun=0 UNFINISHED=75\n" + functions
    script += "SECONDS=539\npart slow 400 sleep 30\necho $?\n"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "124"
    assert "stopped after 1 s" in (tmp_path / "demo.log").read_text()
