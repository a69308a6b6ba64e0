"""Reads cuda-convnet's layer definition and layer parameter files.

They are INI files as Python 2's ConfigParser read them: `[section]` for each layer, `key = value`
or `key: value` with keys in any case, comments in lines that begin with "#" or ";" (or "rem"), and
after " ;" within a line; indented lines continue the value above; `%(key)s` stands for another
key's value; a section that comes again adds to the first, and a key that comes again replaces it.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from convnet.common.reading import Budget, BudgetError, Limit, read_bytes
from convnet.common.typecheck import ConfigError, brief, did_you_mean
from convnet.exchange.cuda_convnet.report import Report

Read = TypeVar("Read", int, float, bool)

# All that cuda-convnet ever read, so that one of these is never taken for another misspelt.
_ALL_KEYS = """
    type inputs gpu neuron dataIdx start end outputs initW initB initWFunc initBFunc initCFunc
    weightSource channels filters filterSize padding stride groups sharedBiases partialSum
    sumWidth randSparse modulesX pool sizeX outputsX sum size blocked keep coeffs children
    startX startY crossMap epsW epsB momW momB wc wball superEps superMom updatePeriod
    wcNormMin wcNormMax scale pow minDiv enable coeff topk posWeight
"""
KEYS = tuple(re.findall(r"\w+", _ALL_KEYS))

# What a file may ask for; those of cuda-convnet have about 6,000 bytes and 300 keys.
_BYTES = Limit(1 << 18, "bytes in a layer definition")
_LINE = 2_000
_MESSAGE = 500  # characters of an error
_ITEMS = Limit(5_000, "sections and keys, with those of [DEFAULT] in every section")
_EXPANDED = Limit(1 << 20, "characters once every %(key)s stands for its value")
_REFERENCE = re.compile(r"%(?:%|\((?P<key>[^)]+)\)s)?")

_TRUE, _FALSE = ("1", "yes", "true", "on"), ("0", "no", "false", "off")


class Section:
    """The keys of one layer in one file.

    Every key that is asked for counts as known; `unknown` lists the others.

    Args:
        origin: name of the file.
        name: name of the section.
        items: its keys, in lower case, and their values.
        spelling: the keys as the file spells them.
        report: gets what is not as the section says.
    """

    def __init__(
        self,
        origin: str,
        name: str,
        items: dict[str, str],
        spelling: dict[str, str],
        report: Report,
    ) -> None:
        self.origin, self.name, self.items, self._spelling = origin, name, items, spelling
        self.changed = partial(report.changed, origin, name)  # of a key and a text
        self.noted = partial(report.noted, origin, name)
        self.ignored = partial(report.ignored, origin, name)
        self._asked: dict[str, str] = {}  # in lower case -> as cuda-convnet writes it

    def error(self, key: str, text: str) -> ConfigError:
        """What is wrong with a key of this section, in one line."""
        if "\n" in self.items.get(key.lower(), ""):
            text += "; the line below is indented, and so continues this one"
        text = " ".join(text.split())[:_MESSAGE]
        return ConfigError(f"{self.origin}: [{brief(self.name)}] {key}: {text}")

    def __contains__(self, key: str) -> bool:
        self._asked[key.lower()] = key
        return key.lower() in self.items

    def text(self, key: str, default: str | None = None) -> str:
        """The value of a key.

        Raises:
            ConfigError: it is missing, and there is no default; a near miss is named.
        """
        if key in self:
            return self.items[key.lower()]
        if default is not None:
            return default
        known = [name.lower() for name in KEYS]
        strange = [name for name in self.unknown() if name.lower() not in known]
        near = did_you_mean(key, strange) if strange else ""
        near = near.replace("did you mean", "is it the unknown key") if "did you" in near else ""
        raise self.error(key, f"missing{near}")

    def words(self, key: str, default: str | None = None) -> list[str]:
        """The value as a list, cut at commas outside brackets."""
        return _split(self.text(key, default))

    def read(self, key: str, word: str, kind: Callable[[str], Read], expected: str) -> Read:
        """A word of a key's value, as `kind` makes it."""
        try:
            return kind(word)
        except ValueError:
            raise self.error(key, f'expected {expected}, got "{word}"') from None

    def integer(self, key: str, default: int | None = None, least: int | None = None) -> int:
        """The value as a whole number."""
        return self.integers(key, 1, default, least)[0]

    def number(self, key: str, default: float | None = None) -> float:
        """The value as a finite number."""
        return self.numbers(key, 1, default)[0]

    def boolean(self, key: str, default: bool | None = None) -> bool:
        """The value as true or false."""
        word = self.text(key, None if default is None else str(default))
        return self.read(key, word, flag, "true or false")

    def integers(
        self, key: str, count: int, default: int | None = None, least: int | None = None
    ) -> list[int]:
        """`count` whole numbers; where there is one, it stands for all."""
        words = self.spread(key, count, None if default is None else str(default))
        found = [self.read(key, word, int, "a whole number") for word in words]
        for value in found:
            if least is not None and value < least:
                raise self.error(key, f"expected at least {least}, got {value}")
        return found

    def numbers(self, key: str, count: int, default: float | None = None) -> list[float]:
        """`count` finite numbers; where there is one, it stands for all."""
        words = self.spread(key, count, None if default is None else repr(default))
        return [self.read(key, word, finite, "a finite number") for word in words]

    def spread(self, key: str, count: int, default: str | None = None) -> list[str]:
        """`count` words; where there is one, it stands for all."""
        words = self.words(key, default)
        if len(words) == 1:
            return words * count
        if len(words) != count:
            raise self.miscounted(key, count, len(words))
        return words

    def miscounted(self, key: str, count: int, got: int) -> ConfigError:
        """What is wrong with a key that has another number of values than there are inputs."""
        return self.error(key, f"expected {count} values, one for each input; got {got}")

    def rename(self, old: str, new: str) -> None:
        """Takes the spelling of a key that an older version had."""
        if old.lower() in self.items and new.lower() not in self.items:
            self.items[new.lower()] = self.items.pop(old.lower())
            self.noted(old, f"taken for {new}, as it was called later")

    def unknown(self) -> list[str]:
        """The keys that nothing has asked for, as they are spelt in the file."""
        return [self._spelling.get(key, key) for key in self.items if key not in self._asked]

    def tell_unknown(self) -> None:
        """Reports the keys that nothing has asked for."""
        known = [name.lower() for name in KEYS]
        for key in self.unknown():
            near = did_you_mean(key, KEYS)
            text = f"unknown key, ignored{near if 'did you mean' in near else ''}"
            if key.lower() in known:
                text = "means nothing in this layer, ignored"
            self.ignored(key, text)


def _split(text: str) -> list[str]:
    """What lies between the commas; those whose next bracket is a closing one belong to a word."""
    words, end, inside = [], len(text), False
    for at in range(len(text) - 1, -1, -1):
        if text[at] in "[]":
            inside = text[at] == "]"
        elif text[at] == "," and not inside:
            words.append(text[at + 1 : end].strip())
            end = at
    return [text[:end].strip(), *reversed(words)]


def flag(word: str) -> bool:
    if word.lower() not in (*_TRUE, *_FALSE):
        raise ValueError
    return word.lower() in _TRUE


def finite(word: str) -> float:
    """The word as a number that is neither infinite nor NaN."""
    value = float(word)
    if not abs(value) < float("inf"):
        raise ValueError
    return value


def read_sections(path: Path, report: Report) -> dict[str, Section]:
    """The sections of a file, in its order.

    Args:
        path: a layer definition or a layer parameter file.
        report: gets a note for each section and key that comes twice.

    Raises:
        ConfigError: it is no such file; names the file, the section and the key or the line.
        OSError: it cannot be read.
    """
    origin = str(path)
    lines = _decoded(path).splitlines()
    for number, line in enumerate(lines, 1):
        if len(line) > _LINE:
            raise ConfigError(
                f"{origin}: line {number}: expected at most {_LINE:,} characters, got {len(line):,}"
            )
    lines = ["#" if re.match(r"rem(\s|$)", line, re.IGNORECASE) else line for line in lines]
    _tell_repeated(lines, origin, report)
    spelling: dict[str, str] = {}
    parser = configparser.ConfigParser(
        strict=False,
        comment_prefixes=("#", ";"),
        inline_comment_prefixes=(";",),
        interpolation=_Interpolation(),
    )
    parser.optionxform = lambda key: spelling.setdefault(key.lower(), key).lower()  # type: ignore[assignment, method-assign]
    budget = Budget(_ITEMS)
    try:
        parser.read_string("\n".join(lines) + "\n", origin)
        budget.spend(len(parser.sections()) * (1 + len(parser.defaults())))
        sections = {}
        for name in parser.sections():
            budget.spend(len(parser[name]))
            sections[name] = Section(origin, name, dict(parser.items(name)), spelling, report)
    except (BudgetError, configparser.Error) as error:
        raise ConfigError(f"{origin}: {_reason(error, lines)}") from None
    return sections


def _reason(error: Exception, lines: list[str]) -> str:
    """What is wrong with a file of these lines, and where."""
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno}: expected a [section] before it, got {error.line!r}"
    if isinstance(error, configparser.ParsingError):
        number = error.errors[0][0]
        return f'line {number}: expected key=value, got "{lines[number - 1].strip()[:60]}"'
    text = " ".join(str(error).split())[:200]
    if isinstance(error, configparser.InterpolationError):
        return f"[{error.section}] {error.option}: {text}"
    return text


class _Interpolation(configparser.Interpolation):
    """`%(key)s` and `%%`, as ConfigParser has them, but within a budget for the file: ten lines of
    which each names the one before ten times make a value of ten billion characters."""

    def __init__(self) -> None:
        self._written = Budget(_EXPANDED)

    def before_get(
        self, parser: Any, section: str, option: str, value: str, defaults: Mapping[str, str]
    ) -> str:
        return self._expanded(section, option, value, defaults, 1)

    def _expanded(
        self, section: str, option: str, value: str, values: Mapping[str, str], depth: int
    ) -> str:
        if depth > configparser.MAX_INTERPOLATION_DEPTH and "%" in value:
            raise configparser.InterpolationDepthError(option, section, value[:60])

        def expansion(match: re.Match[str]) -> str:
            if match[0] == "%%":
                return "%"
            if not match["key"]:
                text = f"'%' must be followed by '%' or '(', found: {value[match.start() :][:60]!r}"
                raise configparser.InterpolationSyntaxError(option, section, text)
            key = match["key"].lower()
            if key not in values:
                raise configparser.InterpolationMissingOptionError(option, section, value[:60], key)
            return self._expanded(section, option, values[key], values, depth + 1)

        found = _REFERENCE.sub(expansion, value)
        self._written.spend(1 + len(found))
        return found


def _decoded(path: Path) -> str:
    """The text: UTF-8, or else Latin-1, in which any bytes are characters."""
    data = read_bytes(path, _BYTES)
    if b"\0" in data:
        raise ConfigError(f"{path}: expected a text file, got a binary one")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _tell_repeated(lines: list[str], origin: str, report: Report) -> None:
    """Reports sections and keys that come more than once."""
    name, seen = "", set[tuple[str, str]]()
    for line in lines:
        header = re.match(r"\[([^]]+)\]", line)
        key = re.match(r"([^\s#;:=\[][^:=]*?)\s*[:=]", line)
        if header:
            name = header[1]
            if (name, "") in seen:
                report.noted(origin, name, "", "comes again: added to the section before")
            seen.add((name, ""))
        elif key:
            place = (name, key[1].lower())
            if place in seen:
                report.noted(origin, name, key[1], "comes again: the last value counts")
            seen.add(place)
