"""How near the weights of several processes come to those of one."""

from __future__ import annotations

import numpy as np

# Of the largest element of a tensor, after 30 steps: the ranks' sums of gradients are rounded in
# another order (measured: 5e-7).
BOUND = 1e-5


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.abs(found[name] - array).max() <= BOUND * np.abs(array).max() + 1e-12, name
