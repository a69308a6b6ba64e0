"""A NaN that enters an operation comes out: in every element of its result that depends on it.

That is what the reference says, which computes with NaN as IEEE 754 has it. Algorithms that share
work may spread it further. What lets a NaN pass on, and does not become one itself: the mask of a
ReLU (its x is NaN then, which shows forward), labels, and what dropout drops.
"""

from __future__ import annotations

from functools import partial

import cases
import numpy as np
import pytest
import reference

from convnet import ops

SOME_CONV = [case for case in cases.CONV if case.small][::3]
SOME_LOCAL = cases.LOCAL[::4]
PRECISIONS = pytest.mark.parametrize("precision", ops.PRECISIONS)


def planted(rng, array):
    """The array with NaN in its first, its last and some other element, one at a time."""
    for place in {0, array.size - 1, int(rng.integers(array.size))}:
        copy = array.copy()
        copy.reshape(-1)[place] = np.nan
        yield copy


def comes_out(backend, rng, op, expect, inputs, *, linear=False, fixed=()):
    """op and expect: of all inputs. Plants NaN in each of them that is not fixed.

    linear: in each input. What depends on an element is then what changes when it goes from 0 to 1
        among positive numbers, as the zeros of the padding are not multiplied by it.
    """
    found = False
    for position in set(range(len(inputs))) - set(fixed):
        for spoiled in planted(rng, inputs[position]):
            given = [*inputs[:position], spoiled, *inputs[position + 1 :]]
            got = op(*(backend.asarray(array) for array in given))
            if linear:
                given = [abs(array) + 1 for array in inputs]
                given[position] = np.zeros_like(spoiled)
                without = _tuple(expect(*given))
                given[position] = np.isnan(spoiled).astype(np.float32)
                wanted = [a != b for a, b in zip(_tuple(expect(*given)), without, strict=True)]
            else:
                with np.errstate(all="ignore"):
                    wanted = [np.isnan(array) for array in _tuple(expect(*given))]
            for number, (actual, want) in enumerate(zip(_tuple(got), wanted, strict=True)):
                hidden = np.count_nonzero(want & ~np.isnan(backend.to_host(actual)))
                assert not hidden, (
                    f"NaN in input {position} is hidden in {hidden} elements of result {number}"
                )
                found = found or want.any()
    assert found, "a test of nothing"


def _tuple(results):
    return results if isinstance(results, tuple) else (results,)


def draw(rng, *shapes):
    return [cases.floats(rng, shape) for shape in shapes]


@PRECISIONS
@pytest.mark.parametrize("case", SOME_CONV, ids=str)
def test_conv(backend, rng, case, precision):
    x, w, b, dy = draw(rng, case.x_shape, case.w_shape, (case.k,), case.y_shape)
    options = case.options
    for relu in (False, True):
        comes_out(
            backend,
            rng,
            lambda x, w, b, r=relu: ops.conv_fprop(x, w, b, relu=r, precision=precision, **options),
            lambda x, w, b, r=relu: reference.conv_fprop(x, w, b, relu=r, **options),
            [x, w, b],
            linear=True,
        )
    comes_out(
        backend,
        rng,
        lambda dy, w: ops.conv_dgrad(dy, w, x.shape, precision=precision, **options),
        lambda dy, w: reference.conv_dgrad(dy, w, x.shape, **options),
        [dy, w],
        linear=True,
    )
    comes_out(
        backend,
        rng,
        lambda x, dy: ops.conv_wgrad(x, dy, w.shape, precision=precision, **options),
        lambda x, dy: reference.conv_wgrad(x, dy, w.shape, **options),
        [x, dy],
        linear=True,
    )


@PRECISIONS
def test_what_no_window_covers_stays_out(kernels_backend, rng, precision):
    """The last row and column of an image whose windows end before them; 45 products are no whole
    number of a tile's steps, and what fills the last one is not read."""
    x, w = draw(rng, (2, 8, 10, 5), (7, 3, 3, 5))
    x[:, 7], x[:, :, 9] = np.nan, np.nan
    y = ops.conv_fprop(*map(kernels_backend.asarray, (x, w)), stride=(2, 2), precision=precision)
    assert y.shape == (2, 3, 4, 7)
    assert np.isfinite(kernels_backend.to_host(y)).all()


@pytest.mark.parametrize("case", SOME_LOCAL, ids=str)
def test_local(backend, rng, case):
    x, w, b, dy = draw(rng, case.x_shape, case.local_w_shape, case.local_b_shape, case.y_shape)
    options = case.options
    comes_out(
        backend,
        rng,
        lambda x, w, b: ops.local_fprop(x, w, b, relu=True, **options),
        lambda x, w, b: reference.local_fprop(x, w, b, relu=True, **options),
        [x, w, b],
        linear=True,
    )
    comes_out(
        backend,
        rng,
        lambda dy, w: ops.local_dgrad(dy, w, x.shape, **options),
        lambda dy, w: reference.local_dgrad(dy, w, x.shape, **options),
        [dy, w],
        linear=True,
    )
    comes_out(
        backend,
        rng,
        lambda x, dy: ops.local_wgrad(x, dy, w.shape, **options),
        lambda x, dy: reference.local_wgrad(x, dy, w.shape, **options),
        [x, dy],
        linear=True,
    )


@pytest.mark.parametrize("spoiled", ["dy", "w"])
def test_local_dgrad_of_other_windows_stays_out(kernels_backend, rng, spoiled):
    """5 to 45 products in steps of 8: what fills the last one is not read."""
    dy, w = draw(rng, (2, 4, 4, 5), (4, 4, 5, 3, 3, 2))
    {"dy": dy[:, 0, 0], "w": w[0, 0]}[spoiled][:] = np.nan
    dx = kernels_backend.to_host(
        ops.local_dgrad(*map(kernels_backend.asarray, (dy, w)), (2, 6, 6, 2))
    )
    assert np.isnan(dx[:, :3, :3]).all()
    assert np.isfinite(dx[:, 3:]).all()
    assert np.isfinite(dx[:, :, 3:]).all()


@PRECISIONS
@pytest.mark.parametrize("case", [*cases.DENSE[:5], cases.DenseCase("few", 3, 70, 20)], ids=str)
def test_dense(backend, rng, case, precision):
    x, w, b, dy = draw(rng, (case.n, case.c), (case.k, case.c), (case.k,), (case.n, case.k))

    def never_dropped(x, w, b):
        return ops.dense_fprop_dropout(x, w, b, 0.0, seed=7, relu=True, precision=precision)

    comes_out(
        backend,
        rng,
        lambda x, w, b: ops.dense_fprop(x, w, b, relu=True, precision=precision),
        lambda x, w, b: reference.dense_fprop(x, w, b, relu=True),
        [x, w, b],
        linear=True,
    )
    comes_out(
        backend,
        rng,
        never_dropped,
        lambda x, w, b: reference.dense_fprop(x, w, b, relu=True),
        [x, w, b],
        linear=True,
    )
    comes_out(
        backend,
        rng,
        lambda dy, w: ops.dense_dgrad(dy, w, precision=precision),
        reference.dense_dgrad,
        [dy, w],
        linear=True,
    )
    comes_out(
        backend,
        rng,
        lambda x, dy: ops.dense_wgrad(x, dy, precision=precision),
        reference.dense_wgrad,
        [x, dy],
        linear=True,
    )


@pytest.mark.parametrize("case", [case for case in cases.POOL if case.small], ids=str)
def test_pools(backend, rng, case):
    """Where windows skip an element it reaches nothing, so it is planted where one looks."""
    x, dy = draw(rng, case.x_shape, case.y_shape)
    argmax = reference.maxpool_fprop(x, *case.args)[1]
    winners = backend.asarray(argmax.astype(np.uint8))
    seen = np.argwhere(reference.avgpool_bprop(np.ones(dy.shape), x.shape, *case.args) != 0)
    for place in seen[[0, len(seen) // 2, -1]]:
        spoiled = x.copy()
        spoiled[tuple(place)] = np.nan
        held = backend.asarray(spoiled)
        for op, expect in [
            (lambda x: ops.maxpool_fprop(x, *case.args)[0], reference.maxpool_fprop),
            (lambda x: ops.avgpool_fprop(x, *case.args), reference.avgpool_fprop),
        ]:
            wanted = _tuple(expect(spoiled, *case.args))[0]
            assert np.isnan(wanted).any()
            assert (np.isnan(backend.to_host(op(held))) >= np.isnan(wanted)).all()
    comes_out(
        backend,
        rng,
        lambda dy: ops.maxpool_bprop(dy, winners, x.shape, *case.args),
        lambda dy: reference.maxpool_bprop(dy, argmax, x.shape, *case.args),
        [dy],
    )
    comes_out(
        backend,
        rng,
        lambda dy: ops.avgpool_bprop(dy, x.shape, *case.args),
        lambda dy: reference.avgpool_bprop(dy, x.shape, *case.args),
        [dy],
    )


def test_blur_and_nailbed(backend, rng):
    for shape, size, std in cases.BLUR[:4]:
        expect = partial(reference.blur, size=size, std=std)
        [x] = draw(rng, shape)
        op = partial(ops.blur_fprop, size=size, std=std)
        comes_out(backend, rng, op, expect, [x], linear=True)
    for shape, stride, start in cases.NAILBED:
        taken = (slice(None), slice(start, None, stride), slice(start, None, stride))
        x, dy = draw(rng, shape, np.empty(shape)[taken].shape)
        x[taken] = np.nan
        assert np.isnan(backend.to_host(ops.nailbed_fprop(backend.asarray(x), stride, start))).all()
        comes_out(
            backend,
            rng,
            lambda dy, args=(shape, stride, start): ops.nailbed_bprop(dy, *args),
            lambda dy, args=(shape, stride, start): reference.nailbed_bprop(dy, *args),
            [dy],
        )


@pytest.mark.parametrize("case", [case for case in cases.LRN if case.small], ids=str)
def test_lrn(backend, rng, case):
    x, dy = draw(rng, case.x_shape, case.x_shape)
    comes_out(
        backend,
        rng,
        lambda x: ops.lrn_fprop(x, **case.options),
        lambda x: reference.lrn_fprop(x, **case.options),
        [x],
    )
    comes_out(
        backend,
        rng,
        lambda x, dy: ops.lrn_bprop(x, dy, **case.options),
        lambda x, dy: reference.lrn_bprop(x, dy, **case.options),
        [x, dy],
    )


@pytest.mark.parametrize("channels", [5, 16, 96])
def test_lrn_and_maxpool_in_one(backend, rng, channels):
    pool = ((3, 3), 2, 0, "ceil")
    x = cases.floats(rng, (2, 7, 8, channels))
    y, argmax = map(backend.to_host, ops.lrn_maxpool_fprop(backend.asarray(x), *pool))
    dy, winners = cases.floats(rng, y.shape), backend.asarray(np.array(argmax))

    def apart(x):
        return reference.maxpool_fprop(reference.lrn_fprop(x), (3, 3), (2, 2))[0]

    def backward(x, dy):
        grad = reference.maxpool_bprop(dy, np.asarray(argmax), x.shape, (3, 3), (2, 2))
        return reference.lrn_bprop(x, grad)

    comes_out(backend, rng, lambda x: ops.lrn_maxpool_fprop(x, *pool)[0], apart, [x])
    comes_out(
        backend,
        rng,
        lambda x, dy: ops.lrn_maxpool_bprop(x, dy, winners, *pool),
        backward,
        [x, dy],
    )


@pytest.mark.parametrize("kind", reference.ACTIVATIONS)
def test_activations(backend, rng, kind):
    x, dy = draw(rng, (5, 37), (5, 37))
    comes_out(backend, rng, lambda x: ops.activation_fprop(kind, x), lambda x: x, [np.abs(x)])
    saved = backend.to_host(ops.activation_fprop(kind, backend.asarray(np.abs(x) / 4 + 0.1)))
    held = backend.asarray(np.array(saved))
    comes_out(backend, rng, lambda dy: ops.activation_bprop(kind, held, dy), lambda dy: dy, [dy])


def test_dropout_and_sums(backend, rng):
    x = cases.floats(rng, (9, 33))
    kept = reference.dropout_mask(x.shape, 0.3, seed=1, layer=2, step=3) != 0
    for place in ((4, 5), (8, 32), (0, 0)):
        spoiled = x.copy()
        spoiled[place] = np.nan
        got = ops.dropout_fprop(backend.asarray(spoiled), 0.3, seed=1, layer=2, step=3)
        assert np.isnan(backend.to_host(got)[place]) or not kept[place]
    for place in range(2):
        pair = draw(rng, (9, 33), (9, 33))
        pair[place][8, 32] = np.nan
        dst, src = map(backend.asarray, pair)
        ops.accumulate(dst, src)
        assert np.isnan(backend.to_host(dst)[8, 32])


@pytest.mark.parametrize("classes", [1, 2, 10, 33, 1000])
def test_softmax(backend, rng, classes):
    """Whichever logit it is; infinity and what is not a number are one."""
    logits, labels = cases.floats(rng, (3, classes)), rng.integers(0, classes, 3).astype(np.int32)
    for place in {0, classes - 1, classes // 2}:
        for value in (np.nan, np.inf):
            spoiled = logits.copy()
            spoiled[1, place] = value
            given = backend.asarray(spoiled), backend.asarray(labels)
            loss, dlogits, rank = ops.softmax_xent(*given, dlogits=True)
            at_label = value == np.inf and place == labels[1] and classes == 1
            assert not np.isfinite(backend.to_host(loss)[1]) or at_label
            assert np.isnan(backend.to_host(dlogits)[1]).any()
            assert np.isfinite(backend.to_host(loss)[[0, 2]]).all()
            probs = backend.to_host(ops.softmax_fprop(given[0]))
            assert np.isnan(probs[1]).any()
            if value is np.nan:
                assert np.isnan(probs[1]).all()
                assert np.isnan(backend.to_host(dlogits)[1]).all()
                assert np.isnan(backend.to_host(loss)[1])
                assert backend.to_host(rank)[1] > 0 or classes == 1


def test_augment(backend, rng):
    image = rng.integers(0, 255, (2, 6, 6, 3), np.uint8)
    offsets, mirror = np.zeros((2, 2), np.int32), np.zeros(2, np.uint8)
    mean, noise = draw(rng, (6, 6, 3), (2, 3))

    def run(mean, noise):
        given = map(backend.asarray, (image, offsets, mirror))
        return ops.augment(*given, mean, crop=(4, 4), noise=noise)

    def expect(mean, noise):
        return reference.augment(image, offsets, mirror, mean, crop=(4, 4), noise=noise)

    comes_out(backend, rng, run, expect, [mean, noise], fixed=(0,))
    comes_out(backend, rng, run, expect, [mean[:1, :1], noise])
