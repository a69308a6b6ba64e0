"""`convnet export onnx`: a trained net as a model that any runtime of ONNX's runs.

The input `image` is float32 [N, C, H, W]: a crop, less the mean, times the scale, as the metadata
say ("preprocessing", JSON). The outputs are `logits` and `probabilities`, [N, classes].
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from convnet.common.distribution import VERSION
from convnet.common.files import replace
from convnet.evaluation.evaluate import Trained, as_warning, open_run
from convnet.exchange.errors import ExchangeError
from convnet.exchange.facts import facts_json
from convnet.exchange.onnx.layers import Exporter
from convnet.exchange.onnx.model import Model
from convnet.exchange.wire import Message, WireError
from convnet.layers import BinaryCrossEntropy, Loss


def onnx_model(trained: Trained) -> Message:
    """A trained net as an ONNX model.

    Raises: ExchangeError: a layer that there is no operator for, or no loss that classifies.
    """
    net, model = trained.net, Model(trained.cfg.name)
    exporter = Exporter(net, model, trained.checkpoint.weights)
    names = [node.name for node in net.nodes if isinstance(node.layer, Loss)]
    for node in net.nodes:
        if not isinstance(node.layer, Loss) or node.layer.classifies:
            exporter.add(node)
    losses = [node for node in net.nodes if isinstance(node.layer, Loss) and node.layer.classifies]
    if not losses:
        raise ExchangeError(f"expected a net that names classes, got one of {', '.join(names)}")
    last = losses[-1]
    shape = net.shapes[last.name]
    if not (isinstance(last.layer, BinaryCrossEntropy) and not last.layer.scores):
        logits = exporter.values[str((last.inputs or ("",))[0])]
        model.output(model.node("Identity", [logits], "logits"), shape)
    model.output(model.node("Identity", [exporter.values[last.name]], "probabilities"), shape)
    return model.finished("convnet", VERSION, {"preprocessing": facts_json(trained)})


def export_onnx(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    warn: Callable[[str], None] = as_warning,
    code: bool = False,
) -> list[Path]:
    """Writes a trained net as an ONNX model, opset 13.

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file.
        out: a file that ends in .onnx.
        warn: called with a message when a damaged checkpoint is passed over.
        code: whether code of one's own that the run names may be imported: look at it first.

    Returns: the files that were written.
    Raises:
        ExchangeError: another ending, a layer that there is no operator for, or over 2 GiB.
        CheckpointError, RunError: no usable checkpoint. OSError: it cannot be written.
    """
    path = Path(out)
    if path.suffix != ".onnx":
        raise ExchangeError(f"{path}: expected a name that ends in .onnx")
    model = onnx_model(open_run(run, "cpu", warn, code=code))
    try:
        replace(path, model.write)
    except WireError as error:
        raise ExchangeError(f"{path}: {error}") from None
    return [path]
