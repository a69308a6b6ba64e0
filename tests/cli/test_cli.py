"""The `convnet` command: every subcommand, its output and its exit code."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import Image

import convnet
from convnet.cli import doctor
from convnet.cli.main import main
from convnet.config import presets
from convnet.evaluation.predict import Prediction, predict, show
from convnet.layers import Dense


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def config(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_config(tmp_path_factory.mktemp("config") / "tiny.toml", data)


@pytest.fixture(scope="module")
def run_dir(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", str(config), "--device", "cpu", "--run-dir", str(folder), "-q"]) == 0
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The first images of the test set, as files: one as it is, one larger and in colour."""
    folder = tmp_path_factory.mktemp("images")
    pixels, _ = tiny.images(tiny.TEST, 2)
    Image.fromarray(pixels[0]).save(folder / "a.png")
    Image.fromarray(pixels[7]).convert("RGB").resize((48, 32), Image.Resampling.BOX).save(
        folder / "b.png"
    )
    return [str(folder / "a.png"), str(folder / "b.png")]


def test_train(
    config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(config), "--device", "cpu", "--run-dir", str(tmp_path / "r")]
    words += ["--epochs", "1", "--set", "sgd.lr=0.5", "--set", "schedule.kind=cosine"]
    assert main([*words, "--threads", "1", "--data", str(data), "--precision", "bf16"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("device    cpu: ")
    assert 'precision = "bf16"' in (tmp_path / "r" / "config.toml").read_text()
    assert "lr 0.5 cosine" in out
    assert "done: best validation top-1" in out


def test_the_packaged_sample_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "fashion-mnist", "--data", "sample", "--device", "cpu", "--run-dir", "r"]
    tiny_net = ["--set", "net.model=small", "--set", "net.options.width=2"]
    assert main([*words, *tiny_net, "--epochs", "1", "--set", "train.batch=500"]) == 0
    out = capsys.readouterr().out
    assert "packaged sample" in out
    assert main(["eval", "r", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cases"] == 1000


def test_eval(run_dir: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run_dir), "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert re.fullmatch(
        r"40 images \(MNIST .*\): loss \d\.\d{4}, top-1 \d+\.\d\d %, top-5 .* %\n", text
    )
    checkpoint = run_dir / "checkpoints" / "best.safetensors"
    assert main(["eval", str(checkpoint), "--json", "--data", str(data)]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert f"top-1 {measured['top1']:.2f} %" in text
    assert measured["checkpoint"] == str(checkpoint)


def test_predict(run_dir: Path, images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(run_dir), *images]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert lines[0] == images[0]
    assert lines[1].split()[0] == "0"
    assert lines[7].split()[0] == "7"
    bar = re.compile(r"  \d  [█░]{24} [ \d]{3}\.\d\d %")
    assert all(bar.fullmatch(line) for line in lines[1:6] + lines[7:])
    assert main(["predict", str(run_dir), images[0], "--top", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["image"] == images[0]
    assert len(found["classes"]) == len(found["probabilities"]) == 2


def test_predict_a_folder(
    run_dir: Path, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files, a folder of them at any depth, Pillow's images and arrays: the same answers."""
    for number, image in enumerate(images):
        place = tmp_path / "some" / f"deep{number}" / "er"
        place.mkdir(parents=True)
        shutil.copy(image, place / f"{number}.png")
    assert main(["predict", str(run_dir), str(tmp_path / "some"), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = [str(tmp_path / "some" / f"deep{n}" / "er" / f"{n}.png") for n in range(len(images))]
    assert [one["image"] for one in found] == names
    opened = [Image.open(image) for image in images]
    arrays = [np.asarray(image) for image in opened]
    for kind in (images, opened, arrays):
        answers = convnet.predict(run_dir, kind)
        assert [list(one.probabilities) for one in answers] == [o["probabilities"] for o in found]
    assert [one.image for one in convnet.predict(run_dir, arrays)] == ["image 0", "image 1"]
    assert repr(answers).splitlines()[1].startswith(f"image 1: {found[1]['classes'][0]} ")
    assert repr(answers[0]).startswith(f"<Prediction image 0: {found[0]['classes'][0]} ")
    batch = np.stack([arrays[0]] * 3)[..., None] / np.float32(255)
    for one in convnet.predict(run_dir, batch):
        assert one.probabilities == pytest.approx(answers[0].probabilities, rel=1e-4)


def test_predict_and_bad_files(
    run_dir: Path, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    with pytest.raises(convnet.DataError, match="expected a folder of images, got none in it"):
        convnet.predict(run_dir, tmp_path / "empty")
    with pytest.raises(convnet.DataError, match="expected images, got none"):
        convnet.predict(run_dir, [])
    words = ["predict", str(run_dir), images[0], str(tmp_path / "bad.png"), "--json"]
    assert main(words) == 2
    assert "bad.png: expected an image" in (error := capsys.readouterr().err)
    assert error.endswith("; --set data.bad_files=skip leaves bad files out\n")
    assert main([*words, "--set", "data.bad_files=skip"]) == 0
    out, error = capsys.readouterr()
    assert [json.loads(line)["image"] for line in out.splitlines()] == images[:1]
    assert error.startswith("convnet: warning: left out: ")
    assert main([*words, "--set", "sgd.lr=1"]) == 2
    assert "--set sgd.lr=1: of a run, expected data.bad_files" in capsys.readouterr().err


def test_predict_prepares_images_as_training_did(
    run_dir: Path, images: list[str], data: Path
) -> None:
    """The same probabilities as those of the net on the image as the data set holds it."""
    trained = convnet.evaluation.evaluate.open_run(run_dir)
    pixels, _ = tiny.images(tiny.TEST, 2)
    mean = trained.stats.mean[None]
    x = (pixels[:1, :, :, None].astype(np.float32) - mean) * np.float32(trained.cfg.data.scale)
    expected = trained.net.predict(np.ascontiguousarray(x, np.float32))[0]
    found = predict(run_dir, images[:1], top=10)[0]
    for name, probability in zip(found.classes, found.probabilities, strict=True):
        assert probability == pytest.approx(float(expected[int(name)]), rel=1e-4, abs=1e-7)


def test_bars_without_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    text = show(Prediction("a.png", ("cat", "horse"), (0.75, 0.25)))
    assert text.splitlines()[1] == f"  cat    {'█' * 18}{'░' * 6}  75.00 %"

    class Ascii:
        encoding = "ascii"

    monkeypatch.setattr("sys.stdout", Ascii())
    text = show(Prediction("a.png", ("cat", "horse"), (0.75, 0.25)))
    monkeypatch.undo()
    assert text.splitlines()[2] == f"  horse  {'#' * 6}{'-' * 18}  25.00 %"


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10-quick", "mnist"])
def test_summary(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", name, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "conv1" in out
    assert "parameters" in out


def test_summary_of_the_papers_net(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONVNET_DATA", raising=False)
    assert main(["summary", "alexnet", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "60,965,224" in out
    assert "55 x 55 x 96" in out
    assert re.search(r"\ntotal +60,965,224 +724,406,816\n", out)
    last = r"1,448\.8 MFLOP per image forward; (9|1,0)\d\d\.\d MiB to train with a batch of 128\n"
    assert re.search(last, out)  # the scratch memory depends on the machine


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("alexnet-half", "59,798,312 +391,514,384"),
        ("alexnet-one-tower", "61,100,840 +714,188,480"),
        ("alexnet-227", "60,965,224 +724,406,816"),
        ("alexnet-sixconv", "61,260,392 +735,023,648"),
    ],
)
def test_summary_of_its_variants(
    name: str, total: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONVNET_DATA", raising=False)
    assert main(["summary", name, "--device", "cpu"]) == 0
    assert re.search(rf"\ntotal +{total}\n", capsys.readouterr().out)


def test_summary_of_own_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, colour in (("cats", "red"), ("dogs", "blue"), ("owls", "green")):
        (tmp_path / name).mkdir()
        for number in range(12):
            image = Image.new("RGB", (90, 80), colour)
            image.putpixel((number, 0), (number, 0, 0))
            image.save(tmp_path / name / f"{number}.png")
    assert main(["summary", "folder", "--data", str(tmp_path), "--device", "cpu"]) == 0
    assert re.search(r"softmax .* 3\b", capsys.readouterr().out)


def test_gradcheck(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", str(config), "--samples", "3", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "conv1.w" in out
    assert "fc2.b" in out
    assert "WRONG" not in out


def test_gradcheck_finds_a_wrong_gradient(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Dense._wgrad

    def wrong(self: Dense, x: Any, dy: Any) -> Any:
        dw, db = original(self, x, dy)
        return convnet.ops.accumulate(dw, convnet.ops.tanh_fprop(dw)), db

    monkeypatch.setattr(Dense, "_wgrad", wrong)
    assert main(["gradcheck", str(config), "--samples", "3", "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    assert "WRONG" in printed.out
    assert printed.err == "convnet: error: gradcheck: the gradients of fc2.w are wrong\n"


def test_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in presets())


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("python", "numpy", "cpu: ", "cuda", "vgpu", "fashion-mnist", "auto"):
        assert word in out
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert report["versions"]["convnet"] == convnet.__version__
    assert report["backends"]["cpu"]["usable"] is True
    cuda = report["backends"]["cuda"]
    assert "description" in cuda if cuda["usable"] else cuda["reason"]
    assert report["build"]["cuda_reason"]


def test_doctor_sees_a_broken_cpu_backend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ValueError("expected 18 and 8, got 17 and 8")

    monkeypatch.setattr(doctor, "_try_out", broken)
    assert main(["doctor"]) == 1
    assert "problem: cpu: a convolution failed: expected 18" in capsys.readouterr().out


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"convnet {convnet.__version__}\n"
    with pytest.raises(SystemExit) as caught:
        main(["train", "--help"])
    assert caught.value.code == 0
    assert "--resume RUN" in capsys.readouterr().out


def test_without_a_command_there_is_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """With the first commands to type, and every command on a line with what it does."""
    assert main([]) == 2
    shown = capsys.readouterr()
    assert "convnet train folder --data IMAGES" in shown.out
    lines = shown.out.splitlines()
    assert any(line.split() == ["train", "Train", "a", "net."] for line in lines)
    assert any(line.startswith("    gradcheck   Compare") for line in lines)
    assert shown.err == ""


def test_diverged_exits_with_1(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(config), "--run-dir", str(tmp_path / "r"), "--device", "cpu", "-q"]
    assert main([*words, "--set", "sgd.lr=1e18"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("convnet: error: diverged at step ")
    assert err.count("\n") == 1


def test_an_absent_device_exits_with_3(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(config), "--run-dir", str(tmp_path / "r"), "--device", "cuda:99"]
    assert main(words) == 3
    err = capsys.readouterr().err
    assert err.startswith("convnet: error: device 'cuda:99': ")
    assert err.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_as_a_module(tmp_path: Path) -> None:
    done = tiny.run("presets", cwd=tmp_path)
    assert done.returncode == 0
    assert "fashion-mnist" in done.stdout


def test_a_closed_pipe_is_no_traceback(config: Path, tmp_path: Path) -> None:
    import subprocess

    words = tiny.command("train", config, "--device", "cpu", "--run-dir", tmp_path / "r")
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=tiny.environment(),
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
    assert "Traceback" not in err


def on_a_terminal(words: list[str], kind: str) -> str:
    """What a command shows on a terminal of a kind, as TERM names it."""
    import os
    import pty
    import subprocess

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        words,
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        env=tiny.environment(TERM=kind, COLUMNS="120"),
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux: the other end is closed
                break
            if not piece:
                break
            shown += piece
        assert process.wait(timeout=30) == 0
    os.close(ours)
    return shown.decode()


def test_a_terminal_without_a_cursor_shows_lines(config: Path, tmp_path: Path) -> None:
    words = tiny.command("train", config, "--device", "cpu", "--run-dir", tmp_path / "r")
    text = on_a_terminal(words, "dumb")
    assert "epoch 1/3  step  3/10  loss" in text
    assert "━" not in text


def test_the_live_bar(config: Path, tmp_path: Path) -> None:
    """On a terminal the figures are in a bar, and step lines only in the log."""
    words = tiny.command("train", config, "--device", "cpu", "--run-dir", tmp_path / "r")
    text = on_a_terminal(words, "xterm")
    assert "━" in text
    assert "images/s" in text
    assert "epoch 3/3 done: loss" in text
    assert "\x1b[" in text
    log = (tmp_path / "r" / "log.txt").read_text()
    assert "epoch 1/3  step  3/10  loss" in log
    assert "\x1b[" not in log
