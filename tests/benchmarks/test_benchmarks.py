"""The benchmarks: what they measure, what they keep, and that they run on a GPU.

Figures mean nothing here.
"""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path

import conv_throughput
import limits
import precision_table
import pytest
import roofline
import tiles_table
import tune_tiles
import two_versions
from benchmarking import run

import convnet

SHAPE = ["--shape", "1,6,6,16,16,3,3", "--pad", "1", "--rounds", "1"]


# ---- the roofline --------------------------------------------------------------------------------


def test_labels_of_a_roofline_do_not_overlap():
    """Many layers at the same place, some of them by Winograd's algorithm, which has its roof."""
    matplotlib = pytest.importorskip("matplotlib")
    row = {"flops": 4e9, "bytes": 1e7, "kernel": "Winograd, F(4 x 4, 3 x 3)", "pass": "dgrad"}
    rows = [{**row, "layer": f"conv{i}", "gflops": 300.0 + i % 3} for i in range(12)]
    rows += [{**row, "layer": "fc", "gflops": 150.0, "kernel": "oneDNN", "pass": "fprop"}]
    rows += [{**row, "layer": "pool", "flops": 0, "gflops": 0.0}]
    assert roofline.winograd(rows[0]) == ("Winograd F(4x4, 3x3)", 4.0)
    assert roofline.winograd(rows[-2]) is None
    figure, labels = roofline.chart(rows, limits.Limits(20.0, 200.0, "oneDNN"), "cpu")
    assert len(labels) == 13
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "Winograd F(4x4, 3x3): 800 (4.00 x)" in texts
    plain, own = (line.get_ydata()[-1] for line in figure.axes[0].lines)
    assert (plain, own) == (200.0, 800.0)
    boxes = [matplotlib.text.Text.get_window_extent(label) for label in labels]
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:place])


# ---- tune_tiles ---------------------------------------------------------------------------------


def tune(device: str, path: Path, *words: str) -> int:
    return tune_tiles.main(["--device", device, *SHAPE, "--json", str(path), *words])


@pytest.mark.parametrize("broken", [False, True])
def test_tiles_are_tuned_with_graphs(captured, forbidden, tmp_path, capsys, monkeypatch, broken):
    """On CUDA each turn is one graph; where that fails, the calls one by one, and it says so."""
    if broken:
        forbidden()
    monkeypatch.setenv("CONVNET_WGMMA", "auto")
    path = tmp_path / "tiles.json"
    assert tune("cuda:0", path, "--precision", "tf32", "--passes", "fprop") == 0
    (row,) = json.loads(path.read_text())["rows"]
    assert row["product"] == [36, 16, 144, 1]
    tried = {(c["tile"], c["splits"]) for c in row["candidates"]}
    assert {("64x32", 1), ("64x32", 2)} <= tried
    assert (("wgmma", 1) in tried) == ("sm_90" in convnet.backend.get("cuda").describe())
    assert row["rule"]["tile"] == "64x32"
    assert row["gain"] == pytest.approx(row["rule"]["ms"] / row["best"]["ms"])
    assert row["best"]["ms"] == min(c["ms"] for c in row["candidates"])
    assert row["error"] < 1e-3
    turns = json.loads(path.read_text())["turns"]
    said = capsys.readouterr().out
    if broken:
        assert turns.startswith("cudaErrorStreamCapture")
        assert not captured
        assert said.count("they could not be captured: cudaErrorStream") == 1
    else:
        assert turns == "CUDA graphs"
        assert len(captured) == len(tried)
    assert os.environ["CONVNET_WGMMA"] == "auto"
    assert convnet.backend.get("cuda").stream() == 0


def test_tuning_goes_on_where_it_was(vgpu, tmp_path, capsys):
    path = tmp_path / "tiles.json"
    words = ("--precision", "bf16", "--passes", "dgrad,wgrad")
    assert tune("vgpu", path, *words, "--minutes", "1e-9") == tune_tiles.UNFINISHED
    assert tune("vgpu", path, *words) == 0
    first = json.loads(path.read_text())
    assert [row["pass"] for row in first["rows"]] == ["dgrad", "wgrad"]
    assert tune("vgpu", path, *words, "--minutes", "1e-9") == 0  # there is nothing left to do
    assert tune("vgpu", path, "--precision", "bf16") == 0
    again = json.loads(path.read_text())["rows"]
    assert len(again) == 3
    assert all(row in again for row in first["rows"])
    path.write_text(json.dumps({**first, "device": "cuda:0: another GPU"}))
    with pytest.raises(SystemExit) as refused:
        tune("vgpu", path, *words)
    assert refused.value.code == 2
    assert "got cuda:0: another GPU" in capsys.readouterr().err


def record(**row) -> dict:
    choices = {
        "rule": {"tile": "128x64", "splits": 1, "ms": 1.0},
        "best": {"tile": "64x32", "splits": 4, "ms": 0.8},
    }
    base = {"layer": "conv2", "pass": "fprop", "precision": "tf32", "shape": "", "gain": 1.25}
    base |= {"product": [100, 64, 640, 2], **choices, "mma": choices}
    device = "cuda:0: NVIDIA H200, sm_90, 139 GiB"
    return {"benchmark": "tune_tiles", "device": device, "rows": [{**base, **row}]}


def written(tmp_path: Path, found: dict, *words: str) -> list:
    path, table = tmp_path / "tiles.json", tmp_path / "table.inc"
    path.write_text(json.dumps(found))
    assert tune_tiles.main(["--write", str(path), "--table", str(table), *words]) == 0
    return tiles_table.read_table(table)


def test_writing_the_table(tmp_path):
    (row,) = written(tmp_path, record())
    assert row == tiles_table.TunedRow(
        "NVIDIA H200",
        "fprop",
        "tf32",
        (100, 64, 640, 2),
        "64x32",
        4,
        "rule",
        "conv2, 0.8 for 1",
    )
    other = record(product=[7, 8, 99, 1], precision="bf16")
    assert [r.product[0] for r in written(tmp_path, other)] == [7, 100]  # beside what is there
    assert written(tmp_path, other, "--least", "1.3") == [row]  # measured anew, and no gain
    assert written(tmp_path, {**other, "rows": [{"left_out": "for a reason"}]}) == [row]


def test_rows_that_choose_between_kernels(tmp_path):
    wgmma = {"tile": "wgmma", "splits": 1, "ms": 0.5}
    mma = record()["rows"][0]["mma"]
    (row,) = written(tmp_path, record(best=wgmma, gain=2.0))  # the rule has too few tiles for it
    assert (row.tile, row.splits, row.on_hopper) == ("64x32", 4, "wgmma")
    (row,) = written(tmp_path, record(best=wgmma, rule=wgmma, gain=1.0))
    assert (row.tile, row.on_hopper) == ("64x32", "rule")
    slow = {**wgmma, "ms": 1.1}
    (row,) = written(tmp_path, record(best=mma["best"], rule=slow, gain=1.375))
    assert (row.tile, row.on_hopper) == ("64x32", "mma")
    same = {"rule": mma["rule"], "best": mma["rule"]}
    (row,) = written(tmp_path, record(best=wgmma, mma=same, gain=2.0))
    assert (row.tile, row.splits, row.on_hopper) == ("128x64", 1, "wgmma")
    assert written(tmp_path, record(best=mma["rule"], mma=same, gain=1.0), "--least", "1") == []


def test_times_of_the_virtual_gpu_do_not_get_into_the_source_tree(tmp_path, capsys):
    before = tiles_table.TABLE.read_text()
    path = tmp_path / "tiles.json"
    path.write_text(json.dumps({**record(), "device": "vgpu: a CPU"}))
    with pytest.raises(SystemExit) as refused:
        tune_tiles.main(["--write", str(path)])
    assert refused.value.code == 2
    assert "whose times say nothing of a GPU's" in capsys.readouterr().err
    assert tiles_table.TABLE.read_text() == before


def test_the_table_in_the_source_tree_is_as_it_would_be_written():
    rows = tiles_table.read_table()
    assert tiles_table.TABLE.read_text() == tiles_table.table_text(rows)


def test_a_table_with_something_else_in_it(tmp_path):
    path = tmp_path / "table.inc"
    path.write_text("// a comment\nint x;\n")
    with pytest.raises(ValueError, match=r"table\.inc:2: expected a row or a comment"):
        tiles_table.read_table(path)


# ---- conv_throughput ----------------------------------------------------------------------------


def test_layers_on_cuda(gpu, captured, without_torch, monkeypatch, tmp_path, capsys):
    path = tmp_path / "conv.json"
    words = ("--device", "cuda:0", *SHAPE, "--precision", "fp32,bf16", "--json", path)
    run(monkeypatch, conv_throughput.main, *words)
    rows = json.loads(path.read_text())["rows"]
    assert [(row["pass"], row["precision"]) for row in rows] == [
        (step, precision) for step in ("fprop", "dgrad", "wgrad") for precision in ("fp32", "bf16")
    ]
    assert {row["turns"] for row in rows} == {"CUDA graphs"}
    assert len(captured) == len(rows)
    assert all(row["error"] < (1e-5 if row["precision"] == "fp32" else 1e-2) for row in rows)
    assert "peer    none" in capsys.readouterr().out


@pytest.mark.parametrize("broken", ["", "convnet", "PyTorch"])
def test_turns_are_graphs_of_all_or_of_none(forbidden, monkeypatch, tmp_path, capsys, broken):
    captured = []

    def replayed(call, times):
        if broken == "PyTorch":
            raise RuntimeError("CUDA error: operation not permitted\nmore")
        captured.append(times)
        return call

    fake = types.SimpleNamespace(
        describe=lambda backend: "a stand-in",
        contenders=lambda work, ready: {"PyTorch NCHW": lambda: None},
        finish=lambda: None,
        replayed=replayed,
    )
    monkeypatch.setitem(sys.modules, "peer_ops", fake)
    monkeypatch.setattr(limits, "measure", lambda *a, **k: limits.Limits(1.0, 1.0, "a stand-in"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("provenance.versions", dict)
    if broken == "convnet":
        forbidden()
    path = tmp_path / "conv.json"
    run(monkeypatch, conv_throughput.main, "--device", "cuda:0", *SHAPE, "--json", path)
    rows = json.loads(path.read_text())["rows"]
    assert {row["turns"] for row in rows} == {"calls" if broken else "CUDA graphs"}
    assert len(captured) == (0 if broken else 3)
    said = capsys.readouterr().out
    assert said.count("turns   calls one by one") == (1 if broken else 0)


def test_layers_that_move_memory_on_cuda(gpu, without_torch, monkeypatch, capsys):
    words = ("--net", "fashion-mnist", "--image", "16,16,1", "--batch", "2", "--rounds", "1")
    words += ("--ops", "maxpool,dense", "--device", "cuda:0")
    run(monkeypatch, conv_throughput.main, *words)
    said = capsys.readouterr().out
    assert "pool1    bprop" in said
    assert "fp32 all" not in said  # without peers there are no ratios


def test_layers_that_move_memory_are_counted(vgpu, monkeypatch, capsys):
    words = ("--net", "alexnet-half", "--batch", "1", "--counters")
    words += ("--ops", "lrn,maxpool,lrn_maxpool", "--device", "vgpu")
    run(monkeypatch, conv_throughput.main, *words)
    said = capsys.readouterr().out
    for kernel in ("lrn_fprop", "maxpool_bprop", "lrn_maxpool_fprop", "lrn_maxpool_bprop"):
        assert f"\n{kernel}" in said, kernel


def test_a_wrong_result_is_not_timed(vgpu, monkeypatch):
    from convnet import ops

    true = ops.conv_dgrad

    def wrong(*args, **options):
        dx = true(*args, **options)
        dx[..., ::2] += 0.5
        return dx

    monkeypatch.setattr(ops, "conv_dgrad", wrong)
    with pytest.raises(SystemExit, match=r"dgrad \(fp32\) is wrong by .*nothing was timed"):
        run(monkeypatch, conv_throughput.main, "--device", "vgpu", *SHAPE)


@pytest.mark.parametrize(
    "words",
    [
        ("1,9,8,6,8,3,3", "--pad", "1", "--groups", "2"),
        ("2,11,13,3,5,4,3", "--stride", "3"),
        ("1,5,5,4,4,3,3", "--pad", "4"),  # windows beyond the image
        ("2,7,9,4,4,2,5", "--stride", "4", "--pad", "2"),
    ],
    ids=str,
)
def test_the_check_knows_every_convolution(monkeypatch, words, capsys):
    run(monkeypatch, conv_throughput.main, "--device", "cpu", "--rounds", "1", "--shape", *words)
    assert "wgrad" in capsys.readouterr().out


# ---- precision_table ----------------------------------------------------------------------------


def test_the_table_of_lower_precision(monkeypatch, tmp_path, capsys):
    """On the CPU, made to believe in AMX, so that the kernels of the two columns differ."""
    monkeypatch.setattr(
        convnet.backend.get("cpu").module, "precision_description", lambda precision: "said"
    )
    convnet.backend.get("cpu").module.pretend_implementation("brgconv:avx512_core_amx")
    path = tmp_path / "table.json"
    words = ("--device", "cpu", "--shape", "2,6,6,32,32,1,1", "--rounds", "1", "--json", str(path))
    try:
        for allow, code in (("1e6", 0), ("-100", 1)):
            with pytest.raises(SystemExit) as ended:
                run(monkeypatch, precision_table.main, *words, "--allow", allow)
            assert ended.value.code == code
    finally:
        convnet.backend.get("cpu").module.pretend_implementation("")
    rows = json.loads(path.read_text())["rows"]
    assert [row["pass"] for row in rows] == ["fprop", "dgrad", "wgrad"]
    assert {(row["fp32_kernel"], row["kernel"]) for row in rows} == {("direct", "direct, bf16")}
    out = capsys.readouterr().out
    assert "slower than fp32 by more than -100 %: conv fprop, conv dgrad, conv wgrad" in out
    assert "direct -> direct, bf16" in out


# ---- two_versions -------------------------------------------------------------------------------


def test_two_versions_take_turns(monkeypatch, tmp_path, capsys):
    results = tmp_path / "versions.json"
    words = ("--nets", "cifar10-quick", "--batch", 2, "--rounds", 2, "--json", results)
    run(monkeypatch, two_versions.main, sys.executable, *words)
    printed = capsys.readouterr().out
    assert printed.startswith("cifar10-quick   step      2 ")
    assert "Python frames" in printed
    found = json.loads(results.read_text())
    (row,) = found["rows"]
    assert [len(row["seconds"][name]) for name in ("old", "new")] == [2, 2]
    assert found["alone"]["old"]["frames"] == found["alone"]["new"]["frames"] > 0


def test_a_version_that_cannot_start(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="ended early"):
        run(monkeypatch, two_versions.main, "false", "--nets", "cifar10-quick", "--batch", 2)
