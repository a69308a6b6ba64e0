"""Layer definitions of cuda-convnet as text: how files are read, unknown keys, and the command."""

from __future__ import annotations

from pathlib import Path

import definitions as d
import pytest
from definitions import remarks

from convnet.cli.main import main
from convnet.common.typecheck import ConfigError
from convnet.config import load_config
from convnet.exchange.cuda_convnet.definition import read_sections
from convnet.exchange.cuda_convnet.report import Report


def sections(folder: Path, content: str | bytes) -> tuple[dict[str, dict[str, str]], Report]:
    """The keys of a file, by section."""
    path = folder / "x.cfg"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    report = Report()
    found = read_sections(path, report)
    return {name: section.items for name, section in found.items()}, report


def test_comments_and_spelling(tmp_path: Path) -> None:
    content = """# a comment; with [brackets] and key=value
; another
REM and = a third
[conv1]
TYPE = conv
inputs: data   ; what comes after is none of it
initW=0.1;0.2
name = a#b

filterSize =
 3,
 5
"""
    found, report = sections(tmp_path, content)
    assert found == {
        "conv1": {
            "type": "conv",
            "inputs": "data",
            "initw": "0.1;0.2",
            "name": "a#b",
            "filtersize": "\n3,\n5",
        }
    }
    assert report == Report()


def test_what_comes_twice(tmp_path: Path) -> None:
    content = "[a]\nx=1\ny=1\n[b]\nx=5\n[a]\ny=2\nz=3\nZ=4\n"
    found, report = sections(tmp_path, content)
    assert found == {"a": {"x": "1", "y": "2", "z": "4"}, "b": {"x": "5"}}
    path = tmp_path / "x.cfg"
    assert [str(note) for note in report.notes] == [
        f"{path}: [a]: comes again: added to the section before",
        f"{path}: [a] y: comes again: the last value counts",
        f"{path}: [a] Z: comes again: the last value counts",
    ]


def test_interpolation_and_defaults(tmp_path: Path) -> None:
    content = "[DEFAULT]\nmom=0.9\n[a]\neps=0.1\nepsB=%(eps)s\nmomW=%(mom)s\nx=100%%\n"
    found, _ = sections(tmp_path, content)
    keys = {"mom": "0.9", "eps": "0.1", "epsb": "0.1", "momw": "0.9", "x": "100%"}
    assert found == {"a": keys}


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf[a]\r\nx=1\r\n",
        b"# caf\xe9\n[a]\nx=1",
        b"\n\n[a]\n\n\nx = 1\n\n",
    ],
)
def test_line_ends_and_encodings(tmp_path: Path, content: bytes) -> None:
    assert sections(tmp_path, content)[0] == {"a": {"x": "1"}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("x=1\n[a]\n", "x.cfg: line 1: expected a \\[section\\] before it, got 'x=1"),
        ("[a]\nx=1\nnonsense\n", 'x.cfg: line 3: expected key=value, got "nonsense"'),
        ("[a]\nx=%(y)s\n", r"x.cfg: \[a\] x: .*y"),
        ("[a]\nx=5%\n", r"x.cfg: \[a\] x: '%' must be followed"),
        ("[a]\nx=%(x)s\n", r"x.cfg: \[a\] x: .*[Rr]ecursion"),
        ("\0\0", "x.cfg: expected a text file, got a binary one"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        sections(tmp_path, content)


def test_unknown_keys_are_named_and_passed_over(tmp_path: Path) -> None:
    layers = d.ended({"conv1": d.conv("data", 3, sharedBiasses=0, favouriteColour="red")}, "conv1")
    params = d.rates_for(layers)
    params["conv1"]["wcc"] = 0.5
    params["conv9"] = {"epsW": 1}
    params["Conv1"] = {"epsW": 1}
    found = d.imported(tmp_path, layers, params)
    lines = [str(remark) for remark in found.report.ignored_keys]
    layer_file, param_file = tmp_path / "layers.cfg", tmp_path / "params.cfg"
    hint = 'did you mean "sharedBiases"?'
    assert lines == [
        f"{layer_file}: [conv1] sharedBiasses: unknown key, ignored; {hint}",
        f"{layer_file}: [conv1] favouriteColour: unknown key, ignored",
        f'{param_file}: [conv1] wcc: unknown key, ignored; did you mean "wc"?',
        f'{param_file}: [conv9]: no layer has this name; did you mean "conv1"?',
        f'{param_file}: [Conv1]: no layer has this name; did you mean "conv1"?',
    ]
    assert found.report.changes == []


def test_older_spellings(tmp_path: Path) -> None:
    """Of the first versions; and norms whose numbers are in the definition."""
    layers: d.Layers = {
        "data": d.DATA,
        "labels": d.LABELS,
        "conv1": d.conv("data", 3),
        "pool1": d.pool("conv1", 4),
        "rnorm1": {
            "type": "rnorm",
            "inputs": "pool1",
            "channels": 4,
            "size": 3,
            "crossMap": 1,
            "scale": 0.001,
            "pow": 0.75,
        },
        "fc10": d.fc("rnorm1"),
        "probs": {"type": "softmax", "inputs": "fc10"},
        "logprob": {"type": "cost.logreg", "inputs": "labels,probs"},
    }
    for name, old, new in (
        ("conv1", "numFilters", "filters"),
        ("pool1", "subsX", "sizeX"),
        ("fc10", "numOutputs", "outputs"),
    ):
        layers[name][old] = layers[name].pop(new)
    params = d.rates_for(layers)
    del params["rnorm1"]
    found = d.imported(tmp_path, layers, params)
    kinds = {layer.name: layer.type for layer in found.cfg.net.layers}
    assert kinds["rnorm1"] == "lrn"
    notes = remarks(found, "notes")
    for key in ("numFilters", "subsX", "numOutputs", "crossMap", "scale", "pow"):
        assert f"] {key}: " in notes
    assert found.report.changes == found.report.ignored_keys == []


def run(*words: str | Path) -> int:
    return main(["import", "cuda-convnet", *map(str, words)])


def test_the_command_writes_a_configuration_and_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers, params = d.quick()
    layers["conv1"]["typo"] = 1
    files, output = d.write(tmp_path, layers, params), tmp_path / "net.toml"
    assert run(*files, "-o", output, "--crop", "24", "--batch", "64", "--epochs", "3") == 0
    cfg = load_config(output)
    assert (cfg.name, cfg.train.batch, cfg.train.epochs) == ("net", 64, 3)
    assert (cfg.augment.crop, cfg.augment.mirror) == ((24, 24), True)
    assert output.read_text().startswith(
        "# cuda-convnet's layers.cfg and params.cfg; convnet train"
    )
    printed = capsys.readouterr().out
    report = (tmp_path / "net.report.txt").read_text()
    assert report in printed
    assert "[conv1] typo: unknown key, ignored" in report
    assert "crops of 24x24, mirrored at random; batches of 64; 3 epochs" in report
    assert f"convnet train {output}\n" in printed

    assert run(*files, "-o", output) == 2
    assert "net.toml: is there already; --force writes over it" in capsys.readouterr().err
    layers["conv2"]["gpu"], layers["conv1"]["gpu"] = "1", "0"
    assert run(*d.write(tmp_path, layers, params), "-o", output, "--force") == 0
    assert load_config(output).train.batch == 128
    assert f"convnet train {output} --device cuda:0,cuda:1\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["none.cfg", "params.cfg"], "none.cfg: No such file or directory"),
        (["layers.cfg", "none.cfg"], "none.cfg: No such file or directory"),
        (
            ["layers.cfg", "params.cfg", "-o", "net.cfg"],
            "net.cfg: expected a name that ends in .toml",
        ),
        (
            ["layers.cfg", "params.cfg", "--crop", "0"],
            'expected a whole number, at least 1; got "0"',
        ),
        (["layers.cfg", "params.cfg", "--crop", "40"], "augment.crop: height: expected at most 32"),
        (["layers.cfg", "params.cfg", "--source", "imagenet"], "invalid choice: 'imagenet'"),
        (
            ["layers.cfg", "params.cfg", "--source", "mnist"],
            "[conv1] channels: expected 1 as data gives, got 3",
        ),
        (["params.cfg", "layers.cfg"], "params.cfg: [conv1] type: missing"),
        (["layers.cfg", "params.cfg", "-o", "no/such/net.toml"], "no/such/net.toml: No such file"),
    ],
)
def test_bad_commands_end_with_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    d.write(tmp_path, *d.quick())
    try:
        code = run(*words)
    except SystemExit as error:  # argparse
        code = error.code if isinstance(error.code, int) else 1
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("convnet: error: ")
    assert expected in lines[0]
    assert not list(tmp_path.glob("*.toml"))
