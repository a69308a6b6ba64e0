"""`convnet report`: what is on the page, what it escapes, and that it needs nothing else."""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

import convnet
from convnet.cli.main import main
from convnet.common.names import cut
from convnet.config import load_config
from convnet.evaluation.metrics import Metrics
from convnet.report import charts, follow
from convnet.report.markup import element, line_of
from convnet.report.measured import Measured
from convnet.report.mistakes import confusion
from convnet.report.story import Story, gather, repeating, without_paths
from convnet.report.write import write_report
from convnet.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on grey images of ten classes, with its page."""
    folder = tmp_path_factory.mktemp("report")
    data = tiny.write_data(folder / "data")
    convnet.train(
        tiny.config(data, train={"report": True}), device="cpu", run_dir=folder / "run", quiet=True
    )
    return folder / "run"


EVIL = "<script>boom()<|script>"  # as a class and as a file
LONG = "a very long name of a class that somebody has really used in a set of images"


class Reader(HTMLParser):
    """Reads a page as browsers do: its elements, their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def count(self, tag: str, **attributes: str) -> int:
        return sum(
            name == tag
            and all(attrs.get(key.strip("_")) == value for key, value in attributes.items())
            for name, attrs in self.elements
        )


def test_the_page_comes_with_the_run(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    page = Reader(text)
    best = max(record["val_top1"] for record in tiny.metrics(run) if record["kind"] == "epoch")
    assert (
        f"it names {best:.1f} % right; always guessing the most frequent kind would get 10.0 %"
        in page.text
    )
    for title in (
        "How it learned",
        "What it confuses",
        "Class by class",
        "What it finds alike",
        "Repeat it",
    ):
        assert title in page.text
    assert page.count("polyline", class_="validation") == 2
    assert page.count("div", class_="filters") == 1
    matrix = gather(run, device="cpu").measured.metrics.confusion
    assert page.count("rect") == 100
    assert page.count("rect", class_="none") == int((matrix == 0).sum())
    assert "largest" not in page.text
    assert "training run" in page.text  # though the process that wrote it held the folder still
    assert "still learning" not in page.text
    assert f"report    {run / 'report.html'}" in (run / "log.txt").read_text()


def test_it_loads_nothing(run: Path, named_run: Path, tmp_path: Path) -> None:
    write_report(named_run, tmp_path / "named.html", device="cpu")
    for path in (run / "report.html", tmp_path / "named.html"):
        text = path.read_text(encoding="utf-8")
        assert len(text) < 1_000_000
        elements = Reader(text).elements
        assert any("connect-src 'none'" in (given.get("content") or "") for _, given in elements)
        for _, attributes in elements:
            for key in ("src", "href", "srcset", "action", "data"):
                value = attributes.get(key) or "#"
                assert value.startswith(("data:image/", "#")), value
        assert "url(" not in text
        assert "@import" not in text


def test_names_are_text(named_run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # it needs no extra
    path, _ = write_report(named_run, tmp_path / "named.html", device="cpu")
    text = path.read_text(encoding="utf-8")
    page = Reader(text)
    assert page.count("script") == 1  # its own
    assert page.count("b", dir="auto") > 0
    assert page.count("h1") == 1
    assert "run <b>" in page.text
    assert EVIL in page.text
    assert "猫と犬" in page.text
    assert any(LONG in (attrs.get("title") or "") for _, attrs in page.elements)
    assert "five guesses" not in page.text  # of three classes that says nothing
    assert "…/images" in page.text
    assert str(named_run.parent) not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<b>&\"'", "&lt;b&gt;&amp;&quot;&#x27;"),
        ("\x00\x1b[1m\u202egnp", "\\x00\\x1b[1m\\u202egnp"),
        ("a\udc80", "a\\udc80"),
    ],
)
def test_text_is_escaped(text: str, shown: str) -> None:
    assert element("p", text, title=text) == f'<p title="{shown}">{shown}</p>'


def test_long_names_are_shortened_once() -> None:
    """In their middle, and never again by the browser: East Asian letters are wider."""
    assert cut("Ankle boot", 10) == "Ankle boot"
    assert cut("n00000298 a class <b>298", 12) == "n00000…b>298"
    assert cut("飛行機と非常に長い名前", 12) == "飛行機…名前"
    assert cut("猫" * 1000, 24) == "猫" * 6 + "…" + "猫" * 6
    assert line_of("Ankle boot") == '<span dir="auto">Ankle boot</span>'
    page = Reader(line_of(f"{EVIL} number 298"))
    assert page.words == [f"{EVIL} numb", "er 298"]
    assert page.elements[0][1]["title"] == f"{EVIL} number 298"


def test_a_rate_that_never_changes_has_an_axis() -> None:
    chart = Reader(
        charts.line_chart("rate", [charts.Line("", [1, 2], [0.01, 0.01], "rate")], "epoch", True)
    )
    assert chart.words[1:6] == ["0", "0.005", "0.01", "0", "1"]
    places = [
        float(point.split(",")[1])
        for _, given in chart.elements
        if "points" in given
        for point in str(given["points"]).split()
    ]
    assert places == [10.0, 10.0]


@pytest.mark.parametrize("classes", [2, 60, 1000])
def test_any_number_of_classes(classes: int) -> None:
    names = tuple(f"{number}: {EVIL} {LONG}" for number in range(classes))
    metrics = Metrics(names)
    rng = np.random.default_rng(classes)
    labels = np.repeat(np.arange(classes), 3)
    guesses = np.where(rng.random(3 * classes) < 0.6, labels, rng.integers(0, classes, 3 * classes))
    metrics.add_ranked(np.ones(len(labels)), (guesses != labels).astype(int), guesses, labels)
    measured = Measured(metrics, len(labels), len(labels), [], [], [], [], "", 0)
    story = Story("x", load_config("fashion-mnist"), [], False, classes=names, measured=measured)
    text = confusion(story) or ""
    page = Reader(text)
    assert len(text) < 700_000
    assert page.count("script") == (classes > charts.CELLS)
    if classes > charts.CELLS:
        facts = json.loads(re.findall("<script[^>]*>(.*?)</script>", text)[0])
        rows, columns, counts = map(np.array, facts["cells"])
        np.testing.assert_array_equal(metrics.confusion[rows, columns], counts)
        assert counts.sum() == 3 * classes
        assert page.count("img") == (2 if classes == 1000 else 1)


def test_numbers_of_an_axis_fit_beside_it() -> None:
    assert [charts.number(10.0**-power) for power in (1, 3, 4, 12)] == [
        "0.1",
        "0.001",
        "1e-4",
        "1e-12",
    ]


def test_what_cannot_be_measured_is_said(run: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(run, tmp_path / "run")
    assert main(["report", str(tmp_path / "run"), "--data", str(tmp_path / "none")]) == 0
    assert "without samples and confusion" in capsys.readouterr().err
    page = Reader((tmp_path / "run" / "report.html").read_text())
    assert "Samples, confusions and classes are not shown: the data cannot be used" in page.text
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert main(["report", str(tmp_path / "run")]) == 0
    assert "has not saved a net yet" in (tmp_path / "run" / "report.html").read_text()
    assert main(["report", str(tmp_path)]) == 2
    assert main(["report", str(run), "-o", str(tmp_path / "no" / "x.html")]) == 2


def test_a_page_that_fails_is_a_warning(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    data = tiny.write_data(tmp_path / "data")
    monkeypatch.setattr("convnet.report.callback.write_report", fail)
    options = {"device": "cpu", "quiet": True}
    changes = {"epochs": 1, "report": True}
    done = convnet.train(tiny.config(data, train=changes), run_dir=tmp_path / "a", **options)
    assert done.status == "done"
    assert "warning: report: not written: MemoryError" in capsys.readouterr().err
    changes["report"] = False
    convnet.train(tiny.config(data, train=changes), run_dir=tmp_path / "b", **options)
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "b" / "report.html").exists()


def test_the_command_repeats_the_run() -> None:
    changed = load_config("fashion-mnist", ["train.epochs=3", "sgd.lr=0.02", "data.path=sample"])
    command = repeating(changed)
    assert command == (
        "convnet train fashion-mnist --data sample --set sgd.lr=0.02 --set train.epochs=3"
    )
    filters = load_config("cifar10-quick", ["net.layers.conv1.filters=8"])
    assert repeating(filters).endswith("cifar10-quick --set net.layers.conv1.filters=8")
    cosine = load_config("alexnet-half", ["schedule.kind=cosine", "data.path=/a/b"])
    found = repeating(without_paths(cosine))
    assert found == "convnet train alexnet-half --data b --set schedule.kind=cosine"
    assert repeating(load_config("mnist", ["name=mine"])) == "convnet train config.toml"


def test_the_live_view(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    view = follow.LiveView(tmp_path / "run", device="cpu")
    thread = threading.Thread(target=view.serve)
    thread.start()
    try:

        def get(path: str, host: str = "127.0.0.1") -> str:
            request = urllib.request.Request(view.address + path, headers={"Host": host})
            with urllib.request.urlopen(request, timeout=10) as answer:
                return str(answer.read().decode())

        page = get("")
        assert 'data-live="/state' in page
        assert "connect-src &#x27;self&#x27;" in page
        before = get("state")
        assert get("") == page
        with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
            file.write(
                json.dumps(
                    {"kind": "step", "epoch": 4, "step": 31, "loss": 1.5, "top1": 5.0, "lr": 0.1}
                )
                + "\n"
            )
        assert get("state") != before
        assert get("") != page
        for path, host in (("other", "127.0.0.1"), ("", "evil.example")):
            with pytest.raises(urllib.error.HTTPError):
                get(path, host)
    finally:
        view.server.shutdown()
        thread.join()


def test_a_run_that_goes_on_is_not_slowed_down(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    folder = RunFolder.resume(tmp_path / "run")
    try:
        view = follow.LiveView(tmp_path / "run", device="cpu")
        text = view.content().decode()
        view.server.server_close()
    finally:
        folder.close()
    assert "that is measured when the run is over" in text
    assert "It is still learning: 3 of 3 epochs are done" in text
