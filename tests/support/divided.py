"""Nets over two devices beside the same net on one."""

import numpy as np
from nets import make
from two_devices import (
    two_of,
)

from convnet import models


def pair(graph, backend, **options):
    """The same net on one device and on two."""
    options = {"seed": 3, **options}
    return make(graph, backend, **options), make(graph, two_of(backend.name), **options)


def tiny_alexnet(device):
    """The paper's net with its groups and pattern, and few of everything."""
    shape = {"in_shape": (67, 67, 3), "classes": 7, "filters": (8, 12, 10, 8, 6), "hidden": 18}
    return models.alexnet(**shape, init="he", bias=0.1, device=device, seed=4)


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
