"""`convnet import cuda-convnet`: the two files, as text, and the command."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

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


# ---- the text -----------------------------------------------------------------------------------


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


# ---- keys that are stale or misspelt ------------------------------------------------------------


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


# ---- bad definitions ----------------------------------------------------------------------------


def changed(change: Any) -> tuple[d.Layers, d.Layers]:
    """A net of two layers and its parameters, with something wrong."""
    layers = d.ended(
        {
            "conv1": d.conv("data", 3),
            "pool1": d.pool("conv1", 4),
            "norm": {"type": "rnorm", "inputs": "pool1", "channels": 4, "size": 3},
            "drop": {"type": "dropout", "inputs": "norm"},
        },
        "drop",
    )
    params = d.rates_for(layers)
    change(layers, params)
    return layers, params


BAD = [
    (lambda n, p: n["conv1"].pop("type"), r"layers.cfg: \[conv1\] type: missing"),
    (
        lambda n, p: n["conv1"].update(type="conf"),
        r'layers.cfg: \[conv1\] type: unknown layer type "conf"; did you mean "conv"\?',
    ),
    (lambda n, p: n["conv1"].pop("filters"), r"layers.cfg: \[conv1\] filters: missing"),
    (
        lambda n, p: n["conv1"].update(filters="many"),
        r'layers.cfg: \[conv1\] filters: expected a whole number, got "many"',
    ),
    (
        lambda n, p: n["conv1"].update(filters="4,4"),
        r"layers.cfg: \[conv1\] filters: expected 1 values, one for each input; got 2",
    ),
    (lambda n, p: n["conv1"].update(stride=0), r"\[conv1\] stride: expected at least 1, got 0"),
    (lambda n, p: n["conv1"].update(padding=-1), r"\[conv1\] padding: expected at least 0"),
    (
        lambda n, p: n["conv1"].update(filterSize=99),
        r"layers.cfg: \[conv1\] .*window: expected a height of at most 34",
    ),
    (lambda n, p: n["conv1"].update(groups=2), r"\[conv1\] groups: expected a divisor of 3"),
    (
        lambda n, p: n["conv1"].update(neuron="rellu"),
        r'layers.cfg: \[conv1\] neuron: unknown neuron "rellu"; did you mean "relu"\?',
    ),
    (
        lambda n, p: n["conv1"].update(neuron="tanh"),
        r'\[conv1\] neuron: expected tanh\[a,b\], got "tanh"',
    ),
    (
        lambda n, p: n["conv1"].update(neuron="tanh[1,x]"),
        r'\[conv1\] neuron: expected a number for b, got "x"',
    ),
    (
        lambda n, p: n["conv1"].update(sharedBiases="perhaps"),
        r'\[conv1\] sharedBiases: expected true or false, got "perhaps"',
    ),
    (
        lambda n, p: n["conv1"].update(inputs="dada"),
        r'\[conv1\] inputs: no layer above is called "dada"; did you mean "data"\?',
    ),
    (
        lambda n, p: n["conv1"].update(inputs="pool1"),
        r'\[conv1\] inputs: no layer above is called "pool1"; it comes later',
    ),
    (
        lambda n, p: n["conv1"].update(inputs="labels"),
        r"\[conv1\] inputs: labels are labels, which only a cost can take",
    ),
    (
        lambda n, p: n["conv1"].update(weightSource="conv9"),
        r"\[conv1\] weightSource: there are no weights 'conv9' above",
    ),
    (
        lambda n, p: n["fc10"].update(weightSource="conv1"),
        r"\[fc10\] weightSource: expected a layer of type fc, got conv",
    ),
    (
        lambda n, p: n["conv1"].update(weightSource="a,b"),
        r"\[conv1\] weightSource: expected 1 values",
    ),
    (
        lambda n, p: n["conv1"].update(gpu="zero"),
        r'\[conv1\] gpu: expected whole numbers, got "zero"',
    ),
    (
        lambda n, p: n["pool1"].update(pool="middle"),
        r'\[pool1\] pool: expected max, maxabs or avg, got "middle"',
    ),
    (
        lambda n, p: n["pool1"].update(channels=5),
        r"\[pool1\] channels: expected 4 as conv1 gives, got 5",
    ),
    (
        lambda n, p: n["pool1"].update(outputsX=99),
        r"\[pool1\] outputsX: expected at most 16, got 99",
    ),
    (lambda n, p: n["pool1"].update(start=40), r"\[pool1\] start: nothing is left"),
    (lambda n, p: n["norm"].update(size=40), r"\[norm\] n: expected at most 16"),
    (lambda n, p: p.pop("norm"), r"params.cfg: \[norm\] missing: the layer of this name"),
    (lambda n, p: p["norm"].pop("pow"), r"params.cfg: \[norm\] pow: missing"),
    (lambda n, p: p["norm"].update(scale=-1), r"params.cfg: \[norm\] scale: expected a positive"),
    (
        lambda n, p: p.update(drop={"keep": 0}),
        r"params.cfg: \[drop\] keep: expected a number above 0 and at most 1, got 0",
    ),
    (lambda n, p: p.pop("conv1"), r"params.cfg: \[conv1\] missing: the layer of this name"),
    (lambda n, p: p["conv1"].pop("epsW"), r"params.cfg: \[conv1\] epsW: missing$"),
    (
        lambda n, p: p["conv1"].update(espW=p["conv1"].pop("epsW")),
        r'params.cfg: \[conv1\] epsW: missing; is it the unknown key "espW"\?',
    ),
    (
        lambda n, p: p["conv1"].update(epsW="fast"),
        r'params.cfg: \[conv1\] epsW: unknown schedule "fast" \(known: const, dexp, exp, linear',
    ),
    (
        lambda n, p: p["conv1"].update(epsW="dexp[base=1;tgtFactor=2]"),
        r"params.cfg: \[conv1\] epsW: dexp: numSteps is missing",
    ),
    (
        lambda n, p: p["conv1"].update(epsW="exp[base=1;speed=2]"),
        r"params.cfg: \[conv1\] epsW: exp: expected base, tgtFactor; got 'speed=2'",
    ),
    (
        lambda n, p: p["conv1"].update(epsW="exp[base=1;tgtFactor=0]"),
        r"params.cfg: \[conv1\] epsW: exp: tgtFactor: expected more, got 0",
    ),
    (lambda n, p: p["conv1"].update(epsW=-1), r"params.cfg: \[conv1\] epsW: expected 0 or more"),
    (lambda n, p: p["conv1"].update(momW=1), r"\[conv1\] momW: expected a number from"),
    (
        lambda n, p: p["conv1"].update(wc="nan"),
        r"\[conv1\] wc: expected a finite number",
    ),
    (
        lambda n, p: p["conv1"].update(wc=-1),
        r"\[conv1\] wc: expected 0 or more, got -1",
    ),
    (lambda n, p: p.pop("logprob"), r"params.cfg: \[logprob\] coeff: missing"),
    (lambda n, p: n.pop("logprob"), r"layers.cfg: expected a cost layer, as cost.logreg; got none"),
    (
        lambda n, p: n["logprob"].update(inputs="probs,labels"),
        r"\[logprob\] inputs: expected labels first, got probs",
    ),
    (lambda n, p: n["logprob"].update(inputs="probs"), r"\[logprob\] inputs: expected 2, got 1"),
    (lambda n, p: n["labels"].update(dataIdx=7), r"\[labels\] dataIdx: expected 0 \(images\), 1"),
    (lambda n, p: n["data"].update(end=99999), r"\[data\] end: expected a number from 1 to 3072"),
    (
        lambda n, p: n["drop"].update(type="eltsum", inputs="norm,conv1"),
        r"\[drop\] inputs: expected inputs of one size, got 1024 and 4096 numbers",
    ),
    (
        lambda n, p: n["drop"].update(type="eltmax", inputs="norm"),
        r"\[drop\] inputs: expected two or more, got 1",
    ),
]


def test_an_indented_line_is_part_of_the_one_above(tmp_path: Path) -> None:
    layers, params = (d.text(part) for part in changed(lambda n, p: None))
    with pytest.raises(ConfigError) as caught:
        d.imported(tmp_path, layers.replace("\nfilters=", "\n filters="), params)
    message = str(caught.value)
    assert "[conv1] channels: " in message
    assert message.endswith("; the line below is indented, and so continues this one")


@pytest.mark.parametrize(("change", "expected"), BAD)
def test_bad_definitions_name_file_section_and_key(
    tmp_path: Path, change: Any, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        d.imported(tmp_path, *changed(change))


def test_no_file_whatever_is_in_it_ends_in_anything_but_a_clear_error(tmp_path: Path) -> None:
    """Lines lost, doubled, swapped and cut; values exchanged; letters changed."""
    rng = random.Random(7)
    whole = [d.text(part) for part in changed(lambda n, p: None)]
    values = ["", "0", "-3", "1e9", "999999999999", "4,4", "nan", "[", "%(x)s", "data,labels", "é"]
    good = bad = 0
    for _ in range(300):
        texts = list(whole)
        for _ in range(rng.randint(1, 3)):
            which = rng.randrange(2)
            lines = texts[which].split("\n")
            at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
            kind = rng.randrange(6)
            if kind == 0:
                del lines[at]
            elif kind == 1:
                lines[at], lines[other] = lines[other], lines[at]
            elif kind == 2:
                lines.insert(at, lines[other])
            elif kind == 3 and "=" in lines[at]:
                lines[at] = f"{lines[at].partition('=')[0]}={rng.choice(values)}"
            elif kind == 4:
                lines[at] = lines[at][: rng.randint(0, len(lines[at]))]
            else:
                place = rng.randint(0, len(lines[at]))
                lines[at] = lines[at][:place] + rng.choice("x=[];#%\t 9") + lines[at][place + 1 :]
            texts[which] = "\n".join(lines)
        try:
            found = d.imported(tmp_path, *texts)
        except ConfigError as error:
            message = str(error)
            assert ".cfg: " in message, message
            assert "\n" not in message, message
            assert len(message) < 500, message
            bad += 1
        else:
            assert found.cfg.net.layers
            good += 1
    assert good > 30 < bad


# ---- the command --------------------------------------------------------------------------------


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
