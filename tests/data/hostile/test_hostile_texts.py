"""Definitions, configurations, JSON and checkpoints with odd or enormous values."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import definitions
import mutate
import numpy as np
import pytest
import tiny
from limited import limited
from refusals import refused

from convnet.common.reading import BudgetError, Limit, parse_json, read_bytes
from convnet.common.tensor_header import sha256_of
from convnet.config import ConfigError, load_config
from convnet.config.overrides import override
from convnet.exchange.cuda_convnet.convert import import_files
from convnet.exchange.cuda_convnet.definition import read_sections
from convnet.exchange.cuda_convnet.report import Report
from convnet.training import checkpoint


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
