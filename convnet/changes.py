"""Counts the changes that a captured training step does not survive.

A captured step (`convnet.stepgraph`) runs on the memory and with the hyper-parameters of the moment
it was captured. Whoever makes a layer's memory anew, or changes a layer or a parameter other than
by writing into its arrays, says so here; the step is then captured again.
"""

from __future__ import annotations

_count = 0


def changed() -> None:
    """Something of some net is not what it was."""
    global _count
    _count += 1


def count() -> int:
    """How often `changed` has been called."""
    return _count
