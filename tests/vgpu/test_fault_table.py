"""The table of planted faults in docs/virtual-gpu.md is what the virtual GPU finds."""

from __future__ import annotations

from fault_table import in_page, kernels_of, table


def test_the_table_of_the_page() -> None:
    """The same kernels, and none besides. (The words may differ between versions of nvcc.)

    To make it anew: python tests/support/fault_table.py
    """
    assert kernels_of(in_page()) == kernels_of(table())
