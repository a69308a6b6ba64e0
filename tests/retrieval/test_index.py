"""`convnet search`, `hash` and `retrieval`: what they find, draw, print and refuse."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import trees
from PIL import Image
from telling import told_to

from convnet.cli.main import main
from convnet.data import DataError
from convnet.interpret import montage
from convnet.retrieval import index as module
from convnet.retrieval.benchmark import retrieval
from convnet.retrieval.features import write_features
from convnet.retrieval.hashing import Encoder, HashSettings, learn_codes
from convnet.retrieval.index import Index, draw, open_index, search, write_codes
from convnet.training.train import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in run/, its data in data/; features of both parts, and codes of 16 bits."""
    folder = tmp_path_factory.mktemp("search")
    data = tiny.write_data(folder / "data")
    train(tiny.config(data), device="cpu", run_dir=folder / "run", quiet=True)
    write_features(folder / "run", None, folder / "train", device="cpu")
    write_features(folder / "run", None, folder / "val", part="val", device="cpu")
    settings = HashSettings(bits=16, hidden=(32,), epochs=20, batch=16)
    write_codes(folder / "train", folder / "codes", settings, "cpu")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on class folders, in run/; its images; features of all of them."""
    folder = tmp_path_factory.mktemp("pictures")
    trees.class_folders(folder / "pictures")
    cfg = tiny.config(
        folder / "pictures", data={"source": "folder", "size": [64, 64]}, train={"epochs": 1}
    )
    cfg["augment"] = {"crop": [60, 60]}
    cfg["net"]["layers"][4]["units"] = 3
    train(cfg, device="cpu", run_dir=folder / "run", quiet=True)
    write_features(folder / "run", None, folder / "all", part="all", device="cpu")
    return folder


def names_of(folder: Path, numbers: list[int]) -> list[str]:
    pixels, _ = tiny.images(tiny.TEST, 2)
    for number in numbers:
        Image.fromarray(pixels[number]).save(folder / f"{number}.png")
    return [str(folder / f"{number}.png") for number in numbers]


# ---- search --------------------------------------------------------------------------------------


def test_neighbours_are_those_of_the_features(folder: Path, tmp_path: Path) -> None:
    rows, queries = (np.asarray(open_index(folder / n).rows, np.float64) for n in ("train", "val"))
    found = search(folder / "run", open_index(folder / "train"), pick=[7, 31], k=4, device="cpu")
    files = names_of(tmp_path, [7, 31])
    again = search(folder / "run", open_index(folder / "train"), files, k=4, device="cpu")
    for one, other, number in zip(found, again, (7, 31), strict=True):
        distances = np.sqrt(np.square(rows - queries[number]).sum(axis=1))
        order = np.argsort(distances, kind="stable")[:4]
        assert one.numbers == other.numbers == tuple(order)
        np.testing.assert_allclose(one.distances, distances[order], rtol=1e-5)
        assert one.names == tuple(f"train {i}" for i in order)
        assert one.labels == tuple(str(i % 10) for i in order)
        assert one.query.label == str(number % 10)
        assert other.query.label is None


def test_an_image_of_the_index_is_its_own_neighbour(images: Path) -> None:
    index = open_index(images / "all")
    for number in (0, 12, 29):
        path = images / "pictures" / index.name(number)
        (found,) = search(images / "run", index, [path], k=2, device="cpu")
        assert found.numbers[0] == number
        assert found.distances[0] < 1e-4 * found.distances[1]
        assert found.query.label == index.label(number)


def test_the_drawn_row(images: Path, tmp_path: Path) -> None:
    """The query and its neighbours in their places, framed by whether the class is the same."""
    index = open_index(images / "all")
    path = images / "pictures" / index.name(4)
    found = search(images / "run", index, [path], k=5, device="cpu")
    draw(found, index, tmp_path / "row.png")
    with Image.open(tmp_path / "row.png") as image:
        row = np.array(image)
    assert row.shape[1] == 8 + 6 * (112 + 6 + 8) + 28
    same = [label == found[0].query.label for label in found[0].labels]
    assert same[0] is True
    for place in range(6):
        x = 8 + place * (112 + 6 + 8) + (28 if place else 0)
        expected = (
            montage.PALE if place == 0 else montage.RIGHT if same[place - 1] else montage.WRONG
        )
        assert (row[8:126, x] == expected).all()
        assert (row[8, x : x + 118] == expected).all()
    query, itself = row[11:123, 11:123], row[11:123, 165:277]
    assert np.abs(query.astype(int) - itself).mean() < 1
    assert np.abs(query.astype(int) - row[11:123, 291:403]).mean() > 5


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", str(folder / "run"), str(folder / "train"), "--pick", "3,14"]
    out = tmp_path / "row.png"
    assert main([*words, "-k", "3", "-o", str(out), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert lines[0] == "validation 3 (3)"
    assert lines[4] == "validation 14 (4)"
    assert all(re.fullmatch(r" +[\d.e-]+  \d  train \d+", line) for line in lines[1:4] + lines[5:8])
    assert lines[8] == f"wrote {out}"
    with Image.open(out) as image:
        assert image.width == 8 + 4 * 126 + 28
    assert main([*words, "--json", "--no-picture"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["query"] for one in said] == ["validation 3", "validation 14"]
    assert len(said[0]["neighbours"]) == 6
    assert said[0]["neighbours"][0]["name"] == lines[1].split("  ")[-1]
    assert main([*words, "--device", "cpu"]) == 0
    assert f"wrote {folder / 'run' / 'search.png'}" in capsys.readouterr().out
    assert (folder / "run" / "search.png").is_file()
    codes = ["search", str(folder / "run"), str(folder / "codes"), "--pick", "3", "--no-picture"]
    assert main(codes) == 0
    assert re.search(r"\n +\d+ bits?  \d  train \d+\n", capsys.readouterr().out)


def complain(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    try:
        code = main([str(word) for word in words])
    except SystemExit as error:
        code = int(error.code or 0)
    error = capsys.readouterr().err
    assert code == 2, error
    assert error.startswith("convnet: error: ")
    assert error.count("\n") == 1
    return error


def test_what_search_refuses(
    folder: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, index = folder / "run", folder / "train"

    def error(*words: Any) -> str:
        return complain(capsys, "search", *words, "--device", "cpu")

    assert "expected images to search for" in error(run, index)
    assert "expected numbers from 0 to 39, got 40" in error(run, index, "--pick", "40")
    assert "expected a whole number, at least 0" in error(run, index, "--pick", "3,x")
    assert "k: expected 1 to 160, the images there are, got 161" in error(
        run, index, "--pick", 1, "-k", 161
    )
    other = error(images / "run", index, "--pick", 1)
    assert re.search(r"train: expected features of .*run/checkpoints/best.*another net", other)
    assert "expected a readable file, got No such file" in error(run, tmp_path / "x", "--pick", 1)
    assert "No such file" in error(run, index, tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(b"no image")
    assert "x.png" in error(run, index, tmp_path / "x.png")
    assert "expected a name that ends in .png" in error(
        run, index, "--pick", 1, "-o", tmp_path / "row.doc"
    )
    bad = tmp_path / "bad"
    shutil.copy(index, bad)
    content = bytearray(bad.read_bytes())
    content[-100] ^= 4
    bad.write_bytes(content)
    assert "damaged file" in error(run, bad, "--pick", 1)
    assert main(["search", *map(str, (run, bad)), "--pick", "1", "--no-check", "--no-picture"]) == 0


def test_an_index_of_the_run_before_it_went_on_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    train(resume=tmp_path / "run", epochs=8, device="cpu", quiet=True)
    (tmp_path / "run" / "checkpoints" / "best.safetensors").unlink()
    with (
        pytest.raises(DataError, match="got those of another net"),
        pytest.warns(UserWarning, match="expected the weights of the best epoch, found none"),
    ):
        search(tmp_path / "run", open_index(folder / "train"), pick=[0], device="cpu")


def test_changed_images_are_not_drawn(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images / "pictures", tmp_path / "moved")
    index = open_index(images / "all")
    path = images / "pictures" / index.name(4)
    found = search(images / "run", index, [path], device="cpu")
    draw(found, index, tmp_path / "moved.png", tmp_path / "moved")
    trees.image(77).save(tmp_path / "moved" / "cat" / "999.png")
    with pytest.raises(DataError, match="all: the images have changed since it was made"):
        draw(found, index, tmp_path / "row.png", tmp_path / "moved")
    assert not (tmp_path / "row.png").exists()


# ---- codes ---------------------------------------------------------------------------------------


def clusters(rng: np.random.Generator, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Feature vectors around eight centres, and which."""
    centres = np.maximum(rng.standard_normal((8, 24)), 0) * 3
    labels = rng.integers(0, 8, count)
    x = centres[labels] + 0.3 * rng.standard_normal((count, 24))
    return x.astype(np.float32), labels


@pytest.mark.parametrize("hidden", [(), (40, 20)])
def test_codes_keep_neighbours(backend: Any, rng: np.random.Generator, hidden: Any) -> None:
    x, labels = clusters(rng)
    settings = HashSettings(bits=12, hidden=hidden, epochs=25, batch=32, lr=0.03)
    seen: list[tuple[int, int]] = []
    with told_to(lambda *done: seen.append(done)):
        learned = learn_codes(x, settings, backend.device)
    assert seen == [(i + 1, 25) for i in range(25)]
    assert 0 < learned.loss < 0.6
    codes = learned.encoder(x)
    assert codes.shape == (400, 2)
    assert codes.dtype == np.uint8
    assert (np.unpackbits(codes, axis=1)[:, 12:] == 0).all()
    found = module.nearest_codes(codes, codes, 11).indices[:, 1:]
    assert (labels[found] == labels[:, None]).mean() > 0.9
    share = np.unpackbits(codes, axis=1)[:, :12].mean(axis=0)
    np.testing.assert_allclose(share, 0.5, atol=0.02)  # the thresholds are medians


def test_the_decoder_sees_bits_only() -> None:
    """Of numbers spread evenly, two values leave a quarter of the variance unexplained."""
    x = np.linspace(-1, 1, 512)[:, None] * np.array([[1.0, -2.0, 0.5]])
    settings = HashSettings(bits=1, hidden=(), epochs=60, batch=32, lr=0.03)
    learned = learn_codes(x.astype(np.float32), settings, "cpu")
    assert 0.24 < learned.loss < 0.35


def test_learning_repeats_itself_to_the_bit(rng: np.random.Generator) -> None:
    x, _ = clusters(rng)
    settings = HashSettings(bits=8, hidden=(16,), epochs=3)
    one, two = learn_codes(x, settings, "cpu"), learn_codes(x, settings, "cpu")
    other = learn_codes(x, HashSettings(bits=8, hidden=(16,), epochs=3, seed=2), "cpu")
    assert one.loss == two.loss != other.loss
    np.testing.assert_array_equal(one.encoder(x), two.encoder(x))


def test_a_code_depends_on_its_features_alone(rng: np.random.Generator) -> None:
    x, _ = clusters(rng)
    encoder = learn_codes(x, HashSettings(bits=32, hidden=(), epochs=1), "cpu").encoder
    together = encoder(x)
    for number in (0, 7, 399):
        np.testing.assert_array_equal(encoder(x[number : number + 1])[0], together[number])


def test_sizes_of_the_papers_features() -> None:
    assert HashSettings(bits=64).sizes(4096) == (1024, 256)
    assert HashSettings(bits=64).sizes(512) == (128,)
    assert HashSettings(bits=64).sizes(256) == ()
    assert HashSettings(bits=64, hidden=(7,)).sizes(4096) == (7,)


def test_what_learning_refuses(rng: np.random.Generator) -> None:
    x, _ = clusters(rng)
    with pytest.raises(DataError, match="expected at least 128 images to learn from, got 100"):
        learn_codes(x[:100], HashSettings(), "cpu")
    with pytest.raises(DataError, match="expected features that differ"):
        learn_codes(np.ones((200, 4), np.float32), HashSettings(), "cpu")
    with np.errstate(all="ignore"), pytest.raises(DataError, match="try a smaller --lr"):
        learn_codes(x, HashSettings(bits=8, epochs=20, lr=1000.0), "cpu")
    zeros = np.zeros(4, np.float32)
    with pytest.raises(DataError, match="encoder: expected weights of shape"):
        Encoder(zeros, 1.0, [(np.zeros((2, 3), np.float32), zeros[:2])], zeros[:2])


def test_the_file_of_codes(folder: Path) -> None:
    index, features = open_index(folder / "codes"), open_index(folder / "train")
    assert index.kind == "codes"
    assert index.bytes_per_image == 2
    np.testing.assert_array_equal(index.rows, index.encode(np.asarray(features.rows)))
    np.testing.assert_array_equal(index.labels, features.labels)
    assert index.classes == features.classes
    found = search(folder / "run", index, pick=[5], k=160, device="cpu")[0]
    assert sorted(found.numbers) == list(range(160))
    assert list(found.distances) == sorted(found.distances)


def test_the_hash_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "codes"
    words = ["hash", str(folder / "train"), "-o", str(out), "--bits", "20", "--epochs", "2"]
    assert main([*words, "--device", "cpu", "--lr", "0.02", "--hidden", "40,30"]) == 0
    text = capsys.readouterr().out
    assert re.match(r"160 codes of 20 bits \(encoder 128-40-30-20\); they leave [\d.]+ % of", text)
    assert open_index(out).rows.shape == (160, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes"]
    assert "codes: expected a new file" in complain(capsys, *words)
    assert "expected features, got codes" in complain(capsys, "hash", out, "-o", tmp_path / "x")
    for option, value in (("--bits", 0), ("--lr", "x"), ("--hidden", "3,0"), ("--epochs", "0")):
        assert "expected a" in complain(
            capsys, "hash", folder / "train", "-o", tmp_path / "x", option, value
        )
    assert "No such file" in complain(
        capsys, "hash", folder / "train", "-o", tmp_path / "x" / "y", "--epochs", 1
    )


def test_none_for_no_hidden_layers(folder: Path, tmp_path: Path) -> None:
    words = ["hash", str(folder / "train"), "-o", str(tmp_path / "c"), "--epochs", "1"]
    assert main([*words, "--hidden", "none", "--bits", "8"]) == 0
    assert open_index(tmp_path / "c").facts["encoder"]["hidden"] == []


# ---- retrieval -----------------------------------------------------------------------------------


def test_the_figures_of_the_table(folder: Path) -> None:
    report = retrieval(folder / "train", folder / "val", [folder / "codes"], k=10)
    assert [row.name for row in report.rows] == ["pixels", "features", "16 bits"]
    assert [row.bytes_per_picture for row in report.rows] == [64, 4 * 128, 2]
    assert (report.pictures, report.queries) == (160, 40)
    assert all(row.ms > 0 for row in report.rows)
    train_, val = open_index(folder / "train"), open_index(folder / "val")
    there, wanted = tiny.images(160, 1), tiny.images(40, 2)
    flat = [one[0].reshape(len(one[0]), -1).astype(np.float64) for one in (there, wanted)]
    bits = [
        np.unpackbits(open_index(folder / "codes").encode(np.asarray(one.rows)), axis=1)
        for one in (train_, val)
    ]
    spaces = [flat, [np.asarray(train_.rows, np.float64), np.asarray(val.rows)], bits]
    for row, (x, q) in zip(report.rows, spaces, strict=True):
        apart = np.square(x.astype(np.float64)[None] - q[:, None]).sum(axis=2)
        order = np.argsort(apart, axis=1, kind="stable")[:, :10]
        right = there[1][order] == wanted[1][:, None]
        assert row.precision == pytest.approx(right.mean())
        for one in range(10):
            assert row.by_class[one] == pytest.approx(right[wanted[1] == one].mean())


def test_the_retrieval_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["retrieval", *(str(folder / name) for name in ("train", "val", "codes"))]
    assert main([*words, "--most", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "10 queries among 160 images"
    assert re.fullmatch(r"features +[\d.]+ % +[\d.]+ +512", lines[3])
    assert re.fullmatch(r"by class +pixels +features +16 bits", lines[6])
    assert re.fullmatch(r"0 +[\d.]+ % +[\d.]+ % +[\d.]+ %", lines[7])
    assert any(re.fullmatch(r"\d +- +- +-", line) for line in lines)  # a class without queries
    assert main([*words, "--most", "4", "--json", "--no-pixels", "-k", "3"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["k"] == 3
    assert [row["name"] for row in said["rows"]] == ["features", "16 bits"]
    assert None in said["rows"][0]["by_class"]


def test_what_retrieval_refuses(
    folder: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*words: Any) -> str:
        return complain(capsys, "retrieval", *words)

    train_, val, codes = (folder / name for name in ("train", "val", "codes"))
    assert "val: expected codes, got features" in error(train_, val, val)
    assert "codes: expected features, got codes" in error(codes, val)
    assert "all: expected features of the net and layer of" in error(train_, images / "all")
    assert "codes: expected codes of" in error(val, train_, codes)
    flat = tmp_path / "flat"
    flat.mkdir()
    trees.image(1).save(flat / "a.png")
    write_features(images / "run", flat, tmp_path / "f", device="cpu")
    assert "f: expected images with classes" in error(images / "all", tmp_path / "f")
    assert "k: expected 1 to 160" in error(train_, val, "-k", 161)


def test_moved_images_are_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "data", tmp_path / "data")
    write_features(folder / "run", tmp_path / "data", tmp_path / "f", device="cpu")
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(DataError, match="no such file or folder"):
        retrieval(tmp_path / "f", folder / "val")
    assert retrieval(tmp_path / "f", folder / "val", pixels=False).rows[0].name == "features"
    assert isinstance(open_index(tmp_path / "f"), Index)
