"""The layers blur and nailbed: what they hand to their operations, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import reference

from convnet.layers import Blur, Nailbed
from convnet.layers.layer import Layer


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (Blur(5, 1.3), lambda x: reference.blur(x, 5, 1.3)),
        (Nailbed(3, 1), lambda x: x[:, 1::3, 1::3]),
    ],
)
def test_equations_and_gradients(layer: Layer, expected, backend, rng) -> None:
    x = rng.standard_normal((2, 7, 6, 5), dtype=np.float32)
    assert layer.setup(x.shape[1:], rng) == expected(x).shape[1:]
    y, saved = layer.fprop(backend.asarray(x), True)
    found = backend.to_host(y)
    np.testing.assert_allclose(found, expected(x.astype(np.float64)), rtol=1e-5, atol=1e-6)
    dy = rng.standard_normal(found.shape, dtype=np.float32)
    dx, gradients = layer.bprop(saved, backend.asarray(dy))
    assert not gradients
    # Both are linear: <dy, A x> = <A^T dy, x>.
    dx = backend.to_host(dx).astype(np.float64)
    there, back = (dy * expected(x.astype(np.float64))).sum(), (dx * x).sum()
    assert abs(there - back) < 1e-5 * np.linalg.norm(dx) * np.linalg.norm(x)


def test_sizes_that_cannot_be() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="size: expected 3, 5, 7 or 9, got 4"):
        Blur(4, 1.0)
    with pytest.raises(ValueError, match="size: expected at most 6"):
        Blur(7, 1.0).setup((6, 9, 3), rng)
    with pytest.raises(ValueError, match="start: expected less than 5, got 5"):
        Nailbed(2, 5).setup((5, 9, 3), rng)
