"""Series of runs, as in experiments/: they go on where they were killed, and refuse what they
cannot use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ablations
import pytest
import relu_vs_tanh
import tiny
from options import ended
from parts import Part
from paths import ROOT
from series import Results, Series, SeriesError, Sets, digest
from tiny_series import lines, planned, words

import convnet

# ---- going on -----------------------------------------------------------------------------------


def test_killed_series_goes_on(data: Path, tmp_path: Path) -> None:
    """SIGKILL after the first run; the second process makes the rest, and the results are those of
    a series that was never killed."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    script = [sys.executable, str(ROOT / "experiments" / "ablations.py")]
    more = ["--only", "no-dropout", "--epochs", "4"]
    command = [*script, *words(data, killed, *more)]
    process = subprocess.Popen(command, env=tiny.environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first.startswith("whole-seed1: done")
    deadline = time.monotonic() + 60.0  # into the second run, past its first checkpoint
    while not list(killed.glob("runs/*/no-dropout-seed1-*/checkpoints/*.safetensors")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    process.stdout.close()
    assert len(lines(killed / "results.jsonl")) == 2
    run = subprocess.run(
        command, env=tiny.environment(), capture_output=True, text=True, timeout=120, check=True
    )
    assert "whole-seed1" not in run.stdout
    ablations.main(words(data, whole, *more))
    assert (killed / "results.jsonl").read_bytes() == (whole / "results.jsonl").read_bytes()


def test_interrupted_series_says_how_to_go_on(
    data: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    real = Series.run

    def interrupted(self: Series, *args: Any, **more: Any) -> Any:
        stop = lambda epoch: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
        return real(self, *args, **{**more, "stop": stop})

    monkeypatch.setattr(Series, "run", interrupted)
    given = words(data, tmp_path, "--only", "whole")
    assert ended(lambda: ablations.main(given), "ablations.py") == 143
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "results.jsonl").exists()
    monkeypatch.setattr(Series, "run", real)
    assert ablations.main(given) == 0
    assert len(lines(tmp_path / "results.jsonl")) == 3


def test_a_stopped_run_that_was_killed_ends_where_it_stopped(data: Path, tmp_path: Path) -> None:
    """Killed after its last step and before its line: it is stopped again at the same epoch."""
    plan = planned("mnist", (16, 16, 1))
    sets = Sets(*(Part(each) for each in _sets(data)))
    cfg = plan.config(ablations.VARIANTS["whole"], 1)
    cfg = convnet.load_config(cfg, ["train.epochs=3", "train.batch=16"])
    table = cfg.to_dict()
    table["net"] = {"layers": ablations.small_alexnet((14, 14, 1), 10)}
    made = []
    for number in range(2):
        results = Results(tmp_path / f"{number}.jsonl", {"classes": 10})
        with Series(results, tmp_path / "runs", "cpu", 1) as series:
            made.append(series.run("a", table, sets, stop=lambda epoch: epoch["epoch"] == 1))
    assert made[0] == made[1]
    assert made[0]["status"] == "stopped"
    assert len(made[0]["epochs"]) == 1


def _sets(data: Path) -> list[Any]:
    from convnet.config import DataConfig
    from convnet.data import open_data

    train, test = open_data(DataConfig(source="mnist", path=str(data)))
    return [train, train, test]


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--only", "no-lnr"], 'unknown variant "no-lnr"; did you mean "no-lrn"?'),
        (["--only", "no-colour-noise"], "expected images in colour, got 1 channel"),
        (["--images", "999"], "--images: expected at most 160"),
        (["--sample", "999"], "--sample: expected at most 160"),
        (["--net", "fashion-mnist"], 'expected "small" or a preset of the model "alexnet"'),
        (["--net", "alexnte"], 'did you mean "alexnet"?'),
        (["--data", "/nowhere"], "/nowhere: expected train-images-idx3-ubyte"),
        (["--set", "sgd.rl=1"], "sgd.rl"),
        (["--lr", "-1"], "sgd.lr"),
        (["--report"], "expected the results of a series, got none"),
        (["--device", "cuda:77"], ""),
    ],
)
def test_bad_input_is_one_line(
    data: Path, tmp_path: Path, capsys: Any, given: list[str], message: str
) -> None:
    def command() -> int:
        return ablations.main(words(data, tmp_path, *given))

    assert ended(command, "ablations.py") == (3 if "--device" in given else 2)
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("ablations.py: error: ")
    assert told.count("\n") == 1


def test_target_that_guessing_reaches(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--target: expected less than 90, .* got 95"):
        relu_vs_tanh.main(words(data, tmp_path, "--target", "95"))


@pytest.mark.parametrize("given", [["--epochs", "0"], ["--seeds", "x"], ["--target", "0"], ["x"]])
def test_bad_arguments_are_one_line(capsys: Any, given: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        relu_vs_tanh.main(given)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert "error: " in told
    assert told.count("\n") == 1


def test_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    Results(path, {"lr": 0.1, "epochs": 3}).add({"run": "a"})
    assert Results(path, {"lr": 0.1, "epochs": 3}).runs == {"a": {"run": "a"}}
    with pytest.raises(SeriesError, match=r"lr: expected 0\.1 as in the runs it holds, got 0\.2"):
        Results(path, {"lr": 0.2, "epochs": 3})
    with pytest.raises(SeriesError, match=r"epochs: expected 3 .* got null"):
        Results(path, {"lr": 0.1})


def test_another_configuration_is_refused(data: Path, tmp_path: Path) -> None:
    given = words(data, tmp_path, "--only", "whole", "--epochs", "1", "--seeds", "1")
    assert ablations.main(given) == 0
    path = tmp_path / "results.jsonl"
    path.write_text(path.read_text().replace('"config": "', '"config": "0'))
    with pytest.raises(SeriesError, match="whole-seed1: was made with another configuration"):
        ablations.main(given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}\n", 'line 1: expected a "settings", got none'),
        ('{"settings": {}}\nnonsense\n', "line 2: expected JSON"),
        ('{"settings": {}}\n[]\n', 'line 2: expected a "run", got none'),
    ],
)
def test_damaged_results_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(SeriesError, match=message):
        Results(path)


def test_the_name_of_a_configuration() -> None:
    """It depends on what changes a result, and not on defaults, places and threads."""
    base = {"net": {"model": "small"}, "sgd": {"lr": 0.02}}
    name = digest(convnet.load_config(base))
    for text in ("train.threads=3", "data.path=/there", "sgd.momentum=0.9", "train.batch=128"):
        assert digest(convnet.load_config(base, [text])) == name
    for text in ("sgd.lr=0.03", "seed=2", "train.batch=64", "net.options.width=8", "augment.pad=1"):
        assert digest(convnet.load_config(base, [text])) != name


def test_two_processes_at_one_series(tmp_path: Path) -> None:
    results = Results(tmp_path / "r.jsonl", {})
    with (
        Series(results, tmp_path / "runs", "cpu", 1),
        pytest.raises(SeriesError, match="another process is making these runs"),
    ):
        Series(results, tmp_path / "runs", "cpu", 1)


def test_report_of_a_series_that_has_only_begun(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    settings = {"classes": 10, "target": 10.0, "source": "mnist"}
    Results(path, settings).add({"run": "search-relu-lr0.01", "status": "done", "epochs": []})
    with pytest.raises(SeriesError, match="expected runs of relu, got none yet"):
        relu_vs_tanh.main(["--report", "--results", str(path)])
    with pytest.raises(SeriesError, match="expected runs of the whole net, got none yet"):
        ablations.main(["--report", "--results", str(path)])
