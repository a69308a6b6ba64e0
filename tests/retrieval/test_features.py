"""Files of features: what is in them, killed and taken up again, damaged or of something else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import tiny
import trees
from telling import told_to

from convnet.cli.main import main
from convnet.data import DataError
from convnet.evaluation.evaluate import open_run
from convnet.layers import Conv, Dense, Dropout, ReLU, SoftmaxCrossEntropy
from convnet.nn.net import Net, Node
from convnet.retrieval import features as module
from convnet.retrieval import tensor_file
from convnet.retrieval.features import last_hidden, net_facts, write_features
from convnet.retrieval.index import open_index
from convnet.training.train import train

Run = tuple[Path, Path]  # run folder, data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("features")
    data = tiny.write_data(folder / "data")
    layers = [
        {"name": "conv1", "type": "conv", "filters": 8, "size": 3, "pad": 1, "init": "he"},
        {"name": "relu1", "type": "relu"},
        {"name": "fc2", "type": "dense", "units": 12, "init": "he"},
        {"name": "relu2", "type": "relu"},
        {"name": "drop2", "type": "dropout", "drop": 0.5},
        {"name": "fc3", "type": "dense", "units": 10, "init": "xavier"},
        {"name": "softmax", "type": "softmax_cross_entropy"},
    ]
    cfg = tiny.config(data, net={"layers": layers}, train={"epochs": 1})
    train(cfg, device="cpu", run_dir=folder / "run", quiet=True)
    return folder / "run", data


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on class folders of colour images."""
    folder = tmp_path_factory.mktemp("folders")
    data = trees.class_folders(folder / "pictures")
    cfg = tiny.config(data, data={"source": "folder", "size": [8, 8]}, train={"epochs": 1})
    cfg["net"]["layers"][4]["units"] = 3
    train(cfg, device="cpu", run_dir=folder / "run", quiet=True)
    return folder / "run", data


def expected(run_dir: Path, seed: int, count: int, until: str = "drop2") -> np.ndarray:
    """A layer's output in test mode, computed from the images step by step."""
    trained = open_run(run_dir)
    pixels, _ = tiny.images(count, seed)
    x = (pixels[..., None] - trained.stats.mean) * np.float32(trained.cfg.data.scale)
    return trained.net.forward(x.astype(np.float32), until).reshape(count, -1)


def test_the_last_hidden_layer_in_test_mode(run: Run, tmp_path: Path) -> None:
    for part, seed, count in (("train", 1, tiny.TRAIN), ("val", 2, tiny.TEST)):
        out = tmp_path / f"{part}.safetensors"
        written = write_features(run[0], None, out, part=part, device="cpu")
        assert (written.layer, written.count, written.size) == ("drop2", count, 12)
        arrays = safetensors.numpy.load_file(out)  # any reader of the format can
        assert arrays["features"].dtype == np.float32
        np.testing.assert_allclose(
            arrays["features"], expected(run[0], seed, count), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_array_equal(arrays["labels"], tiny.images(count, seed)[1])
    undropped = expected(run[0], 2, tiny.TEST, "relu2")  # dropout's test scaling
    np.testing.assert_array_equal(expected(run[0], 2, tiny.TEST), undropped / 2)


def test_both_parts_and_another_layer(run: Run, tmp_path: Path) -> None:
    for part in ("train", "val", "all"):
        write_features(run[0], None, tmp_path / part, "relu1", part, "cpu")
    train_, val, both = (open_index(tmp_path / part) for part in ("train", "val", "all"))
    assert both.rows.shape == (tiny.TRAIN + tiny.TEST, 8 * 8 * 8)
    np.testing.assert_array_equal(both.labels, np.concatenate([train_.labels, val.labels]))
    np.testing.assert_allclose(both.rows[tiny.TRAIN :], val.rows, rtol=1e-5, atol=1e-6)
    assert both.name(170) == "all 170"


def nodes(*layers: tuple[str, Any]) -> Net:
    return Net([Node(name, layer) for name, layer in layers], (6, 6, 1), device="cpu")


def test_which_layer_is_the_last_hidden_one() -> None:
    net = nodes(
        ("fc1", Dense(4)), ("relu1", ReLU()), ("fc2", Dense(3)), ("out", SoftmaxCrossEntropy())
    )
    assert last_hidden(net) == "relu1"
    net = nodes(
        ("c", Conv(2, 3)),
        ("d", Dropout()),
        ("fc", Dense(3)),
        ("r", ReLU()),
        ("out", SoftmaxCrossEntropy()),
    )
    assert last_hidden(net) == "d"
    for net in (nodes(("fc", Dense(3)), ("out", SoftmaxCrossEntropy())), nodes(("c", Conv(2, 3)))):
        with pytest.raises(DataError, match="expected a net with a hidden layer, got none"):
            last_hidden(net)


class Killed(BaseException):
    """Ends a call between two batches, as a signal would."""


def test_an_interrupted_call_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_features(run[0], None, tmp_path / "whole", device="cpu")
    monkeypatch.setattr(module, "_EVERY", 0.0)

    def stop_at(limit: int):
        def progress(done: int, _total: int) -> None:
            if done >= limit:
                raise Killed

        return progress

    out = tmp_path / "out"
    for limit in (32, 96):
        with pytest.raises(Killed), told_to(stop_at(limit)):
            write_features(run[0], None, out, device="cpu")
        assert not out.exists()
        with pytest.raises(DataError, match=r"out: not complete yet .*the same convnet features"):
            open_index(out)
    half = tensor_file.open_tensors(tmp_path / "out.part", write=True)
    half.arrays["features"][80:] = np.nan  # not yet known to be written: done again
    half.flush()
    seen: list[int] = []
    with told_to(lambda done, _: seen.append(done)):
        written = write_features(run[0], None, out, device="cpu")
    assert written.done_before == 80
    assert seen[0] == 96
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    again = write_features(run[0], None, out, device="cpu")
    assert again.done_before == tiny.TRAIN


def test_killed_by_sigkill(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    script = (
        "import contextlib, time\n"
        "from convnet.common.progress import shown_by\n"
        "from convnet.retrieval import features\n"
        "features._EVERY = 0.0\n"
        "slow = lambda done, total: (print(done, flush=True), time.sleep(0.2))\n"
        "with shown_by(lambda what, unit: contextlib.nullcontext(slow)):\n"
        f"    features.write_features({str(run[0])!r}, None, {str(out)!r}, device='cpu')"
    )
    words = [tiny.command()[0], "-P", "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=tiny.environment()) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        with pytest.raises(DataError, match="another process is writing this file"):
            write_features(run[0], None, out, device="cpu")
        process.send_signal(signal.SIGKILL)
    written = write_features(run[0], None, out, device="cpu")
    assert 16 <= written.done_before < tiny.TRAIN
    write_features(run[0], None, tmp_path / "whole", device="cpu")
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_lost_progress_file_starts_anew(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (tmp_path / "out.part").write_bytes(b"not much")
    (tmp_path / "out.part.json").write_text("{")
    assert write_features(run[0], None, out, device="cpu").done_before == 0
    open_index(out)


@pytest.fixture
def retrained(run: Run, tmp_path: Path) -> Path:
    """A copy of the run with other weights."""
    cfg = json.loads(json.dumps(open_run(run[0]).cfg.to_dict()))
    cfg["seed"] = 4
    train(cfg, device="cpu", run_dir=tmp_path / "other", quiet=True)
    return tmp_path / "other"


def test_another_net_layer_or_data_is_refused(run: Run, retrained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_features(run[0], None, out, device="cpu")
    before = out.read_bytes()
    with pytest.raises(DataError, match="out: holds features of another net or layer; remove it"):
        write_features(retrained, None, out, device="cpu")
    with pytest.raises(DataError, match="out: holds features of another net or layer; remove it"):
        write_features(run[0], None, out, "relu2", device="cpu")
    with pytest.raises(DataError, match="out: holds features of other images"):
        write_features(run[0], None, out, part="val", device="cpu")
    assert out.read_bytes() == before


def test_what_tells_nets_apart(run: Run) -> None:
    trained = open_run(run[0])
    facts = net_facts(trained, "drop2")
    assert net_facts(open_run(run[0]), "drop2") == facts
    assert net_facts(trained, "relu2") != facts
    trained.checkpoint.arrays["fc2.w:velocity"][0, 0] += 1
    assert net_facts(trained, "drop2") == facts
    for name in ("fc2.b", "statistics:mean"):
        trained.checkpoint.arrays[name].reshape(-1)[0] += 1
        assert net_facts(trained, "drop2") != facts
        trained.checkpoint.arrays[name].reshape(-1)[0] -= 1


def test_an_unfinished_file_of_changed_images_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EVERY", 0.0)
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(run[1], data)

    def stop(done: int, _total: int) -> None:
        raise Killed

    with pytest.raises(Killed), told_to(stop):
        write_features(run[0], data, out, device="cpu")
    images = data / "train-images-idx3-ubyte"
    content = bytearray(images.read_bytes())
    content[16] ^= 255  # a pixel of the first image
    images.write_bytes(content)
    with pytest.raises(DataError, match=r"out.part: was begun with features of other images"):
        write_features(run[0], data, out, device="cpu")


def test_names_and_classes_of_folders(folder_run: Run, tmp_path: Path) -> None:
    write_features(folder_run[0], None, tmp_path / "f", part="all", device="cpu")
    index = open_index(tmp_path / "f")
    names = [index.name(number) for number in range(len(index))]
    assert len(set(names)) == 30
    assert all(name.split("/")[0] == index.label(i) for i, name in enumerate(names))


def test_images_without_classes(folder_run: Run, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, name in enumerate(("b é.png", "a.png", "c.png")):
        trees.image(number).save(flat / name)
    written = write_features(folder_run[0], flat, tmp_path / "f", device="cpu")
    assert written.count == 3
    index = open_index(tmp_path / "f")
    assert [index.name(i) for i in range(3)] == ["a.png", "b é.png", "c.png"]
    assert index.classes == ()
    assert index.label(0) is None
    assert index.labels.tolist() == [-1, -1, -1]


def test_packed_images_have_names(folder_run: Run, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    words = ["data", "pack", str(folder_run[1]), str(packed), "--size", "12", "--workers", "1"]
    assert main(words) == 0
    write_features(folder_run[0], packed, tmp_path / "f", part="val", device="cpu")
    index = open_index(tmp_path / "f")
    for number in range(len(index)):
        assert (folder_run[1] / index.name(number)).is_file()
        assert index.name(number).split("/")[0] == index.label(number)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_damage_is_found(run: Run, tmp_path: Path) -> None:
    good = tmp_path / "good"
    write_features(run[0], None, good, device="cpu")
    size = good.stat().st_size
    bad = tmp_path / "bad"
    for place in (size - 1, size // 2, good.read_bytes().index(b"drop2")):
        shutil.copy(good, bad)
        flip(bad, place)
        with pytest.raises(DataError, match=r"bad: damaged file .its checksum does not match"):
            open_index(bad)
    shutil.copy(good, bad)
    os.truncate(bad, size - 1)
    with pytest.raises(DataError, match="bad: damaged file"):
        open_index(bad)
    bad.write_bytes(b"")
    with pytest.raises(DataError, match="bad: damaged file"):
        open_index(bad)
    with pytest.raises(DataError, match="none: expected a readable file, got No such file"):
        open_index(tmp_path / "none")
    safetensors.numpy.save_file({"features": np.zeros((2, 2), np.float32)}, bad)
    with pytest.raises(DataError, match=r"bad: damaged file|bad: expected a file of convnet's"):
        open_index(bad)
    with pytest.raises(DataError, match=r"damaged file|expected"):
        open_index(run[0] / "checkpoints" / "best.safetensors")
    with pytest.raises(DataError, match=r"expected a readable file"):
        open_index(tmp_path)


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    facts = {"format": module.FORMAT, "version": 2}
    tensor_file.create(tmp_path / "f", facts, {"labels": ("int32", (1,))}).seal()
    with pytest.raises(DataError, match="f: expected version 1, got 2; a newer convnet"):
        open_index(tmp_path / "f")
    tensor_file.create(tmp_path / "g", {"format": "x"}, {"labels": ("int32", (1,))}).seal()
    with pytest.raises(DataError, match="g: expected features or codes, got another file"):
        open_index(tmp_path / "g")
    facts["version"] = 1
    tensor_file.create(tmp_path / "h", facts, {"labels": ("int32", (1,))}).seal()
    with pytest.raises(DataError, match=r"h: damaged index \(it does not say of which layer"):
        open_index(tmp_path / "h")


def test_a_full_disk_is_said_before_the_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    assert main(["features", str(run[0]), "-o", str(tmp_path / "f"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error == f"convnet: error: {tmp_path / 'f.part'}: No space left on device\n"
    assert list(tmp_path.iterdir()) == []


def test_two_devices_give_the_same(run: Run, tmp_path: Path) -> None:
    for device in ("cpu", "cpu:0,cpu:1"):
        write_features(run[0], None, tmp_path / device, "relu2", part="val", device=device)
    one, two = (open_index(tmp_path / device) for device in ("cpu", "cpu:0,cpu:1"))
    np.testing.assert_allclose(one.rows, two.rows, rtol=1e-5, atol=1e-5)


def test_the_file_is_not_held_in_memory(tmp_path: Path) -> None:
    """What is written and read of 64 MiB of features is not the process's own memory."""
    script = f"""
import resource, pathlib
import numpy as np
from convnet.retrieval import tensor_file
def held():
    return int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
before = held()
tensors = {{"features": ("float32", (4096, 4096))}}
file = tensor_file.create(pathlib.Path({str(tmp_path / "f")!r}), {{}}, tensors)
rows = file.arrays["features"]
for i in range(0, 4096, 256):
    rows[i : i + 256] = i
file.seal()
file.verify()
assert rows[4095, 5] == 3840
assert held() - before < 16e6, held() - before
"""
    if not Path("/proc/self/statm").is_file():
        pytest.skip("needs Linux's /proc")
    words = [tiny.command()[0], "-P", "-c", script]
    subprocess.run(words, env=tiny.environment(), check=True, timeout=120)


def test_bad_input(
    run: Run, folder_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def complaint(*words: Any) -> str:
        assert main(["features", *map(str, words)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    out = tmp_path / "f"
    assert "layer: no node 'drop'; did you mean \"drop2\"" in complaint(
        run[0], "-o", out, "--layer", "drop"
    )
    assert "no such run folder or checkpoint" in complaint(tmp_path / "x", "-o", out)
    assert "no such file or folder" in complaint(run[0], tmp_path / "x", "-o", out)
    assert "No such file or directory" in complaint(run[0], "-o", tmp_path / "x" / "f")
    (tmp_path / "empty").mkdir()
    assert "expected one sub-folder" in complaint(folder_run[0], tmp_path / "empty", "-o", out)
    assert not out.exists()


def test_the_command(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "f.safetensors"
    assert main(["features", str(run[0]), str(run[1]), "-o", str(out), "--part", "val"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("40 images, 12 numbers each, of drop2; 0:0")
    assert text.endswith(f"wrote {out}\n")
    assert main(["features", str(run[0]), str(run[1]), "-o", str(out), "--part", "val"]) == 0
    assert "40 were done before" in capsys.readouterr().out
