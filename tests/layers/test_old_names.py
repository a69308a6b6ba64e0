"""Names of layers from before."""

from __future__ import annotations

import pytest

from convnet import layers
from convnet.common.deprecated import RenamedWarning


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Weighted", "ParametricLayer"),
        ("Logistic", "Sigmoid"),
        ("SoftReLU", "Softplus"),
        ("LinearUnit", "Affine"),
        ("Planes", "FlattenCHW"),
        ("Image", "UnflattenCHW"),
        ("SoftmaxXent", "SoftmaxCrossEntropy"),
        ("BinaryXent", "BinaryCrossEntropy"),
    ],
)
def test_old_names_are_found_with_a_note(old: str, new: str) -> None:
    with pytest.warns(RenamedWarning, match=old) as found:
        assert getattr(layers, old) is getattr(layers, new)
    assert str(found[0].message) == f"convnet.layers.{old} is called {new} now"
    assert found[0].filename == __file__
    with pytest.raises(AttributeError, match="has no attribute 'Wrong'"):
        layers.Wrong  # noqa: B018
