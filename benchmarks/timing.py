"""Timing that survives a noisy machine: contenders take turns, and medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds of each call, the contenders taking turns so that slow spells hit all of them.

    Args:
        contenders: name -> function to time; it returns when its work is done.
        rounds: calls of each that count.
        warmup: calls of each before, that do not.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warmup + rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            if turn >= warmup:
                times[name].append(time.perf_counter() - start)
    return times


def turns(
    queue: Callable[[], object], finish: Callable[[], object], times: int
) -> Callable[[], None]:
    """A turn of `times` calls, given to the device one after the other, which ends when it has
    done them all: so that a device is not idle while Python prepares the next call."""

    def turn() -> None:
        for _ in range(times):
            queue()
        finish()

    return turn


def spread(times: list[float]) -> tuple[float, float, float]:
    """(first quartile, median, third quartile)."""
    if len(times) < 2:
        return times[0], times[0], times[0]
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return low, middle, high
