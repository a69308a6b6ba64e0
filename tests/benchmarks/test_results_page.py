"""benchmarks/results_page.py: figures in the documentation come from files of results."""

from __future__ import annotations

import json

import pytest
import results_page

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
    rows = [
        {**ROW, "precision": "fp32"},
        {**ROW, "precision": "tf32", "ratio": None, "peers_ms": {}},
    ]
    (tmp_path / "conv.json").write_text(json.dumps({**CONV, "rows": rows}))
    text = results_page.filled(page("conv.json"), tmp_path)
    assert "| conv1 | fprop | tf32 | 1.50 | 12,346 | 20.0 | 46% (compute) | 1.2e-07 |  |  |" in text


def test_a_table_of_steps(tmp_path):
    (tmp_path / "step.json").write_text(json.dumps(STEP))
    text = results_page.filled(page("step.json"), tmp_path)
    assert "alexnet --image 224,224,3 --classes 1000 --rounds 3 --batch 64 --set net.opt" in text
    assert "| PyTorch NHWC | 20.0 | 19.0 - 21.0 | 3,200 |  | 2.00x |" in text
    assert "| convnet | 10.0 | 9.0 - 11.0 | 6,400 | 100 | 1.00x |" in text


def step_of(precision: str, **rows) -> dict:
    found = {
        "convnet": 10.0,
        "convnet predict": 12.0,
        "PyTorch NHWC": 25.0,
        "PyTorch compiled NHWC": 15.0,
    } | rows
    times = {
        name: {"ms": ms, "q1_ms": ms, "q3_ms": ms, "images_per_s": 64e3 / ms}
        for name, ms in found.items()
        if isinstance(ms, float)
    }
    times["PyTorch compiled NHWC"]["compile_s"] = 33.4
    return {
        "precision": precision,
        "steps": "captured",
        "results": times | {"PyTorch compiled NCHW": {"failed": "no Triton"}},
    }


def test_steps_in_several_modes_with_compiled_peers(tmp_path):
    runs = [step_of("fp32"), step_of("bf16", convnet=5.0)]
    record = {key: value for key, value in STEP.items() if key != "results"}
    record |= {"runs": runs, "peers": "eager,compile"}
    (tmp_path / "step.json").write_text(json.dumps(record))
    text = results_page.filled(page("step.json"), tmp_path)
    assert (
        "--set net.options.lrn=false --precision fp32,bf16 --peers eager,compile` on cuda:0" in text
    )
    assert "`fp32`: 1.50x as fast as PyTorch compiled NHWC, the fastest of PyTorch's." in text
    assert "`bf16`: 3.00x as fast as PyTorch compiled NHWC" in text
    assert "| precision |  | ms | quartiles | images/s | compile s | ratio |" in text
    assert "| bf16 | PyTorch compiled NHWC | 15.0 | 15.0 - 15.0 | 4,267 | 33 | 3.00x |" in text
    assert "| fp32 | PyTorch compiled NCHW: failed, `no Triton` |  |  |  |  |  |" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| ")}
    assert widths == {8}


def test_one_named_mode_of_steps(tmp_path):
    record = {key: value for key, value in STEP.items() if key != "results"}
    (tmp_path / "step.json").write_text(json.dumps({**record, "runs": [step_of("tf32")]}))
    text = results_page.filled(page("step.json"), tmp_path)
    assert "lrn=false --precision tf32` on" in text
    assert "| convnet | 10.0 | 10.0 - 10.0 | 6,400 |  | 1.00x |" in text


def test_a_table_of_tiles(tmp_path):
    choice = {"tile": "128x64", "splits": 1, "ms": 0.25}
    row = {"layer": "conv2", "pass": "wgrad", "precision": "tf32", "product": [128, 1200, 93312, 2]}
    row |= {"rule": choice, "best": {"tile": "128x128", "splits": 6, "ms": 0.2}, "gain": 1.25}
    same = row | {"best": choice, "gain": 1.0, "candidates": [1]}
    rows = [row | {"candidates": [1, 2, 3]}, {"left_out": "for a reason"}, same]
    record = {**BASE, "benchmark": "tune_tiles", "batch": 128, "rows": rows, "turns": "CUDA graphs"}
    (tmp_path / "tiles.json").write_text(json.dumps(record))
    text = results_page.filled(page("tiles.json"), tmp_path)
    assert (
        "1.118x what the rules choose (geometric mean of 2 products); turns: CUDA graphs." in text
    )
    said = "| conv2 | wgrad | tf32 | 128 x 1200 x 93312, 2 | 128x64 | 0.2500 | 128x128, 6 splits |"
    assert f"{said} 0.2000 | 1.25x | 3 |" in text
    record["rows"] = rows[1:2]
    (tmp_path / "tiles.json").write_text(json.dumps(record))
    assert "Nothing was tuned." in results_page.filled(page("tiles.json"), tmp_path)


EXPECTED = """\
| conv2 fprop | 128 x 128 | 600 / 172 | 58% | 256 x 128 | 200 / 91 | 57% | 256 x 128 | 9 / 9 | 56% |
| fc9 fprop | 1 | 1 / 1 | 1% | 1 | 1 / 1 | 1% | 1 | 1 / 1 | 1% |
| conv3 wgrad | 128 x 128 | 1 / 1 | 51% | 1 | 1 / 1 | 35% | 1 | 1 / 1 | 17% |
<!-- results: expected:results/*/ -->
<!-- end of results -->
"""


def test_computed_beside_measured(tmp_path):
    """conv2: 57.3 GFLOP, 133 MB. On an H200 in 0.2 ms that is 58% of TF32's 494 TFLOP/s."""
    text = results_page.filled(EXPECTED, tmp_path)
    assert "| `fp32`: computed | measured | `tf32`: computed | measured |" in text
    assert "| conv2 fprop | 432 | 58% |  | 57% |  | 56% |  |" in text
    assert "fc9 fprop | 1 |" in text  # as it was, and not in the table made of it
    assert text.count("fc9") == 1
    for name, device in (("h200", "cuda:0: NVIDIA H200, sm_90"), ("odd", "cuda:0: Another")):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        rows = [{**ROW, "layer": "conv2", "ms": 0.2, "precision": "tf32"}]
        found = {**CONV, "device": device, "rows": rows}
        (folder / "conv-tf32.json").write_text(json.dumps(found))
        (folder / "step.json").write_text(json.dumps(STEP))
    text = results_page.filled(text, tmp_path)
    assert "| `tf32`: computed | h200 | odd | `bf16`: computed | h200 | odd |" in text
    assert "| conv2 fprop | 432 | 58% |  |  | 57% | 58%, 0.200 ms | 0.200 ms | 56% |  |  |" in text
    assert results_page.filled(text, tmp_path) == text
    later = results_page.filled(
        text.replace("| 600 / 172 | 58% |", "| 473 / 343 | 74% |"), tmp_path
    )
    assert "| conv2 fprop | 432 | 74% |  |  | 57% |" in later  # not what the table said before


def test_a_section_for_each_machine(tmp_path):
    for name in ("b-gpu", "a-gpu"):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        (folder / "conv.json").write_text(json.dumps(CONV))
        (folder / "tests.log").write_text("$ pytest\n=== 17 passed in 3 s ===\n")
    (tmp_path / "results" / "alone.json").write_text("{}")
    text = results_page.filled(page("results/*/"), tmp_path)
    assert text.index("## a-gpu") < text.index("## b-gpu")
    assert text.count("- tests: `17 passed in 3 s`\n") == 2
    assert text.count("| conv1 | fprop |") == 2
    assert "alone" not in text


def test_logs_of_several_parts(tmp_path):
    folder = tmp_path / "results" / "gpu"
    folder.mkdir(parents=True)
    log = "== a\n$ pytest\n....\n17 passed in 3 s\n== b\n$ pytest\n1 failed, 2 passed in 4 s\n"
    (folder / "memcheck.log").write_text(log)
    (folder / "alexnet.log").write_text("loss 6.9 -> 5.1\n\n")
    (folder / "smoke.log").write_text("")
    text = results_page.filled(page("results/*/"), tmp_path)
    assert "- memcheck: `17 passed in 3 s`, `1 failed, 2 passed in 4 s`\n" in text
    assert "- alexnet: `loss 6.9 -> 5.1`\n" in text
    assert "- smoke: `nothing was said`\n" in text


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
