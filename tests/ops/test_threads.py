"""What the number of threads changes on the CPU: only the weight gradients of convolutions.

docs/architecture.md, "What repeats to the bit", states what is held here.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from small_step import passes

import convnet


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = convnet.backend.get("cpu").module.thread_count()
    yield
    convnet.backend.set_threads(before)


def test_threads_change_only_the_weight_gradient_of_convolutions():
    one, two = passes(1), passes(2)
    for name in one:
        if name != "conv_wgrad":
            assert one[name].tobytes() == two[name].tobytes(), name
    scale = np.abs(one["conv_wgrad"]).max()
    np.testing.assert_allclose(one["conv_wgrad"], two["conv_wgrad"], rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_repeated_step_has_the_same_bits(threads):
    first, second = passes(threads), passes(threads)
    for name in first:
        assert first[name].tobytes() == second[name].tobytes(), name


def test_set_threads_refuses_nonsense():
    with pytest.raises(ValueError, match="threads"):
        convnet.backend.set_threads(-1)
