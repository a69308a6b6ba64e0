"""The page in a real browser: nothing is cut off or asked of a network, and the script works."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convnet.config import load_config
from convnet.evaluation.metrics import Metrics
from convnet.report.follow import LiveView
from convnet.report.measured import Measured
from convnet.report.page import page as page_of
from convnet.report.story import Story
from convnet.report.write import write_report

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
needs_browser = pytest.mark.skipif(
    not BROWSER, reason="no Chromium here (apt-get install chromium)"
)

# What a page says of itself when it has been laid out: what is wider than it, and the errors.
PROBE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const width = document.documentElement.clientWidth;
  const clips = (e) => getComputedStyle(e).overflowX === "auto";
  const scrolls = (e) => e && (clips(e) || scrolls(e.parentElement));
  const wide = [...document.body.querySelectorAll("*")].filter(
    (e) => e.getBoundingClientRect().right > width + 1 && !scrolls(e.parentElement));
  const ends = [...document.querySelectorAll(".line span:last-child")].filter((e) => {
    const box = e.parentElement.getBoundingClientRect();
    return e.getBoundingClientRect().right > box.right + 1 || e.scrollWidth > e.clientWidth + 1;
  });
  const twice = [...document.querySelectorAll(".card b")].filter(
    (e) => e.textContent.includes("…") && e.scrollHeight > e.clientHeight + 2);
  const chart = document.querySelector(".chart svg");
  const box = chart.getBoundingClientRect();
  const place = {clientX: box.right - 12, clientY: box.top + 9};
  chart.dispatchEvent(new PointerEvent("pointermove", place));
  document.querySelector(".sortable th").click();
  const facts = {
    width,
    wide: wide.map((e) => e.tagName + "." + e.className),
    lines: document.querySelectorAll(".line").length,
    cut: ends.concat(twice).map((e) => e.textContent),
    loaded: performance.getEntriesByType("resource").map((e) => e.name).filter(
      (name) => !name.startsWith("data:")),
    broken: [...document.images].filter((i) => i.loading !== "lazy" && !i.naturalWidth).length,
    said: document.querySelector(".chart .readout").textContent,
    first: document.querySelector(".sortable tbody th").textContent,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    paper: getComputedStyle(document.documentElement).backgroundColor,
  };
  parent.postMessage(JSON.stringify(facts), "*");
}, 50));
</script>
"""


# A window is never narrower than 500 pixels; a frame in it may be.
FRAME = """<!doctype html><body style="margin:0"><script>
addEventListener("message", (event) => { document.title = event.data; });
</script><iframe src="probed.html" width="%d" height="900" style="border:0"></iframe>
"""


@pytest.fixture(scope="module")
def page(named_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run whose classes and files have long and odd names."""
    return write_report(named_run, tmp_path_factory.mktemp("page") / "p.html", device="cpu")[0]


def browse(*options: str, timeout: int = 60) -> str:
    """What the browser prints."""
    done = subprocess.run(
        [BROWSER, *QUIET, *options], capture_output=True, text=True, timeout=timeout, check=True
    )
    return done.stdout


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_it_is_laid_out(page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    text = page.read_text(encoding="utf-8")
    probed = tmp_path / "probed.html"
    policy = re.compile("<meta http-equiv[^>]*>")  # it would keep the probe from running, too
    assert len(policy.findall(text)) == 1
    probed.write_text(policy.sub("", text).replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME % width)
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    out = browse(
        scheme,
        "--window-size=1400,1000",
        "--virtual-time-budget=2000",
        "--dump-dom",
        (tmp_path / "frame.html").as_uri(),
    )
    facts = json.loads(html.unescape(re.findall("<title>(.*?)</title>", out)[0]))
    assert facts["width"] == width
    assert facts["wide"] == []
    assert facts["lines"] > 0
    assert facts["cut"] == []  # the ends of names are seen, and no name is shortened twice
    assert facts["loaded"] == []
    assert facts["broken"] == 0
    assert facts["said"].startswith("epoch 2: training ")
    assert facts["first"].startswith("<script>boom()<|script>")
    assert facts["dark"] is dark
    assert (int(re.findall(r"\d+", facts["paper"])[0]) < 60) is dark


@needs_browser
def test_its_own_policy_lets_its_script_run(page: Path, tmp_path: Path) -> None:
    """And no other: one that got into the page, of whatever name, would not run."""
    text = page.read_text(encoding="utf-8")
    evil = "<script>document.documentElement.dataset.evil = 1</script></body>"
    (tmp_path / "page.html").write_text(text.replace("</body>", evil), encoding="utf-8")
    out = browse("--virtual-time-budget=1000", "--dump-dom", (tmp_path / "page.html").as_uri())
    assert "data-evil" not in out
    assert 'tabindex="0"' in re.findall(r'<table class="sortable">.*?</thead>', out, re.DOTALL)[0]


ZOOM = """
<script>
addEventListener("load", () => setTimeout(() => {
  const view = document.querySelector(".view");
  for (let i = 0; i < 4; i += 1) document.querySelector("[data-zoom=in]").click();
  const image = [...view.querySelectorAll("img")].find((one) => !one.hidden);
  const box = image.getBoundingClientRect();
  const at = (place) => ({clientX: box.left + (place + 0.5) * box.width / 300,
                          clientY: box.top + 7.5 * box.height / 300});
  image.dispatchEvent(new PointerEvent("pointermove", at(9)));
  const facts = {grown: box.width / view.clientWidth, said: document.querySelector(
    ".tools .readout").textContent, overview: image.hasAttribute("data-overview")};
  document.title = JSON.stringify(facts);
}, 50));
</script>
"""


@needs_browser
def test_a_matrix_of_many_classes_grows(tmp_path: Path) -> None:
    names = tuple(f"<i>{number}" for number in range(300))
    metrics = Metrics(names)
    labels = np.arange(300)
    guesses = np.where(labels == 7, 9, labels)
    metrics.add_ranked(np.ones(300), (guesses != labels).astype(int), guesses, labels)
    measured = Measured(metrics, 300, 300, [], [], [], [], "", 0)
    story = Story("x", load_config("fashion-mnist"), [], False, classes=names, measured=measured)
    text = re.sub("<meta http-equiv[^>]*>", "", page_of(story))
    (tmp_path / "p.html").write_text(text.replace("</body>", f"{ZOOM}</body>"), encoding="utf-8")
    out = browse("--virtual-time-budget=2000", "--dump-dom", (tmp_path / "p.html").as_uri())
    facts = json.loads(html.unescape(re.findall("<title>(.*?)</title>", out)[0]))
    assert facts["grown"] == pytest.approx(1.6**4, rel=0.01)
    assert facts["said"] == "<i>7 taken for <i>9: 1 (100 %)"
    assert not facts["overview"]


@needs_browser
def test_the_live_view_loads_again(named_run: Path, tmp_path: Path) -> None:
    """Once for a change of the run, and not without one."""
    shutil.copytree(named_run, tmp_path / "run")
    view = LiveView(tmp_path / "run", device="cpu")
    loads: list[float] = []
    content = view.content
    view.content = lambda: loads.append(time.monotonic()) or content()  # type: ignore[method-assign]
    server = threading.Thread(target=view.serve)
    server.start()
    browser = subprocess.Popen(
        [BROWSER, *QUIET, "--remote-debugging-port=0", view.address], stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: len(loads) == 1)
        time.sleep(3)  # it asks every two seconds
        assert len(loads) == 1
        record = {"kind": "step", "epoch": 3, "step": 60, "loss": 0.5, "top1": 80.0, "lr": 0.1}
        with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        wait_for(lambda: len(loads) == 2)
    finally:
        browser.terminate()
        browser.wait()
        view.server.shutdown()
        server.join()


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@needs_browser
def test_it_prints(page: Path, tmp_path: Path) -> None:
    browse(f"--print-to-pdf={tmp_path / 'p.pdf'}", page.as_uri())
    pages = re.findall(rb"/Type\s*/Page\b", (tmp_path / "p.pdf").read_bytes())
    assert 1 <= len(pages) <= 8
