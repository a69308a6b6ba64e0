"""PyTorch's training steps, eager and compiled, in its two memory layouts, beside convnet's.

Eager is PyTorch as most write it: modules, autograd, `torch.optim.SGD` (fused on a GPU). Compiled
is `torch.compile` of the forward pass and the loss, and with them of the backward pass; on a GPU
in the mode "reduce-overhead", which replays CUDA graphs. Precision follows convnet's: TF32 off
for fp32 and ffma, on for tf32; for bf16 autocast with float32 weights.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peer_torch import set_precision, torch_net
from torch import nn

from convnet.nn.net import Net

KINDS = ("eager", "compile")
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
# How far the probabilities of the two nets may be apart.
APART = {"fp32": 1e-4, "ffma": 1e-4, "tf32": 2e-3, "bf16": 3e-2}
FIRST_STEPS = 4  # of a compiled one: it compiles, warms up and captures in them


class PeerError(RuntimeError):
    """A contender that cannot run; the message says why, in one line."""


@dataclass
class Peer:
    """A contender: one way to run PyTorch's net.

    Attributes:
        run: a step, or inference; returns when it is done.
        compile_s: seconds that it took to get there, for a compiled one.
    """

    run: Callable[[], object]
    compile_s: float | None = None


def names(kinds: list[str]) -> list[str]:
    """Of the contenders of these kinds, "eager" and "compile"."""
    words = {"eager": "PyTorch", "compile": "PyTorch compiled"}
    return [f"{words[kind]} {layout}" for kind in KINDS if kind in kinds for layout in LAYOUTS]


def device_of(backend_name: str) -> str:
    """Where PyTorch runs beside this backend."""
    return "cuda" if backend_name == "cuda" and torch.cuda.is_available() else "cpu"


def describe(backend_name: str) -> str:
    if device_of(backend_name) == "cuda":
        return f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"
    note = "" if backend_name == "cpu" else ", on the CPU"
    return f"PyTorch {torch.__version__}{note}"


def forget() -> None:
    """Gives back what compiled contenders of an earlier precision hold."""
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peer(
    name: str,
    net: Net,
    batch: tuple[np.ndarray, np.ndarray],
    precision: str,
    sgd: tuple[float, float, float],
    infer: bool = False,
) -> Peer:
    """A training step of `net` in PyTorch, or inference, checked against `net`.

    Args:
        name: one of `names`.
        batch: images [N, H, W, C] and labels [N], on the host.
        precision: convnet's.
        sgd: learning rate, momentum, weight decay.

    Raises:
        PeerError: a compiled one that does not compile or run.
        SystemExit: the nets do not compute the same.
    """
    set_precision(precision)
    device = device_of(net.backend.name)
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
    elif net.backend.name == "cpu":
        torch.set_num_threads(net.backend.threads)
    layout = LAYOUTS[name.rpartition(" ")[2]]
    model = torch_net(net).to(device=device, memory_format=layout)
    x, labels = batch
    images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    images = images.to(device=device, memory_format=layout)
    targets = torch.from_numpy(labels.astype(np.int64)).to(device)
    compiled = "compiled" in name
    check(name, net, x, model, images, precision)
    if infer:
        run = _inference(model, images, precision, compiled)
    else:
        model.train()
        run = _step(model, images, targets, precision, sgd, compiled)
    if not compiled:
        return Peer(run)
    expected = None if infer else _loss(model, images, targets, precision)
    start = time.perf_counter()
    try:
        first = run()
        for _ in range(FIRST_STEPS - 1):
            run()
    except Exception as error:  # whatever a compiler may come up with
        raise PeerError(_first_line(error)) from error
    seconds = time.perf_counter() - start
    print(f"compile {name} ({precision}): {seconds:.1f} s", file=sys.stderr)
    if expected is not None:
        _check_loss(f"{name} ({precision})", first, expected, model, len(x))
    return Peer(run, seconds)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def precise(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Multiplies in this precision within the block."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def check(
    name: str, net: Net, x: np.ndarray, model: nn.Module, images: torch.Tensor, precision: str
) -> None:
    """Eight images through both nets, in test mode."""
    model.eval()
    with torch.no_grad(), precise(precision, images.device):
        found = torch.softmax(model(images[:8]), 1).float().cpu().numpy()
    error = float(np.abs(found - net.predict(x[:8])).max())
    text = f"check   {name} {torch.__version__} ({precision}): largest difference {error:.1e}"
    print(text, file=sys.stderr)
    if not error < APART[precision]:
        raise SystemExit("the nets do not compute the same; nothing was timed")


def _loss(model: nn.Module, images: torch.Tensor, targets: torch.Tensor, precision: str) -> float:
    """Eager PyTorch's, in training mode, of a step that is not made."""
    with torch.no_grad(), precise(precision, images.device):
        return float(nn.functional.cross_entropy(model(images), targets))


def _check_loss(name: str, first: object, expected: float, model: nn.Module, count: int) -> None:
    """Checks the loss of a compiled step. With dropout, whose masks are others, that of a sample
    differs by about a third, and their mean by as much over the root of their number."""
    assert isinstance(first, float)
    drops = any(isinstance(module, nn.Dropout) for module in model.modules())
    if not abs(first - expected) < 0.02 * abs(expected) + drops / count**0.5:
        raise PeerError(f"its first loss is {first:.4f}, that of eager PyTorch {expected:.4f}")
    print(f"check   {name}: first loss {first:.4f}, eager {expected:.4f}", file=sys.stderr)


def _compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    made: Callable[..., Any] = torch.compile(function, mode=mode, dynamic=False)
    return made


def _step(
    model: nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    precision: str,
    sgd: tuple[float, float, float],
    compiled: bool,
) -> Callable[[], float]:
    lr, momentum, decay = sgd
    fused = {"fused": True} if images.device.type == "cuda" else {}
    optimizer = torch.optim.SGD(
        model.parameters(), lr, momentum=momentum, weight_decay=decay, **fused
    )

    def loss_of(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with precise(precision, images.device):
            return nn.functional.cross_entropy(model(images), targets)

    function = _compiled(loss_of, images.device) if compiled else loss_of

    def step() -> float:
        if compiled:
            torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad(set_to_none=True)
        loss = function(images, targets)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def _inference(
    model: nn.Module, images: torch.Tensor, precision: str, compiled: bool
) -> Callable[[], np.ndarray]:
    def probabilities(images: torch.Tensor) -> torch.Tensor:
        with precise(precision, images.device):
            return torch.softmax(model(images), 1).float()

    function = _compiled(probabilities, images.device) if compiled else probabilities

    def infer() -> np.ndarray:
        if compiled:
            torch.compiler.cudagraph_mark_step_begin()
        with torch.no_grad():
            result: np.ndarray = function(images).cpu().numpy()
            return result

    return infer
