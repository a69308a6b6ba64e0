"""Signals: a run that gets one saves, and going on from there ends the same."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny
from resumed import config, interrupted_at, running, wait_for
from runs import assert_same_end, newest

import convnet
from convnet.training.checkpoint import (
    read,
)
from convnet.training.run_folder import (
    read_metrics,
)
from convnet.training.train import train

pytestmark = pytest.mark.usefixtures("default_signals")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [3, 10, 19, 40, 53, 60])
def test_a_signal_saves_and_resuming_ends_the_same(
    data: Path, tmp_path: Path, whole: Path, step: int, number: int
) -> None:
    """Steps 3, 19, 53 are in the middle of an epoch, 10 and 40 at its end, 60 ends the run."""
    before = signal.getsignal(number)
    result = interrupted_at(step, data, tmp_path / "run", number)
    assert signal.getsignal(number) == before
    assert result.status == "interrupted"
    assert result.signal == number
    assert result.net.step == step
    assert result.checkpoint is not None
    assert read(result.checkpoint).state["step"] == step
    again = train(resume=tmp_path / "run", device="cpu", quiet=True)
    assert again.status == "done"
    assert_same_end(tmp_path / "run", whole)
    assert again.history == read_metrics(tmp_path / "run" / "metrics.jsonl")


def test_interrupted_again_and_again(data: Path, tmp_path: Path, whole: Path) -> None:
    def interrupt(record: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    run_dir = tmp_path / "run"
    result = train(config(data), device="cpu", run_dir=run_dir, quiet=True, callbacks=[interrupt])
    rounds = 1
    while result.status == "interrupted":
        result = train(resume=run_dir, device="cpu", quiet=True, callbacks=[interrupt])
        rounds += 1
    assert rounds > 10
    assert_same_end(run_dir, whole)


def test_a_signal_during_validation_does_not_wait_for_its_end(
    data: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = convnet.Net.evaluate, []

    def evaluate(net: convnet.Net, x: Any, labels: Any) -> Any:
        calls.append(net.step)
        os.kill(os.getpid(), signal.SIGTERM)
        return original(net, x, labels)

    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(convnet.Net, "evaluate", evaluate)
        result = train(config(data), device="cpu", run_dir=run_dir, quiet=True)
    assert result.status == "interrupted"
    assert calls == [10]  # the first of three batches
    assert result.final is None
    assert train(resume=run_dir, device="cpu", quiet=True).status == "done"
    assert_same_end(run_dir, whole)


def test_a_crash_between_the_line_of_an_epoch_and_its_checkpoint(
    data: Path, tmp_path: Path, whole: Path
) -> None:
    """The newest checkpoint is then of the same step as that line, which will be written again."""

    def crash(record: dict[str, Any]) -> None:
        if record["kind"] == "epoch":
            raise RuntimeError("crash")

    run_dir = tmp_path / "run"
    assert interrupted_at(10, data, run_dir).status == "interrupted"
    for _ in range(2):
        with pytest.raises(RuntimeError, match="crash"):
            train(resume=run_dir, device="cpu", quiet=True, callbacks=[crash])
        assert tiny.metrics(run_dir)[-1]["kind"] == "epoch"
    train(resume=run_dir, device="cpu", quiet=True)
    assert_same_end(run_dir, whole)


def test_the_message_holds_a_command_that_works(
    data: Path, tmp_path: Path, whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "a run"
    interrupted_at(6, data, run_dir)
    printed = capfd.readouterr()
    assert "finishing this step, then saving" in printed.err
    line = next(text for text in printed.out.splitlines() if "resume with: " in text)
    assert line.startswith("interrupted at step 6; the last checkpoint is ")
    words = shlex.split(line.partition("resume with: ")[2])
    assert words == ["convnet", "train", "--resume", str(run_dir), "--device", "cpu"]
    done = tiny.run(*words[1:], "-q", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert_same_end(run_dir, whole)


LONG = {"train": {"epochs": 100_000}, "schedule": {"kind": "constant"}}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_the_command_exits_with_the_code_of_the_signal(
    data: Path, tmp_path: Path, number: int, code: int
) -> None:
    config = tiny.write_config(tmp_path / "tiny.toml", data, **LONG)
    words = ("train", config, "--device", "cpu", "--run-dir", tmp_path / "run")
    with running(*words, cwd=tmp_path) as process:
        wait_for(process, "epoch 2/")
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "resume with: convnet train --resume" in out
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_what_the_process_was_started_to_ignore_stays_ignored(
    data: Path, tmp_path: Path, whole: Path, number: int
) -> None:
    """As by nohup; the signal comes with the first line of the metrics."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        result = interrupted_at(3, data, tmp_path / "run", number)
    finally:
        signal.signal(number, before)
    assert result.status == "done"
    assert_same_end(tmp_path / "run", whole)


def test_a_run_whose_output_nobody_reads_is_saved(data: Path, tmp_path: Path) -> None:
    """The terminal is gone, or what the output was piped into: the run ends, and can go on."""
    config = tiny.write_config(tmp_path / "tiny.toml", data, **LONG)
    words = ("train", config, "--device", "cpu", "--run-dir", tmp_path / "run")
    with running(*words, cwd=tmp_path) as process:
        wait_for(process, "epoch 2/")
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
        assert process.wait(timeout=30) == 129
    last = read(newest(tmp_path / "run")).state
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"interrupted at step {last['step']}; the last checkpoint is " in log
    assert tiny.metrics(tmp_path / "run")[-1]["step"] == last["step"]


def test_a_second_sigint_stops_at_once(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"

    def interrupt(record: dict[str, Any]) -> None:
        if record["step"] == 6:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(config(data), device="cpu", run_dir=run_dir, quiet=True, callbacks=[interrupt])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert newest(run_dir).name == "step-00000004.safetensors"
    out = capfd.readouterr().out
    assert "stopped at once; the last checkpoint is" in out
    assert f"resume with: convnet train --resume {run_dir}" in out
