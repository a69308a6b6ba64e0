"""The page of a run: from a story to one HTML document that loads nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

from convnet.common.distribution import VERSION
from convnet.common.names import cut
from convnet.report import mistakes, sections
from convnet.report.markup import Markup, element, joined, name_of
from convnet.report.measured import Measured
from convnet.report.story import FIVE, Story


def page(story: Story, live: str = "") -> str:
    """A whole page.

    Args:
        story: of a run.
        live: an address that says which state of the run is shown; the page asks it every few
            seconds, and loads again when the answer is another one. Empty: it asks nobody.
    """
    parts = [
        sections.curves(story),
        *mistakes.samples(story),
        mistakes.confusion(story),
        mistakes.classes(story),
        sections.filters(story),
        sections.neighbours(story),
        sections.net(story),
        sections.again(story),
    ]
    shown = [part for part in parts if part]
    body = joined(
        _head(story),
        _contents(shown),
        element("main", *shown),
        element("footer", f"Written by convnet {VERSION}. One file: it loads nothing."),
    )
    return _document(f"{story.name} · convnet", body, live)


def _document(title: str, body: Markup, live: str) -> str:
    """The page around its content. A browser is told to run the page's own script, to show images
    that are in the page, and to load nothing."""
    here = resources.files("convnet.report")
    style = here.joinpath("page.css").read_text(encoding="utf-8")
    script = here.joinpath("page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    asks = "'self'" if live else "'none'"
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; connect-src {asks}; script-src 'sha256-{digest}'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(style)),
    )
    end = element("script", Markup(script))
    whole = element("body", body, end, data_live=live or None)
    return f"<!doctype html>\n{element('html', head, whole, lang='en')}\n"


def _head(story: Story) -> Markup:
    state = "training now" if story.running else "training run"
    return element(
        "header",
        element("p", f"convnet · {state}", class_="over"),
        name_of(story.name, 60, "h1"),
        element("p", *_lead(story), class_="lead"),
        _figures(story),
    )


def _lead(story: Story) -> list[object]:
    """What happened, for somebody who has never heard of it."""
    net, done = story.net, len(story.epochs)
    if net is None:
        return ["This run has not saved a net yet."]
    kinds = f"{len(story.classes)} kinds of images"
    if 1 < len(story.classes) <= FIVE:
        *names, last = (cut(name, 24) for name in story.classes)
        kinds = f"{', '.join(names)} and {last}"
    layers = sum(bool(node.layer.params) for node in net.nodes)
    text = f"A neural net of {layers} layers and {net.parameter_count:,} weights learned to tell "
    text += f"{kinds} apart"
    examples = f" from {story.training_images:,} examples" if story.training_images else ""
    text += f"{examples}, which it saw {_times(done)}. "
    best = story.best
    if best is not None and net.classes is not None:
        whom = "Of images that it had never seen"
        text += f"{whom}, it names {best['val_top1']:.1f}\u00a0% right"
        guess = _by_guessing(story.measured)
        if guess:
            text += f"; always guessing the most frequent kind would get {guess:.1f}\u00a0%"
        text += "."
    if story.running:
        text += f" It is still learning: {done} of {story.cfg.train.epochs} epochs are done."
    return [text]


def _times(count: int) -> str:
    return {0: "not yet once in full", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _by_guessing(measured: Measured | None) -> float:
    """How many per cent are right where every image is called by the most frequent class."""
    if measured is None:
        return 0.0
    counts = measured.metrics.confusion.sum(axis=1)
    return 100.0 * float(counts.max()) / max(1, int(counts.sum()))


def _figures(story: Story) -> Markup | None:
    best, epochs = story.best, story.epochs
    if best is None:
        return None
    parts = []
    if story.net is None or story.net.classes is not None:
        parts.append(("named right", f"{best['val_top1']:.1f}", "%"))
    if len(story.classes) > FIVE:
        parts.append(("right in five guesses", f"{best['val_top5']:.1f}", "%"))
    parts.append(("validation loss", f"{best['val_loss']:.3f}", ""))
    parts.append(("best epoch", str(best["epoch"]), f"of {len(epochs)}"))
    speed = epochs[-1].get("images_per_s", 0.0)
    parts.append(("training speed", f"{speed:,.0f}", "images/s"))
    return element(
        "dl",
        *[
            element("div", element("dt", name), element("dd", value, element("small", f" {unit}")))
            for name, value, unit in parts
        ],
        class_="figures",
    )


def _contents(parts: Sequence[Markup]) -> Markup:
    """Links to the sections, by the names they begin with."""
    links = []
    for part in parts:
        key = part.partition('id="')[2].partition('"')[0]
        title = part.partition("<h2>")[2].partition("</h2>")[0]
        links.append(element("a", Markup(title), href=f"#{key}"))
    return element("nav", *links, aria_label="sections")
