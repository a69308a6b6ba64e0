"""Validation images in one folder with their labels in a file, as ILSVRC publishes them.

The file has one label a line, in the order of the images' names: the name of a class folder
(a synset such as n01440764), or a number from 1. ILSVRC's numbers do not follow the order of the
synsets' names, so numbers need a second file, with the class of number 1 in its first line and so
on; or the development kit's own `meta.mat`, see `convnet.data.folder.meta_mat`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from convnet.common.reading import LINES, read_text
from convnet.data.dataset import DataError, mismatch, readable, shown
from convnet.data.folder.class_folders import Listing, list_flat


def list_labelled(
    root: Path, label_file: Path, classes: Sequence[str], synsets: Path | None = None
) -> Listing:
    """Lists the images directly in a folder, with labels from a file.

    Args:
        root: the folder.
        label_file: one label a line.
        classes: the classes of the training images, numbered in this order.
        synsets: needed where labels are numbers: a file with one class a line, the class of number
            1 first (what follows the first word is passed over), or `meta.mat`.

    Raises:
        DataError: files that cannot be read, as many labels as there are no images, or a label
            that is no class.
    """
    flat = list_flat(root)
    names = flat.files
    lines = _lines(label_file)
    if len(lines) != len(names):
        expected = f"{len(names):,} labels, one a line for each image in {shown(root)}"
        raise mismatch(label_file, expected, f"{len(lines):,}")
    numbered = all(line.isdecimal() for line in lines) and not set(lines) <= set(classes)
    if numbered:
        lines = _named(lines, label_file, _numbering(synsets, label_file))
    number_of = {name: number for number, name in enumerate(classes)}
    labels = np.empty(len(lines), np.int32)
    for row, line in enumerate(lines):
        if line not in number_of:
            raise DataError(
                f"{shown(label_file)}: line {row + 1}: expected one of the {len(classes)} classes"
                f" of the training images, such as {shown(classes[0])}; got {shown(line[:100])}"
            )
        labels[row] = number_of[line]
    return replace(flat, classes=tuple(classes), labels=labels)


def _lines(path: Path) -> list[str]:
    with readable(path, content="a text file"):
        text = read_text(path, LINES)
    return [line.strip() for line in text.rstrip().splitlines()]


def _numbering(synsets: Path | None, label_file: Path) -> list[str]:
    """The class of number 1, of number 2, ..."""
    if synsets is None:
        raise mismatch(
            label_file,
            "names of class folders",
            "numbers; ILSVRC's numbers do not follow the order of the folders, so --synsets"
            " must name the development kit's meta.mat, or a text file with the folder of"
            " number 1 in its first line, and so on",
        )
    if synsets.suffix == ".mat":
        from convnet.data.folder.meta_mat import read_synsets

        return read_synsets(synsets)
    words = [line.split(maxsplit=1) for line in _lines(synsets)]
    for row, word in enumerate(words):
        if not word:
            raise mismatch(f"{shown(synsets)}: line {row + 1}", "a class", "nothing")
    return [word[0] for word in words]


def _named(lines: list[str], label_file: Path, numbering: list[str]) -> list[str]:
    named = []
    for row, line in enumerate(lines):
        number = int(line) if len(line) < 10 else 0
        if not 1 <= number <= len(numbering):
            expected = f"a number from 1 to {len(numbering)}"
            raise mismatch(f"{shown(label_file)}: line {row + 1}", expected, shown(line[:100]))
        named.append(numbering[number - 1])
    return named
