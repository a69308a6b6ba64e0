"""CONVNET_CPU_ISA: what an older processor would run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="names sets of x86-64")

SAY = "import convnet; print(convnet.backend.get('cpu').describe())"


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    unset = ("CONVNET_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
    env = {name: value for name, value in os.environ.items() if name not in unset} | variables
    return subprocess.run(
        [sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True
    )


def described(**variables: str) -> tuple[str, str]:
    """What our own vector code uses, and what oneDNN does."""
    result = run(SAY, **variables)
    assert result.returncode == 0, result.stderr
    device, built = result.stdout.split("; oneDNN ")
    return device.rpartition(", ")[2], built.partition(" for ")[2].partition(", ")[0]


def test_both_are_held_back() -> None:
    assert described(CONVNET_CPU_ISA="sse2") == ("SSE2", "SSE4.1")
    assert described(CONVNET_CPU_ISA="avx2")[0] in ("SSE2", "AVX2")
    assert described(CONVNET_CPU_ISA="avx512")[1] != "AVX-512 with AMX"
    assert described(CONVNET_CPU_ISA="amx") == described()


def test_onednn_has_a_variable_of_its_own() -> None:
    own = described()[0]
    assert described(ONEDNN_MAX_CPU_ISA="SSE41") == (own, "SSE4.1")
    assert described(CONVNET_CPU_ISA="sse2", ONEDNN_MAX_CPU_ISA="AVX") == ("SSE2", "AVX")


@pytest.mark.parametrize("value", ["", "AVX2", "8", "avx10"])
def test_a_misspelt_set_is_refused(value: str) -> None:
    result = run(
        "from convnet.cli.main import main; main(['train', 'mnist', '--device', 'cpu'])",
        CONVNET_CPU_ISA=value,
    )
    line = f"CONVNET_CPU_ISA: expected sse2, avx2, avx512 or amx, got {value}"
    assert line.strip() in result.stdout + result.stderr


TRAIN = """
import numpy as np, convnet
x = np.random.default_rng(0).standard_normal((8, 12, 12, 3)).astype("f4")
nodes = [convnet.Node("conv", convnet.layers.Conv(16, 3, pad=1)),
         convnet.Node("fc", convnet.layers.Dense(10)),
         convnet.Node("softmax", convnet.layers.SoftmaxCrossEntropy())]
net = convnet.Net(nodes, (12, 12, 3), seed=1, device="cpu")
sgd = convnet.SGD(net.params, lr=0.01, momentum=0.9, weight_decay=5e-4)
print([float(net.train_step(x, np.arange(8, dtype="i4"), sgd)) for _ in range(5)])
"""


def test_training_gives_the_same_losses() -> None:
    losses = []
    for isa in ("sse2", "avx2", "amx"):
        result = run(TRAIN, CONVNET_CPU_ISA=isa)
        assert result.returncode == 0, result.stderr
        losses.append(eval(result.stdout))
    for one in losses[1:]:
        assert one == pytest.approx(losses[0], rel=1e-4)
