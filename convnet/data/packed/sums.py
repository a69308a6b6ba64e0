"""The stored sums of packed images."""

from __future__ import annotations

from pathlib import Path

from convnet.common.tensor_header import read_tensors, write_tensors
from convnet.data.dataset import mismatch, readable, shown
from convnet.data.packed.manifest import read_manifest
from convnet.data.sums import Sums, checksum

SUMS = "statistics.safetensors"


def write_sums(root: Path, sums: Sums) -> None:
    """Stores the sums beside the images. Raises: OSError."""
    arrays = sums.arrays()
    facts = {"manifest": read_manifest(root).digest, "blake2b": checksum(arrays)}
    write_tensors(root / SUMS, facts, arrays)


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
        if ("blake2b" in facts or manifest.complete) and facts.get("blake2b") != checksum(arrays):
            raise ValueError("its checksum does not match")
        sums = Sums.of_arrays(arrays, (*manifest.size, 3))
        if sums.count != manifest.parts["train"].images:
            raise ValueError(f"sums of {sums.count:,} images")
        return sums
