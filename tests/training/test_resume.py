"""Nothing lost: signals, SIGKILL, damaged checkpoints, and going on exactly where a run was."""

from __future__ import annotations

import dataclasses
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
from paths import ROOT
from runs import assert_same_end, newest

import convnet
from convnet.config import Config, ConfigError, load_config
from convnet.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    DamagedCheckpointError,
    read,
    write,
)
from convnet.training.resume import Decision, decision
from convnet.training.run_folder import (
    METRICS,
    RunError,
    RunFolder,
    open_checkpoint,
    read_metrics,
)
from convnet.training.train import TrainResult, train
from convnet.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("default_signals")

# Long enough for the learning rate to drop, after epochs 4 and 6, and for bests before the last.
CHANGES: dict[str, Any] = {
    "train": {"epochs": 6},
    "schedule": {"kind": "plateau", "patience": 1, "drops": 3, "factor": 2.0},
}


def config(folder: Path) -> dict[str, Any]:
    return tiny.config(folder, **CHANGES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    result = train(config(data), device="cpu", run_dir=run_dir, quiet=True)
    rates = {record["lr"] for record in result.history}
    assert rates == {0.05, 0.025}
    assert result.best is not None
    assert result.best["epoch"] < 6
    return run_dir


def interrupted_at(
    step: int, data: Path, run_dir: Path, number: int = signal.SIGINT
) -> TrainResult:
    """A run that got a signal in the middle of the work for metrics line of this step."""

    def interrupt(record: dict[str, Any]) -> None:
        if record["step"] == step:
            os.kill(os.getpid(), number)

    return train(config(data), device="cpu", run_dir=run_dir, quiet=True, callbacks=[interrupt])


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


@contextmanager
def running(*words: str | Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, which never outlives the block."""
    with subprocess.Popen(
        tiny.command(*words),
        cwd=cwd,
        env=tiny.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Reads the output up to a line with this text."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"ended without {text!r}")


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


def test_killed_at_any_moment_ends_the_same(data: Path, tmp_path: Path) -> None:
    """SIGKILL at random times, over and over, until the run is done."""
    changes = {**CHANGES, "train": {"epochs": 12, "checkpoint_steps": 3}}
    path = tiny.write_config(tmp_path / "tiny.toml", data, **changes)
    whole = tmp_path / "whole"
    train(path, device="cpu", run_dir=whole, quiet=True)

    run_dir = tmp_path / "run"
    rng = random.Random(7)
    places = []
    for kill in (True, True, True, True, True, False):
        words = ["--resume", str(run_dir)] if places else [str(path), "--run-dir", str(run_dir)]
        with running("train", *words, "--device", "cpu", cwd=tmp_path) as process:
            if kill:
                for _ in range(rng.randint(1, 6)):
                    wait_for(process, "epoch ")
                time.sleep(rng.uniform(0.0, 0.01))
                process.kill()
            _, err = process.communicate(timeout=60)
        assert err == ""
        places.append(newest(run_dir).name)
        if process.returncode == 0:  # also if it was done before the signal arrived
            break
        assert kill
        assert process.returncode == -signal.SIGKILL
    assert process.returncode == 0
    assert len(places) >= 3, places
    assert_same_end(run_dir, whole)


# Runs the command, and kills the process before the n-th of its writes to disk.
_KILLER = """
import os, signal, sys
limit, count = int(sys.argv.pop(1)), 0
def counted(function):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
for name in ("write", "fsync", "replace", "unlink", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
from convnet.cli.main import main
sys.exit(main())
"""


def test_killed_between_any_two_writes(data: Path, tmp_path: Path, whole: Path) -> None:
    """Between the line of an epoch and its checkpoint, between fsync and rename, and so on."""
    config = tiny.write_config(tmp_path / "tiny.toml", data, **CHANGES)
    run_dir = tmp_path / "run"
    kills = 0
    for limit in (1, 3, 15, 30, 31, 33, 34, 10_000):
        words = ["--resume", run_dir] if (run_dir / "config.toml").exists() else []
        words = ["train", *(words or [config, "--run-dir", run_dir]), "--device", "cpu", "-q"]
        done = subprocess.run(
            [sys.executable, "-P", "-c", _KILLER, str(limit), *map(str, words)],
            env=tiny.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        kills += done.returncode == -signal.SIGKILL
    assert done.returncode == 0
    assert kills == 7
    assert_same_end(run_dir, whole)


def test_killed_before_the_first_checkpoint(data: Path, tmp_path: Path, whole: Path) -> None:
    """What a run leaves that dies in its first steps: no checkpoint, and half a line."""
    run_dir = tmp_path / "run"
    folder = RunFolder.create(run_dir, load_config(config(data)))
    folder.append(METRICS, '{"kind": "step", "epoch": 1, "step": 3}')
    folder.append(METRICS, '{"kind": "st')
    (run_dir / "checkpoints").mkdir()
    (run_dir / "checkpoints" / "step-00000004.safetensors.tmp").write_bytes(b"half")
    folder.close()
    result = train(resume=run_dir, device="cpu", quiet=True)
    assert result.status == "done"
    assert not list(run_dir.rglob("*.tmp"))
    assert "no checkpoint yet: from the start" in (run_dir / "log.txt").read_text()
    assert_same_end(run_dir, whole)


def test_a_damaged_checkpoint_falls_back_loudly(
    data: Path, tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    interrupted_at(19, data, run_dir)
    last = newest(run_dir)
    assert last.name == "step-00000019.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    capsys.readouterr()
    result = train(resume=run_dir, device="cpu", quiet=True)
    assert result.status == "done"
    err = capsys.readouterr().err
    assert "warning" in err
    assert "step-00000019.safetensors: damaged checkpoint" in err
    assert "falling back to step-00000016.safetensors" in err
    assert (run_dir / "checkpoints" / "damaged-step-00000019.safetensors").exists()
    assert_same_end(run_dir, whole)


def test_every_checkpoint_damaged(data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    interrupted_at(19, data, run_dir)
    for path in (run_dir / "checkpoints").glob("step-*"):
        path.write_bytes(b"")
    with pytest.raises(DamagedCheckpointError, match="damaged"):
        train(resume=run_dir, device="cpu", quiet=True)


def test_resuming_a_finished_run_does_nothing_and_more_epochs_go_on(
    data: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    longer = tmp_path / "longer"
    train(config(data), device="cpu", run_dir=run_dir, epochs=1, quiet=True)
    before = tiny.metrics(run_dir)
    again = train(resume=run_dir, device="cpu", quiet=True)
    assert again.status == "done"
    assert again.net.step == 10
    assert again.final == again.best
    assert tiny.metrics(run_dir) == before
    train(resume=run_dir, device="cpu", epochs=2, quiet=True)
    assert load_config(run_dir / "config.toml").train.epochs == 2
    train(config(data), device="cpu", run_dir=longer, epochs=2, quiet=True)
    assert_same_end(run_dir, longer)


# What may not change, as --set and as an edit of config.toml; the last word names the value before.
KEPT = [
    ("seed=9", "3"),
    ("train.batch=8", "16"),
    ("data.scale=1.0", "0.00390625"),
    ("data.mean=channel", '"image"'),
    ("augment.pad=2", "1"),
    ("augment.crop=[7, 8]", r"\[8, 8\]"),
    ("augment.mirror=true", "false"),
    ("data.resize=pad", '"crop"'),
    ("train.sampling=balanced", '"shuffle"'),
    ("net.layers.conv1.filters=4", "8"),
    ("net.layers.fc2.init=he", '"xavier"'),
    ("net.init=elsewhere", "not given"),
    ("net.lr_mult.conv1=0", "not given"),
]

# What may, and what is said about it.
TAKEN = [
    ("sgd.lr=0.01", "warning: sgd.lr: it was 0.05, and is 0.01 now; from here on the run is not"),
    ("sgd.weight_decay=0.1", "warning: sgd.weight_decay: it was 0.0005, and is 0.1 now; from"),
    ("schedule.patience=2", "warning: schedule.patience: it was 1, and is 2 now; from here on"),
    ("schedule.kind=cosine", 'warning: schedule.kind: it was "plateau", and is "cosine" now; from'),
    (
        "train.precision=ffma",
        'warning: train.precision: it was "fp32", and is "ffma" now; from here on',
    ),
    (
        "train.class_weights=balanced",
        'warning: train.class_weights: it was "none", and is "balanced" now; from here on',
    ),
    ("train.epochs=4", "changed   train.epochs: it was 2, and is 4 now"),
    ("train.log_steps=5", "changed   train.log_steps: it was 3, and is 5 now"),
    ("train.keep=4", "changed   train.keep: it was 2, and is 4 now"),
    ("data.workers=0", 'changed   data.workers: it was "auto", and is 0 now'),
    ("step.graph=off", 'changed   step.graph: it was "auto", and is "off" now'),
    ("name=other", 'changed   name: it was "tiny", and is "other" now'),
    ("train.threads=2", "changed   device: it was cpu: "),
]


@pytest.fixture(scope="module")
def begun(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted in the first of two epochs."""
    run_dir = tmp_path_factory.mktemp("begun") / "run"

    def interrupt(record: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    cfg = {**config(data), "train": {**config(data)["train"], "epochs": 2}}
    train(cfg, device="cpu", run_dir=run_dir, quiet=True, callbacks=[interrupt])
    return run_dir


def resumed_with(override: str, how: str, run_dir: Path, **options: Any) -> TrainResult:
    """Resumes with a value given by --set, in config.toml, or in a configuration of its own."""
    begun_with = load_config(run_dir / "config.toml")
    changed = load_config(begun_with, [override])
    if how == "config.toml":
        (run_dir / "config.toml").write_text(changed.to_toml())
        return train(resume=run_dir, device="cpu", **options)
    if how == "cfg":
        return train(changed, resume=run_dir, device="cpu", **options)
    return train(resume=run_dir, device="cpu", overrides=[override], **options)


@pytest.mark.parametrize("how", ["--set", "config.toml", "cfg"])
@pytest.mark.parametrize(("override", "before"), KEPT)
def test_what_makes_it_that_run_is_kept(
    begun: Path, tmp_path: Path, override: str, before: str, how: str
) -> None:
    run_dir = Path(shutil.copytree(begun, tmp_path / "run"))
    key = override.partition("=")[0]
    text = rf"{key}: the run in .* was begun with {before}, got .*; a resumed run keeps it: give it"
    with pytest.raises(ConfigError, match=text):
        resumed_with(override, how, run_dir, quiet=True)
    assert newest(run_dir).name == newest(begun).name
    if how != "config.toml":
        assert (run_dir / "config.toml").read_text() == (begun / "config.toml").read_text()


@pytest.mark.parametrize("how", ["--set", "config.toml", "cfg"])
@pytest.mark.parametrize(("override", "said"), TAKEN)
def test_what_may_change_is_said(
    begun: Path,
    tmp_path: Path,
    override: str,
    said: str,
    how: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = Path(shutil.copytree(begun, tmp_path / "run"))
    wanted = load_config(load_config(run_dir / "config.toml"), [override])
    resumed_with(override, how, run_dir)
    out, err = capsys.readouterr()
    assert said in (err if said.startswith("warning") else out)
    assert (said in out) != said.startswith("warning")
    log = (run_dir / "log.txt").read_text()
    assert said in log
    assert load_config(run_dir / "config.toml") == wanted
    assert read(newest(run_dir)).state["config"] == wanted.to_dict()


def test_the_same_values_are_not_a_change(
    begun: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also comments in config.toml stay, and a configuration without the path of the data does."""
    run_dir = Path(shutil.copytree(begun, tmp_path / "run"))
    text = "# mine\n" + (run_dir / "config.toml").read_text()
    (run_dir / "config.toml").write_text(text)
    cfg = {**config(data), "data": {"source": "mnist"}}
    cfg["train"] = {**cfg["train"], "epochs": 2}
    assert train(cfg, resume=run_dir, device="cpu").status == "done"
    out, err = capsys.readouterr()
    assert "changed" not in out + err
    assert err == ""
    assert (run_dir / "config.toml").read_text() == text


def test_first_weights_need_not_be_named_again(begun: Path, data: Path, tmp_path: Path) -> None:
    cfg, run_dir = config(data), tmp_path / "run"
    train(cfg, init=begun, device="cpu", run_dir=run_dir, epochs=1, quiet=True)
    train(cfg, resume=run_dir, device="cpu", epochs=2, quiet=True)
    assert load_config(run_dir / "config.toml").net.init == str(begun)


def test_longer_runs_are_a_warning_where_the_schedule_spans_them(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = {**config(data), "schedule": {"kind": "cosine"}}
    train(cfg, device="cpu", run_dir=tmp_path / "run", epochs=1, quiet=True)
    train(resume=tmp_path / "run", device="cpu", epochs=2, quiet=True)
    assert "warning: train.epochs: it was 1, and is 2 now; from" in capsys.readouterr().err


def test_every_key_has_a_decision_and_is_documented() -> None:
    cfg = Config()
    keys = set()
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        if dataclasses.is_dataclass(value):
            own = (inner for inner in dataclasses.fields(value) if inner.compare)
            keys |= {f"{field.name}.{inner.name}" for inner in own}
        elif field.compare:  # the others are no keys of the file
            keys.add(field.name)
    page = (ROOT / "docs" / "configs.md").read_text()
    table = page.partition("## Resuming")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    found: dict[str, int] = {}
    for number, row in enumerate(rows):
        for word in re.findall(r"`([^`]+)`", row.split("|")[1]):
            table_name, _, star = word.partition(".*")
            names = [key for key in keys if key.startswith(f"{table_name}.")]
            found |= dict.fromkeys(names if star == "" and ".*" in word else [word], number)
    order = [Decision.KEPT, Decision.STEERS, Decision.FREE]
    assert found == {key: order.index(decision(key, cfg)) for key in keys}


def test_a_checkpoint_of_another_version(begun: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(begun, tmp_path / "run"))
    there = read(newest(run_dir))
    state = {**there.state, "config": {**there.state["config"], "later": 1}, "version": "9.9"}
    write(there.path, state, there.arrays)
    with pytest.raises(CheckpointError, match=r"written by convnet 9.9: configuration: later: unk"):
        train(resume=run_dir, device="cpu", quiet=True)


def test_a_finished_run_leaves_its_configuration_alone(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    train(config(data), device="cpu", run_dir=run_dir, epochs=1, quiet=True)
    text = (run_dir / "config.toml").read_text()
    train(resume=run_dir, device="cpu", overrides=["sgd.lr=0.5", "train.log_steps=2"], quiet=True)
    assert (
        "warning: the run has finished: nothing is trained, and config.toml stays as it was "
        "(not taken: sgd.lr, train.log_steps)"
    ) in capsys.readouterr().err
    assert (run_dir / "config.toml").read_text() == text
    train(resume=run_dir, device="cpu")
    assert "nothing is trained; --epochs N trains on" in capsys.readouterr().out
    train(resume=run_dir, device="cpu", epochs=2, overrides=["sgd.lr=0.5"], quiet=True)
    assert load_config(run_dir / "config.toml").sgd.lr == 0.5
    assert read(newest(run_dir)).state["epoch"] == 2
    text = (run_dir / "config.toml").read_text()
    train(resume=run_dir, device="cpu", epochs=1, quiet=True)
    assert "(not taken: train.epochs)" in capsys.readouterr().err
    assert (run_dir / "config.toml").read_text() == text


def test_more_drops_go_on_where_a_plateau_had_ended(data: Path, tmp_path: Path) -> None:
    cfg = {**config(data), "schedule": {"kind": "plateau", "patience": 1, "drops": 0}}
    cfg["train"] = {**cfg["train"], "epochs": 60}
    run_dir = tmp_path / "run"
    first = train(cfg, device="cpu", run_dir=run_dir, quiet=True)
    assert first.net.step < 600
    assert train(resume=run_dir, device="cpu", quiet=True).net.step == first.net.step
    more = train(resume=run_dir, device="cpu", overrides=["schedule.drops=1"], quiet=True)
    assert more.net.step > first.net.step


# ---- what others do to the folder ----------------------------------------------------------------


def once_at(step: int, act: Callable[[], object]) -> Callable[[dict[str, Any]], None]:
    """A callback that does something once, after a line of metrics.jsonl."""
    left = [act]

    def call(record: dict[str, Any]) -> None:
        if record["step"] >= step and left:
            left.pop()()

    return call


@pytest.mark.parametrize("what", ["removed", "moved", "replaced"])
@pytest.mark.parametrize("step", [3, 10, 19])
def test_the_folder_goes_away_while_training(
    data: Path, tmp_path: Path, whole: Path, what: str, step: int
) -> None:
    """Nothing half made is left, a run in its place is not written into, a moved one goes on."""
    run_dir, away = tmp_path / "run", tmp_path / "away"

    def act() -> None:
        run_dir.rename(away)
        if what == "replaced":
            shutil.copytree(away, run_dir)
        if what != "moved":
            shutil.rmtree(away)

    with pytest.raises(RunError, match="run: the run's folder was removed, moved or replaced whil"):
        train(
            config(data),
            device="cpu",
            run_dir=run_dir,
            quiet=True,
            callbacks=[once_at(step, act)],
        )
    if what == "removed":
        assert not run_dir.exists()
        return
    assert run_dir.exists() == (what == "replaced")
    rest = away if what == "moved" else run_dir
    assert len(tiny.metrics(rest)) == {3: 1, 10: 4, 19: 8}[step]
    train(resume=rest, device="cpu", quiet=True)
    assert_same_end(rest, whole)


def test_files_that_are_removed_while_training_are_made_again(
    data: Path, tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"

    def act() -> None:
        (run_dir / "config.toml").unlink()
        shutil.rmtree(run_dir / "checkpoints")

    calls = [once_at(12, act)]
    train(config(data), device="cpu", run_dir=run_dir, quiet=True, callbacks=calls)
    assert load_config(run_dir / "config.toml") == load_config(whole / "config.toml")
    assert_same_end(run_dir, whole)


def test_a_run_without_config_has_it_in_its_checkpoint(
    begun: Path, tmp_path: Path, whole: Path
) -> None:
    run_dir = Path(shutil.copytree(begun, tmp_path / "run"))
    text = (run_dir / "config.toml").read_text()
    (run_dir / "config.toml").unlink()
    train(resume=run_dir, device="cpu", quiet=True)
    assert (run_dir / "config.toml").read_text() == text


def test_metrics_that_were_changed_are_noticed(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (begun / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 1
    for number, content in enumerate((b"", b"[" * 100_000, b'{"kind": "step", "step": "x"}', None)):
        run_dir = Path(shutil.copytree(begun, tmp_path / f"run{number}"))
        file = run_dir / "metrics.jsonl"
        file.unlink() if content is None else file.write_bytes(content)
        assert train(resume=run_dir, device="cpu", quiet=True).status == "done"
        err = capsys.readouterr().err
        assert "metrics.jsonl: expected 1 lines up to step 3, found 0: it was changed after" in err
        assert (run_dir / "damaged-metrics.jsonl").read_bytes() == (content or b"")


def test_metrics_that_are_replaced_while_training(data: Path, tmp_path: Path) -> None:
    """An editor writes a new file under the old name; lines go there from then on."""
    file = tmp_path / "run" / "metrics.jsonl"

    def act() -> None:
        text = file.read_text()
        file.unlink()
        file.write_text(text)

    train(
        config(data),
        device="cpu",
        run_dir=tmp_path / "run",
        epochs=1,
        quiet=True,
        callbacks=[once_at(3, act)],
    )
    assert [line["step"] for line in tiny.metrics(tmp_path / "run")] == [3, 6, 9, 10, 10]


def test_a_best_checkpoint_that_is_gone_is_said(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = Path(shutil.copytree(whole, tmp_path / "run"))
    (run_dir / "checkpoints" / "best.safetensors").unlink()
    said: list[str] = []
    assert open_checkpoint(run_dir, said.append).path == newest(run_dir)
    assert len(said) == 1
    assert "best.safetensors: expected the weights of the best epoch, found none; using" in said[0]


def test_a_run_behind_a_link(data: Path, tmp_path: Path, whole: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert interrupted_at(19, data, tmp_path / "run").status == "interrupted"
    with pytest.raises(RunError, match="holds a run already"):
        train(config(data), device="cpu", run_dir=tmp_path / "disk", quiet=True)
    train(resume=tmp_path / "run", device="cpu", quiet=True)
    assert_same_end(tmp_path / "disk", whole)


def test_other_data_are_refused(data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    interrupted_at(13, data, run_dir)
    other = tiny.write_data(tmp_path / "other")
    labels = other / "train-labels-idx1-ubyte"
    changed = bytearray(labels.read_bytes())
    changed[-1] ^= 1
    labels.write_bytes(changed)
    with pytest.raises(CheckpointError, match=r"other data: training\.labels: expected"):
        train(resume=run_dir, device="cpu", data=str(other), quiet=True)
    same = tiny.write_data(tmp_path / "same")
    assert train(resume=run_dir, device="cpu", data=str(same), quiet=True).status == "done"
    assert load_config(run_dir / "config.toml").data.path == str(same)


def test_a_checkpoint_from_past_the_end_of_an_epoch_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    interrupted_at(13, data, run_dir)
    restore = Trainer.restore

    def restore_later(self: Trainer, checkpoint: Checkpoint) -> None:
        checkpoint.state["step_in_epoch"] = 99
        restore(self, checkpoint)

    monkeypatch.setattr(Trainer, "restore", restore_later)
    with pytest.raises(CheckpointError, match="step 99 of a shorter epoch"):
        train(resume=run_dir, device="cpu", quiet=True)


def test_a_run_in_use_is_refused(data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    folder = RunFolder.create(run_dir, load_config(config(data)))
    with pytest.raises(RunError, match="another process is training this run"):
        train(resume=run_dir, device="cpu", quiet=True)
    folder.close()
    assert train(resume=run_dir, device="cpu", epochs=1, quiet=True).status == "done"


def test_folders_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run folder"):
        train(resume=tmp_path / "absent", quiet=True)
    with pytest.raises(RunError, match="no run in this folder"):
        train(resume=tmp_path, quiet=True)
    with pytest.raises(ConfigError, match="run_dir: cannot be given with resume"):
        train(resume=tmp_path, run_dir=tmp_path, quiet=True)
