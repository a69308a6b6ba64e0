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


def test_old_attributes_of_a_layer_of_ones_own() -> None:
    with pytest.warns(RenamedWarning) as found:

        class Own(layers.Layer):
            several_inputs = True
            reach = "own"

    assert [str(note.message) for note in found] == [
        "Own.several_inputs is called multi_input now",
        "Own.reach is called split_by now",
    ]
    assert (Own.multi_input, Own.split_by) == (True, "channel")
