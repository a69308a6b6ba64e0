"""Mean image and colour covariance of a data set, in one pass over its images.

Sums and products of uint8 pixels are whole numbers and are kept as such, so the result does not
depend on the order of the images or on how many are read at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_BLOCK = 1 << 16  # pixels whose products are summed at a time: they fit in the cache


@dataclass(frozen=True)
class Statistics:
    """What is subtracted from images, and the axes of their colour noise.

    Attributes:
        mean: float32 [H, W, C] or [1, 1, C], in grey levels (0 .. 255).
        eigenvalues: float64 [C], descending, of the covariance of the channels over all pixels,
            with intensities in 0 .. 1. Zeros if not asked for.
        eigenvectors: float64 [C, C]; column i belongs to eigenvalue i; its largest component is
            positive.
    """

    mean: npt.NDArray[np.float32]
    eigenvalues: npt.NDArray[np.float64]
    eigenvectors: npt.NDArray[np.float64]


@dataclass
class Sums:
    """Sums that statistics are computed from; exact, so they may be added in any order.

    Attributes:
        total: int64 [H, W, C], the sum of the images.
        products: int64 [C, C], the sum over all pixels of the products of two channels.
        count: images.
    """

    total: npt.NDArray[np.int64]
    products: npt.NDArray[np.int64]
    count: int

    @classmethod
    def of_nothing(cls, shape: tuple[int, int, int]) -> Sums:
        """The sums of no images of this (H, W, C)."""
        return cls(np.zeros(shape, np.int64), np.zeros((shape[2], shape[2]), np.int64), 0)

    def add(self, images: npt.NDArray[np.uint8], colour: bool = True) -> None:
        """Adds images, uint8 [N, H, W, C]; `colour`: to the products, too."""
        self.total += images.sum(axis=0, dtype=np.int64)
        if colour:
            self.products += _products(images.reshape(-1, images.shape[3]))
        self.count += len(images)

    def merge(self, other: Sums) -> None:
        """Adds the sums of other images."""
        self.total += other.total
        self.products += other.products
        self.count += other.count

    def arrays(self) -> dict[str, npt.NDArray[np.int64]]:
        """The sums as arrays of a file."""
        return {"total": self.total, "products": self.products, "count": np.array([self.count])}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], shape: tuple[int, int, int]) -> Sums:
        """The sums of images of this (H, W, C) from a file. Raises: ValueError: other arrays."""
        shapes = {"total": shape, "products": (shape[2], shape[2]), "count": (1,)}
        if {name: array.shape for name, array in arrays.items()} != shapes or any(
            array.dtype != np.int64 for array in arrays.values()
        ):
            raise ValueError("its arrays are others")
        return cls(arrays["total"], arrays["products"], int(arrays["count"][0]))

    def statistics(self, mean: str, colour: bool) -> Statistics:
        """The statistics; `mean` and `colour` as for the function `statistics`."""
        height, width, channels = self.total.shape
        values, vectors = np.zeros(channels), np.eye(channels)
        if colour:
            pixels = self.count * height * width
            values, vectors = _eigen(self.total.sum(axis=(0, 1)), self.products, pixels)
        return Statistics(_mean(mean, self.total, self.count), values, vectors)


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """BLAKE2b (16 bytes) of arrays with their names, types and shapes, as hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _mean(kind: str, total: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float32]:
    height, width, channels = total.shape
    if kind == "image":
        return (total / count).astype(np.float32)
    if kind == "channel":
        summed = total.sum(axis=(0, 1), keepdims=True)
        return (summed / (count * height * width)).astype(np.float32)
    return np.zeros((1, 1, channels), np.float32)


def _products(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Sum of the outer products of the pixels' colours; exact, and quick without BLAS threads."""
    channels = pixels.shape[1]
    products = np.zeros((channels, channels), np.int64)
    for start in range(0, len(pixels), _BLOCK):
        planes = np.ascontiguousarray(pixels[start : start + _BLOCK].T)
        for i in range(channels):
            for j in range(i, channels):  # 255 * 255 fits in 16 bits
                both = np.multiply(planes[i], planes[j], dtype=np.uint16)
                products[i, j] += both.sum(dtype=np.int64)
    return np.maximum(products, products.T)


def _eigen(
    sums: npt.NDArray[np.int64], products: npt.NDArray[np.int64], pixels: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Eigenvalues, descending, and eigenvectors of the covariance of intensities in 0 .. 1."""
    channels = range(len(sums))
    # E[xy] - E[x]E[y], as one exact fraction for each entry: nothing cancels.
    mixed, plain = products.tolist(), sums.tolist()  # Python's integers do not overflow
    covariance = np.array(
        [
            [(pixels * mixed[i][j] - plain[i] * plain[j]) / (255 * pixels) ** 2 for j in channels]
            for i in channels
        ]
    )
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.clip(values[::-1], 0.0, None), vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.where(vectors[largest, np.arange(len(values))] < 0, -1.0, 1.0)
    return values, vectors * signs
