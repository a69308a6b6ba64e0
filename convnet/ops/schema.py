"""The operations of the contract as data: what each reads, writes and is told, in the order of the
binding.

A step that is traced (:mod:`convnet.nn.trace`) is a list of these. The tests hold the table to the
compiled modules: every operation that takes a stream has a row, with the names of its arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_WINDOW = ":stride_h :stride_w :pad_h :pad_w :rounding"
_POOL = f":size_h :size_w {_WINDOW}"
_LRN = ":n :k :alpha :beta :groups :alpha_mode"
_DROP = ":drop :scale :seed :stream_id :step :row_offset :col_offset :global_cols state"
_RATES = ":lr :momentum :weight_decay"


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        name: of the function in the compiled module.
        arguments: in the order of that function.
        reads, writes, updates: the arrays among them: what is only read, what is only written
            (all of it, but for the columns of `peer_copy`), what is read and written.
        scratch: whether it takes a workspace.
        in_place: (read, written) pairs that may be the same memory.
        effects: it does something besides writing its arrays, so that it is never left out.
    """

    name: str
    arguments: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    updates: tuple[str, ...]
    scratch: bool = False
    in_place: tuple[tuple[str, str], ...] = field(default=())
    effects: bool = False

    @property
    def arrays(self) -> tuple[str, ...]:
        """The names of all array arguments but the workspace."""
        return (*self.reads, *self.writes, *self.updates)


def _op(name: str, arguments: str, in_place: str = "") -> Op:
    """An operation from a line of text: ":" marks what is no array, ">" an array that is written,
    "~" one that is updated, "@" the workspace."""
    words = arguments.split()
    pairs = [pair.split("=") for pair in in_place.split()]
    return Op(
        name=name,
        arguments=tuple(word.lstrip(":>~@") for word in words),
        reads=tuple(word for word in words if word[0] not in ":>~@"),
        writes=tuple(word[1:] for word in words if word[0] == ">"),
        updates=tuple(word[1:] for word in words if word[0] == "~"),
        scratch="@workspace" in words,
        in_place=tuple((read, written) for read, written in pairs),
    )


_ALL = (
    _op("conv_fprop", f"x w b >y {_WINDOW} :groups :relu @workspace :stream :precision"),
    _op("conv_dgrad", f"dy w relu_mask >dx {_WINDOW} :groups @workspace :stream :precision"),
    _op("conv_wgrad", f"x dy >dw >db {_WINDOW} :groups @workspace :stream :precision"),
    _op("local_fprop", f"x w b >y {_WINDOW} :groups :relu :stream"),
    _op("local_dgrad", f"dy w relu_mask >dx {_WINDOW} :groups :stream"),
    _op("local_wgrad", f"x dy >dw >db {_WINDOW} :groups :stream"),
    _op("dense_fprop", "x w b >y :relu @workspace :stream :precision"),
    _op("dense_fprop_dropout", f"x w b >y :relu {_DROP} @workspace :stream :precision"),
    _op("dense_dgrad", "dy w relu_mask >dx @workspace :stream :precision"),
    _op("dense_wgrad", "x dy >dw >db @workspace :stream :precision"),
    _op(
        "dense_wgrad_sgd",
        f"x dy ~w ~velocity >db {_RATES} :lr_mult :decay_mult :number state "
        "@workspace :stream :precision",
    ),
    _op("maxpool_fprop", f"x >y >argmax {_POOL} :stream"),
    _op("maxpool_bprop", f"dy argmax >dx {_POOL} :stream"),
    _op("avgpool_fprop", f"x >y {_POOL} :stream"),
    _op("avgpool_bprop", f"dy >dx {_POOL} :stream"),
    _op("lrn_fprop", f"x >y {_LRN} :stream"),
    _op("lrn_bprop", f"x dy >dx {_LRN} :stream"),
    _op("lrn_maxpool_fprop", f"x >y >argmax {_LRN} {_POOL} :stream"),
    _op("lrn_maxpool_bprop", f"x dy argmax >dx :relu_mask {_LRN} {_POOL} :stream"),
    _op("activation_fprop", ":kind x >y :a :b :stream", "x=y"),
    _op("activation_bprop", ":kind saved dy >dx :a :b :stream", "dy=dx"),
    _op("accumulate", "src ~dst :stream"),
    _op("dropout", f"x >y {_DROP} :stream", "x=y"),
    _op("softmax_fprop", "logits >probs :stream"),
    _op("softmax_xent", "logits labels >loss >dlogits >rank :scale :stream"),
    _op(
        "sgd_update",
        f"~w ~velocity grad :lr_mult :decay_mult :number {_RATES} :own_rates state :stream",
    ),
    _op("augment", "x offsets mirror noise mean >y :crop_h :crop_w :scale :stream"),
    _op("peer_copy", "src >dst :src_col :dst_col :cols :src_device :dst_device :stream"),
    _op("peer_add", "src ~dst :src_col :dst_col :cols :src_device :dst_device :stream"),
    _op("peer_stamp", "src ~count >stamp :src_col :cols :device :other_device @workspace :stream"),
    _op("peer_check", "src ~count stamp ~halt :code :src_col :cols :device @workspace :stream"),
    _op("peer_halt", "~halt other :other_device :stream"),
)

OPS = {op.name: op for op in _ALL}
