"""Changes of single keys of a configuration: `--set a.b=c`."""

from __future__ import annotations

from typing import Any

from convnet.common.typecheck import ConfigError, brief, did_you_mean
from convnet.config.toml_text import PARTS, TomlError, from_toml

_WORDS = {"schedule": "kind", "net": "model"}  # the key that says what the table's others mean


def override(table: dict[str, Any], text: str) -> None:
    """Applies one `a.b=c` to the raw table of a configuration.

    Args:
        table: changed in place.
        text: the value is TOML, and a bare word is a string. A member of a list of tables goes by
            its name or its number. Another `schedule.kind` or `net.model` first clears the keys
            of the one before.

    Raises:
        ConfigError: it is not of this form, or leads through something that is no table.
    """
    key, equals, value_text = text.partition("=")
    given = brief(" ".join(text.split()))
    names = [name.strip() for name in key.split(".")]
    if not equals or not all(names):
        raise ConfigError(f'--set {given}: expected key=value, for example "sgd.lr=0.1"')
    if len(names) > PARTS:
        raise ConfigError(
            f"--set {given}: expected a key of at most {PARTS} parts, got {len(names)}"
        )
    try:
        value = from_toml(f"value = {value_text.strip()}")["value"]
    except TomlError:
        value = value_text.strip()
    if len(names) == 2 and _WORDS.get(names[0]) == names[1]:
        shared = ("warmup_steps",)
        old = table.get(names[0])
        if isinstance(old, dict) and old.get(names[1]) != value:
            table[names[0]] = {name: old[name] for name in shared if name in old}
    place: Any = table
    for depth, name in enumerate(names[:-1]):
        here = ".".join(names[: depth + 1])
        if isinstance(place, list):
            place = _list_item(place, name, f"--set {given}")
        else:
            place = place.setdefault(name, {})
        if not isinstance(place, (dict, list)):
            raise ConfigError(f"--set {given}: {brief(here)} is a value, not a table")
    if isinstance(place, list):
        raise ConfigError(f"--set {given}: set keys of one member, not the member itself")
    place[names[-1]] = value


def _list_item(items: list[Any], name: str, origin: str) -> Any:
    """A member of a list of tables, by its `name` or by its number."""
    for item in items:
        if isinstance(item, dict) and item.get("name") == name:
            return item
    if name.isdigit() and int(name) < len(items):
        return items[int(name)]
    names = [str(item.get("name")) for item in items if isinstance(item, dict)]
    raise ConfigError(f'{origin}: no member "{brief(name)}"{did_you_mean(name, names)}')
