"""The rules that rewrite programs: each by itself, its pattern, its result, and equal bits.

A step is written down with `ops`, run on arrays as it stands, then traced, rewritten by one rule
and run again. Results must agree to the bit, also where a rule may not apply.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convnet import ops
from convnet.nn import rewrite as rules
from convnet.nn.program import Program
from convnet.nn.run import Runnable
from convnet.nn.trace import Trace

RATES = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
MASK = {"seed": 3, "layer": 5, "step": 2}


class Step:
    """A step on arrays, and the program that a rule makes of it.

    Args:
        function: of a dict of arrays or tensors; returns those that are wanted.
        arrays: what it is given; those named "w..." and "v..." are state and may be updated.
    """

    def __init__(self, backend: Any, function: Any, **arrays: np.ndarray) -> None:
        self.backend, self.function = backend, function
        self.arrays = arrays

    def _on_device(self) -> dict[str, Any]:
        return {name: self.backend.asarray(array.copy()) for name, array in self.arrays.items()}

    def eager(self) -> list[np.ndarray]:
        given = self._on_device()
        wanted = self.function(given)
        return self._hosted([*wanted, *self._state(given)])

    def traced(self, *applied: Any) -> tuple[list[str], list[np.ndarray]]:
        """The names of the calls after these rules, and what a run gives, twice in a row."""
        given, trace = self._on_device(), Trace([self.backend])
        tensors = {
            name: array if name[0] in "wv" else trace.input(array.shape, array.dtype, self.backend)
            for name, array in given.items()
        }
        wanted = self.function(tensors)
        program = Program(trace.calls, wanted)
        rules.rewrite(program, applied)
        runnable = Runnable(program, trace, [])
        runnable.blocks = [self.backend.empty((max(1, size),), np.uint8) for size in runnable.sizes]
        runnable.blocks[0].fill(255)  # NaN: nothing may be read that was not written
        inputs = {tensor: given[name] for name, tensor in tensors.items() if name[0] not in "wv"}
        runnable.fill(inputs)
        runnable.run()
        first = self._hosted([*map(runnable.array, wanted), *self._state(given)])
        for name, array in self.arrays.items():
            given[name][...] = self.backend.asarray(array)
        runnable.run()
        again = self._hosted([*map(runnable.array, wanted), *self._state(given)])
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)
        return [call.op.name for call in program.calls], first

    def _state(self, given: dict[str, Any]) -> list[Any]:
        return [array for name, array in given.items() if name[0] in "wv"]

    def _hosted(self, arrays: list[Any]) -> list[np.ndarray]:
        return [np.array(self.backend.to_host(array)) for array in arrays]


def draw(rng: Any, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def check(step: Step, rule: Any, before: list[str], after: list[str]) -> None:
    plain, expected = step.traced()
    assert plain == before
    names, found = step.traced(rule)
    assert names == after
    for one, other, eager in zip(found, expected, step.eager(), strict=True):
        np.testing.assert_array_equal(one, eager)
        np.testing.assert_array_equal(other, eager)


@pytest.fixture
def images(rng: Any) -> dict[str, np.ndarray]:
    return {
        "x": draw(rng, 3, 6, 5, 4),
        "w": draw(rng, 6, 3, 3, 4),
        "wb": draw(rng, 6),
        "dy": draw(rng, 3, 4, 3, 6),
    }


# ---- forward ------------------------------------------------------------------------------------


@pytest.mark.parametrize("relu", [False, True])
def test_prepared_filters(backend: Any, rng: Any, monkeypatch: Any, relu: bool) -> None:
    """Those of Winograd and wgmma; of mma.sync, those of three channels, as rows of the image."""
    monkeypatch.setenv("CONVNET_WGMMA", "always")
    if "sm_75" in backend.describe():
        pytest.skip("no tensor cores that prepare filters")
    by_rows = backend.name != "cpu" and "sm_90" not in backend.describe()
    width, channels, size, stride, pad = (8, 3, 4, 4, 0) if by_rows else (9, 16, 3, 1, 1)
    arrays = {
        "x": draw(rng, 2, 9, width, channels),
        "w": draw(rng, 8, size, size, channels),
        "wb": draw(rng, 8),
    }

    def step(t: Any) -> list[Any]:
        return [ops.conv_fprop(t["x"], t["w"], t["wb"], stride=stride, pad=pad, relu=relu)]

    check(
        Step(backend, step, **arrays),
        rules.prepared_filters,
        ["conv_fprop"],
        ["conv_prepare", "conv_fprop_prepared"],
    )


@pytest.mark.parametrize("why", ["given to each run", "as they lie"])
def test_prepared_filters_are_not_for(
    kernels_backend: Any, rng: Any, monkeypatch: Any, why: str
) -> None:
    monkeypatch.setenv("CONVNET_WGMMA", "always")

    def step(t: Any) -> list[Any]:
        return [ops.conv_fprop(t["x"], t[name], pad=1)]

    name, channels = ("filters", 16) if why == "given to each run" else ("w", 8)
    arrays = {"x": draw(rng, 2, 9, 9, channels), name: draw(rng, 6, 3, 3, channels)}
    made = Step(kernels_backend, step, **arrays)
    names = made.traced()[0]
    check(made, rules.prepared_filters, names, names)


def test_relu_epilogue(backend: Any, images: Any) -> None:
    def step(t: Any) -> list[Any]:
        return [ops.relu_fprop(ops.conv_fprop(t["x"], t["w"], t["wb"]))]

    check(
        Step(backend, step, **images),
        rules.relu_epilogue,
        ["conv_fprop", "activation_fprop"],
        ["conv_fprop"],
    )


def test_relu_epilogue_in_another_shape(backend: Any, rng: Any) -> None:
    def step(t: Any) -> list[Any]:
        return [ops.relu_fprop(ops.dense_fprop(t["x"], t["w"]).reshape(4, 3, 2))]

    arrays = {"x": draw(rng, 4, 5), "w": draw(rng, 6, 5)}
    check(
        Step(backend, step, **arrays),
        rules.relu_epilogue,
        ["dense_fprop", "activation_fprop"],
        ["dense_fprop"],
    )


@pytest.mark.parametrize("why", ["asked for", "read twice", "tanh", "there already"])
def test_relu_epilogue_is_not_for(backend: Any, images: Any, why: str) -> None:
    def step(t: Any) -> list[Any]:
        y = ops.conv_fprop(t["x"], t["w"], t["wb"], relu=why == "there already")
        if why == "tanh":
            return [ops.tanh_fprop(y)]
        more = {"asked for": [y], "read twice": [ops.abs_fprop(y)]}.get(why, [])
        return [ops.relu_fprop(y), *more]

    made = Step(backend, step, **images)
    names = made.traced()[0]
    check(made, rules.relu_epilogue, names, names)


def test_lrn_maxpool(backend: Any, rng: Any) -> None:
    lrn, window = {"alpha": 0.5, "n": 3}, ((3, 3), (2, 2), (0, 0), "ceil")

    def step(t: Any) -> list[Any]:
        y, argmax = ops.maxpool_fprop(ops.lrn_fprop(t["x"], **lrn), *window)
        dn = ops.maxpool_bprop(t["dy"], argmax, t["x"].shape, *window)
        return [y, ops.lrn_bprop(t["x"], dn, **lrn)]

    made = Step(backend, step, x=draw(rng, 2, 7, 6, 8), dy=draw(rng, 2, 3, 3, 8))
    before = ["lrn_fprop", "maxpool_fprop", "maxpool_bprop", "lrn_bprop"]
    forward = ["lrn_maxpool_fprop", "maxpool_bprop", "lrn_bprop"]
    check(made, rules.lrn_maxpool_fprop, before, forward)
    check(made, rules.lrn_maxpool_bprop, before, [*before[:2], "lrn_maxpool_bprop"])


def test_lrn_that_others_read_stays(backend: Any, rng: Any) -> None:
    def step(t: Any) -> list[Any]:
        n = ops.lrn_fprop(t["x"])
        return [ops.maxpool_fprop(n, 2, 2)[0], ops.abs_fprop(n)]

    made = Step(backend, step, x=draw(rng, 2, 4, 4, 8))
    check(made, rules.lrn_maxpool_fprop, made.traced()[0], made.traced()[0])


def test_dense_dropout(backend: Any, rng: Any) -> None:
    def step(t: Any) -> list[Any]:
        return [ops.dropout_fprop(ops.dense_fprop(t["x"], t["w"], t["wb"], relu=True), 0.4, **MASK)]

    made = Step(backend, step, x=draw(rng, 6, 9), w=draw(rng, 7, 9), wb=draw(rng, 7))
    check(made, rules.dense_dropout, ["dense_fprop", "dropout"], ["dense_fprop_dropout"])


# ---- backward -----------------------------------------------------------------------------------


def test_mask_into_dgrad(backend: Any, images: Any) -> None:
    def step(t: Any) -> list[Any]:
        return [ops.relu_bprop(t["x"], ops.conv_dgrad(t["dy"], t["w"], t["x"].shape))]

    made = Step(backend, step, **images)
    check(made, rules.mask_into_dgrad, ["conv_dgrad", "activation_bprop"], ["conv_dgrad"])


def test_mask_into_dgrad_past_a_flatten(backend: Any, rng: Any) -> None:
    def step(t: Any) -> list[Any]:
        dx = ops.dense_dgrad(t["dy"], t["w"]).reshape(3, 2, 2, 4)
        return [ops.relu_bprop(t["x"], dx)]

    made = Step(backend, step, x=draw(rng, 3, 2, 2, 4), dy=draw(rng, 3, 5), w=draw(rng, 5, 16))
    check(made, rules.mask_into_dgrad, ["dense_dgrad", "activation_bprop"], ["dense_dgrad"])


@pytest.mark.parametrize("same", [True, False])
def test_mask_into_the_norm_only_of_what_it_normalises(backend: Any, rng: Any, same: bool) -> None:
    window = ((2, 2), (2, 2), (0, 0), "ceil")

    def step(t: Any) -> list[Any]:
        y, argmax = ops.lrn_maxpool_fprop(t["x"], *window)
        dx = ops.lrn_maxpool_bprop(t["x"], t["dy"], argmax, *window)
        return [y, ops.relu_bprop(t["x" if same else "other"], dx)]

    arrays = {name: draw(rng, 2, 4, 4, 8) for name in ("x", "other")}
    made = Step(backend, step, **arrays, dy=draw(rng, 2, 2, 2, 8))
    before = ["lrn_maxpool_fprop", "lrn_maxpool_bprop", "activation_bprop"]
    check(made, rules.mask_into_dgrad, before, before[:2] if same else before)


@pytest.mark.parametrize("mode", ["paper", "inverted"])
def test_dropout_mask_joins_relu(backend: Any, rng: Any, mode: str) -> None:
    def step(t: Any) -> list[Any]:
        y = ops.relu_fprop(t["x"])
        z = ops.dropout_fprop(y, 0.4, mode=mode, **MASK)
        dr = ops.dropout_bprop(t["dy"], 0.4, mode=mode, **MASK)
        return [z, ops.relu_bprop(y, dr)]

    made = Step(backend, step, x=draw(rng, 4, 33), dy=draw(rng, 4, 33))
    before = ["activation_fprop", "dropout", "dropout", "activation_bprop"]
    scaled = ["activation_bprop"] if mode == "inverted" else []
    after = ["activation_fprop", "dropout", "activation_bprop", *scaled]
    check(made, rules.dropout_mask_joins_relu, before, after)


def test_another_mask_does_not_join(backend: Any, rng: Any) -> None:
    def step(t: Any) -> list[Any]:
        y = ops.relu_fprop(t["x"])
        z = ops.dropout_fprop(y, 0.4, **MASK)
        return [z, ops.relu_bprop(y, ops.dropout_bprop(t["dy"], 0.5, **MASK))]

    made = Step(backend, step, x=draw(rng, 4, 33), dy=draw(rng, 4, 33))
    check(made, rules.dropout_mask_joins_relu, made.traced()[0], made.traced()[0])


# ---- the update ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dgrad", ["none", "before", "after"])
def test_wgrad_sgd(backend: Any, rng: Any, dgrad: str) -> None:
    """The update comes after the last that reads w, wherever that stands."""

    def step(t: Any) -> list[Any]:
        wanted = [ops.dense_dgrad(t["dy"], t["w"])] if dgrad == "before" else []
        dw, db = ops.dense_wgrad(t["x"], t["dy"])
        wanted += [ops.dense_dgrad(t["dy"], t["w"])] if dgrad == "after" else []
        ops.sgd_update([(t["w"], t["v"], dw, 1.0, 1.0), (t["wb"], t["vb"], db, 2.0, 0.0)], **RATES)
        return wanted

    arrays = {"x": draw(rng, 6, 9), "dy": draw(rng, 6, 7), "w": draw(rng, 7, 9)}
    arrays |= {"v": draw(rng, 7, 9), "wb": draw(rng, 7), "vb": draw(rng, 7)}
    made = Step(backend, step, **arrays)
    first = [] if dgrad == "none" else ["dense_dgrad"]
    check(made, rules.wgrad_sgd, made.traced()[0], [*first, "dense_wgrad_sgd", "sgd_update"])


@pytest.mark.parametrize("why", ["asked for", "convolution", "two parts"])
def test_wgrad_sgd_is_not_for(backend: Any, images: Any, rng: Any, why: str) -> None:
    def step(t: Any) -> list[Any]:
        if why == "convolution":
            dw, _ = ops.conv_wgrad(t["x"], t["dy"], t["w"].shape)
        else:
            dw, _ = ops.dense_wgrad(t["rows"], t["drows"])
        if why == "two parts":
            ops.accumulate(dw, ops.dense_wgrad(t["rows"], t["drows"])[0])
        w, v = ("w", "v") if why == "convolution" else ("wd", "vd")
        ops.sgd_update([(t[w], t[v], dw, 1.0, 1.0)], **RATES)
        return [dw] if why == "asked for" else []

    more = {"v": draw(rng, 6, 3, 3, 4), "wd": draw(rng, 7, 9), "vd": draw(rng, 7, 9)}
    rows = {"rows": draw(rng, 6, 9), "drows": draw(rng, 6, 7)}
    made = Step(backend, step, **images, **more, **rows)
    check(made, rules.wgrad_sgd, made.traced()[0], made.traced()[0])


# ---- copies and what nobody needs ---------------------------------------------------------------


def test_copy_elision(backend: Any, rng: Any) -> None:
    """The first part of a sum is written where the sum is, if nothing else reads it."""

    def step(t: Any) -> list[Any]:
        a, b = ops.tanh_fprop(t["x"]), ops.abs_fprop(t["x"])
        total = ops.copy(ops_empty(a), a)
        return [ops.accumulate(total, b)]

    made = Step(backend, step, x=draw(rng, 4, 9))
    before = ["activation_fprop", "activation_fprop", "peer_copy", "accumulate"]
    check(made, rules.copy_elision, before, [*before[:2], "accumulate"])


def test_a_copy_of_what_is_read_elsewhere_stays(backend: Any, rng: Any) -> None:
    def step(t: Any) -> list[Any]:
        a = ops.tanh_fprop(t["x"])
        total = ops.copy(ops_empty(a), a)
        return [ops.accumulate(total, a)]

    made = Step(backend, step, x=draw(rng, 4, 9))
    check(made, rules.copy_elision, made.traced()[0], made.traced()[0])


def ops_empty(like: Any) -> Any:
    from convnet import backend

    return backend.of(like).empty(like.shape)


def test_what_nobody_needs_is_dropped(backend: Any, images: Any) -> None:
    def step(t: Any) -> list[Any]:
        y = ops.conv_fprop(t["x"], t["w"])
        ops.abs_fprop(ops.tanh_fprop(y))
        return [ops.relu_fprop(y)]

    made = Step(backend, step, **images)
    assert made.traced()[0] == ["conv_fprop", "activation_fprop"]
