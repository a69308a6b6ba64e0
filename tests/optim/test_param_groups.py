"""Parameters with a momentum or a schedule of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from convnet.config import ConfigError, load_config
from convnet.evaluation.evaluate import open_run
from convnet.layers import Dense, SoftmaxCrossEntropy
from convnet.nn.net import Net, Node
from convnet.optim import lr_schedule
from convnet.optim.sgd import SGD
from convnet.training.nets import net_of, param_groups
from convnet.training.train import train

DEXP = {"kind": "dexp", "target_factor": 100.0, "levels": 3}
GROUPS = [
    {"params": ["conv1.b"], "momentum": 0.5, "schedule": DEXP},
    {"params": ["fc2.*"], "schedule": {"kind": "exp", "target_factor": 10.0}},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_data(tmp_path / "data")


def config(data: Path | str, groups: Any) -> dict[str, Any]:
    table = tiny.config(data, schedule={"kind": "constant"})
    table["sgd"]["groups"] = groups
    return table


def test_they_are_read_and_written_back() -> None:
    cfg = load_config(config("x", GROUPS))
    first, second = cfg.sgd.groups
    assert (first.params, first.momentum) == (("conv1.b",), 0.5)
    assert first.schedule is not None
    assert first.schedule.options["levels"] == 3
    assert second.momentum is None
    assert load_config(cfg.to_dict()) == cfg
    assert "groups" not in load_config(config("x", [])).to_dict()["sgd"]


def test_a_written_file_reads_back_equal(tmp_path: Path) -> None:
    cfg = load_config(config("x", GROUPS))
    path = tmp_path / "a.toml"
    path.write_text(cfg.to_toml())
    assert load_config(path) == cfg


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (3, r"sgd.groups: expected \[\[sgd.groups\]\] tables"),
        ([3], r"sgd.groups\[0\]: expected a table, got 3"),
        ([{"momentum": 0.5}], r"sgd.groups\[0\].params: missing"),
        ([{"params": ["a.b"], "momentum": 1.0}], r"groups\[0\].momentum: expected a value >= 0"),
        ([{"params": ["a.b"], "moment": 1.0}], r"groups\[0\].moment: unknown key; .*momentum"),
        ([{"params": "conv1.b"}], r"groups\[0\].params: expected a list of strings"),
        (
            [{"params": ["conv1.b"], "schedule": {"kind": "plateau"}}],
            r"groups\[0\].schedule.kind: plateau is for \[schedule\] only",
        ),
        (
            [{"params": ["conv1.b"], "schedule": {"kind": "exp", "levels": 3}}],
            r"groups\[0\].schedule.levels: unknown key",
        ),
        ([{"params": ["conv1.x"]}], r'groups\[0\].params: no parameter is called "conv1.x"; did'),
        (
            [{"params": ["*.b"]}, {"params": ["conv1.*"]}],
            r"groups\[1\].params: conv1.b is in group 0 too",
        ),
    ],
)
def test_bad_groups_name_the_key(groups: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        net_of(load_config(config("x", groups)), "cpu")


def test_each_parameter_is_updated_by_its_own_numbers(backend: Any, rng: Any) -> None:
    nodes = [Node("fc1", Dense(6)), Node("fc2", Dense(10)), Node("softmax", SoftmaxCrossEntropy())]
    net = Net(nodes, (5,), device=backend)
    net.keep_gradients = True  # the gradients are looked at below
    table = config("x", [{"params": ["fc1.w"], "momentum": 0.25, "schedule": DEXP}])
    groups = param_groups(load_config(table), net)
    sgd = SGD(net.params, lr=0.05, momentum=0.9, weight_decay=0.1)
    own = lr_schedule.build("dexp", 0.05, target_factor=100.0, levels=3)
    x, labels = rng.standard_normal((8, 5)).astype(np.float32), rng.integers(0, 10, 8)
    velocities: dict[str, Any] = {param.name: 0.0 for param in net.params}
    for step in range(3):
        groups.begin_step(step, 3)
        before = {p.name: np.array(backend.to_host(p.data)) for p in net.params}
        net.train_step(x, labels, sgd)
        for param in net.params:
            lr, momentum = (own.lr(step, 3), 0.25) if param.name == "fc1.w" else (0.05, 0.9)
            grad, decay = backend.to_host(param.grad), 0.1 * param.decay_mult
            v = momentum * velocities[param.name] - lr * (decay * before[param.name] + grad)
            velocities[param.name] = v
            now = backend.to_host(param.data)
            np.testing.assert_allclose(now, before[param.name] + v, rtol=1e-5, atol=1e-7)


def test_a_run_with_them_resumes_to_the_same_bits(tmp_path: Path, data: Path) -> None:
    table = config(data, GROUPS)
    whole = train(table, device="cpu", run_dir=tmp_path / "whole", quiet=True)

    def stop(record: dict[str, Any]) -> bool:
        return record["step"] >= 14

    part = train(table, device="cpu", run_dir=tmp_path / "part", quiet=True, callbacks=[stop])
    assert part.status == "stopped"
    train(resume=tmp_path / "part", device="cpu", quiet=True)
    states = [
        open_run(sorted((tmp_path / name / "checkpoints").iterdir())[-1], "cpu").net.state()
        for name in ("whole", "part")
    ]
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)
    ends = {whole.final["loss"]}
    for groups in ([], GROUPS[:1], GROUPS[1:]):  # each of them makes a difference
        run = tmp_path / f"run{len(ends)}"
        ends.add(train(config(data, groups), device="cpu", run_dir=run, quiet=True).final["loss"])
    assert len(ends) == 4


def test_two_devices_share_the_numbers(rng: Any) -> None:
    x, labels = rng.standard_normal((8, 5)).astype(np.float32), rng.integers(0, 10, 8)
    states = []
    for device in ("cpu", "cpu:0,cpu:1"):
        nodes = [
            Node("fc1", Dense(6)),
            Node("fc2", Dense(10)),
            Node("softmax", SoftmaxCrossEntropy()),
        ]
        net = Net(nodes, (5,), device=device)
        table = config("x", [{"params": ["fc1.*"], "momentum": 0.25, "schedule": DEXP}])
        groups = param_groups(load_config(table), net)
        sgd = SGD(net.params, lr=0.5, momentum=0.9, weight_decay=0.1)
        for step in range(3):
            groups.begin_step(step, 3)
            net.train_step(x, labels, sgd)
        states.append(net.state())
    for name, array in states[0].items():
        np.testing.assert_allclose(states[1][name], array, rtol=1e-5, atol=1e-6, err_msg=name)
