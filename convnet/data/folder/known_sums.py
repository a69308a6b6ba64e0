"""The sums for the statistics of a folder's training images, kept from one run to the next."""

from __future__ import annotations

import contextlib
from typing import Any

from convnet.common.tensor_header import read_tensors, write_tensors
from convnet.data.folder.class_folders import Listing
from convnet.data.folder.inspection import identity
from convnet.data.folder.verdicts import file_for
from convnet.data.sums import Sums, checksum

_FORMAT = "1"


def _facts(listing: Listing, decoder: Any, colour: bool, arrays: dict[str, Any]) -> dict[str, str]:
    """What the file says of its sums; "images" is empty where they cannot be told from others."""
    return {
        "format": _FORMAT,
        "images": identity(decoder, listing.root, listing.files),
        "colour": str(int(colour)),
        "blake2b": checksum(arrays),
    }


def read_sums(
    listing: Listing, decoder: Any, shape: tuple[int, int, int], colour: bool
) -> Sums | None:
    """The sums of these images, uint8 `shape`, as this decoder reads them; None where there are
    none, or none of colours where these are wanted (`colour`)."""
    path = file_for(listing.root, "sums")
    if path is None or not path.is_file():
        return None
    with contextlib.suppress(OSError, ValueError):
        facts, arrays = read_tensors(path)
        expected = _facts(listing, decoder, colour or facts.get("colour") == "1", arrays)
        sums = Sums.of_arrays(arrays, shape)
        if expected["images"] and facts == expected and sums.count == len(listing.files):
            return sums
    return None


def write_sums(listing: Listing, decoder: Any, sums: Sums, colour: bool) -> None:
    """Keeps the sums, where there is a place for them."""
    path, arrays = file_for(listing.root, "sums"), sums.arrays()
    if path is None:
        return
    facts = _facts(listing, decoder, colour, arrays)
    if facts["images"]:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(path, facts, arrays)
