"""The operations of convnet as functions on arrays.

Usable without any net. The backend follows the arrays (NumPy: CPU, CuPy: GPU) unless one is chosen
with `convnet.backend.use`. Arrays are C-contiguous; nothing is converted silently, and a
wrong dtype, shape, layout or device raises ``ValueError`` with what was expected and what was
found. Results are deterministic.

Shapes: N batch, H W C input, K R S filters, P Q output, G groups. Activations are NHWC, filters
KRSC with C/G channels. ``stride``, ``pad`` and ``size`` take a number or a pair (height, width).
``rounding`` is ``"floor"`` (the last incomplete window is dropped) or ``"ceil"`` (it may overhang
on the right and the bottom). ``out=`` takes the array(s) to write the result to.

Types: activations and their gradients (x, y, dx, dy, a ReLU's mask, logits and their gradient) are
float32 or, where the device has the operation for it, bfloat16 (ml_dtypes' for NumPy): one type for
all of a call. An operation computes in float32 and rounds bfloat16 results once, when it writes
them. Weights, biases, velocities, their gradients, losses and all sums are float32.
`convert` goes from one type to the other.

``precision`` is that in which convolutions and dense layers multiply.

- ``"fp32"``, the default: to float32 accuracy. GPUs with tensor cores (sm_80 and up) add up three
  TF32 products for one, which is faster and no less accurate than FFMA.
- ``"ffma"``: the same by float32 multiply-adds, on any GPU; to compare with.
- ``"tf32"``: operands rounded to 11 significant bits (relative error of a result about 3e-4).
- ``"bf16"``: operands rounded to 8 significant bits (about 2.3e-3).

A device without a unit for ``tf32`` or ``bf16`` computes as for ``fp32``: GPUs before sm_80, and
CPUs without AMX (of bfloat16 arrays, without AVX512-BF16 either). Elsewhere on CPUs they are taken
by the passes and shapes that oneDNN has them for and that a model finds faster; the others compute
as for ``fp32``. `precision_description` and ``convnet doctor`` say what it comes to, and
`conv_kernel` and `dense_kernel` for a shape. Sums of fewer than 32 products are formed
by FFMA on every GPU.
"""

from convnet.common.deprecated import renamed_members
from convnet.ops.activation import (
    abs_bprop,
    abs_fprop,
    accumulate,
    activation_bprop,
    activation_fprop,
    activation_saves_output,
    relu_bprop,
    relu_fprop,
    sigmoid_bprop,
    sigmoid_fprop,
    softplus_bprop,
    softplus_fprop,
    tanh_bprop,
    tanh_fprop,
)
from convnet.ops.augment import augment
from convnet.ops.blur import blur_bprop, blur_fprop
from convnet.ops.conv import (
    conv_dgrad,
    conv_fprop,
    conv_fprop_prepared,
    conv_kernel,
    conv_output_shape,
    conv_prepare,
    conv_prepared_bytes,
    conv_wgrad,
    conv_workspace,
)
from convnet.ops.convert import convert
from convnet.ops.dense import (
    dense_dgrad,
    dense_fprop,
    dense_fprop_dropout,
    dense_kernel,
    dense_wgrad,
    dense_wgrad_sgd,
    dense_workspace,
)
from convnet.ops.dropout import dropout_bprop, dropout_fprop
from convnet.ops.local import local_dgrad, local_fprop, local_output_shape, local_wgrad
from convnet.ops.lrn import lrn_bprop, lrn_fprop, lrn_maxpool_bprop, lrn_maxpool_fprop
from convnet.ops.nailbed import nailbed_bprop, nailbed_fprop
from convnet.ops.peer import copy, peer_abort, peer_add, peer_check, peer_checksum, peer_copy
from convnet.ops.pool import (
    avgpool_bprop,
    avgpool_fprop,
    maxpool_bprop,
    maxpool_fprop,
    pool_output_shape,
)
from convnet.ops.precision import PRECISIONS, precision_description
from convnet.ops.random import philox
from convnet.ops.sgd import sgd_update
from convnet.ops.softmax import softmax_fprop, softmax_xent

__getattr__ = renamed_members(
    __name__,
    {
        "MATHS": "PRECISIONS",
        "math_description": "precision_description",
        "conv_prepared": "conv_prepared_bytes",
        "logistic_fprop": "sigmoid_fprop",
        "logistic_bprop": "sigmoid_bprop",
        "softrelu_fprop": "softplus_fprop",
        "softrelu_bprop": "softplus_bprop",
        "peer_stamp": "peer_checksum",
        "peer_halt": "peer_abort",
    },
)

__all__ = [
    "PRECISIONS",
    "abs_bprop",
    "abs_fprop",
    "accumulate",
    "activation_bprop",
    "activation_fprop",
    "activation_saves_output",
    "augment",
    "avgpool_bprop",
    "avgpool_fprop",
    "blur_bprop",
    "blur_fprop",
    "conv_dgrad",
    "conv_fprop",
    "conv_fprop_prepared",
    "conv_kernel",
    "conv_output_shape",
    "conv_prepare",
    "conv_prepared_bytes",
    "conv_wgrad",
    "conv_workspace",
    "convert",
    "copy",
    "dense_dgrad",
    "dense_fprop",
    "dense_fprop_dropout",
    "dense_kernel",
    "dense_wgrad",
    "dense_wgrad_sgd",
    "dense_workspace",
    "dropout_bprop",
    "dropout_fprop",
    "local_dgrad",
    "local_fprop",
    "local_output_shape",
    "local_wgrad",
    "lrn_bprop",
    "lrn_fprop",
    "lrn_maxpool_bprop",
    "lrn_maxpool_fprop",
    "maxpool_bprop",
    "maxpool_fprop",
    "nailbed_bprop",
    "nailbed_fprop",
    "peer_abort",
    "peer_add",
    "peer_check",
    "peer_checksum",
    "peer_copy",
    "philox",
    "pool_output_shape",
    "precision_description",
    "relu_bprop",
    "relu_fprop",
    "sgd_update",
    "sigmoid_bprop",
    "sigmoid_fprop",
    "softmax_fprop",
    "softmax_xent",
    "softplus_bprop",
    "softplus_fprop",
    "tanh_bprop",
    "tanh_fprop",
]
