"""A process may end while threads of it compute: it does so with its own exit code, in silence."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tiny import environment

PROGRAM = """
import ctypes, sys, threading, time
import numpy as np
from convnet import backend, ops; from convnet.parallel import ranks

def compute():
    x, w = np.ones((8, 16, 16, 16), np.float32), np.ones((32, 3, 3, 16), np.float32)
    with backend.use("cpu"):
        while True:
            for batch in range(1, 8):
                ops.conv_fprop(x[:batch], w, pad=1)
                begun.set()

begun, libc = threading.Event(), ctypes.PyDLL(None)
for _ in range(3):
    threading.Thread(target=compute, daemon=True).start()
begun.wait()
time.sleep(0.05)
{end}
"""


@pytest.mark.parametrize(
    "end",
    [
        pytest.param("sys.exit(7)", id="of the interpreter"),
        pytest.param("ranks._skip_exit_handlers(); libc.exit(7)", id="by MPI_Abort"),
    ],
)
def test_the_end_while_threads_compute(end):
    for _ in range(4):  # it depends on where they are
        result = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM.format(end=end)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (result.returncode, result.stderr) == (7, "")
