"""State dicts of PyTorch in and out: to the bit, without PyTorch, and no code run."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from foreign import CLASSES, SMALL, random_run, small_logits, small_weights, softmax
from foreign_files import legacy_file, zip_file
from PIL import Image

from convnet import models
from convnet.cli.main import main
from convnet.config import load_config
from convnet.evaluation.evaluate import open_run
from convnet.evaluation.predict import predict
from convnet.exchange.errors import ExchangeError
from convnet.exchange.layouts import foreign_shape
from convnet.exchange.torch.exporter import export_torch, state_dict
from convnet.exchange.torch.importer import (
    StateDict,
    import_torch,
    open_state_dict,
    recognised,
)

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def write_config(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(load_config(SMALL).to_toml())
    return path


@pytest.mark.parametrize("write", [zip_file, legacy_file])
def test_a_picture_is_classified_as_torch_would(tmp_path: Path, write, capsys) -> None:
    state = small_weights()
    file = write(tmp_path / "net.pth", state)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(CLASSES))
    options = ["--mean", "0.4,0.5,0.6", "--std", "0.2,0.25,0.3", "--classes", str(names)]
    command = ["import", "torch", str(file), "-o", str(tmp_path / "run"), *options]
    assert main([*command, "--net", str(write_config(tmp_path))]) == 0
    assert "4 layers, 369 parameters" in capsys.readouterr().out

    pixels = np.random.default_rng(1).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    x = ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1)[None]
    expected = dict(zip(CLASSES, softmax(small_logits(state, x))[0], strict=True))
    found = predict(tmp_path / "run", [tmp_path / "a.png"], "cpu")[0]
    for name, probability in zip(found.classes, found.probabilities, strict=True):
        assert abs(probability - expected[name]) < 1e-6

    for ending in ("pth", "safetensors"):
        out = tmp_path / f"back.{ending}"
        assert main(["export", "torch", str(tmp_path / "run"), "-o", str(out)]) == 0
        import_torch(out, tmp_path / ending, str(write_config(tmp_path)), MEAN, STD)
        back = state_dict(open_run(tmp_path / ending, "cpu"))
        assert list(back) == list(state)
        assert all(np.array_equal(back[name], state[name]) for name in state)
    facts = json.loads((tmp_path / "back.json").read_text())
    assert facts["classes"] == [*CLASSES]
    assert facts["channels"] == "RGB"
    assert np.allclose(facts["mean"], np.array(MEAN) * 255)
    assert np.allclose(facts["scale"], 1 / (255 * np.array(STD)))


def test_torch_reads_and_computes_the_same(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    convs = torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.Conv2d(4, 6, 3, 1, 1, groups=2)
    dense = torch.nn.Linear(24, 5), torch.nn.Linear(5, 3)
    pool = torch.nn.MaxPool2d(3, 2), torch.nn.Flatten(), torch.nn.Dropout()
    layers = convs[0], torch.nn.ReLU(), convs[1], *pool, dense[0], torch.nn.ReLU(), dense[1]
    net = torch.nn.Sequential(*layers).eval()
    pixels = np.random.default_rng(1).integers(0, 256, (5, 10, 12, 3), dtype=np.uint8)
    x = ((pixels / 255 - MEAN) / STD).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))).numpy()
    for zipped in (True, False):
        file, run = tmp_path / "net.pth", tmp_path / f"run-{zipped}"
        torch.save(net.state_dict(), file, _use_new_zipfile_serialization=zipped)
        import_torch(file, run, str(write_config(tmp_path)), MEAN, STD)
        found = open_run(run, "cpu").net.forward(x, "fc4")
        assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
        export_torch(run, tmp_path / "back.pth")
        back = torch.load(tmp_path / "back.pth", weights_only=True)
        assert all(torch.equal(back[name], values) for name, values in net.state_dict().items())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_names_within_wrappers(tmp_path: Path, prefix: str) -> None:
    """Of DataParallel and torch.compile, which go, and of a module around the net, which stays."""
    state = {f"{prefix}{name}": values for name, values in small_weights().items()}
    config, stays = str(write_config(tmp_path)), prefix if prefix == "model." else ""
    safetensors.numpy.save_file(state, tmp_path / "a.safetensors")
    for number, file in enumerate(
        (zip_file(tmp_path / "a.pth", state), tmp_path / "a.safetensors")
    ):
        import_torch(file, tmp_path / f"run{number}", config)
        back = state_dict(open_run(tmp_path / f"run{number}", "cpu"))
        assert list(back) == [f"{stays}{name}" for name in small_weights()]
        assert all(
            np.array_equal(back[f"{stays}{name}"], values)
            for name, values in small_weights().items()
        )


def test_a_state_dict_in_a_checkpoint(tmp_path: Path) -> None:
    """Under whatever key, where there is one; the usual keys come first."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    state = {name: torch.from_numpy(values) for name, values in small_weights().items()}
    other = {"w": torch.zeros(3)}
    file, config = tmp_path / "a.pth", str(write_config(tmp_path))
    for number, saved in enumerate(
        (
            {"epoch": 3, "weights": state, "optimizer": {"lr": 0.1, "state": {0: other}}},
            {"model": {"name": "small"}, "params": state},
            {"ema": other, "state_dict": state},
        )
    ):
        torch.save(saved, file)
        import_torch(file, tmp_path / f"run{number}", config)
        back = state_dict(open_run(tmp_path / f"run{number}", "cpu"))
        assert all(np.array_equal(back[name], state[name]) for name in state)
    torch.save({"ema": other, "weights": state}, file)
    with pytest.raises(ExchangeError, match="expected one state dict, got 2: 'ema', 'weights'"):
        import_torch(file, tmp_path / "none", config)


def test_weights_that_are_no_numbers_are_counted(tmp_path: Path, capsys) -> None:
    state = {name: values.astype("f8") for name, values in small_weights().items()}
    state["a.0.weight"].flat[:2] = np.nan, 1e300
    safetensors.numpy.save_file(state, tmp_path / "a.safetensors")
    command = ["import", "torch", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "run")]
    assert main([*command, "--net", str(write_config(tmp_path))]) == 0
    assert "2 weights are no finite numbers" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_safetensors_of_other_types_become_float32(tmp_path: Path, dtype, capsys) -> None:
    state = {name: values.astype(dtype) for name, values in small_weights().items()}
    safetensors.numpy.save_file(state, tmp_path / "a.safetensors")
    command = ["import", "torch", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "run")]
    assert main([*command, "--net", str(write_config(tmp_path))]) == 0
    how = "rounded" if dtype is np.float64 else "widened"
    said = f"8 of 8 tensors are {np.dtype(dtype).name}, {how} to float32"
    assert said in capsys.readouterr().out
    back = state_dict(open_run(tmp_path / "run", "cpu"))
    assert all(np.array_equal(back[name], state[name].astype("f4")) for name in state)


def test_nets_are_recognised_by_their_shapes() -> None:
    net = models.alexnet_torchvision(device="cpu", classes=7, sizes_only=True)
    modules = [f"features.{i}" for i in (0, 3, 6, 8, 10)] + [f"classifier.{i}" for i in (1, 4, 6)]
    shapes = {}
    for module, node in zip(modules, net.parametric, strict=True):
        for kind, name in (("weight", "w"), ("bias", "b")):
            shapes[f"{module}.{kind}"] = foreign_shape(node.layer, name)
    state = StateDict(Path("net.pth"), shapes, lambda name: np.empty(0))
    assert recognised(state).name == "alexnet-torchvision"
    within = {f"net.{name}": shape for name, shape in shapes.items()}
    assert recognised(StateDict(Path("net.pth"), within, state.read)).name == "alexnet-torchvision"
    other = {name.replace("features", "conv"): shape for name, shape in shapes.items()}
    with pytest.raises(
        ExchangeError, match=r"net.pth: fits alexnet-one-tower, alexnet-torchvision"
    ):
        recognised(StateDict(Path("net.pth"), other, state.read))
    shapes["features.3.weight"] = (192, 64, 3, 3)
    with pytest.raises(ExchangeError, match=r"net.pth: fits no preset; name the net: --net"):
        recognised(state)


def test_what_does_not_fit_is_named_with_both_shapes(tmp_path: Path) -> None:
    state = small_weights()
    state["b.0.weight"] = state["b.0.weight"][:, :-1]
    file, config = zip_file(tmp_path / "net.pth", state), str(write_config(tmp_path))
    with pytest.raises(ExchangeError, match=r"b\.0 for fc3: w: expected \(5, 24\), got \(5, 23\)"):
        import_torch(file, tmp_path / "run", config)
    state = {"n" * 5000 + name: values for name, values in state.items()}
    with pytest.raises(ExchangeError) as error:
        import_torch(zip_file(file, state), tmp_path / "run", config)
    assert len(str(error.value).replace(str(file), "")) < 200
    state = dict([*small_weights().items()][:-2])  # no last layer
    with pytest.raises(ExchangeError, match=r"net\.pth: .*expected 4 layers with weights, got 3"):
        import_torch(zip_file(file, state), tmp_path / "run", config)
    state = small_weights() | {"c.running_mean": np.zeros(3, np.float32)}
    with pytest.raises(ExchangeError, match=r"c\.running_mean.*batch normalization"):
        import_torch(zip_file(tmp_path / "net.pth", state), tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def zipped(*entries: tuple[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def tensor_pickle(**changed: bytes) -> bytes:
    """The pickle of a state dict with one tensor, some of its parts others."""
    parts = {
        "count": b"K\x06",
        "offset": b"K\x00",
        "size": b"K\x02K\x03\x86",
        "stride": b"K\x03K\x01\x86",
    }
    parts |= changed
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    )
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + parts["count"] + b"tQ"
    tensor += parts["offset"] + parts["size"] + parts["stride"] + b"\x89}tR"
    return b"\x80\x02}X\x01\x00\x00\x00w" + tensor + b"s."


def archive_of(content: bytes, numbers: int = 6) -> bytes:
    return zipped(("a/data.pkl", content), ("a/data/0", bytes(4 * numbers)))


HOSTILE = {
    "code": (archive_of(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R."), "got posix.system"),
    "legacy code": (b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.", "got builtins.eval"),
    "whole model": (archive_of(b"\x80\x02ctorch.nn\nLinear\n)R."), r"save model.state_dict\(\)"),
    "beyond": (archive_of(tensor_pickle(offset=b"K\x01")), "within its storage of 6 numbers"),
    "expanded": (
        archive_of(tensor_pickle(size=b"J\xff\xff\xff\x7fK\x03\x86", stride=b"K\x00K\x00\x86")),
        "within its storage",
    ),
    "negative": (archive_of(tensor_pickle(stride=b"J\xff\xff\xff\xffK\x01\x86")), "0 or more"),
    "short storage": (archive_of(tensor_pickle(), 5), "expected 6 numbers in storage 0, got 5"),
    "no storage": (zipped(("a/data.pkl", tensor_pickle())), "damaged"),
    "bomb": (
        zipped(("a/data.pkl", bytes(1 << 20)), how=zipfile.ZIP_DEFLATED),
        "uncompressed",
    ),
    "script": (zipped(("a/data.pkl", b""), ("a/constants.pkl", b"")), "torch.jit.save"),
    "cut off": (archive_of(tensor_pickle())[:90], "damaged"),
    "cut pickle": (archive_of(tensor_pickle()[:-3]), "ends early|damaged"),
    "other": (b"GIF89a", "no zip and no pickle"),
    "no tensors": (archive_of(b"\x80\x02}X\x01\x00\x00\x00wK\x01s."), "expected tensors by name"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(tmp_path: Path, name: str) -> None:
    content, message = HOSTILE[name]
    (tmp_path / "net.pth").write_bytes(content)
    with (
        pytest.raises(ExchangeError, match=message) as error,
        open_state_dict(tmp_path / "net.pth") as state,
    ):
        assert not [state.read(name) for name in state.shapes]
    assert str(tmp_path / "net.pth") in str(error.value)


def test_every_kind_of_layer_survives_the_round_trip(tmp_path: Path) -> None:
    table = json.loads(json.dumps(SMALL))
    layers = table["net"]["layers"]
    layers[2] |= {"type": "local"}
    layers.insert(3, {"name": "bias2", "type": "bias", "tied": False})
    run = random_run(tmp_path / "run", table)
    export_torch(run, tmp_path / "net.pth")
    (tmp_path / "c.toml").write_text(load_config(table).to_toml())
    import_torch(tmp_path / "net.pth", tmp_path / "back", str(tmp_path / "c.toml"))
    there, here = (open_run(each, "cpu").net.state() for each in (run, tmp_path / "back"))
    assert all(np.array_equal(here[name], there[name]) for name in there)
