"""Files that claim, or expand to, far more than they hold; pipes and devices; odd values and names.

Each is read in a process with little memory and time (see limited.py). Damage at random is
fuzz_files.py's; a small part of it runs here.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cifar_files
import definitions
import mutate
import numpy as np
import pytest
import tiny
import trees
from fuzz_exchange import ATTACKS as EXCHANGE_ATTACKS
from fuzz_targets import ATTACKS
from limited import limited
from paths import TESTS
from PIL import Image

from convnet.common.reading import BudgetError, Limit, open_file, parse_json, read_bytes
from convnet.common.tensor_header import sha256_of
from convnet.config import ConfigError, load_config
from convnet.config.overrides import override
from convnet.data import DataError, cifar10, idx
from convnet.data import image as picture
from convnet.data.folder.class_folders import content_hash
from convnet.data.folder.label_file import list_labelled
from convnet.data.folder.meta_mat import read_synsets
from convnet.data.folder.trees import find_listings
from convnet.data.image import MAX_PIXELS, check_file, decode
from convnet.data.packed.dataset import open_packed
from convnet.data.packed.pack import PackSettings, pack
from convnet.data.safe_pickle import load_pickle
from convnet.exchange.cuda_convnet.convert import import_files
from convnet.exchange.cuda_convnet.definition import read_sections
from convnet.exchange.cuda_convnet.report import Report
from convnet.retrieval.index import open_index
from convnet.training import checkpoint
from convnet.training.run_folder import open_checkpoint, read_metrics, run_config

GIB = 1 << 30


def refused(message: str, function: Callable[..., Any], *arguments: Any) -> None:
    """The call must end with the one error that bad files have, and soon."""
    with pytest.raises(
        (DataError, ConfigError, checkpoint.CheckpointError), match=message
    ) as found:
        limited(lambda: function(*arguments))
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 1000


# ---- pickles -------------------------------------------------------------------------------------


def _nested(depth: int) -> bytes:
    return b"\x80\x02})" + b"\x85" * depth + b"K\x01s."


def _collisions() -> bytes:
    """Numbers in the memo that all have one hash."""
    same = (2**61 - 1) * np.arange(1, 100_000, dtype=object)
    return b"\x80\x02}" + b"".join(b"p%d\n" % number for number in same) + b"."


PICKLES = {
    "a key that crashes": (_nested(200_000), "expected keys of text, got a tuple"),
    "a key that hashes for ever": (
        b"\x80\x02})" + b"q\0h\0\x86" * 60 + b"K\x01s.", "expected keys of text"
    ),
    "twelve bytes of 4 GiB": (b"\x80\x05\x96" + struct.pack("<Q", 4 * GIB) + b".", "ends early"),
    "a key of many digits": (
        b"\x80\x02}\x8b" + struct.pack("<i", 4000) + b"\x7f" * 4000 + b"K\x01s.", "operation 0x8b"
    ),
    "numbers that collide": (_collisions(), "expected values numbered in order"),
    "one array many times": (
        b"\x80\x02}(U\1a" + cifar_files.old_array(np.zeros(1 << 20, np.uint8)) + b"q\1"
        + b"".join(cifar_files.old_string(b"%d" % i) + b"h\1" for i in range(2000)) + b"u.",
        "bytes in arrays",
    ),
    "one text encoded many times": (
        b"\x80\x02c_codecs\nencode\nq\0" + b"X" + struct.pack("<i", 1 << 20) + b"a" * (1 << 20)
        + cifar_files.old_string(b"latin1") + b"\x86q\1R"
        + b"h\0h\1R" * 2000 + b".",
        "bytes of encoded text",
    ),
    "lists in lists": (
        b"\x80\x02}U\1a]" + b"]" * 100_000 + b"a" * 100_000 + b"s.", "lists of numbers, got a list"
    ),
    "a list in itself": (b"\x80\x02}U\1a]q\0h\0as.", "lists of numbers, got a list"),
    "tuples in tuples": (b"\x80\x02}U\1a)" + b"\x85" * 200_000 + b"s.", "got a tuple"),
    "a million lists": (b"\x80\x02" + b"]" * 1_100_000 + b".", "operations in a pickle"),
}  # fmt: skip


@pytest.mark.parametrize("name", PICKLES)
def test_pickles(name: str) -> None:
    content, message = PICKLES[name]
    refused(message, load_pickle, "batch", content)


def test_pickles_of_every_protocol_load_text_too() -> None:
    entries = {
        "label_names": ["a", "b\n'\\"],
        "batch": b"\0\xff",
        "n": [1, -1, 2**40, 0.5, None, True],
    }
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert load_pickle("meta", pickle.dumps(entries, protocol)) == entries


# ---- compressed and packed -----------------------------------------------------------------------


def gzipped(prefix: bytes, size: int) -> bytes:
    """A gzip file of `prefix` and so many zeros, in members of 64 MiB."""
    member = gzip.compress(bytes(1 << 26), 1)
    return gzip.compress(prefix) + member * (size >> 26)


def test_an_idx_file_that_expands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert idx._DECOMPRESSED.most == GIB
    small = replace(idx._DECOMPRESSED, most=GIB // 8)  # the values are kept until it is spent
    monkeypatch.setattr(idx, "_DECOMPRESSED", small)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzipped(bytes((0, 0, 8, 3)) + struct.pack(">3I", 1 << 20, 64, 64), GIB // 4))
    refused(r"at most 134,217,728 bytes when .* \(gunzip\)", idx.read_idx, path, 3)
    path.write_bytes(gzip.compress(b"") * 200_000)
    refused("members in a gzip file", idx.read_idx, path, 3)


def open_cifar(path: Path) -> Any:
    source = cifar10.find_set("cifar100", path)
    assert source is not None
    return cifar10.open_set(source, "CIFAR-100")


def _header(name: str, size: int, kind: bytes = b"0") -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzipped(_header("x", 7 * GIB, b"x"), GIB), "bytes when it is decompressed"),
        (gzipped(_header("x", 7 * GIB, b"L"), GIB), "bytes when it is decompressed"),
        (gzipped(_header("cifar-100-python/train", 7 * GIB), GIB), "bytes in a file of the set"),
        (gzip.compress(_header("x", 0) * 200_000), "members in an archive"),
        (gzip.compress(_header("cifar-100-python/meta", 0) * 2), "meta comes twice"),
    ],
    ids=["pax header", "long name", "large file", "many members", "a member twice"],
)
def test_archives(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "cifar-100-python.tar.gz"
    path.write_bytes(content)
    refused(message, open_cifar, path)


def test_damage_at_the_end_of_an_archive_is_found(tmp_path: Path) -> None:
    archive = cifar_files.pack(cifar_files.write_python(tmp_path, "cifar100", pickle.dumps))
    content = bytearray(archive.read_bytes())
    content[-6] ^= 1  # the checksum
    archive.write_bytes(content)
    refused("incorrect data check", open_cifar, archive)


def mat(inner: bytes) -> bytes:
    content = zlib.compress(inner)
    return trees.META[:128] + struct.pack("<II", 15, len(content)) + content


def _element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def _matrices(depth: int) -> bytes:
    """Structures in structures."""
    names = _element(5, struct.pack("<i", 8)) + _element(1, b"a".ljust(8, b"\0"))
    inner = b""
    for _ in range(depth):
        inner = _element(14, _element(6, b"\2\0\0\0") * 3 + names + inner)
    return inner


_INNER = zlib.decompress(trees.META[136:])
MATS = {
    "empty elements": (mat(bytes(60 << 20)), "elements in it"),
    "expands": (mat(bytes(1 << 20) * 100), "bytes when it is decompressed"),
    "nested": (mat(_matrices(1000)), "nested more than 8 deep"),
    "no number": (mat(_INNER.replace(b"_ID", b"_IX")), "synsets without numbers"),
    "infinite number": (
        mat(_INNER.replace(struct.pack("<d", 1.0), struct.pack("<d", np.inf))), "another file"
    ),
    "many fields": (
        mat(
            _element(
                14,
                _element(6, b"\2\0\0\0") * 3
                + _element(5, b"\1\0\0\0") + _element(1, b"a" * 5_000_000),
            )
        ),
        "a structure of names of 1 bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MATS)
def test_meta_mat(tmp_path: Path, name: str) -> None:
    content, message = MATS[name]
    path = tmp_path / "meta.mat"
    path.write_bytes(content)
    refused(message, read_synsets, path)


def test_large_images_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of 5 kB with 36 million pixels, of which two fit: six threads decode two at a time."""
    path = tmp_path / "large.png"
    Image.new("1", (6000, 6000)).save(path)
    assert 2 < MAX_PIXELS / 6000**2 < 3
    now: list[int] = []
    most: list[int] = []
    convert = picture._eight_bits

    def watched(*arguments: Any) -> Image.Image:
        now.append(1)
        most.append(len(now))
        time.sleep(0.05)
        now.pop()
        return convert(*arguments)

    monkeypatch.setattr(picture, "_eight_bits", watched)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: decode(path, "large", (8, 8), 1).max(), range(6)))
    assert found == [0] * 6
    assert max(most) <= 2


# ---- texts ---------------------------------------------------------------------------------------


def interpolated() -> str:
    lines = ["[a]", "k0=" + "x" * 10]
    return "\n".join([*lines, *(f"k{i}=" + f"%(k{i - 1})s" * 40 for i in range(1, 10))])


DEFINITIONS = {
    "interpolation": (interpolated(), "characters once every"),
    "defaults": (
        "[DEFAULT]\n" + "".join(f"a{i}=1\n" for i in range(10_000))
        + "".join(f"[s{i}]\n" for i in range(10_000)),
        "sections and keys",
    ),
    "many keys": ("[a]\n" + "".join(f"key{i}=1\n" for i in range(20_000)), "sections and keys"),
    "a long line": ("[a]\nx" + " " * 200_000 + "y", "at most 2,000 characters, got"),
    "a large file": ("#" * (1 << 20), "1,048,576 bytes, where at most 262,144 are read"),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFINITIONS)
def test_definitions(tmp_path: Path, name: str) -> None:
    content, message = DEFINITIONS[name]
    path = tmp_path / "layers.cfg"
    path.write_text(content)

    def read() -> None:
        try:
            read_sections(path, Report())
        except OSError as error:
            raise ConfigError(str(error.strerror)) from None

    refused(message, read)


def test_layers_that_name_one_another_in_a_circle(tmp_path: Path) -> None:
    layers = definitions.ended({"a": definitions.fc("b"), "b": definitions.fc("a")}, "b")
    for section in ("a", "b"):
        del layers[section]["outputs"]
    del layers["fc10"]
    layers["probs"]["inputs"] = "b"  # whose outputs the importer looks for
    files = definitions.write(tmp_path, layers)
    refused(r"layers.cfg: \[a\]", import_files, *files)


@pytest.mark.parametrize(
    "text",
    [
        ".".join("a" * 50_000) + " = 1",
        "[" + ".".join("a" * 50_000) + "]",
        "a = " + "[" * 50_000,
        "a = " + "{a = " * 50_000,
        '"\\u001b' + "x" * 50_000 + '" = 1',
        "a = 1979-99-99",
    ],
    ids=["dotted", "dotted table", "arrays", "inline tables", "long key", "no date"],
)
def test_configurations(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    refused(r"a.toml: ", load_config, path)
    table: dict[str, Any] = {}
    with pytest.raises(ConfigError):
        limited(lambda: (override(table, text.replace(" ", "")), load_config(table)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested more than 32"),
        ("[" * 33 + "]" * 33, "nested more than 32"),
        ('{"a": 1, "a": 2}', "comes twice"),
        ("1" * 4000, "4,000 digits"),
        ("1e999", "the number 1e999"),
        ("NaN", "the number NaN"),
    ],
)
def test_json(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        limited(lambda: parse_json(text))
    assert parse_json("[" * 32 + "]" * 32) != 0
    assert np.isnan(parse_json("NaN", nan=True))


def test_limits_say_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(11))
    with pytest.raises(OSError, match="11 bytes, where at most 10 are read"):
        read_bytes(path, Limit(10, "bytes"))
    assert read_bytes(path, Limit(11, "bytes")) == bytes(11)
    with pytest.raises(BudgetError, match="at most 10 bytes, got more; split it"):
        Limit(10, "bytes", "split it").check(11)


# ---- checkpoints ---------------------------------------------------------------------------------


def write_checkpoint(path: Path, text: str) -> None:
    """A checkpoint with its right checksum whose state is any text."""
    arrays = {"a.w": np.zeros(3, np.float32)}
    checkpoint.write(path, {"step": 1}, arrays)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = {"convnet": text, "sha256": sha256_of(text, arrays).hex()}
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + content[8 + length :])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 1, "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested more than 32"),
        ('{"format": 1, "step": NaN}', "the number NaN"),
        ('{"format": 1, "step": "7"}', "step: expected an integer, got"),
        ('{"format": 1, "step": 1' + "0" * 1000 + "}", "digits"),
        ('{"format": 1, "step": 1, "step": 2}', "comes twice"),
        ('{"format": 1, "picture": [1, 2]}', "picture: expected a list of 3 integers"),
        ('{"format": 1, "config": []}', "config: expected a table"),
        ('{"format": "x"}', "none of convnet's"),
        ("[]", "none of convnet's"),
        ("nothing", "damaged checkpoint"),
    ],
)
def test_checkpoints(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.safetensors"
    write_checkpoint(path, text)
    refused(f"a.safetensors: .*{message}", checkpoint.read, path)


def test_names_that_are_half_a_character(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    arrays = {"\ud800": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}
    metadata = {"__metadata__": {"convnet": "{}", "sha256": ""}}
    path.write_bytes(mutate.safetensors(json.dumps({**metadata, **arrays}), b""))
    refused("damaged checkpoint .*invalid JSON in header", checkpoint.read, path)


def test_a_state_without_what_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_checkpoint(path, '{"format": 1, "step": 1}')
    with pytest.raises(checkpoint.CheckpointError, match=r"a.safetensors: .* one without config"):
        checkpoint.read(path).state["config"]


def test_a_checkpoint_that_asks_for_an_enormous_net(tmp_path: Path) -> None:
    from convnet.evaluation.evaluate import open_run

    path = tmp_path / "a.safetensors"
    cfg = load_config(tiny.config("x")).to_dict()
    cfg["net"]["layers"][4]["units"] = 10
    cfg["net"]["layers"][0]["filters"] = 1 << 24
    state = {
        "format": 1,
        "step": 1,
        "config": cfg,
        "picture": [8, 8, 1],
        "classes": list("0123456789"),
    }
    write_checkpoint(path, json.dumps(state))
    refused("checkpoint of another net", open_run, path, "cpu")


# ---- pipes and devices ---------------------------------------------------------------------------


def _readers(root: Path) -> dict[str, Callable[[Path], Any]]:
    return {
        "picture": lambda path: check_file(path, str(path)),
        "decode": lambda path: decode(path, str(path), (8, 8)),
        "hash": content_hash,
        "idx": lambda path: idx.read_idx(path, 3),
        "meta.mat": read_synsets,
        "labels": lambda path: list_labelled(root / "val", path, trees.CLASSES),
        "config": load_config,
        "checkpoint": checkpoint.read,
        "run": lambda path: open_checkpoint(path, print),
        "index": open_index,
    }


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "device"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    root = trees.ilsvrc(tmp_path / "set")
    path = tmp_path / "a.toml"
    os.mkfifo(tmp_path / "pipe")
    target = {"pipe": tmp_path / "pipe", "link to a pipe": tmp_path / "pipe", "device": "/dev/zero"}
    if kind == "pipe":
        (tmp_path / "pipe").rename(path)
    else:
        path.symlink_to(target[kind])
    message = (
        "a.toml: .*a device, not a reg" if kind == "device" else "a.toml: .*a named pipe, not a"
    )
    for read in _readers(root).values():
        refused(message, read, path)
    with pytest.raises(OSError, match="not a regular file"):
        limited(lambda: read_sections(path, Report()))


def test_links_to_regular_files_are_read(tmp_path: Path) -> None:
    trees.image(1).save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    assert decode(tmp_path / "link.png", "link", (8, 8)).shape == (8, 8, 3)
    with open_file(tmp_path / "link.png") as file:
        assert file.read(4) == b"\x89PNG"


def test_folders_with_pipes_in_them(tmp_path: Path) -> None:
    """Packed images, a run, and class folders, each with a pipe in the place of a file."""
    trees.class_folders(tmp_path / "source" / "train", 2)
    trees.class_folders(tmp_path / "source" / "val", 1, start=50)
    parts = find_listings(tmp_path / "source")
    root = tmp_path / "packed"
    pack(parts["train"], parts["val"], root, PackSettings(size=(8, 8)), 1)
    (root / "statistics.safetensors").symlink_to("/dev/zero")
    refused(
        "folder of images, got|readable file, got|another", lambda: check_file(root / "x", "x: f")
    )
    train, _ = open_packed(root)
    for name in ("train-000000.tar", "train.index.npy"):
        (root / name).rename(tmp_path / name)
        os.mkfifo(root / name)
        refused(f"{name}: expected", lambda: open_packed(root)[0].read([0]))
        if name.endswith(".tar"):
            refused(f"{name}: expected a readable file, got a named pipe", train.read, [0])
        (root / name).unlink()
        (tmp_path / name).rename(root / name)
    os.mkfifo(tmp_path / "source" / "train" / "cat" / "pipe.png")
    refused(
        "pipe.png: .*named pipe",
        lambda: check_file(parts["train"].root / "cat/pipe.png", "pipe.png: f"),
    )
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "config.toml")
    os.mkfifo(tmp_path / "run" / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"no run in this folder"):
        limited(lambda: run_config(tmp_path / "run"))
    assert limited(lambda: read_metrics(tmp_path / "run" / "metrics.jsonl")) == []


# ---- names and lines that are no text ------------------------------------------------------------


def lines_of(path: Path, *words: str | bytes) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "convnet", *words],
        cwd=path, env={**tiny.environment(), "PYTHONIOENCODING": ""},
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_paths_that_are_not_utf8(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    odd = os.fsencode(tmp_path) + b"/d\xff\nta"
    Path(os.fsdecode(odd)).symlink_to(data)
    config = tiny.write_config(tmp_path / "a.toml", data, train={"epochs": 1})
    # config.toml cannot hold such a path: nothing is begun.
    train = ("train", str(config), "--device", "cpu", "-q", "--run-dir")
    code, _, err = lines_of(tmp_path, *train, "no", "--data", odd)
    assert (code, err.count(b"\n")) == (2, 1)
    assert b"UTF-8" in err
    assert b"udcff" in err
    assert not (tmp_path / "no").exists()
    # A run folder and images may have such names.
    code, _, err = lines_of(tmp_path, *train, b"r\xffn")
    assert (code, err) == (0, b"")
    trees.image(1).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/p\xff.png"))
    code, out, err = lines_of(tmp_path, "predict", b"r\xffn", b"p\xff.png")
    assert (code, err) == (0, b"")
    assert out.startswith(b"p\\udcff.png\n")
    code, out, err = lines_of(tmp_path, "predict", b"r\xffn", b"p\xff.png", "--json")
    assert json.loads(out)["image"] == "p\udcff.png"
    code, out, err = lines_of(tmp_path, "predict", b"r\xffn", b"\xff\x1b[31m.png")
    assert (code, err.count(b"\n")) == (2, 1)
    assert b"\x1b" not in err


# ---- damage at random ----------------------------------------------------------------------------


def test_damaged_files_are_read_or_refused() -> None:
    """A part of what `python tests/stress/fuzz_files.py` does on demand."""
    script = TESTS / "stress" / "fuzz_files.py"
    done = subprocess.run(
        [sys.executable, str(script), "--tries", "80", "--json"],
        env=tiny.environment(), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    table = json.loads(done.stdout.splitlines()[-1])
    assert {row["attack"] for row in table} == set(ATTACKS | EXCHANGE_ATTACKS)
    for row in table:
        assert row["read"] + row["refused"] == row["tries"]
        assert row["read"] or row["attack"] == "labels"
        assert row["refused"] or row["attack"] == "metrics"
