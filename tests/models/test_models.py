"""The nets: the numbers of the paper and of cuda-convnet, options, and that they learn."""

import re

import numpy as np
import pytest

from convnet.config import load_config
from convnet.layers.initializers import constant
from convnet.models import MODELS, alexnet, cifar10_quick, fashion_mnist, small
from convnet.optim.sgd import SGD
from convnet.training.nets import net_of


@pytest.fixture(scope="module")
def paper_net():
    return alexnet(
        device="cpu", init=constant
    )  # the values do not matter here, and zeros are quick


def test_alexnet_has_the_numbers_of_the_paper(paper_net):
    sizes = [
        int(np.prod(paper_net.shapes[name]))
        for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    ]
    assert sizes == [290400, 186624, 64896, 64896, 43264, 4096, 4096, 1000]
    assert paper_net.parameter_count == 60_965_224
    assert round(paper_net.macs / 1e6, 1) == 724.4
    assert paper_net.shapes["pool1"] == (27, 27, 96)
    assert paper_net.shapes["pool5"] == (6, 6, 256)


def test_alexnet_is_put_together_as_in_the_paper(paper_net):
    layers = {node.name: node.layer for node in paper_net.nodes}
    groups = {name: layers[name].groups for name in layers if name.startswith(("conv", "lrn"))}
    assert groups == {
        "conv1": 1, "lrn1": 2, "conv2": 2, "lrn2": 2, "conv3": 1, "conv4": 2, "conv5": 2,
    }  # fmt: skip
    lrn, drop = layers["lrn1"], layers["drop6"]
    assert (lrn.n, lrn.k, lrn.alpha, lrn.beta, lrn.alpha_mode) == (5, 2.0, 1e-4, 0.75, "sum")
    assert (drop.drop, drop.mode) == (0.5, "paper")
    biases = {p.name[:-2]: float(p.data[0]) for p in paper_net.params if p.name.endswith(".b")}
    ones = {name for name, value in biases.items() if value == 1.0}
    assert ones == {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert all(biases[name] == 0.0 for name in ("conv1", "conv3", "fc8"))
    names = [node.name for node in paper_net.nodes]
    assert names[:8] == ["conv1", "relu1", "lrn1", "pool1", "conv2", "relu2", "lrn2", "pool2"]


def test_alexnet_takes_no_memory_for_training_before_it_trains(paper_net):
    assert not any(param.has_velocity or param.grad is not None for param in paper_net.params)


def test_alexnet_starts_from_the_paper_s_distribution():
    net = alexnet(in_shape=(64, 64, 3), hidden=64, device="cpu")
    for param in net.params:
        if param.name.endswith(".w"):
            assert param.data.std() == pytest.approx(0.01, rel=0.05), param.name


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        # cuda-convnet's net for one GPU and torchvision's widths (SEMANTICS: 61,100,840)
        ({"filters": (64, 192, 384, 256, 256), "groups": 1}, 61_100_840),
        ({"in_shape": (227, 227, 3)}, 60_965_224),
        ({"lrn": False, "dropout": 0.0}, 60_965_224),
        ({"without": ["conv3"]}, 60_965_224 - 885_120 - 384 * 9 * (192 - 128)),
        ({"sixth": True}, 60_965_224 + 256 * 9 * 128 + 256),
        ({"classes": 10}, 60_965_224 - 990 * 4097),
    ],
)
def test_alexnet_options(options, parameters):
    net = alexnet(device="cpu", init=constant, **options)
    assert net.parameter_count == parameters
    assert net.shapes["pool5"] == (6, 6, 256)


def test_alexnet_without_overlap():
    net = alexnet(device="cpu", init=constant, overlap=False, hidden=16)
    assert net.shapes["pool1"] == (28, 28, 96)


def test_width_multiplies_the_filters():
    net = alexnet(in_shape=(67, 67, 3), hidden=16, width=0.3, device="cpu", sizes_only=True)
    counts = [net.shapes[f"conv{i}"][2] for i in range(1, 6)]
    assert counts == [28, 76, 116, 116, 76]  # 28.8, 76.8, 115.2 to the nearest even number
    thin = alexnet(in_shape=(67, 67, 3), width=1e-9, device="cpu", sizes_only=True)
    assert [thin.shapes[f"conv{i}"][2] for i in range(1, 6)] == [2] * 5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"width": 0.0}, "width: expected a number > 0, got 0.0"),
        ({"width": float("inf")}, "width: expected a finite number, got inf"),
        ({"filters": [8, 8]}, "filters: expected 5 numbers, got 2"),
        ({"groups": 0, "width": 0.5}, "groups: expected a whole number, at least 1; got 0"),
    ],
)
def test_bad_options_of_alexnet(options, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        alexnet(device="cpu", sizes_only=True, **options)


# From the paper, cuda-convnet's and torchvision's widths, layer by layer: filters, multiply-adds of
# one image, parameters.
CONVS = {
    "alexnet": (96, 256, 384, 384, 256),
    "alexnet-half": (48, 128, 192, 192, 256),
    "alexnet-one-tower": (64, 192, 384, 256, 256),
    "alexnet-227": (96, 256, 384, 384, 256),
    "alexnet-sixconv": (96, 256, 384, 384, 256),
}
TOTALS = {
    "alexnet": (60_965_224, 724_406_816),
    "alexnet-half": (59_798_312, 391_514_384),
    "alexnet-one-tower": (61_100_840, 714_188_480),
    "alexnet-227": (60_965_224, 724_406_816),
    "alexnet-sixconv": (61_260_392, 735_023_648),
}


def test_torchvisions_net(monkeypatch):
    monkeypatch.delenv("CONVNET_DATA", raising=False)
    net = net_of(load_config("alexnet-torchvision"), "cpu", sizes_only=True)
    assert (net.parameter_count, net.macs) == TOTALS["alexnet-one-tower"]
    sides = {name: net.shapes[name][0] for name in ("conv1", "pool1", "pool2", "pool5")}
    assert sides == {"conv1": 55, "pool1": 27, "pool2": 13, "pool5": 6}
    assert not [node for node in net.nodes if type(node.layer).__name__ == "LRN"]


@pytest.mark.parametrize("name", CONVS)
def test_presets_of_alexnet(name, monkeypatch):
    monkeypatch.delenv("CONVNET_DATA", raising=False)
    cfg = load_config(name)
    net = net_of(cfg, "cpu", sizes_only=True)
    side = 227 if name == "alexnet-227" else 224
    assert net.in_shape == (side, side, 3)
    sizes = dict(zip((1, 2, 3, 4, 5), (55, 27, 13, 13, 13), strict=True))
    for i, filters in zip(sizes, CONVS[name], strict=True):
        assert net.shapes[f"conv{i}"] == (sizes[i], sizes[i], filters)
    assert [net.shapes[f"fc{i}"] for i in (6, 7, 8)] == [(4096,), (4096,), (1000,)]
    assert (net.parameter_count, net.macs) == TOTALS[name]
    layers = {node.name: node.layer for node in net.nodes}
    groups = 1 if name in ("alexnet-half", "alexnet-one-tower") else 2
    grouped = [layers[key].groups for key in ("conv2", "conv4", "conv5", "lrn1", "lrn2")]
    assert grouped == [groups] * 5
    assert (layers["conv1"].groups, layers["conv3"].groups) == (1, 1)
    names = [node.name for node in net.nodes]
    after = names[names.index("pool5") + 1]
    assert after == ("conv6" if name == "alexnet-sixconv" else "fc6")
    if name == "alexnet-sixconv":
        assert net.shapes["conv6"] == (6, 6, 256)


@pytest.mark.parametrize("name", CONVS)
def test_presets_of_alexnet_train_as_published(name):
    cfg = load_config(name)
    assert (cfg.sgd.lr, cfg.sgd.momentum, cfg.sgd.weight_decay) == (0.01, 0.9, 0.0005)
    assert (cfg.schedule.kind, cfg.schedule.options["factor"]) == ("plateau", 10.0)
    assert cfg.schedule.options["drops"] == 3
    assert (cfg.train.batch, cfg.train.epochs) == (128, 90)
    assert (cfg.data.size, cfg.data.mean, cfg.data.scale) == ((256, 256), "image", 1.0)
    assert (cfg.augment.mirror, cfg.augment.colour_noise, cfg.augment.pad) == (True, 0.1, 0)
    net = net_of(cfg, "cpu", sizes_only=True)
    for param in net.params:
        assert (param.lr_mult, param.decay_mult) == (1.0, float(param.name.endswith(".w")))


def test_cifar10_quick_has_cuda_convnet_s_numbers():
    net = cifar10_quick(device="cpu")
    assert net.parameter_count == 145_578
    assert net.shapes["pool3"] == (4, 4, 64)
    stds = {p.name: p.data.std() for p in net.params if p.name.endswith(".w")}
    expected = {"conv1.w": 1e-4, "conv2.w": 0.01, "conv3.w": 0.01, "fc64.w": 0.1, "fc10.w": 0.1}
    assert stds == {name: pytest.approx(std, rel=0.1) for name, std in expected.items()}


def test_fashion_mnist_is_of_the_size_promised():
    net = fashion_mnist(device="cpu")
    assert 5e6 < net.macs < 12e6
    assert len(fashion_mnist(device="cpu", lrn=False, dropout=0.0).nodes) == len(net.nodes) - 3


@pytest.mark.parametrize("name", MODELS)
def test_models_take_any_image_and_number_of_classes(name):
    options = {"hidden": 16} if name in ("alexnet", "small") else {}
    net = MODELS[name](in_shape=(70, 83, 3), classes=7, device="cpu", seed=1, **options)
    assert net.shapes["softmax"] == (7,)
    assert net.seed == 1


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (fashion_mnist, {}),
        (small, {"in_shape": (32, 32, 3)}),
        (cifar10_quick, {"init": "he"}),
        (alexnet, {"in_shape": (67, 67, 3), "classes": 10, "hidden": 64, "init": "he", "bias": 0.1,
                   "filters": (16, 24, 24, 24, 16)}),
    ],
)  # fmt: skip
def test_models_learn_a_batch(model, options, rng):
    if model is not cifar10_quick:
        options = options | {"dropout": 0.1}
    net = model(device="cpu", seed=1, **options)
    x = rng.standard_normal((16, *net.in_shape)).astype(np.float32)
    labels = rng.integers(0, 10, 16)
    before = net.evaluate(x, labels)[0].mean()
    sgd = SGD(net.params, lr=0.01)
    for _ in range(30):
        net.train_step(x, labels, sgd)
    assert net.evaluate(x, labels)[0].mean() < 0.5 * before
