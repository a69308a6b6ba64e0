"""`precision`, from a configuration or a layer to the operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference

import convnet
from convnet import ops
from convnet.common.deprecated import RenamedWarning
from convnet.config import ConfigError, load_config
from convnet.layers import Conv, Dense, Local, SoftmaxCrossEntropy
from convnet.training.nets import net_of

WINDOW: dict[str, Any] = {"stride": (1, 1), "pad": (1, 1)}


def nodes(
    conv: str | None = None, dense: str | None = None, relu: bool = True
) -> list[convnet.Node]:
    return [
        convnet.Node("conv", Conv(40, 3, pad=1, relu=relu, precision=conv)),
        convnet.Node("fc", Dense(10, precision=dense)),
        convnet.Node("softmax", SoftmaxCrossEntropy()),
    ]


def net(device: str, precision: str = "fp32", **own: Any) -> convnet.Net:
    return convnet.Net(nodes(**own), (6, 7, 8), device=device, seed=4, precision=precision)


def batch(count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, 6, 7, 8)).astype(np.float32)
    return x, rng.integers(0, 10, count).astype(np.int32)


def test_every_operation_of_a_layer_gets_its_math(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer's own choice comes first."""
    asked: dict[str, set[Any]] = {}
    for name in dir(ops):
        if name.startswith(("conv_", "dense_")) and not name.endswith("output_shape"):
            monkeypatch.setattr(ops, name, _spied(getattr(ops, name), name, asked))
    one = net("cpu", "tf32", dense="bf16")
    one.gradients(*batch())
    passes = ("fprop", "dgrad", "wgrad")
    assert {f"conv_{p}": {"tf32"} for p in passes} == {
        k: v for k, v in asked.items() if k.startswith("conv")
    }
    assert {f"dense_{p}": {"bf16"} for p in passes} == {
        k: v for k, v in asked.items() if k.startswith("dense")
    }


def _spied(function: Any, name: str, asked: dict[str, set[Any]]) -> Any:
    def spy(*args: Any, **kwargs: Any) -> Any:
        asked.setdefault(name, set()).add(kwargs.get("precision"))
        return function(*args, **kwargs)

    return spy


def test_the_net_says_and_a_layer_may_differ() -> None:
    assert [n.layer.effective_precision for n in net("cpu", "tf32", conv="bf16").nodes[:2]] == [
        "bf16",
        "tf32",
    ]
    assert [n.layer.effective_precision for n in net("cpu").nodes[:2]] == ["fp32", "fp32"]
    assert "conv 3x3 pad 1 + relu in bf16" in net("cpu", conv="bf16").summary()
    assert " in " not in net("cpu").nodes[0].layer.describe()


def test_two_devices_form_products_alike() -> None:
    halves = convnet.Net(nodes(), (6, 7, 8), device="cpu:0,cpu:1", seed=4, precision="tf32")
    layers = [node.layer for node in halves.partition.nodes]  # type: ignore[union-attr]
    assert {
        layer.effective_precision for layer in layers if hasattr(layer, "effective_precision")
    } == {"tf32"}


@pytest.mark.parametrize("precision", ops.PRECISIONS)
def test_gradients_of_a_net(backend: Any, precision: str) -> None:
    """Against the float64 reference, as exactly as the precision is. No ReLU: its mask would differ
    where a rounded sum has another sign."""
    x, labels = batch()
    one = net(backend.name, precision, relu=False)
    one.gradients(x, labels)
    conv, fc = (node.layer for node in one.nodes[:2])
    w, b, v, c = (
        np.array(backend.to_host(param.data), np.float64) for param in conv.params + fc.params
    )
    hidden = reference.conv_fprop(x, w, b, **WINDOW)
    rows = hidden.reshape(5, -1)
    logits = reference.dense_fprop(rows, v, c)
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    d = (shifted / shifted.sum(1, keepdims=True) - np.eye(10)[labels]) / 5
    dv, dc = reference.dense_wgrad(rows, d)
    below = reference.dense_dgrad(d, v).reshape(hidden.shape)
    dw, db = reference.conv_wgrad(x, below, w.shape, **WINDOW)
    allowed = {"fp32": 2e-6, "ffma": 2e-6, "tf32": 2e-3, "bf16": 1.5e-2}[precision]
    for param, expected in zip(conv.params + fc.params, (dw, db, dv, dc), strict=True):
        error = np.linalg.norm(backend.to_host(param.grad) - expected) / np.linalg.norm(expected)
        assert error < allowed, (param.name, error)


CONFIG: dict[str, Any] = {
    "net": {
        "layers": [
            {"name": "conv1", "type": "conv", "filters": 4, "size": 5},
            {"name": "fc", "type": "dense", "units": 10, "precision": "ffma"},
            {"name": "softmax", "type": "softmax_cross_entropy"},
        ]
    }
}


def test_a_configuration_says() -> None:
    cfg = load_config(CONFIG, ["train.precision=bf16"])
    built = net_of(cfg, "cpu", sizes_only=True)
    assert [node.layer.effective_precision for node in built.nodes[:2]] == ["bf16", "ffma"]
    again = load_config(cfg.to_dict())
    assert again == cfg
    assert 'precision = "bf16"' in cfg.to_toml()
    assert load_config(CONFIG).train.precision == "fp32"
    model = load_config({"net": {"model": "fashion_mnist"}}, ["train.precision=tf32"])
    assert net_of(model, "cpu", sizes_only=True).precision == "tf32"


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.precision: expected .*fp32.*got"):
        load_config(CONFIG, ["train.precision=fp16"])
    with pytest.raises(
        ConfigError, match="precision: expected one of fp32, ffma, tf32, bf16; got 'x'"
    ):
        load_config(CONFIG, ["net.layers=[{name='a', type='dense', units=2, precision='x'}]"])
    with pytest.raises(ValueError, match="precision: expected one of"):
        net("cpu", "int8")
    with pytest.raises(ValueError, match="precision: expected one of fp32, ffma; got 'tf32'"):
        Local(4, 3, precision="tf32")
    with pytest.raises(ConfigError, match=r"net\.options\.precision"):
        load_config({"net": {"model": "alexnet", "options": {"precision": "tf32"}}})


def test_math_is_what_precision_was_called() -> None:
    x, w = np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)
    with pytest.warns(RenamedWarning, match="dense_fprop: math is called precision now") as found:
        y = ops.dense_fprop(x, w, math="ffma")
    assert found[0].filename == __file__
    assert np.array_equal(y, ops.dense_fprop(x, w, precision="ffma"))
    with pytest.warns(RenamedWarning, match="Dense: math is called precision now"):
        layer = Dense(10, math="ffma")
    assert layer.precision == "ffma"
    with pytest.warns(RenamedWarning, match="Net: math is called precision now"):
        old = convnet.Net(nodes(), (6, 7, 8), device="cpu", math="bf16")
    assert old.precision == "bf16"
    with pytest.warns(RenamedWarning, match=r"Dense\.math is called precision now"):
        layer.math = "tf32"
    assert layer.precision == "tf32"
    with pytest.warns(RenamedWarning, match=r"Net\.first_case is called first_sample now"):
        old.first_case = 4
    assert old.first_sample == 4
    with pytest.warns(RenamedWarning, match=r"ops\.MATHS is called PRECISIONS now"):
        assert ops.MATHS is ops.PRECISIONS


def test_operations_by_their_older_names() -> None:
    x = np.linspace(-2, 2, 5, dtype=np.float32)
    for old, new in [("logistic", "sigmoid"), ("softrelu", "softplus")]:
        with pytest.warns(RenamedWarning, match=f"{old}_fprop is called {new}_fprop now"):
            function = getattr(ops, f"{old}_fprop")
        with pytest.warns(RenamedWarning, match=f"'{old}' is called '{new}' now") as found:
            y = ops.activation_fprop(old, x)
        assert found[0].filename == __file__
        np.testing.assert_array_equal(y, function(x))
    with pytest.warns(RenamedWarning, match="'linear' is called 'affine' now"):
        assert not ops.activation_saves_output("linear")
    for old, new in [("peer_stamp", "peer_checksum"), ("peer_halt", "peer_abort"),
                     ("conv_prepared", "conv_prepared_bytes")]:  # fmt: skip
        with pytest.warns(RenamedWarning):
            assert getattr(ops, old) is getattr(ops, new)
