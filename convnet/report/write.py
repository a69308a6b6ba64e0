"""Writing the page of a run to a file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from convnet.common.files import replace
from convnet.common.own_code import allowed
from convnet.evaluation.evaluate import as_warning
from convnet.report.page import page
from convnet.report.story import gather
from convnet.training.datasets import Data

REPORT = "report.html"


def write_report(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    data: Data = None,
    device: str | None = None,
    warn: Callable[[str], None] = as_warning,
    over: bool = False,
    code: bool = False,
) -> tuple[Path, int]:
    """Writes what a run was, and what came of it, as one HTML file that needs nothing else.

    It takes half a minute at most: of large sets as many held-out images are looked at as that
    allows, and the page says how many. Where the data or a checkpoint is missing the page lacks
    what needs it, and says why.

    Args:
        run: the folder of a run; it may still be training.
        out: the file; by default report.html in the run's folder.
        data: a path, or (training set, validation set); None takes the data of the run.
        device: as for `convnet.train`; None is "auto".
        warn: called with a line of text where a part of the page has to be left out.
        over: whether its training is known to be over, though its process holds the folder still.
        code: whether code of one's own that the run names may be imported: look at it first.

    Returns: the file, and its size in bytes.

    Raises:
        RunError: no run in that folder. ConfigError: its configuration cannot be used.
        DeviceError: no such device. OSError: the file cannot be written.
    """
    path = Path(out) if out is not None else Path(run) / REPORT
    with allowed(code):
        story = gather(run, data, device, warn)
    story = dataclasses.replace(story, running=story.running and not over)
    content = page(story).encode(errors="backslashreplace")
    replace(path, content)
    return path, len(content)
