"""A look into a net: what its answers depend on, what excites its units, an image on its way.

Each function writes one image and returns a line or a few saying what is in it. They need no
library besides Pillow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from convnet.common.typecheck import did_you_mean
from convnet.data import DataError
from convnet.data.dataset import mismatch
from convnet.evaluation.evaluate import as_warning, open_run, validation_sets
from convnet.interpret.activations import activation_sheet, nodes_shown
from convnet.interpret.deconvolution import deconvolution_sheet, layers_shown
from convnet.interpret.examples import choose, examples_of
from convnet.interpret.montage import save_image
from convnet.interpret.plot import Run, Warn, place_for
from convnet.interpret.saliency import saliency_sheet
from convnet.interpret.views import seen
from convnet.training.datasets import Data


def plot_saliency(
    run: Run,
    images: Sequence[Run] = (),
    out: Run | None = None,
    pick: Sequence[int] = (),
    count: int = 6,
    data: Data = None,
    device: str | None = None,
    warn: Warn = as_warning,
    overrides: Sequence[str] = (),
    code: bool = False,
) -> tuple[Path, str]:
    """What of an image the likeliest class depends on: the gradient of its score at the input, and
    what covering parts of the image does to its probability.

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file.
        images: image files; without any, validation images.
        out: the file, .png or another of Pillow's; by default saliency.png in the run's folder.
        pick: numbers of validation images; by default `count`, chosen by the seed of the run.
        data, device, warn, overrides, code: as for `convnet.evaluation.evaluate.evaluate`.

    Returns: the file, and what is in it.
    Raises: CheckpointError, RunError, DataError, DeviceError; OSError: the file cannot be written.
    """
    trained = open_run(run, device, warn, overrides, code)
    examples = examples_of(trained, data, images, pick, count)
    path = place_for(run, "saliency.png", out)
    save_image(saliency_sheet(trained, seen(trained, examples)), path)
    return path, f"{len(examples)} images: the gradient at each, and what covering its parts does"


def plot_deconv(
    run: Run,
    out: Run | None = None,
    layer: str | None = None,
    units: int = 6,
    most: int = 1000,
    data: Data = None,
    device: str | None = None,
    warn: Warn = as_warning,
    overrides: Sequence[str] = (),
    code: bool = False,
) -> tuple[Path, str]:
    """What excites the units of a net, layer by layer: the patches of validation images that do so
    most, and what the unit has seen of them (`convnet.interpret.deconvolution` has the rules).

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file.
        out: the file, .png or another of Pillow's; by default deconv.png in the run's folder.
        layer: a convolution; by default all of them.
        units: of each layer, those that stand out most.
        most: how many images are looked at, of all classes alike, chosen by the seed of the run.
        data, device, warn, overrides, code: as for `convnet.evaluation.evaluate.evaluate`.

    Returns: the file, and which units of each layer are in it.
    Raises: CheckpointError, RunError, DataError, DeviceError; OSError: the file cannot be written.
    """
    trained = open_run(run, device, warn, overrides, code)
    known = layers_shown(trained.net)
    if not known:
        raise DataError("deconv: expected a net with a convolution, got none")
    if layer is not None and layer not in known:
        raise mismatch("layer", "a convolution", f"{layer!r}{did_you_mean(layer, known)}")
    (validation,) = validation_sets([trained], data)
    numbers = sorted(choose(validation, most, trained.cfg.seed))
    path = place_for(run, "deconv.png", out)
    sheet, said = deconvolution_sheet(trained, validation, numbers, units, layer)
    save_image(sheet, path)
    return path, "\n".join([f"of {len(numbers):,} images", *said])


def plot_activations(
    run: Run,
    images: Sequence[Run] = (),
    out: Run | None = None,
    pick: Sequence[int] = (),
    data: Data = None,
    device: str | None = None,
    warn: Warn = as_warning,
    overrides: Sequence[str] = (),
    code: bool = False,
) -> tuple[Path, str]:
    """An image on its way through the layers: the maps of the strongest channels of each.

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file.
        images: one image file; without it, a validation image.
        out: the file, .png or another of Pillow's; by default activations.png in the run's folder.
        pick: the number of a validation image; by default one chosen by the seed of the run.
        data, device, warn, overrides, code: as for `convnet.evaluation.evaluate.evaluate`.

    Returns: the file, and what is in it.
    Raises: CheckpointError, RunError, DataError, DeviceError; OSError: the file cannot be written.
    """
    if len(images) > 1 or len(pick) > 1:
        raise DataError("activations: expected one image, got several")
    trained = open_run(run, device, warn, overrides, code)
    examples = examples_of(trained, data, images, pick, 1)
    path = place_for(run, "activations.png", out)
    save_image(activation_sheet(trained, seen(trained, examples)), path)
    return path, f"{examples[0].name} in {len(nodes_shown(trained.net))} layers"
