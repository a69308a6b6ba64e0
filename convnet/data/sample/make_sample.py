"""Makes the packaged sample from the whole Fashion-MNIST: the first images of each class.

    python convnet/data/sample/make_sample.py [FOLDER with the four files of Fashion-MNIST]

Their order is kept, and the files carry no time stamps, so the same input gives the same bytes with
the same zlib.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convnet.data import idx

TRAIN_PER_CLASS = 350
TEST_PER_CLASS = 100
MAX_BYTES = 2_000_000  # of the four files, the licence and the README


def make_sample(source: Path, out: Path) -> None:
    """Writes the four files of the sample.

    Args:
        source: folder with the four files of Fashion-MNIST.
        out: the folder to write into.

    Raises:
        DataError: `source` lacks or holds damaged files.
        ValueError: the sample would be larger than MAX_BYTES.
    """
    files = idx.find_files(source)
    if files is None:
        raise ValueError(f"{source}: expected the four files of Fashion-MNIST, got none")
    train, test = idx.open_set(files, idx.FASHION_CLASSES, "Fashion-MNIST")
    for stem, part, count in (("train", train, TRAIN_PER_CLASS), ("t10k", test, TEST_PER_CLASS)):
        chosen = first_of_each(part.labels, count)
        idx.write_idx(out / f"{stem}-images-idx3-ubyte.gz", part.read(chosen)[..., 0])
        labels = part.labels[chosen].astype(np.uint8)
        idx.write_idx(out / f"{stem}-labels-idx1-ubyte.gz", labels)
    shipped = [*out.glob("*.gz"), *out.glob("LICENSE*"), *out.glob("README*")]
    size = sum(path.stat().st_size for path in shipped)
    if size > MAX_BYTES:
        raise ValueError(f"{out}: expected at most {MAX_BYTES:,} bytes, got {size:,}")
    print(f"{out}: {size:,} bytes")


def first_of_each(labels: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int64]:
    """Indices of the first `count` images of every class, ascending."""
    firsts = [np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]
    return np.sort(np.concatenate(firsts)).astype(np.int64)


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist"
    make_sample(Path(given), Path(__file__).parent)
