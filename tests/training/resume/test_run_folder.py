"""What others do to the folder of a run: it is noticed, refused, or made good."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from resumed import config, interrupted_at
from runs import assert_same_end, newest

from convnet.config import ConfigError, load_config
from convnet.training.checkpoint import (
    Checkpoint,
    CheckpointError,
)
from convnet.training.run_folder import (
    RunError,
    RunFolder,
    open_checkpoint,
)
from convnet.training.train import train
from convnet.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("default_signals")


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
