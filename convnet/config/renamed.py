"""Keys and values of configurations that are called otherwise now."""

from __future__ import annotations

from typing import Any

from convnet.common.deprecated import note
from convnet.common.typecheck import ConfigError

LAYER_TYPES = {
    "logistic": "sigmoid",
    "softrelu": "softplus",
    "linear": "affine",
    "planes": "flatten_chw",
    "image": "unflatten_chw",
    "softmax": "softmax_cross_entropy",
    "bce": "binary_cross_entropy",
}


def rename(table: dict[str, Any], origin: str, saved: bool) -> None:
    """Puts the names of today into the raw table of a configuration.

    Args:
        table: changed in place; what is malformed stays as it is.
        origin: what it was read from, for messages.
        saved: a run has written it; then nothing is said about old names.

    Raises:
        ConfigError: `type = "softmax"`, which was the loss, in what no run has written.
    """
    _rename_key(table.get("train"), "math", "precision", f"{origin}: train", saved)
    _rename_key(
        table.get("step"), "fuse_update", "keep_gradients", f"{origin}: step", saved, opposite=True
    )
    net = table.get("net")
    items = net.get("layers") if isinstance(net, dict) else None
    for number, item in enumerate(items if isinstance(items, list) else []):
        if not isinstance(item, dict):
            continue
        where = f"{origin}: net.layers[{number}]"
        _rename_key(item, "math", "precision", where, saved)
        kind = item.get("type")
        if kind == "softmax" and not saved:
            raise ConfigError(
                f'{where}: type: expected "softmax_cross_entropy", the loss (which "softmax" was '
                'until now), or "probabilities", a softmax that is no loss; got "softmax"'
            )
        if isinstance(kind, str) and kind in LAYER_TYPES:
            item["type"] = LAYER_TYPES[kind]
            if not saved:
                note(f'{where}: type "{kind}"', f'"{item["type"]}"')


def _rename_key(
    table: Any, old: str, new: str, where: str, saved: bool, opposite: bool = False
) -> None:
    """The value of an old key is the later one, as an override is, where a table has both."""
    if isinstance(table, dict) and old in table:
        value = table.pop(old)
        table[new] = not value if opposite and isinstance(value, bool) else value
        if not saved:
            note(f"{where}.{old}", f"{new}, with the opposite value" if opposite else new)
