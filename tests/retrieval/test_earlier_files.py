"""Features and codes that an earlier version has written, of a net whose layers had old names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny
from PIL import Image

from convnet.retrieval.index import open_index, search

EARLIER = Path(__file__).parent / "earlier"


def test_features_and_codes_of_an_earlier_version(tmp_path: Path) -> None:
    pixels, labels = tiny.images(tiny.TEST, 2)
    Image.fromarray(pixels[7]).save(tmp_path / "7.png")
    features = open_index(EARLIER / "features.safetensors")
    np.testing.assert_array_equal(features.labels, labels)
    codes = open_index(EARLIER / "codes.safetensors")
    np.testing.assert_array_equal(codes.encode(features.rows), codes.rows)
    for index in (features, codes):
        (found,) = search(EARLIER / "run.safetensors", index, [tmp_path / "7.png"], k=40)
        nearest = found.numbers[: 1 + sum(distance == 0 for distance in found.distances[1:])]
        assert 7 in nearest
        assert found.distances[0] < 1e-4
        assert found.names[0] == f"val {found.numbers[0]}"
