"""Steps of the whole of AlexNet, 60,965,224 parameters at batch 128, on one batch of images.

    python experiments/alexnet_steps.py [--steps 20] [--data FOLDER] [--device cpu] [--set K=V]

The images are the first of a shuffled folder of class folders, or of the packaged sample of
Fashion-MNIST, scaled to 256 x 256; net, update and preparation (random crops, mirrors, colour
noise, minus the mean image) are those of the preset `alexnet`, with its 1,000 outputs. The batch
stays the same from step to step, dropout's masks do not. The loss begins at ln(1000) = 6.91 and
first falls to the logarithm of the number of classes in the batch. Ends with exit code 1 if it has
not fallen.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from PIL import Image

from convnet.config import Config, DataConfig, load_config
from convnet.data import ArrayDataset, Dataset, Loader, open_data, statistics
from convnet.nn.memory import training_memory
from convnet.optim.sgd import SGD
from convnet.training.inputs import Preparer
from convnet.training.nets import build_net
from convnet.training.update_ratios import update_ratios


def images(cfg: Config, folder: str | None) -> Dataset:
    """The images to take a batch of, 256 x 256 in colour."""
    height, width = cfg.data.size
    if folder:
        return open_data(DataConfig(source="folder", path=folder, size=cfg.data.size))[0]
    sample, _ = open_data(DataConfig(source="fashion-mnist", path="sample"))
    indices = np.arange(4 * cfg.train.batch)
    scaled = [
        np.array(Image.fromarray(grey[..., 0]).resize((width, height)).convert("RGB"))
        for grey in sample.read(indices)
    ]
    labels = sample.labels[indices]
    return ArrayDataset(np.stack(scaled), labels, sample.classes, "Fashion-MNIST, scaled up")


def main() -> int:
    """Trains, prints a line a step, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="K=V")
    parser.add_argument("--data", metavar="FOLDER")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    cfg = load_config("alexnet", arguments.overrides)
    data = images(cfg, arguments.data)
    stats = statistics(data, cfg.data.mean)
    net = build_net(cfg, data.shape, 1000, arguments.device)
    prepare = Preparer(net.backend, stats, cfg, data.shape)
    loader = Loader(data, cfg.train.batch, cfg.seed, cfg.augment, stats, train=True)
    batch = next(loader.epoch(0))
    x = prepare(batch)
    sgd = SGD(net.params, cfg.sgd.lr, cfg.sgd.momentum, cfg.sgd.weight_decay)
    print(f"{net.backend.describe()}\n{data.description}")
    print(f"{net.parameter_count:,} parameters; {training_memory(net, len(batch))}")
    losses = []
    for step in range(arguments.steps):
        start = time.perf_counter()
        losses.append(net.train_step(x, batch.labels, sgd))
        seconds = time.perf_counter() - start
        right = 100.0 * np.mean(net.last_rank == 0)
        print(
            f"step {step + 1:3d}  loss {losses[-1]:.4f}  top-1 {right:5.1f} %  "
            f"{seconds:.2f} s  {len(batch) / seconds:.1f} images/s",
            flush=True,
        )
    ratios = (f"{name} {ratio:.1e}" for name, ratio in update_ratios(net).items())
    print(f"last update / weights: {', '.join(ratios)}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; peak memory of the process {peak:,.0f} MiB")
    return 0 if losses[-1] < losses[0] else 1


if __name__ == "__main__":
    raise SystemExit(main())
