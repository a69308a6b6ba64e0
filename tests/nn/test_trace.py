"""Tensors of a trace: they have no values, and lie where nothing else is alive."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from nets import BATCH, IN_SHAPE, every_graph, make
from paths import ROOT

import convnet
import convnet.backend
from convnet.nn.plan import peak, plan
from convnet.nn.trace import Trace, TraceError
from convnet.ops.schema import operations
from convnet.optim.sgd import SGD


def test_a_tensor_has_no_values() -> None:
    trace = Trace([convnet.backend.get("cpu")])
    x = trace.input((2, 3), np.float32, trace.backends[0])
    for ask in (bool, float, list, np.asarray, lambda t: t + 1, lambda t: t[0], lambda t: 2 * t):
        with pytest.raises(TraceError, match="the values of a tensor are not known"):
            ask(x)
    assert x.reshape(-1).shape == (6,)
    assert x.reshape(2, 3) is x
    assert x.reshape((3, -1)).root is x
    with pytest.raises(ValueError, match=r"reshape: 6 numbers of shape \(2, 3\)"):
        x.reshape(4, 2)


def test_the_schema_has_every_operation_of_the_contract(backend: Any) -> None:
    """What of src/ops.h runs on a stream, in each backend's module and in no other."""
    header = (ROOT / "src" / "ops.h").read_text(encoding="utf-8")
    contract = re.findall(r"^void (\w+)\([^;]*Stream stream\);", header, re.MULTILINE)
    assert len(contract) > 20
    rows = backend.module.schema()
    assert sorted(name for name, _, returns in rows if not returns) == sorted(contract)
    assert rows == convnet.backend.get("cpu").module.schema()
    assert set(operations()) == set(contract)


@every_graph
def test_nothing_lies_over_what_is_alive(graph: Any) -> None:
    net = make(graph)
    program = net.programs.trace_training((BATCH, *IN_SHAPE), SGD(net.params)).program
    placed = plan(program)
    lives: dict[Any, list[int]] = {}
    for index, call in enumerate(program.calls):
        scratch = call.tensors(("workspace",)) if call.op.scratch else []
        for tensor in (*call.reads, *call.writes, *scratch):
            if tensor.root in placed.offset:
                lives.setdefault(tensor.root, []).append(index)
    assert set(lives) == set(placed.offset)
    in_place = {
        frozenset((call[read].root, call[written].root))
        for call in program.calls
        for read, written in call.op.in_place
    }
    for one, times in lives.items():
        start, end = placed.offset[one], placed.offset[one] + one.nbytes
        assert end <= placed.size
        for other, others in lives.items():
            if one is other or times[-1] < others[0] or others[-1] < times[0]:
                continue
            low, high = placed.offset[other], placed.offset[other] + other.nbytes
            meets = {times[0], times[-1]} & {others[0], others[-1]}
            shared = frozenset((one, other)) in in_place and meets
            assert shared or high <= start or end <= low, (one, other)
    assert peak(program)[0] <= placed.size <= 1.3 * peak(program)[0] + 64 * len(lives)
