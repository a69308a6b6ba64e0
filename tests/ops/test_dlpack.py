"""Arrays of other libraries in the memory of the host: taken by DLPack, without a copy."""

from __future__ import annotations

import numpy as np
import pytest

from convnet import ops


class Foreign:
    """An array that says no more than DLPack does, as PyTorch's tensors on the CPU."""

    def __init__(self, array: np.ndarray, device: int = 1) -> None:
        self.array, self.shape, self._device = array, array.shape, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._device, 0


def test_a_foreign_array_is_read_and_written_where_it_is() -> None:
    x = np.array([[-1.0, 2.0], [3.0, -4.0]], np.float32)
    y = np.empty_like(x)
    out = Foreign(y)
    assert ops.relu_fprop(Foreign(x), out=out) is out
    assert y.tolist() == [[0.0, 2.0], [3.0, 0.0]]
    assert ops.relu_fprop(Foreign(x)).tolist() == y.tolist()


def test_a_foreign_array_that_cannot_be_taken() -> None:
    x = np.zeros((2, 2), np.float32)
    with pytest.raises(ValueError, match="expected a NumPy or CuPy array"):
        ops.relu_fprop(Foreign(x, device=9))
    with pytest.raises(ValueError, match=r"x: expected float32.*got float64"):
        ops.relu_fprop(Foreign(x.astype(np.float64)))


def test_tensors_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, y = torch.randn(2, 5, 5, 3), torch.empty(2, 3, 3, 4)
    w = torch.randn(4, 3, 3, 3)
    assert ops.conv_fprop(x, w, torch.zeros(4), out=y) is y
    expected = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2))
    assert torch.allclose(y, expected.permute(0, 2, 3, 1), atol=1e-5)
    with pytest.raises(ValueError, match="DLPack does not give"):
        ops.relu_fprop(x.requires_grad_())
