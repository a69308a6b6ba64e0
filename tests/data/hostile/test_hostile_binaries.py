"""Pickles, archives and images that claim, or expand to, far more than they hold; random damage."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cifar_files
import numpy as np
import pytest
import tiny
import trees
from fuzz_exchange import ATTACKS as EXCHANGE_ATTACKS
from fuzz_targets import ATTACKS
from paths import TESTS
from PIL import Image
from refusals import refused

from convnet.data import cifar10, idx
from convnet.data import image as picture
from convnet.data.folder.meta_mat import read_synsets
from convnet.data.image import MAX_PIXELS, decode
from convnet.data.safe_pickle import load_pickle

GIB = 1 << 30


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
