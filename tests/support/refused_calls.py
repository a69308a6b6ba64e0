"""Calls of operations that are refused, and nothing is written."""

from __future__ import annotations

import numpy as np
import pytest

from convnet import ops


class Arrays:
    """Makes small arrays on the backend under test."""

    def __init__(self, backend):
        self.backend = backend

    def __call__(self, *shape, dtype=np.float32):
        return self.backend.asarray(np.zeros(shape, dtype))

    def strided(self, *shape):
        """Every other column of a wider array."""
        return self(*shape[:-1], 2 * shape[-1])[..., ::2]


def parametrize(table):
    return pytest.mark.parametrize(("call", "message"), table.values(), ids=table.keys())


def assert_refuses(call, message, backend):
    with pytest.raises(ValueError, match=message) as caught:
        call(Arrays(backend))
    text = str(caught.value)
    assert "expected" in text
    assert "got" in text
    assert "\n" not in text


def augment(z, images=np.uint8, offsets=(2, 2), mean=(5, 5, 3), crop=4, affine=(2, 2, 2)):
    x, mirror, turns = z(2, 5, 5, 3, dtype=images), z(2, dtype=np.uint8), z(*affine)
    return ops.augment(x, z(*offsets, dtype=np.int32), mirror, z(*mean), crop=crop, affine=turns)
