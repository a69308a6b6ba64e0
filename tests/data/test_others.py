"""Data sets of others: PyTorch's, Hugging Face's, arrays, and WebDataset shards."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convnet
from convnet.cli.main import main
from convnet.config import DataConfig, load_config
from convnet.data import DataError, WebDataset, from_indexable, open_data
from convnet.evaluation.evaluate import evaluate
from convnet.training.datasets import sets_of

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)
LABELS = np.array([0, 2, 1, 1, 0, 2])


class Items:
    """A map-style data set, such as PyTorch's."""

    def __init__(self, change) -> None:
        self.change = change

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, index: int):
        if not 0 <= index < len(self):
            raise IndexError
        return self.change(PIXELS[index]), int(LABELS[index])


class Tensor:
    """What an array of another library has."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape = array, array.shape

    def numpy(self) -> np.ndarray:
        return self.array


class Names:
    """A feature of Hugging Face's."""

    names = ("a", "b", "c")


class Table(Items):
    """A data set of columns, such as Hugging Face's."""

    column_names = ("image", "label")
    features = {"image": None, "label": Names()}  # noqa: RUF012

    def __getitem__(self, index):
        if isinstance(index, str):
            return [*LABELS]
        return {"image": Image.fromarray(PIXELS[index]), "label": int(LABELS[index])}


KINDS = {
    "arrays": lambda x: x,
    "pictures": Image.fromarray,
    "tensors": lambda x: Tensor(x.transpose(2, 0, 1)),
    "scaled tensors": lambda x: Tensor((x / np.float32(255)).transpose(2, 0, 1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_items_of_others(kind: str) -> None:
    data = from_indexable(Items(KINDS[kind]))
    assert (data.shape, data.classes) == ((8, 9, 3), ("0", "1", "2"))
    assert data.labels.tolist() == LABELS.tolist()
    assert np.array_equal(data.read([5, 0]), PIXELS[[5, 0]])
    small = from_indexable(Items(KINDS[kind]), size=(4, 4), classes="xyz")
    assert small.read([1]).shape == (1, 4, 4, 3)
    assert small.classes == ("x", "y", "z")


def test_columns_and_pairs_of_arrays() -> None:
    table = from_indexable(Table(None))
    assert table.classes == ("a", "b", "c")
    assert np.array_equal(table.read(range(6)), PIXELS)
    pair = from_indexable((PIXELS[..., 0], LABELS))
    assert (pair.shape, pair.classes) == ((8, 9, 1), ("0", "1", "2"))


def test_data_sets_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    data = from_indexable(torch.utils.data.TensorDataset(images, torch.from_numpy(LABELS)))
    assert np.array_equal(data.read(range(6)), PIXELS)
    assert data.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "expected items, got none"),
        (iter([(PIXELS[0], 0)]), "expected data with a length and items, got list_iterator"),
        (Items(lambda x: x.astype(np.int32)), "expected uint8, or numbers from 0 to 1, got int32"),
        (Items(lambda x: x.astype(np.float32)), "leave normalization to data.mean"),
        (Items(lambda x: x[:, :, :2]), "of 1 or 3 channels"),
        ([{"picture": PIXELS[0], "label": 0}], "got one with picture, label; image= names it"),
        ([(PIXELS[0], -1)], r"expected 0 \.\. "),
    ],
)
def test_what_is_no_data_set(items, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_indexable(items)


def test_splits_of_a_dictionary(tmp_path: Path) -> None:
    """As Hugging Face has them; "test" counts where nothing else is for validation."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)
    labels = np.arange(12) % 3
    whole, few = (pixels, labels), (pixels[:6], labels[:6])
    found = sets_of({"train": whole, "test": whole, "validation": few})
    assert [len(each) for each in found] == [12, 6]
    assert [len(each) for each in sets_of({"train": few, "test": whole})] == [6, 12]
    with pytest.raises(DataError, match="'train' and 'validation' or 'test', got 'train', 'other'"):
        sets_of({"train": whole, "other": few})


def test_images_of_several_sizes() -> None:
    items = [(PIXELS[0], 0), (PIXELS[1, :5], 1)]
    with pytest.raises(DataError, match=r"image 1: .*size=\(H, W\) scales all"):
        from_indexable(items).read([0, 1])
    assert from_indexable(items, size=(5, 5)).read([0, 1]).shape == (2, 5, 5, 3)


def test_a_run_of_given_sets_says_so(tmp_path: Path) -> None:
    sets = (Items(KINDS["pictures"]), (PIXELS, LABELS))
    cfg = load_config(
        {
            "net": {
                "layers": [
                    {"name": "fc", "type": "dense", "units": 3},
                    {"name": "loss", "type": "softmax_cross_entropy"},
                ]
            },
            "train": {"batch": 3, "epochs": 1, "report": False},
        }
    )
    run = convnet.train(cfg, data=sets, run_dir=tmp_path / "run", device="cpu", quiet=True).run_dir
    assert load_config(run / "config.toml").data.source == "given"
    with pytest.raises(DataError, match="no other data take their place"):
        evaluate(run, device="cpu")
    assert evaluate(run, data=sets, device="cpu")["images"] == 6
    again = convnet.train(resume=run, data=sets, epochs=2, device="cpu", quiet=True)
    assert again.net.step == 4


# ---- WebDataset ----------------------------------------------------------------------------------


def shard(path: Path, members: list[tuple[str, bytes]], cut: int = 0) -> Path:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    path.write_bytes(file.getvalue()[: -cut or None])
    return path


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_bad_image_in_a_shard_is_named_with_the_way_out(tmp_path: Path) -> None:
    members = [("a/0000.png", png(PIXELS[0])), ("a/0000.cls", b"1")]
    members += [("a/it's.png", b"no image"), ("a/it's.cls", b"0")]
    path = shard(tmp_path / "some.tar", members)
    with pytest.raises(DataError, match=r"some\.tar: a/it's: expected an image") as caught:
        WebDataset([path], (8, 9)).read([0, 1])
    command = str(caught.value).partition("; take it out: ")[2]
    assert command.startswith("tar --delete")
    subprocess.run(["bash", "-c", command], check=True)
    assert WebDataset([path], (8, 9)).read([0]).shape == (1, 8, 9, 3)
    assert len(WebDataset([path], (8, 9))) == 1


@pytest.mark.parametrize("kind", ["cls", "json", "names"])
def test_shards_of_a_webdataset(tmp_path: Path, kind: str) -> None:
    labels = {
        "cls": lambda n: ("cls", b"%d\n" % n),
        "json": lambda n: ("json", json.dumps({"label": int(n), "from": "x"}).encode()),
        "names": lambda n: ("cls", b"cat ant bee".split()[n]),
    }[kind]
    shards = []
    for part, rows in enumerate((range(4), range(4, 6))):
        members = []
        for row in rows:
            ending, text = labels(LABELS[row])
            members += [(f"a/{row:04}.png", png(PIXELS[row])), (f"a/{row:04}.{ending}", text)]
            members += [(f"a/{row:04}.txt", b"a caption")]
        shards.append(shard(tmp_path / f"{part}.tar", members))
    data = WebDataset(shards, (8, 9))
    names = ("ant", "bee", "cat") if kind == "names" else ("0", "1", "2")
    assert data.classes == names
    found = [data.classes[number] for number in data.labels]
    expected = [("cat", "ant", "bee")[n] if kind == "names" else str(n) for n in LABELS]
    assert found == expected
    assert np.array_equal(data.read([5, 0, 3]), PIXELS[[5, 0, 3]])


@pytest.mark.parametrize(
    ("members", "cut", "message"),
    [
        ([("1.png", png(PIXELS[0]))], 0, "expected a label, .cls or .json, got an image without"),
        ([("1.png", png(PIXELS[0])), ("1.json", b"{}")], 0, "1.json: expected a label"),
        ([("1.png", png(PIXELS[0])), ("1.json", b"{")], 0, "1.json: expected JSON"),
        ([("1.cls", b"1")], 0, "expected images with labels"),
        ([("1.png", png(PIXELS[0])), ("1.cls", b"0")], 10_000, "ends early|tar"),
        ([("1.png", png(PIXELS[0])), ("1.cls", b"1" * 2_000_000)], 0, "bytes in a label"),
    ],
)
def test_shards_that_cannot_be_used(tmp_path: Path, members, cut: int, message: str) -> None:
    path = shard(tmp_path / "1.tar", members, cut)
    with pytest.raises(DataError, match=message):
        WebDataset([path], (8, 9))


@pytest.mark.parametrize(
    ("train", "val"),
    [("train/{}.tar", "val/{}.tar"), ("train-{}.tar", "test-{}.tar"), ("valued-{}.tar", "")],
)
def test_a_folder_of_shards_trains_and_evaluates(tmp_path: Path, train: str, val: str) -> None:
    """From the command line; where there are no validation shards, some images are held out."""
    for part, name in enumerate((train, val)):
        if not name:
            continue
        path = tmp_path / "shards" / name.format(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        members = [
            (f"{part}{row}.{kind}", content)
            for row in range(30)
            for kind, content in (("png", png(PIXELS[row % 6])), ("cls", b"%d" % LABELS[row % 6]))
        ]
        shard(path, members)
    cfg = tmp_path / "a.toml"
    cfg.write_text(
        '[data]\nsource = "webdataset"\nsize = [8, 8]\nval_fraction = 0.2\n'
        '[[net.layers]]\nname = "fc"\ntype = "dense"\nunits = 3\n'
        '[[net.layers]]\nname = "loss"\ntype = "softmax_cross_entropy"\n'
        "[train]\nbatch = 6\nepochs = 1\nreport = false\n"
    )
    run, data = tmp_path / "run", tmp_path / "shards"
    command = ["train", str(cfg), "--data", str(data), "--run-dir", str(run), "--device", "cpu"]
    assert main(command) == 0
    assert main(["eval", str(run), "--device", "cpu"]) == 0
    sets = open_data(load_config(run / "config.toml").data)
    assert list(map(len, sets)) == ([30, 30] if val else [24, 6])
    assert all(one.classes == ("0", "1", "2") for one in sets)


@pytest.mark.parametrize(
    ("members", "size", "message"),
    [
        ([], (8, 8), "expected shards of training images"),
        ([("1.png", png(PIXELS[0])), ("1.cls", b"0")], (0, 0), "data.size: expected a height"),
        ([("1.png", png(PIXELS[0])), ("1.cls", b"0")], (8, 8), "expected several images"),
    ],
)
def test_a_folder_without_enough_shards(tmp_path: Path, members, size, message: str) -> None:
    if members:
        shard(tmp_path / "1.tar", members)
    with pytest.raises(DataError, match=message):
        open_data(DataConfig(source="webdataset", path=str(tmp_path), size=size))
