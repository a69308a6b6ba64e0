"""Benchmarks run as commands."""

import sys


def run(monkeypatch, main, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, words)])
    main()
