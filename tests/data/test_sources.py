"""Where data are looked for, the packaged sample, and the real Fashion-MNIST where it is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnet.config import DataConfig
from convnet.data import DataError, idx, open_data, sources, statistics

REAL = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data anywhere but where a test puts them."""
    monkeypatch.setattr(sources, "_SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CONVNET_DATA", raising=False)


def put(folder: Path, count: int = 3) -> Path:
    """A set of `count` training images, so that tests can tell sets apart."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem in ("train", "t10k"):
        images = np.zeros((count, 28, 28), np.uint8)
        idx.write_idx(folder / f"{stem}-images-idx3-ubyte.gz", images)
        idx.write_idx(folder / f"{stem}-labels-idx1-ubyte.gz", np.zeros(count, np.uint8))
    return folder


def test_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig()
    assert "packaged sample" in open_data(config)[0].description
    places = [
        tmp_path / "cache" / "convnet" / "fashion-mnist",
        tmp_path / "system" / "fashion-mnist",
        tmp_path / "mine" / "fashion-mnist",
        tmp_path / "mine",
    ]
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("CONVNET_DATA", str(tmp_path / "mine"))
    assert "packaged sample" in open_data(config)[0].description
    for count, place in enumerate(places, start=1):
        train, _ = open_data(config) if count > 1 else (None, None)
        assert train is None or len(train) == count - 1
        put(place, count)
        train, test = open_data(config)
        assert len(train) == count
        assert train.description == (f"Fashion-MNIST from {place}: {count} training images")
        assert test.description.endswith(f"{count} test images")
    other = put(tmp_path / "elsewhere", 9)
    assert len(open_data(DataConfig(path=str(other)))[0]) == 9


def test_home_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    put(tmp_path / "home" / ".cache" / "convnet" / "mnist", 4)
    train, _ = open_data(DataConfig(source="mnist"))
    assert len(train) == 4
    assert train.classes == idx.DIGITS
    put(tmp_path / "home" / "mine", 5)
    assert len(open_data(DataConfig(source="mnist", path="~/mine"))[0]) == 5


def test_torchvision_folder(tmp_path: Path) -> None:
    put(tmp_path / "tv" / "FashionMNIST" / "raw", 6)
    assert len(open_data(DataConfig(path=str(tmp_path / "tv")))[0]) == 6


def test_an_explicit_path_never_falls_back(tmp_path: Path) -> None:
    put(tmp_path / "system" / "fashion-mnist")
    with pytest.raises(DataError, match=r"gone: expected train-images.*, got no such file or fol"):
        open_data(DataConfig(path=str(tmp_path / "gone")))
    with pytest.raises(DataError, match=r"expected train-images-idx3.*, got a folder without them"):
        open_data(DataConfig(path=str(tmp_path)))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file: expected cifar-10-python.tar.gz.*got another file"):
        open_data(DataConfig(source="cifar10", path=str(tmp_path / "file")))


def test_a_wrong_variable_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVNET_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"\$CONVNET_DATA: expected a folder, got .*gone: no such"):
        open_data(DataConfig())


def test_half_a_set_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    folder = put(tmp_path / "system" / "fashion-mnist")
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"expected train-labels-idx1-ubyte or .* got neither"):
        open_data(DataConfig())


@pytest.mark.parametrize("source", ["mnist", "cifar10", "cifar100"])
def test_sets_without_a_sample_say_where_they_were_looked_for(tmp_path: Path, source: str) -> None:
    with pytest.raises(DataError) as error:
        open_data(DataConfig(source=source))
    for place in (tmp_path / "system" / source, tmp_path / "cache" / "convnet" / source):
        assert str(place) in str(error.value)
    assert "--data" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put(tmp_path / "locked")

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)  # as for a user without rights; root has them all
    with pytest.raises(DataError, match=r"locked.*Permission denied"):
        open_data(DataConfig(path=str(folder)))


def test_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cat", "dog"):
        for i in range(10):
            (tmp_path / "pictures" / name).mkdir(parents=True, exist_ok=True)
            path = tmp_path / "pictures" / name / f"{i}.png"
            Image.new("RGB", (9, 6), (i, len(name), ord(name[0]))).save(path)
    with pytest.raises(DataError, match=r"data.path: expected a folder with one sub-folder"):
        open_data(DataConfig(source="folder"))
    monkeypatch.setenv("CONVNET_DATA", str(tmp_path / "pictures"))
    for path in ("", str(tmp_path / "pictures")):
        train, val = open_data(DataConfig(source="folder", path=path, size=(4, 4)))
        assert (len(train), len(val)) == (18, 2)
        assert train.shape == (4, 4, 3)


def test_sets_of_one_size_are_not_scaled(tmp_path: Path) -> None:
    path = str(put(tmp_path / "here"))
    assert open_data(DataConfig(path=path, size=(28, 28)))[0].shape == (28, 28, 1)
    message = r"data.size: expected \[0, 0\] or \[28, 28\].*got \[32, 32\]"
    with pytest.raises(DataError, match=message):
        open_data(DataConfig(path=path, size=(32, 32)))


# ---- the sample ----------------------------------------------------------------------------------


def test_the_sample() -> None:
    train, test = open_data(DataConfig())
    assert (len(train), len(test)) == (3500, 1000)
    assert train.shape == test.shape == (28, 28, 1)
    assert np.bincount(train.labels).tolist() == [350] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert train.classes[9] == "Ankle boot"
    assert train.labels[:4].tolist() == [9, 0, 0, 3]  # as in the whole set
    assert "only a sample" in train.description
    assert "only a sample" in test.description
    assert float(train.read(range(3500)).mean()) / 255 == pytest.approx(0.286, abs=0.004)


def test_the_sample_says_what_to_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SAMPLE_ACCURACY", 85.5)
    assert "expect about 85.5 % test accuracy" in open_data(DataConfig())[0].description


def test_the_sample_is_small_and_has_its_licence() -> None:
    files = [path for path in sources.SAMPLE_FOLDER.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 2_000_000
    licence = (sources.SAMPLE_FOLDER / "LICENSE.txt").read_text()
    assert "Copyright (c) 2017 Zalando SE, https://tech.zalando.com" in licence
    assert "Permission is hereby granted" in licence
    for path in sources.SAMPLE_FOLDER.glob("*.gz"):
        assert path.read_bytes()[4:8] == b"\0\0\0\0"  # no time stamp


# ---- the real set --------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_whole_set_and_its_sample() -> None:
    train, test = open_data(DataConfig(path=str(REAL)))
    assert (len(train), len(test)) == (60_000, 10_000)
    assert np.bincount(train.labels).tolist() == [6000] * 10
    stats = statistics(train, "channel")
    # The mean and standard deviation that everyone quotes for this set.
    assert float(stats.mean[0, 0, 0]) / 255 == pytest.approx(0.2860, abs=5e-5)
    assert float(np.sqrt(stats.eigenvalues[0])) == pytest.approx(0.3530, abs=5e-5)
    sample, sample_test = open_data(DataConfig())
    for part, whole, count in ((sample, train, 350), (sample_test, test, 100)):
        firsts = [np.flatnonzero(whole.labels == label)[:count] for label in range(10)]
        chosen = np.sort(np.concatenate(firsts))
        np.testing.assert_array_equal(part.labels, whole.labels[chosen])
        np.testing.assert_array_equal(part.read(range(len(part))), whole.read(chosen))


def test_an_unknown_home_is_no_crash() -> None:
    message = "~no-such-user/data: expected train-images.*, got no such file or folder"
    with pytest.raises(DataError, match=message):
        open_data(DataConfig(path="~no-such-user/data"))
    with pytest.raises(DataError, match=r"~no-such-user/data: expected a folder of images"):
        open_data(DataConfig(source="folder", path="~no-such-user/data"))


def test_importing_data_needs_no_images() -> None:
    """The package is imported by commands that never decode; it must not print or warn."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", "import convnet.data"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_endless_path_is_cut_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^aaa.*a\.\.\.a.*: expected") as error:
        open_data(DataConfig(source="mnist", path="a" * 100_000))
    assert len(str(error.value)) < 2000
