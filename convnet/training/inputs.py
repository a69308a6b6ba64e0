"""The input of a net, made of batches of images."""

from __future__ import annotations

from typing import Any

import numpy as np

from convnet import backend as backends
from convnet import ops
from convnet.backend import Array, Backend
from convnet.config import Config, ConfigError
from convnet.data import Batch, Statistics
from convnet.data.augment import crop_size
from convnet.training.staging import Uploads

Shape = tuple[int, int, int]


class Preparer:
    """Makes the net's input of batches of bytes: crop, mirror, turn, colour noise, mean, scale.

    The bytes of a batch are sent to a GPU while it computes the step before
    (`convnet.training.staging`); the GPU does the rest. Batches of one size are written into the
    same arrays each time.

    Args:
        backend: of the net.
        stats: of the training data; its mean is subtracted.
        cfg: `data.scale` and `augment.crop` are used.
        shape: (H, W, C) of the data, before the crop.
        dtype: of the net's activations.

    Attributes:
        labels: of the last batch, int32 [N], on the backend.
    """

    def __init__(
        self,
        backend: Backend,
        stats: Statistics,
        cfg: Config,
        shape: Shape,
        dtype: Any = np.float32,
    ) -> None:
        self.backend = backend
        self.crop = crop_size(shape, cfg.augment)
        self.scale, self._channel_scale = _scales(cfg, backend, shape[2])
        self._mean = backend.asarray(stats.mean)
        self._uploads = Uploads(backend)
        x = backend.empty((0, *self.crop, shape[2]), dtype)
        self._arrays = x, backend.empty((0,), np.int32)
        self._parts: dict[int, tuple[Array, Array]] = {}  # of these, by the size of the batch

    def __call__(self, batch: Batch) -> Array:
        """[N, crop height, crop width, C], on the backend."""
        x, self.labels = self._room_for(len(batch))
        sent = (
            batch.images, batch.offsets, batch.mirror, batch.noise, batch.affine, batch.labels
        )  # fmt: skip
        with backends.use(self.backend), self._uploads.put(sent) as there:
            images, offsets, mirror, noise, affine, labels = there
            self.labels[...] = labels
            options = {"crop": self.crop, "affine": affine, "noise": noise, "scale": self.scale}
            if self._channel_scale is None:
                return ops.augment(images, offsets, mirror, self._mean, **options, out=x)
            wide = x if x.dtype == np.float32 else None
            wide = ops.augment(images, offsets, mirror, self._mean, **options, out=wide)
            wide *= self._channel_scale
            return wide if wide is x else ops.convert(wide, "bfloat16", out=x)

    def _room_for(self, count: int) -> tuple[Array, Array]:
        """Arrays for the input and the labels of a batch, parts of the largest so far."""
        if count > len(self._arrays[0]):
            x = self.backend.empty((count, *self._arrays[0].shape[1:]), self._arrays[0].dtype)
            self._arrays = x, self.backend.empty((count,), np.int32)
            self._parts = {}
        if count not in self._parts:
            x, labels = self._arrays
            self._parts[count] = x[:count], labels[:count]
        return self._parts[count]


def _scales(cfg: Config, backend: Backend, channels: int) -> tuple[float, Array | None]:
    """`data.scale` as one number for all channels and, where they differ, float32 [C] besides.

    Raises: ConfigError: there is not one for each channel.
    """
    scale = cfg.data.scale
    if not isinstance(scale, tuple):
        return scale, None
    if len(scale) != channels:
        expected = f"expected a number, or one for each of {channels} channels, got {len(scale)}"
        raise ConfigError(f"{cfg.origin}: data.scale: {expected}")
    return 1.0, backend.asarray(np.asarray(scale, np.float32))
