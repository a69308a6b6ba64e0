"""`convnet import torch`: a state dict as a run.

A state dict has names and shapes, and no strides, pads or order of layers. So the net is one of the
presets, found by the shapes, or one that is named; the tensors are taken in the order of the file,
which is that in which modules were registered, and each must have the shape that its layer has.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from convnet.common.own_code import allowed
from convnet.common.tensor_header import read_header, read_tensors
from convnet.common.typecheck import brief
from convnet.config import Config, load_config, presets
from convnet.data.sources import PUBLISHED
from convnet.exchange.errors import ExchangeError
from convnet.exchange.imported_run import Imported, Preprocessing, class_names, write_run
from convnet.exchange.layouts import foreign_shape, from_foreign, parameters
from convnet.exchange.torch.archive import Archive
from convnet.exchange.torch.pickles import Tensor
from convnet.nn.net import Net
from convnet.training.nets import build_net

T = TypeVar("T")

# The normalization of torchvision's models: of images from 0 to 1, in the order RGB.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LEVELS = 255.0
_TORCHVISION = re.compile(r"(.*?)(?:features|classifier)\.\d+\.")  # its names, in a module or not
_TORCHVISION_PRESET = "alexnet-torchvision"
# Keys under which training checkpoints have a state dict, the usual ones first.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
# What DataParallel and torch.compile put before the names of a net.
_PREFIX = re.compile(r"^(?:(?:module|_orig_mod)\.)+")
_NAMES = {"weight": "w", "bias": "b"}
_MOST_MODULES = 1000
_CONVERSIONS = {"float16": "widened", "bfloat16": "widened", "float64": "rounded"}


@dataclass(frozen=True)
class StateDict:
    """What a file holds.

    Attributes:
        path: of the file.
        shapes: by the names of the tensors, in the order of the file.
        read: gives the values of a tensor, float32 or integers.
        types: of the tensors in the file: "float32", "bfloat16".
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    types: Mapping[str, str] = field(default_factory=dict)

    def conversions(self) -> str:
        """What becomes of tensors that are not float32; empty where there are none."""
        counts = Counter(self.types.values())
        others = [
            f"{counts[name]} of {counts.total()} tensors are {name}, {how} to float32"
            for name, how in _CONVERSIONS.items()
            if counts[name]
        ]
        return "; ".join(others)

    def modules(self) -> dict[str, dict[str, str]]:
        """The tensors by module: {"features.0": {"w": "features.0.weight", "b": ...}}.

        Raises: ExchangeError: a tensor that is neither weight nor bias.
        """
        found: dict[str, dict[str, str]] = {}
        for name in self.shapes:
            module, _, kind = name.rpartition(".")
            if kind not in _NAMES:
                normalizes = "batch normalization, which there is none of here"
                got = f"{name[:80]!a} ({normalizes if 'running' in kind else 'other'})"
                raise ExchangeError(f"{self.path}: expected weights and biases, got {got}")
            found.setdefault(module, {})[_NAMES[kind]] = name
        if not 0 < len(found) <= _MOST_MODULES:
            expected = f"up to {_MOST_MODULES} layers"
            raise ExchangeError(f"{self.path}: expected {expected}, got {len(found)}")
        return found


@contextlib.contextmanager
def open_state_dict(path: Path) -> Iterator[StateDict]:
    """A file of torch.save, of either format, or of safetensors.

    Raises:
        ExchangeError: damaged, or no state dict. OSError: it cannot be read.
    """
    if path.suffix == ".safetensors":
        try:
            _, entries = read_header(path, halves=True)
            arrays = read_tensors(path, halves=True)[1]
        except ValueError as error:
            raise ExchangeError(f"{path}: expected a file of safetensors, got {error}") from None
        shapes = {name: entry.shape for name, entry in entries.items()}
        names = sorted(shapes, key=lambda name: _place(name, shapes))
        arrays = _plain(arrays)
        types = {name: entry.dtype.name for name, entry in _plain(entries).items()}
        ordered = _plain({name: shapes[name] for name in names})
        yield StateDict(path, ordered, arrays.__getitem__, types)
        return
    with Archive(path) as archive:
        tensors = _tensors(path, archive.saved)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        types = {name: tensor.storage.kind.type_name for name, tensor in tensors.items()}
        yield StateDict(path, shapes, lambda name: archive.array(tensors[name]), types)


def _tensors(path: Path, saved: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, or of the one in a training checkpoint, by name."""
    if isinstance(saved, dict) and not _holds_tensors(saved):
        inside = [key for key, value in saved.items() if _holds_tensors(value)]
        usual = [key for key in _WRAPPERS if isinstance(saved.get(key), dict)]
        if len(inside) > 1 and not usual:
            found = ", ".join(ascii(key)[:60] for key in inside[:5])
            raise ExchangeError(f"{path}: expected one state dict, got {len(inside)}: {found}")
        best = [key for key in usual if key in inside] or inside or usual
        saved = saved[best[0]] if best else saved
    if not isinstance(saved, dict) or not saved:
        kind = type(saved).__name__.lstrip("_")
        raise ExchangeError(f"{path}: expected a state dict, got {kind}")
    for name, tensor in saved.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            got = f"{str(name)[:60]!a} of another kind"
            raise ExchangeError(f"{path}: expected tensors by name, got {got}")
    return _plain(saved)


def _holds_tensors(value: Any) -> bool:
    """Whether something is a dictionary of tensors and nothing else."""
    return isinstance(value, dict) and {type(each) for each in value.values()} == {Tensor}


def _plain(by_name: Mapping[str, T]) -> dict[str, T]:
    """By the names of the net, without what wrappers around it put before them."""
    plain = {_PREFIX.sub("", name): value for name, value in by_name.items()}
    return plain if len(plain) == len(by_name) else dict(by_name)


def _place(name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[object, ...]:
    """Where a tensor of a safetensors file, which is in no order, comes: those of convolutions
    before those of dense layers, each by their names, in which numbers count as numbers."""
    module = name.rpartition(".")[0]
    rank = len(shapes.get(f"{module}.weight", ()))
    words = re.split(r"(\d{1,9})", module)
    parts = [(int(word), "") if word.isdecimal() else (-1, word) for word in words]
    return -rank, parts, name.endswith("bias")


# ---- which net -----------------------------------------------------------------------------------


def misfit(net: Net, state: StateDict) -> str:
    """Why the tensors of a file are not those of a net, with both shapes; empty where they are."""
    nodes, modules = net.parametric, state.modules()
    for node, (module, names) in zip(nodes, modules.items(), strict=False):
        for name in dict.fromkeys([*parameters(node.layer), *names]):
            here = foreign_shape(node.layer, name) if name in parameters(node.layer) else None
            there = state.shapes[names[name]] if name in names else None
            if here != there:
                shapes = f"expected {here or 'none'}, got {there or 'none'}"
                return f"{brief(module)} for {node.name}: {name}: {shapes}"
    if len(nodes) != len(modules):
        return f"expected {len(nodes)} layers with weights, got {len(modules)}"
    return ""


def net_of_shapes(cfg: Config, state: StateDict) -> Net:
    """The net of a configuration with as many outputs as the file has; sizes only."""
    last = [*state.modules().values()][-1]
    classes = next(iter(state.shapes[last.get("w", last.get("b", ""))]), 1)
    known = PUBLISHED.get(cfg.data.source)
    size = cfg.data.size if any(cfg.data.size) else cfg.augment.crop
    shape = known.shape if known else (*size, 3)
    outputs = classes if cfg.net.model else None  # layers that are written down have their own
    return build_net(cfg, shape, outputs, "cpu", sizes_only=True)


def recognised(state: StateDict) -> Config:
    """The preset whose shapes are those of the file.

    Raises: ExchangeError: there is none, or there are several.
    """
    found = []
    for name in presets():
        with contextlib.suppress(ValueError):  # a net of another number of classes, for example
            cfg = load_config(name)
            if not misfit(net_of_shapes(cfg, state), state):
                found.append(cfg)
    names = [cfg.name for cfg in found]
    if _TORCHVISION_PRESET in names and _named_as_torchvision(state.shapes):
        return found[names.index(_TORCHVISION_PRESET)]
    if len(found) != 1:
        what = f"fits {', '.join(names)}" if found else "fits no preset"
        raise ExchangeError(f"{state.path}: {what}; name the net: --net PRESET or a file of yours")
    return found[0]


def _named_as_torchvision(names: Iterable[str]) -> bool:
    """Whether all names are those of torchvision's AlexNet, perhaps within one other module."""
    matches = [_TORCHVISION.match(name) for name in names]
    return len({match[1] if match else None for match in matches}) == 1 and all(matches)


# ---- the import ----------------------------------------------------------------------------------


def import_torch(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    net: str = "",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: str = "",
    code: bool = False,
) -> Imported:
    """Reads a state dict and writes a run with its weights.

    Args:
        path: a file of torch.save (a state dict, or a training checkpoint with one in it), or of
            safetensors.
        out: folder of the run; None: a dated one under runs/.
        net: a preset or a configuration file; empty: the preset that the shapes are those of.
        mean, std: of the normalization, for images from 0 to 1 in the order RGB, one for each
            channel; None: those of torchvision for colour, 0 and 1 for grey.
        classes: a file with the names of the classes, a line each.
        code: whether code of one's own that `net` names may be imported: look at it first.

    Raises:
        ExchangeError: naming the file, and the layer and both shapes where a weight does not fit.
        ConfigError: of `net`. OSError: a file cannot be read or written.
    """
    with allowed(code), open_state_dict(Path(path)) as state:
        cfg = load_config(net) if net else recognised(state)
        made = net_of_shapes(cfg, state)
        if why := misfit(made, state):
            raise ExchangeError(f"{path}: not a net like {cfg.name}: {why}")
        channels = made.in_shape[-1]
        preprocessing = _preprocessing(cfg, made, mean, std)
        cfg = preprocessing.applied(cfg, channels)
        nodes, modules = made.parametric, state.modules()
        weights, notes = {}, [f"the net is {net or cfg.name}"]
        if conversions := state.conversions():
            notes.append(conversions)
        infinite = 0
        for node, names in zip(nodes, modules.values(), strict=True):
            for name, tensor in names.items():
                values = state.read(tensor)
                if values.dtype != np.float32 and values.dtype.name not in _CONVERSIONS:
                    what = f"{brief(tensor)}: expected numbers, got {values.dtype}"
                    raise ExchangeError(f"{path}: {what}")
                values = _float32(values)
                infinite += int(values.size - np.isfinite(values).sum())
                weights[f"{node.name}.{name}"] = from_foreign(made, node, name, values)
    if infinite:
        notes.append(f"{infinite:,} weights are no finite numbers")
    outputs = made.classes or made.shapes[made.nodes[-1].name][-1]
    if mean is None and std is None:
        known = "torchvision's mean and std" if channels == 3 else "pixels from 0 to 1"
        notes.append(f"the file says nothing of preprocessing: {known} (--mean, --std)")
    origin = {
        "format": "torch",
        "file": Path(path).name,
        "names": {node.name: module for node, module in zip(nodes, modules, strict=True)},
    }
    names_of_classes = class_names(classes, outputs)
    return write_run(out, cfg, made, weights, preprocessing, names_of_classes, origin, notes)


def _float32(values: np.ndarray) -> np.ndarray:
    """As float32; what is too large for it becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values, np.float32)


def _preprocessing(
    cfg: Config, net: Net, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Preprocessing:
    """(x / 255 - mean) / std, as (x - 255 mean) times a scale."""
    channels = net.in_shape[-1]
    plain = ((0.0,) * channels, (1.0,) * channels)
    usual = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else plain
    mean, std = tuple(mean or usual[0]), tuple(std or usual[1])
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ExchangeError(f"{name}: expected {channels} numbers, got {len(values)}")
    if min(std) <= 0:
        raise ExchangeError(f"std: expected numbers above 0, got {min(std)}")
    scales = tuple(1.0 / (_LEVELS * value) for value in std)
    known = PUBLISHED.get(cfg.data.source)
    size = known.shape[:2] if known else cfg.data.size
    scale = scales[0] if len(set(scales)) == 1 else scales
    level = np.asarray([[mean]], np.float64) * _LEVELS
    return Preprocessing(size, cfg.augment.crop, level.astype(np.float32), scale)
