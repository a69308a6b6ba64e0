"""Rules that rewrite a program: several operations become one, with the same bits.

A rule is given one call of the program and says which calls it would replace and by what, or None.
Rules run in the order of `RULES`, each over the whole list; a rule may rely on what those before it
have done. No layer knows of them, and each can be left out without changing a result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from convnet import ops
from convnet.nn.program import Program
from convnet.nn.trace import Call

Changes = Mapping[Call, Sequence[Call]]
Rule = Callable[[Call, Program], Changes | None]

_FPROPS = ("conv_fprop", "local_fprop", "dense_fprop")
_DGRADS = ("conv_dgrad", "local_dgrad", "dense_dgrad")
_MASK = ("drop", "mode", "seed", "layer", "step", "row_offset", "col_offset", "global_cols")


def rewrite(program: Program, rules: Sequence[Rule] | None = None) -> None:
    """Drops what nobody needs, then applies the rules (all of them by default)."""
    program.drop_dead()
    for rule in RULES if rules is None else rules:
        for call in list(program.calls):
            if call in program and (changes := rule(call, program)):
                program.replace(changes)
    program.drop_dead()


def copy_elision(call: Call, program: Program) -> Changes | None:
    """t = f(...), y = copy(t)  ->  y = f(...), where nothing else reads t."""
    if call.op.name != "peer_copy" or call["src"].size != call["dst"].size:
        return None
    maker = program.sole_source(call, call["src"])
    if maker is None or maker.device is not call.device:
        return None
    name = next(n for n in maker.op.writes if _is(maker[n], call["src"]))
    target = call["dst"].root.reshape(maker[name].shape)
    return {call: [], maker: [maker.but(**{name: target})]}


def dropout_mask_joins_relu(call: Call, program: Program) -> Changes | None:
    """z = dropout(y); dr = dropout(dz), dy = relu_bprop(y, dr)  ->  dy = relu_bprop(z, dz).

    z is 0 where y was not positive and where it was dropped, so one mask does for both. With the
    inverted dropout what is left is then multiplied by its factor.
    """
    if call.op.name != "activation_bprop" or call["kind"] != "relu":
        return None
    back = program.sole_source(call, call["dy"], "dropout")
    if back is None:
        return None
    forward = next(
        (
            other
            for other in program.readers(call["saved"])
            if other.op.name == "dropout" and all(other[name] == back[name] for name in _MASK)
        ),
        None,
    )
    if forward is None:
        return None
    shape = call["dy"].shape
    z, dz = forward["y"].reshape(shape), back["x"].reshape(shape)
    if back["mode"] == "paper":
        return {back: [], call: [call.but(also=[back], saved=z, dy=dz)]}
    masked = back["y"].reshape(shape)
    scaled = call.but(saved=masked, dy=masked, kind="affine", a=1 / (1 - back["drop"]), b=0.0)
    return {back: [call.but(also=[back], saved=z, dy=dz, dx=masked)], call: [scaled]}


def relu_epilogue(call: Call, program: Program) -> Changes | None:
    """y = fprop(x), z = relu(y)  ->  z = fprop(x, relu), where nothing else reads y."""
    if call.op.name not in _FPROPS or call["relu"]:
        return None
    relu = program.sole_user(call["y"], "activation_fprop")
    if relu is None or relu["kind"] != "relu":
        return None
    z = relu["y"].reshape(call["y"].shape)
    return {call: [], relu: [call.but(also=[relu], y=z, relu=True)]}


def lrn_maxpool_fprop(call: Call, program: Program) -> Changes | None:
    """n = lrn(x), y = maxpool(n)  ->  y = lrn_maxpool(x), where nothing else reads n."""
    if call.op.name != "lrn_fprop":
        return None
    pool = program.sole_user(call["y"], "maxpool_fprop")
    if pool is None or pool["x"].shape != call["x"].shape:
        return None
    given = _window(pool, "y", "argmax")
    return {call: [], pool: [call.but("lrn_maxpool_fprop", [pool], **given)]}


def lrn_maxpool_bprop(call: Call, program: Program) -> Changes | None:
    """dn = maxpool_bprop(dy), dx = lrn_bprop(x, dn)  ->  dx = lrn_maxpool_bprop(x, dy)."""
    if call.op.name != "lrn_bprop":
        return None
    pool = program.sole_source(call, call["dy"], "maxpool_bprop")
    if pool is None or call["dy"].shape != call["x"].shape:
        return None
    given = _window(pool, "dy", "argmax")
    return {pool: [], call: [call.but("lrn_maxpool_bprop", [pool], relu_mask=False, **given)]}


def mask_into_dgrad(call: Call, program: Program) -> Changes | None:
    """d = dgrad(...), dz = relu_bprop(y, d)  ->  dz = dgrad(..., relu_mask=y); the fused backward
    pass of LRN and pool takes the mask where y is what it normalises."""
    if call.op.name != "activation_bprop" or call["kind"] != "relu":
        return None
    below = program.sole_source(call, call["dy"], *_DGRADS, "lrn_maxpool_bprop")
    if below is None:
        return None
    if below.op.name == "lrn_maxpool_bprop":
        mask = True if _is(below["x"], call["saved"]) else None
    else:
        mask = None if below["relu_mask"] is not None else call["saved"].reshape(below["dx"].shape)
    if mask is None:
        return None
    dx = call["dx"].reshape(below["dx"].shape)
    return {below: [below.but(also=[call], relu_mask=mask, dx=dx)], call: []}


def dense_dropout(call: Call, program: Program) -> Changes | None:
    """y = dense(x), z = dropout(y)  ->  z = dense_dropout(x), where nothing else reads y."""
    if call.op.name != "dropout":
        return None
    dense = program.sole_source(call, call["x"], "dense_fprop")
    if dense is None:
        return None
    rule = {name: call[name] for name in (*_MASK, "state")}
    z = call["y"].reshape(dense["y"].shape)
    return {dense: [], call: [dense.but("dense_fprop_dropout", [call], y=z, **rule)]}


def wgrad_sgd(call: Call, program: Program) -> Changes | None:
    """dw = dense_wgrad(x, dy), sgd_update(w, dw)  ->  dense_wgrad_sgd(x, dy, w): the gradient is
    never stored. Where nothing else reads dw; it comes after the last that reads w. Not where
    devices tell each other to abort before the update: they would be told too late."""
    if call.op.name != "sgd_update" or program.has("peer_abort"):
        return None
    columns = ("w", "velocity", "grad", "lr_mult", "decay_mult", "number")
    changes: dict[Call, list[Call]] = {}
    left: list[int] = []
    for index, grad in enumerate(call["grad"]):
        wgrad = program.sole_source(call, grad, "dense_wgrad")
        if wgrad is None or not _is(wgrad["dw"], grad):
            left.append(index)
            continue
        own = {name: call[name][index] for name in columns if name != "grad"}
        own |= {name: call[name] for name in ("lr", "momentum", "weight_decay", "rates", "state")}
        later = [c for c in program.reads_after(own["w"], wgrad) if c is not call]
        changes[wgrad] = []
        after = changes.setdefault(later[-1], [later[-1]]) if later else changes[wgrad]
        after.append(wgrad.but("dense_wgrad_sgd", [call], **own))
    if not changes:
        return None
    rest: dict[str, Any] = {name: [call[name][index] for index in left] for name in columns}
    changes[call] = [call.but(**rest)] if left else []
    return changes


def prepared_filters(call: Call, program: Program) -> Changes | None:
    """y = conv_fprop(x, w)  ->  p = conv_prepare(w), y = conv_fprop_prepared(x, p).

    Where w is a parameter and the device prepares its filters: the first call can then be made
    once, for `Inference`.
    """
    if call.op.name != "conv_fprop" or call["w"].root.kind != "state":
        return None
    x, w, device = call["x"], call["w"], call.device
    options = {name: call[name] for name in ("stride", "pad", "rounding", "groups", "precision")}
    with device.real.active():
        dtype = x.dtype.name
        if not device.module.conv_prepared_bytes(x.shape, w.shape, *options.values(), dtype):
            return None
        with device.trace.apart() as calls:
            prepared = ops.conv_prepare(w, x.shape, dtype=dtype, **options)
            rest = {"relu": call["relu"], "out": call["y"], **options}
            ops.conv_fprop_prepared(x, prepared, w.shape, call["b"], **rest)
    return {call: [replace(new, nodes=call.nodes) for new in calls]}


RULES: tuple[Rule, ...] = (
    copy_elision,
    dropout_mask_joins_relu,
    relu_epilogue,
    lrn_maxpool_fprop,
    lrn_maxpool_bprop,
    mask_into_dgrad,
    dense_dropout,
    wgrad_sgd,
)


def _is(one: object, other: object) -> bool:
    """Whether two tensors are the same memory."""
    return getattr(one, "root", None) is getattr(other, "root", other)


def _window(pool: Call, *tensors: str) -> dict[str, object]:
    """Some tensors of a pool, and its window."""
    return {name: pool[name] for name in (*tensors, "size", "stride", "pad", "rounding")}
