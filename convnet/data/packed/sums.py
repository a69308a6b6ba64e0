"""The stored sums of packed images."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from convnet.common.files import replace
from convnet.common.tensor_header import read_tensors
from convnet.data.dataset import mismatch, readable, shown
from convnet.data.packed.manifest import read_manifest
from convnet.data.sums import Sums

SUMS = "statistics.safetensors"


def write_sums(root: Path, sums: Sums) -> None:
    """Stores the sums beside the images. Raises: OSError."""
    from safetensors.numpy import save

    arrays = {"total": sums.total, "products": sums.products, "count": np.array([sums.count])}
    facts = {"manifest": read_manifest(root).digest, "blake2b": _digest(arrays)}
    content = save(arrays, facts)
    replace(root / SUMS, content)


def read_sums(root: Path) -> Sums | None:
    """The stored sums of packed images; None where there are none.

    Raises:
        DataError: the file is damaged, or of other images than those that lie beside it.
    """
    path = root / SUMS
    if not path.is_file():
        return None
    manifest = read_manifest(root)
    with readable(path, content="what convnet data mean has written"):
        facts, arrays = read_tensors(path)
        if facts.get("manifest") != manifest.digest:
            got = f"those of others; run: convnet data mean {shown(root)}"
            raise mismatch(path, "the statistics of these images", got)
        # Those of images that were packed by an earlier version may have no checksum.
        if ("blake2b" in facts or manifest.complete) and facts.get("blake2b") != _digest(arrays):
            raise ValueError("its checksum does not match")
        shapes = {"total": (*manifest.size, 3), "products": (3, 3), "count": (1,)}
        if {name: array.shape for name, array in arrays.items()} != shapes or any(
            array.dtype != np.int64 for array in arrays.values()
        ):
            raise ValueError("its arrays are others")
        count = int(arrays["count"][0])
        if count != manifest.parts["train"].images:
            raise ValueError(f"sums of {count:,} images")
        return Sums(arrays["total"], arrays["products"], count)


def _digest(arrays: dict[str, np.ndarray]) -> str:
    """The checksum of the sums."""
    digest = hashlib.blake2b(digest_size=16)
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
