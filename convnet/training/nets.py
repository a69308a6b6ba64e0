"""The net of a configuration, and the rates of its parameters."""

from __future__ import annotations

import os
from typing import Any

from convnet import backend as backends
from convnet import models
from convnet.common.typecheck import did_you_mean
from convnet.config import Config, ConfigError
from convnet.config.schema import LayerConfig
from convnet.data.augment import crop_size
from convnet.data.sources import PUBLISHED
from convnet.layers import LAYER_TYPES, Dense, Loss
from convnet.nn.net import Net, Node
from convnet.nn.saved import tables, type_name
from convnet.optim.param_groups import Groups
from convnet.training.datasets import Data, open_sets
from convnet.training.inputs import Shape


def build_net(
    cfg: Config, image_shape: Shape, classes: int | None, device: str, sizes_only: bool = False
) -> Net:
    """The net of a configuration, with fresh weights.

    Args:
        cfg: its `net` (but for `net.init`), `augment`, `seed`, `train.precision` and
            `step.keep_gradients` are used.
        image_shape: (H, W, C) of the data, before the crop.
        classes: how many the data have; the net must have as many outputs. None: any number.
        device: as for `convnet.backend.get_all`.
        sizes_only: make a net that takes no memory, and can be described but not run.

    Raises:
        ConfigError: layers that do not fit one another or the data, or keys that name no layer.
        DataError: a crop that does not fit the images.
        DeviceError: the device is not there.
    """
    in_shape = (*crop_size(image_shape, cfg.augment), image_shape[2])
    backends.get_all(device)  # so that what is wrong with it is not taken for the net's
    options: dict[str, Any] = {"device": device, "seed": cfg.seed, "sizes_only": sizes_only}
    options["precision"] = cfg.train.precision
    try:
        if cfg.net.layers:
            net = Net([_node(layer) for layer in cfg.net.layers], in_shape, **options)
        else:
            options |= {} if classes is None else {"classes": classes}
            model = cfg.net.function or models.MODELS[cfg.net.model]
            net = model(in_shape=in_shape, **options, **cfg.net.options)
    except ValueError as error:
        raise ConfigError(f"{cfg.origin}: net: {error}") from None
    return check_net(cfg, net, classes)


def _remedy(cfg: Config, net: Net, loss: str, classes: int) -> str:
    """The setting that gives a net of layers written down as many outputs as there are classes."""
    nodes, name = {node.name: node for node in net.nodes}, loss
    while name in nodes and not nodes[name].layer.params:
        name = str((nodes[name].inputs or ("",))[0])
    if not cfg.net.layers or name not in nodes or type(nodes[name].layer) is not Dense:
        return ""
    return f" (--set net.layers.{name}.units={classes})"


def check_net(cfg: Config, net: Net, classes: int | None) -> Net:
    """A net that fits the data, with the settings and rates of a configuration.

    Args:
        cfg: its `net.lr_mult`, `sgd.groups` and `step` are used; classes: as for `build_net`.

    Raises: ConfigError: it has no loss, other classes, or keys name layers that it has not.
    """
    losses = [(node.name, node.layer) for node in net.nodes if isinstance(node.layer, Loss)]
    if not losses:
        raise ConfigError(f"{cfg.origin}: net: expected a loss at the end of the net, got none")
    for name, layer in losses:
        if layer.classifies and classes is not None and net.shapes[name] != (classes,):
            raise ConfigError(
                f"{cfg.origin}: net: node {name!r}: expected {classes} outputs, one for each class "
                f"of the data, got {net.shapes[name][0]}{_remedy(cfg, net, name, classes)}"
            )
    net.keep_gradients = cfg.step.keep_gradients
    net.programs.graph = cfg.step.graph
    _multiply_rates(cfg, net)
    param_groups(cfg, net)  # for its errors, before training
    return net


def _node(layer: LayerConfig) -> Node:
    kind = layer.kind or LAYER_TYPES[layer.type]
    return Node(layer.name, kind(**layer.options), layer.inputs, layer.share)


def layers_of(net: Net) -> tuple[LayerConfig, ...]:
    """The nodes of a net as a configuration has them.

    Raises: ConfigError: a layer that does not keep an argument as an attribute of the same name.
    """
    try:
        found = tables(net.nodes)
    except ValueError as error:
        raise ConfigError(f"net: {error}") from None
    return tuple(
        LayerConfig(t.name, type_name(t.layer), t.inputs, t.share, t.options, t.layer)
        for t in found
    )


def param_groups(cfg: Config, net: Net) -> Groups:
    """The groups of parameters that a configuration makes exceptions of.

    Raises: ConfigError for groups that do not fit the net.
    """
    return Groups(cfg.sgd.groups, cfg.sgd.lr, net.whole_params, f"{cfg.origin}: sgd.groups")


def _multiply_rates(cfg: Config, net: Net) -> None:
    """Applies `net.lr_mult` to the parameters."""
    nodes = {node.name: node for node in net.nodes}
    own = [node.name for node in net.parametric]
    for name, factor in cfg.net.lr_mult.items():
        key = f"{cfg.origin}: net.lr_mult.{name}"
        if name not in nodes:
            raise ConfigError(f"{key}: no such layer{did_you_mean(name, own)}")
        if nodes[name].share is not None:
            raise ConfigError(f"{key}: it uses the parameters of {nodes[name].share}; name that")
        if name not in own:
            raise ConfigError(f"{key}: expected a layer with parameters, got {name}, without any")
        for param in nodes[name].layer.params:
            param.lr_mult *= factor


def net_of(cfg: Config, device: str, data: Data = None, sizes_only: bool = False) -> Net:
    """The net of a configuration; data are only read where that is needed to know its shape.

    For a folder of images that is not named, the classes are those the model has by default.

    Raises:
        ConfigError, DataError, DeviceError.
    """
    if known := PUBLISHED.get(cfg.data.source):
        return build_net(cfg, known.shape, known.classes, device, sizes_only)
    named = data or cfg.data.path or os.environ.get("CONVNET_DATA")
    if not named and all(cfg.data.size):
        return build_net(cfg, (*cfg.data.size, 3), None, device, sizes_only)
    train, _ = open_sets(cfg, data)
    return build_net(cfg, train.shape, len(train.classes), device, sizes_only)
