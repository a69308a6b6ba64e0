"""`convnet doctor`: what is installed, which devices can be used, and where data sets are."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from pathlib import Path
from typing import Any

from convnet import backend as backends
from convnet.common import distribution
from convnet.ops.precision import PRECISIONS

_PACKAGES = ("numpy", "pillow", "safetensors", "rich", "tomli-w")
_CUPY = backends.CUPY_PACKAGES
_VARIABLES = (
    "CONVNET_DATA",
    "CONVNET_CPU_ISA",
    "ONEDNN_MAX_CPU_ISA",
    "CONVNET_WINOGRAD",
    "CONVNET_AMX",
)


def examine() -> dict[str, Any]:
    """Looks at everything.

    Returns:
        {"ok": whether the CPU path works, "problems": [...], "versions": {...}, "backends": {name:
        {"usable", "description" or "reason"}}, "data": {source: description or reason},
        "environment": {name: value}, ...}.
    """
    problems: list[str] = []
    build = _build(problems)
    devices = {"cpu": _cpu(problems)}
    devices |= {name: _device(name, problems) for name in ("cuda", *backends.FOR_TESTS)}
    versions = {name: distribution.version(name) or "not installed" for name in _PACKAGES}
    versions |= {name: found for name in _CUPY if (found := distribution.version(name))}
    return {
        "ok": bool(devices["cpu"]["usable"]),
        "problems": problems,
        "versions": {
            "convnet": distribution.VERSION,
            "python": platform.python_version(),
            **versions,
            "platform": f"{platform.system()} {platform.machine()}",
        },
        "build": build,
        "backends": devices,
        "data": _data(),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def _build(problems: list[str]) -> dict[str, Any]:
    """What the build recorded, and whether it fits the installed package."""
    place = Path(__file__).parents[1]
    found: dict[str, Any] = {"location": str(place)}
    try:
        info = importlib.import_module("convnet._build_info")
    except ImportError:
        problems.append(
            f"{place} has not been built (convnet._build_info is missing); run Python from another "
            "folder than the sources, or pip install it"
        )
        return found
    found |= {
        "version": info.VERSION,
        "compiler": info.COMPILER,
        "onednn": info.ONEDNN,
        "cuda": bool(info.CUDA_BUILT),
        "cuda_reason": info.CUDA_REASON,
    }
    installed = distribution.version(distribution.DISTRIBUTION)
    if installed is not None and installed != info.VERSION:
        problems.append(
            f"the compiled part is of version {info.VERSION}, the installed package of "
            f"{installed}: install {distribution.DISTRIBUTION} again"
        )
    if problem := distribution.overlap():
        problems.append(problem)
    several = [name for name in _CUPY if distribution.version(name)]
    if len(several) > 1:
        problems.append(f"several CuPy packages are installed: {', '.join(several)}; keep one")
    return found


def _device(name: str, problems: list[str]) -> dict[str, Any]:
    """Whether it can be used; a problem where it should be: the CPU, and whatever was built."""
    try:
        device = backends.get(name)
        precision = {each: device.module.precision_description(each) for each in PRECISIONS}
        found = {"usable": True, "description": device.describe(), "precision": precision}
        if name == "cuda":
            count = device.module.device_count()
            found["devices"] = [backends.get(f"cuda:{index}").describe() for index in range(count)]
        return found
    except (backends.DeviceError, ImportError) as error:
        reason = " ".join(str(error).split())
        if name == "cpu" or isinstance(error, backends.BrokenBackendError):
            problems.append(f"{name}: {reason}")
        return {"usable": False, "reason": reason}


def _cpu(problems: list[str]) -> dict[str, Any]:
    """The CPU backend, made to compute something."""
    found = _device("cpu", problems)
    if found["usable"]:
        try:
            _try_out()
        except Exception as error:
            found = {"usable": False, "reason": f"a convolution failed: {error}"}
            problems.append(f"cpu: {found['reason']}")
    return found


def _try_out() -> None:
    import numpy as np

    from convnet import ops

    ones = np.ones((1, 4, 4, 2), np.float32)
    with backends.use("cpu"):
        y = ops.conv_fprop(ones, np.ones((3, 3, 3, 2), np.float32), pad=1)
    if y[0, 1, 1, 0] != 18 or y[0, 0, 0, 0] != 8:
        raise ValueError(f"expected 18 and 8, got {y[0, 1, 1, 0]} and {y[0, 0, 0, 0]}")


def _data() -> dict[str, str]:
    """For each published set, where it would be read from, or why not."""
    from convnet.config import DataConfig
    from convnet.data import DataError, open_data

    found = {}
    for source in ("fashion-mnist", "mnist", "cifar10", "cifar100"):
        try:
            train, validation = open_data(DataConfig(source=source))
            found[source] = f"{len(train)} + {len(validation)} images: {train.description}"
        except DataError as error:
            found[source] = f"not found: {error}"
    return found


def show(report: dict[str, Any]) -> str:
    """The report as text."""
    devices = []
    for name, state in report["backends"].items():
        text = state["description"] if state["usable"] else f"no: {state['reason']}"
        devices.append((name, text))
        devices += [("", device) for device in state.get("devices", [])[1:]]
        devices += [("", f"{key}: {text}") for key, text in state.get("precision", {}).items()]
    auto = "cuda:0" if report["backends"]["cuda"]["usable"] else "cpu"
    sections = {
        "versions": report["versions"].items(),
        "installation": report["build"].items(),
        "devices": [*devices, ("auto", f"would use {auto}")],
        "environment": report["environment"].items(),
        "data sets": report["data"].items(),
    }
    lines = []
    for title, rows in sections.items():
        lines += [title, *(f"  {name:18} {text}" for name, text in rows)] if rows else []
    lines += [f"problem: {problem}" for problem in report["problems"]]
    lines.append("all is well" if not report["problems"] else f"python: {sys.executable}")
    return "\n".join(lines)
