"""Attacks on the readers of configurations, definitions, runs and indices."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import definitions
import numpy as np
import safetensors.numpy
import tiny
from attack import Attack, bytes_of, one_of
from mutate import damaged_json
from mutate import safetensors as as_safetensors

from convnet.common.tensor_header import sha256_of
from convnet.config import ConfigError, load_config, presets
from convnet.config.overrides import override
from convnet.config.toml_text import to_toml
from convnet.data import DataError
from convnet.evaluation.evaluate import open_run
from convnet.exchange.cuda_convnet.convert import import_files
from convnet.retrieval import tensor_file
from convnet.retrieval.features import write_features
from convnet.retrieval.hashing import HashSettings
from convnet.retrieval.index import indexed_images, open_index, write_codes
from convnet.training import checkpoint
from convnet.training.run_folder import RunError, open_checkpoint, read_metrics
from convnet.training.train import train

# ---- texts ---------------------------------------------------------------------------------------

_TOML = (b"[", b"]", b"{", b"}", b".", b"=", b'"', b"'", b'"""', b"'''", b"#", b"a.", b"[a.",
         b"1e999", b"\\u0000", b"nan", b"-inf", b"1979-05-27", b"9" * 400, b"\xff",
         "é".encode())  # fmt: skip


def configs(folder: Path) -> Attack:
    valid = [to_toml(tiny.config("x")).encode()]
    valid += [load_config(name).to_toml().encode() for name in presets()]
    return Attack(
        "config", folder / "a.toml", bytes_of(valid, _TOML), load_config, (ConfigError,), 40_000
    )


def overrides(folder: Path) -> Attack:
    valid = [b"sgd.lr=0.1", b"net.layers.conv1.filters=8", b'data.path="x"', b"data.size=[1,2]"]

    def read(content: bytes) -> Any:
        table = tiny.config("x")
        override(table, content.decode("utf-8", "surrogateescape"))
        return load_config(table)

    return Attack("override", None, bytes_of(valid, _TOML), read, (ConfigError,), 40_000)


def layer_definitions(folder: Path) -> Attack:
    layers, params = definitions.quick()
    valid = [definitions.text(layers).encode(), definitions.text(params).encode()]
    words = (b"%(a)s", b"%%", b"%", b"[", b"]", b"\n[DEFAULT]\n", b"\n[a]\n", b"=", b";", b"#",
             b",", b"\n ", b"inputs=", b"9" * 30, b"dexp[base=1;", b"-1", b"nan", b"\xff",
             b"\0")  # fmt: skip
    both = bytes_of(valid, words)
    for name, content in zip(("layers", "params"), valid, strict=True):
        (folder / name).write_bytes(content)

    def read(path: Path) -> Any:
        of_layers = b"type=" in path.read_bytes()
        files = (path, folder / "params") if of_layers else (folder / "layers", path)
        return import_files(*files, source="cifar10")

    return Attack("definition", folder / "damaged", both, read, (ConfigError, DataError), 40_000)


# ---- runs ----------------------------------------------------------------------------------------


def _state_of(rng: random.Random, valid: checkpoint.Checkpoint) -> bytes:
    """A checkpoint whose state is damaged and whose checksum is right."""
    text = damaged_json(rng, valid.state)
    arrays = dict(valid.arrays)
    if rng.random() < 0.3:
        name = rng.choice(list(arrays))
        arrays[name] = rng.choice(
            (arrays[name][:1], arrays[name].reshape(-1), np.zeros(3, np.int32))
        )
    metadata = {"convnet": text, "sha256": sha256_of(text, arrays).hex()}
    return safetensors.numpy.save(arrays, metadata)


def _trained(folder: Path, **changes: Any) -> Path:
    data = tiny.write_data(folder / "data")
    cfg = tiny.config(data, train={"epochs": 1}, schedule={"kind": "constant"}, **changes)
    train(cfg, device="cpu", run_dir=folder / "run", quiet=True)
    return folder / "run"


def checkpoints(folder: Path) -> Attack:
    run = _trained(folder)
    valid = open_checkpoint(run, print)
    content = valid.path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])

    def with_header(rng: random.Random) -> bytes:
        return as_safetensors(damaged_json(rng, header), content[8 + length :])

    mutator = one_of(bytes_of([content]), with_header, lambda rng: _state_of(rng, valid))
    allowed = (checkpoint.CheckpointError, RunError)
    return Attack(
        "checkpoint", folder / "a.safetensors", mutator,
        lambda path: open_checkpoint(path, print), allowed, 60_000,
    )  # fmt: skip


def runs(folder: Path) -> Attack:
    """All that `eval` and `predict` do with a checkpoint before they look at images."""
    valid = open_checkpoint(_trained(folder), print)
    allowed = (checkpoint.CheckpointError, RunError, ConfigError, DataError)
    return Attack(
        "run", folder / "a.safetensors", lambda rng: _state_of(rng, valid),
        lambda path: open_run(path, "cpu"), allowed, 10_000,
    )  # fmt: skip


def metrics(folder: Path) -> Attack:
    content = (_trained(folder) / "metrics.jsonl").read_bytes()
    lines = [json.loads(line) for line in content.splitlines()]

    def values(rng: random.Random) -> bytes:
        return "\n".join(damaged_json(rng, line) for line in lines).encode("utf-8", "surrogatepass")

    def read(path: Path) -> Any:
        for record in read_metrics(path):
            assert record["step"] < 10**30
            assert isinstance(record["kind"], str)

    words = (b"\n", b"NaN", b"[" * 2000, b'{"kind":"step","step":1}', b"\xff")
    mutator = one_of(values, bytes_of([content], words))
    return Attack("metrics", folder / "metrics.jsonl", mutator, read, (), 60_000)


def indices(folder: Path) -> Attack:
    """Features and codes: the file, its facts and its arrays, with the digest made right."""
    run = _trained(folder)
    for name in ("features", "codes"):
        (folder / name).unlink(missing_ok=True)
    write_features(run, None, folder / "features", device="cpu")
    settings = HashSettings(bits=16, hidden=(32,), epochs=1, batch=16)
    write_codes(folder / "features", folder / "codes", settings, "cpu")
    files = [tensor_file.open_tensors(folder / name) for name in ("features", "codes")]
    contents = [file.path.read_bytes() for file in files]
    held = [{name: np.array(array) for name, array in file.arrays.items()} for file in files]

    def inner(rng: random.Random) -> bytes:
        number = rng.randrange(2)
        arrays = dict(held[number])
        text = (
            damaged_json(rng, files[number].facts)
            if rng.random() < 0.8
            else json.dumps(files[number].facts)
        )
        if rng.random() < 0.5:
            name = rng.choice(list(arrays))
            array = arrays[name]
            arrays[name] = rng.choice(
                (
                    array[:1],
                    array[1:],
                    array.reshape(-1),
                    array[:0],
                    array.astype(np.int64),
                    array * 0 - 1,
                )
            )
        try:
            facts = json.loads(text)
            digest = tensor_file.TensorFile(Path(), facts, arrays).digest()
            arrays["sha256"] = np.frombuffer(digest, np.uint8)
        except (ValueError, RecursionError, TypeError):
            pass
        if rng.random() < 0.1:
            del arrays[rng.choice(list(arrays))]
        return safetensors.numpy.save(arrays, {"convnet": text})

    def read(path: Path) -> Any:
        index = open_index(path)
        queries = np.ones((2, 320 if index.kind == "features" else index.rows.shape[1]), np.float32)
        if index.kind == "codes":
            assert index.encoder is not None
            index.encode(np.ones((1, len(index.encoder.mean)), np.float32))
            queries = np.ones((2, index.rows.shape[1]), np.uint8)  # type: ignore[assignment]
        index.nearest_encoded(queries, 1)
        index.name(len(index) - 1)
        index.label(0)
        if len(path.read_bytes()) % 16 == 0:
            indexed_images(index)

    mutator = one_of(inner, inner, bytes_of(contents))
    return Attack("index", folder / "file", mutator, read, (DataError, ConfigError), 40_000)
