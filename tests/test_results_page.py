"""benchmarks/results_page.py: figures in the documentation come from files of results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import results_page  # noqa: E402

BASE = {"device": "cuda:0: a GPU", "commit": "1234567", "versions": {"torch": "2"}, "rounds": 3}
ROW = {
    "layer": "conv1",
    "pass": "fprop",
    "ms": 1.5,
    "gflops": 12345.6,
    "gbytes": 20.04,
    "limit_share": 0.456,
    "bound": "compute",
    "error": 1.2e-7,
    "peers_ms": {"PyTorch NCHW": 3.0, "PyTorch NHWC": 2.4},
    "ratio": 1.6,
}
CONV = {
    **BASE,
    "benchmark": "conv_throughput",
    "ops": "conv",
    "batch": 128,
    "copy_gbytes": 4000.0,
    "gemm_gflops": 50000.0,
    "gemm_by": "cupy",
    "rows": [ROW],
}
STEP = {
    **BASE,
    "benchmark": "train_throughput",
    "preset": "alexnet",
    "picture": [224, 224, 3],
    "classes": 1000,
    "batch": 64,
    "set": ["net.options.lrn=false"],
    "work": "training step",
    "results": {
        name: {"ms": ms, "q1_ms": ms - 1, "q3_ms": ms + 1, "images_per_s": 64e3 / ms, **more}
        for name, ms, more in (("PyTorch NHWC", 20.0, {}), ("convnet", 10.0, {"peak_mib": 99.6}))
    },
}


def page(path: str, held: str = "old\n") -> str:
    return f"# Title\n<!-- results: {path} -->\n{held}<!-- end of results -->\nafter\n"


def test_a_table_of_layers(tmp_path):
    (tmp_path / "conv.json").write_text(json.dumps(CONV))
    text = results_page.filled(page("conv.json"), tmp_path)
    assert text.startswith("# Title\n<!-- results: conv.json -->\n`python benchmarks/conv_through")
    assert "--rounds 3 --batch 128` on cuda:0: a GPU; commit 1234567; torch 2." in text
    assert "copy 4000 GB/s, matrix product 50,000 GFLOP/s (cupy)" in text
    row = "| conv1 | fprop | 1.50 | 12,346 | 20.0 | 46% (compute) | 1.2e-07 | 2.40 | 1.60x |"
    assert row in text
    assert text.endswith("<!-- end of results -->\nafter\n")
    assert "old" not in text
    assert results_page.filled(text, tmp_path) == text


def test_modes_of_math_are_a_column_where_there_are_several(tmp_path):
    rows = [{**ROW, "math": "fp32"}, {**ROW, "math": "tf32", "ratio": None, "peers_ms": {}}]
    (tmp_path / "conv.json").write_text(json.dumps({**CONV, "rows": rows}))
    text = results_page.filled(page("conv.json"), tmp_path)
    assert "| conv1 | fprop | tf32 | 1.50 | 12,346 | 20.0 | 46% (compute) | 1.2e-07 |  |  |" in text


def test_a_table_of_steps(tmp_path):
    (tmp_path / "step.json").write_text(json.dumps(STEP))
    text = results_page.filled(page("step.json"), tmp_path)
    assert "alexnet --picture 224,224,3 --classes 1000 --rounds 3 --batch 64 --set net.opt" in text
    assert "| PyTorch NHWC | 20.0 | 19.0 - 21.0 | 3,200 |  | 2.00x |" in text
    assert "| convnet | 10.0 | 9.0 - 11.0 | 6,400 | 100 | 1.00x |" in text


def test_a_section_for_each_machine(tmp_path):
    for name in ("b-gpu", "a-gpu"):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        (folder / "conv.json").write_text(json.dumps(CONV))
        (folder / "tests.log").write_text("$ pytest\n=== 17 passed in 3 s ===\n")
    (tmp_path / "results" / "alone.json").write_text("{}")
    text = results_page.filled(page("results/*/"), tmp_path)
    assert text.index("## a-gpu") < text.index("## b-gpu")
    assert text.count("- tests: `17 passed in 3 s`") == 2
    assert text.count("| conv1 | fprop |") == 2
    assert "alone" not in text


def test_no_machine_yet(tmp_path):
    assert "There are none yet." in results_page.filled(page("results/*/"), tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "absent.json: no such file of results"), ("{}", "expected the JSON of one of")],
)
def test_what_cannot_be_shown(tmp_path, content, expected):
    if content is not None:
        (tmp_path / "absent.json").write_text(content)
    with pytest.raises(SystemExit, match=expected):
        results_page.filled(page("absent.json"), tmp_path)


def test_check_writes_nothing(tmp_path, capsys):
    file = tmp_path / "page.md"
    file.write_text(page("nothing-here/*/"))
    assert results_page.main([str(file), "--check"]) == 1
    assert "page.md: stale" in capsys.readouterr().out
    assert file.read_text() == page("nothing-here/*/")
    assert results_page.main([str(file)]) == 0
    assert results_page.main([str(file), "--check"]) == 0


def test_the_pages_of_the_documentation_are_fresh():
    assert results_page.main(["--check"]) == 0
