// The contract: every operation, on raw pointers and a stream.
//
// src/cpu/*.cpp implements it for the host, src/kernels/*.cu for CUDA devices (and, on the virtual
// GPU of src/vgpu, for tests without one). bindings/ is compiled once against each.
//
// Rules for every implementation
//   - Activations NHWC, filters KRSC (C/G deep), outputs NPQK, all contiguous.
//   - Activations and gradients of them are float32 or bfloat16: T, one type for all of a call.
//     Whatever is written is rounded once, from what the same operation on float32 would write.
//     Weights, biases, velocities, their gradients, losses and sums are float32. Every
//     implementation has T = float; a null pointer is what one without T = Bfloat16 has for that.
//   - Results are deterministic: reductions in a fixed order, no floating-point atomics.
//   - Shapes come from shapes.cpp and have been checked; pointers are valid for those shapes.
//   - Nothing is allocated on the device: an operation that needs scratch memory says how much
//     (`*_workspace`), and the caller passes it. Workspace contents need not survive a call.
//   - Outputs are overwritten, never accumulated into, unless the comment says "+=".
//   - A pointer marked "may be null" switches the part that needs it off.
//   - Work is queued on `stream` (the CPU ignores it and returns when done).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "bfloat16.h"
#include "implementation.h"
#include "philox.h"
#include "shapes.h"

namespace convnet {

struct Workspace {
  void* data;
  std::int64_t bytes;
};

enum class Pass { kFprop, kDgrad, kWgrad };

// ---- the state of a training step --------------------------------------------------------------
// What differs from one training step to the next, in memory of the device: operations read it when
// they run, so that a step captured once can run again with other numbers. The host writes the
// first six words, and clears the others.
struct StepState {
  std::uint32_t seed_low, seed_high;  // of dropout
  std::uint32_t step;                 // of dropout, and of what `diverged_step` is compared with
  float lr, momentum, weight_decay;   // of updates
  std::uint32_t aborted;              // not 0: the step went wrong, and updates change nothing
  // Written by updates that would have written something that is not finite: the greatest number
  // among their tensors, and step + 1. Updates of later steps change nothing.
  std::uint32_t diverged, diverged_step;
  std::uint32_t reserved[3];
};

// Whether an update may change anything: this step was not aborted, and no earlier one diverged.
CONVNET_HOST_DEVICE inline bool may_update(const StepState& state) {
  const std::uint32_t diverged = state.diverged_step;
  return state.aborted == 0 && (diverged == 0 || diverged == state.step + 1);
}

CONVNET_HOST_DEVICE inline std::uint64_t state_seed(const StepState& state) {
  return std::uint64_t{state.seed_high} << 32 | state.seed_low;
}

// ---- convolution: 2-D cross-correlation --------------------------------------------------------
//   y[n,p,q,k] = b[k] + sum_{r,s,c} x[n, p*stride_h - pad_h + r, q*stride_w - pad_w + s, g*C/G + c]
//                                   * w[k,r,s,c],     g = k / (K/G); reads outside x are zero

std::int64_t conv_workspace(const ConvShape& shape, Pass pass, Precision precision);
// The kernel or algorithm that a pass takes on the current device, for arrays aligned to 16 bytes:
// "wgmma, 256x128", "mma.sync, 128x64, 3 splits", "Winograd, F(2 x 2, 3 x 3)", "direct, bf16". On
// the host, what ends in a lower precision computes in it, and everything else in float32.
std::string conv_kernel(const ConvShape& shape, Pass pass, Precision precision);

// b [K] may be null. relu: y = max(0, y) in the epilogue, and NaN for NaN, as in every operation;
// on the host it is NaN for -infinity, too.
template <class T>
void conv_fprop(const ConvShape& shape, Precision precision, const T* x, const float* w,
                const float* b, bool relu, T* y, Workspace workspace, Stream stream);

// Filters in the form in which conv_fprop multiplies them: transformed, split or in another order.
// It makes them of w in its workspace each time; where w stays, they can be made once. How many
// bytes they take, for the current device, whatever the number of its threads; 0 where conv_fprop
// takes w as it lies, and there is nothing to prepare.
std::int64_t conv_prepared_bytes(const ConvShape& shape, Precision precision);
// `prepared` of that size is written. It takes the workspace of conv_fprop.
void conv_prepare(const ConvShape& shape, Precision precision, const float* w, Workspace prepared,
                  Workspace workspace, Stream stream);
std::int64_t conv_prepared_workspace(const ConvShape& shape, Precision precision);
// conv_fprop of the w that was prepared for the same shape and precision; the same bits. In memory of a
// device x and `prepared` are aligned to 16 bytes.
template <class T>
void conv_fprop_prepared(const ConvShape& shape, Precision precision, const T* x,
                         Workspace prepared, const float* b, bool relu, T* y, Workspace workspace,
                         Stream stream);

// relu_mask [N, H, W, C] may be null; else dx is zeroed where relu_mask <= 0, which is the backward
// pass of a ReLU whose output is x.
template <class T>
void conv_dgrad(const ConvShape& shape, Precision precision, const T* dy, const float* w,
                const T* relu_mask, T* dx, Workspace workspace, Stream stream);

// db [K] may be null; else db[k] = sum over n, p, q of dy.
template <class T>
void conv_wgrad(const ConvShape& shape, Precision precision, const T* x, const T* dy, float* dw,
                float* db, Workspace workspace, Stream stream);

// ---- locally connected: every output position has filters of its own ---------------------------
//   as convolution, with w[p,q,k,r,s,c] and b[p,q,k]

template <class T>
void local_fprop(const ConvShape& shape, const T* x, const float* w, const float* b, bool relu,
                 T* y, Stream stream);
template <class T>
void local_dgrad(const ConvShape& shape, const T* dy, const float* w, const T* relu_mask, T* dx,
                 Stream stream);
template <class T>
void local_wgrad(const ConvShape& shape, const T* x, const T* dy, float* dw, float* db,
                 Stream stream);

// ---- dense (fully connected): y = x w^T + b ----------------------------------------------------

std::int64_t dense_workspace(const DenseShape& shape, Pass pass, Precision precision);
// As conv_kernel: "matmul, bf16", "mma.sync, 64x32".
std::string dense_kernel(const DenseShape& shape, Pass pass, Precision precision);
template <class T>
void dense_fprop(const DenseShape& shape, Precision precision, const T* x, const float* w,
                 const float* b, bool relu, T* y, Workspace workspace, Stream stream);
template <class T>
void dense_dgrad(const DenseShape& shape, Precision precision, const T* dy, const float* w,
                 const T* relu_mask, T* dx, Workspace workspace, Stream stream);
template <class T>
void dense_wgrad(const DenseShape& shape, Precision precision, const T* x, const T* dy, float* dw,
                 float* db, Workspace workspace, Stream stream);

// ---- tiles, for benchmarks ---------------------------------------------------------------------
// How the tensor-core kernels cut a product C[m, n] = sum_k A[m, k] B[n, k] into tiles and splits.
// A choice changes the order of sums, and nothing else. Host implementations have no tiles: they
// throw std::invalid_argument.

struct TileChoice {
  Pass pass;
  Precision precision;
  std::int64_t m, n, k, products;  // products side by side: groups and, in dgrad, pixel classes
  std::string tile;                // "128x64"; empty where FFMA takes the product
  int splits;
  std::string on_hopper;  // "wgmma" or "mma": which kernel, where there are both; or "rule"
};

// What a convolution takes (a dense layer: a convolution of one pixel).
TileChoice tile_choice(const ConvShape& shape, Pass pass, Precision precision);
// The tiles there are for a pass.
std::vector<std::string> tiles_of(Pass pass, Precision precision);
// From now on these products are cut so, and all others by rule: instead of the table that was
// built in, which reset_tile_choices() brings back. Workspaces have to be asked for again.
void set_tile_choices(const std::vector<TileChoice>& choices);
void reset_tile_choices();

// ---- pooling -----------------------------------------------------------------------------------
// Windows are clipped to the image.

// argmax [N, P, Q, C]: r * size_w + s of the winner in its unclipped window; on a tie the first in
// row-major order wins, and a NaN wins over everything.
template <class T>
void maxpool_fprop(const PoolShape& shape, const T* x, T* y, std::uint8_t* argmax, Stream stream);
// dx[n,h,w,c] = sum of dy over the windows whose winner is (h, w), in row-major window order.
template <class T>
void maxpool_bprop(const PoolShape& shape, const T* dy, const std::uint8_t* argmax, T* dx,
                   Stream stream);
// Averages over the clipped window.
template <class T>
void avgpool_fprop(const PoolShape& shape, const T* x, T* y, Stream stream);
template <class T>
void avgpool_bprop(const PoolShape& shape, const T* dy, T* dx, Stream stream);

// ---- blur and nailbed, for cuda-convnet's nets -------------------------------------------------
//   blur:     y[n,h,w,c] = sum_{r,s} g_r g_s x[n, h - size/2 + r, w - size/2 + s, c], zeros outside
//   nailbed:  y[n,p,q,c] = x[n, start + p stride, start + q stride, c]

// g (BlurShape::weights) is symmetric, so that the backward pass is the same operation on dy.
template <class T>
void blur(const BlurShape& shape, const T* x, T* y, Stream stream);
template <class T>
void nailbed_fprop(const NailbedShape& shape, const T* x, T* y, Stream stream);
// All of dx is written: zeros between the pixels that were taken.
template <class T>
void nailbed_bprop(const NailbedShape& shape, const T* dy, T* dx, Stream stream);

// ---- local response normalization across channels ----------------------------------------------
//   s_i = k + alpha * sum_{j = i - n/2}^{i - n/2 + n - 1} x_j^2   (clipped to i's group)
//   y_i = x_i * s_i^-beta
//   dx_i = dy_i s_i^-beta - 2 alpha beta x_i sum_{j : i in window(j)} dy_j x_j s_j^(-beta-1)

template <class T>
void lrn_fprop(const LrnShape& shape, const T* x, T* y, Stream stream);
template <class T>
void lrn_bprop(const LrnShape& shape, const T* x, const T* dy, T* dx, Stream stream);

// lrn_fprop, and maxpool_fprop of its output, which is not stored; the same bits. lrn has the
// pixels and channels of the pool's x.
template <class T>
void lrn_maxpool_fprop(const LrnShape& lrn, const PoolShape& pool, const T* x, T* y,
                       std::uint8_t* argmax, Stream stream);
// maxpool_bprop, then lrn_bprop; the same bits. relu_mask: dx is zeroed where x <= 0, which is the
// backward pass of a ReLU whose output is x.
template <class T>
void lrn_maxpool_bprop(const LrnShape& lrn, const PoolShape& pool, const T* x, const T* dy,
                       const std::uint8_t* argmax, bool relu_mask, T* dx, Stream stream);

// ---- elementwise -------------------------------------------------------------------------------

enum class Activation {
  kRelu,      // max(0, x)
  kTanh,      // a tanh(b x)
  kSigmoid,   // 1 / (1 + e^-x)
  kAbs,       // |x|
  kSoftplus,  // log(1 + e^x)
  kSquare,    // x^2
  kSqrt,      // sqrt(x)
  kLog,       // log(a + x)
  kBrelu,     // min(a, max(0, x))
  kAffine,    // a x + b
  kDrelu,     // x - a tanh(x / a)
};

// True where the gradient is computed from the output y, so that y may overwrite x; else from x.
bool activation_saves_output(Activation activation);

// y may be x.
template <class T>
void activation_fprop(Activation activation, float a, float b, std::int64_t count, const T* x, T* y,
                      Stream stream);
// `saved` is y or x, as activation_saves_output() says. dx may be dy. At a kink the gradient is
// that of the side towards zero output: relu'(0) = 0, abs'(0) = 0, brelu'(0) = brelu'(a) = 0.
template <class T>
void activation_bprop(Activation activation, float a, float b, std::int64_t count, const T* saved,
                      const T* dy, T* dx, Stream stream);

// dst += src
template <class T>
void accumulate(std::int64_t count, const T* src, T* dst, Stream stream);

// y = x * mask * scale, where mask is 0 with probability `drop`; number `index` of Philox stream
// (seed, stream_id, step) decides element index = (row + row_offset) * global_cols + col +
// col_offset. The backward pass is the same operation on dy. y may be x. `drop` is in [0, 1).
// state may be null; else its seed and step are taken in place of those given.
template <class T>
void dropout(const DropoutShape& shape, double drop, float scale, std::uint64_t seed,
             std::uint32_t stream_id, std::uint32_t step, const StepState* state, const T* x, T* y,
             Stream stream);

// What dropout() is told besides its arrays.
struct DropoutRule {
  DropoutShape shape;
  double drop;
  float scale;
  std::uint64_t seed;
  std::uint32_t stream_id, step;
  const StepState* state;  // may be null
};

// dense_fprop, and dropout of its output (rule.shape is y's); the same bits. It takes the workspace
// of dense_fprop.
template <class T>
void dense_fprop_dropout(const DenseShape& shape, Precision precision, const T* x, const float* w,
                         const float* b, bool relu, const DropoutRule& rule, T* y,
                         Workspace workspace, Stream stream);

// ---- softmax and cross-entropy -----------------------------------------------------------------

template <class T>
void softmax_fprop(const SoftmaxShape& shape, const T* logits, T* probs, Stream stream);

// loss[n] = -weight log softmax(logits[n])[labels[n]];  dlogits = scale * weight * (softmax -
// onehot), may be null; weight = weights[labels[n]], or 1 where weights [classes] is null;
// rank[n] = number of classes that score at least as high as the label, not counting the label and
// counting equals only when they come first: top-k is right when rank < k. Scores that are not
// comparable (NaN) count against the label. A label outside [0, classes) gives NaN in loss and
// dlogits and rank = classes (the binding refuses such labels where it can read them).
template <class T>
void softmax_xent(const SoftmaxShape& shape, const T* logits, const std::int32_t* labels,
                  const float* weights, float scale, float* loss, T* dlogits, std::int32_t* rank,
                  Stream stream);

// ---- the update rule of the paper, section 5 ---------------------------------------------------
//   v = momentum v - weight_decay decay_mult lr lr_mult w - lr lr_mult g;   w = w + v
// An element whose new w would not be finite is left as it was, w and v: so nothing is ever written
// from a gradient, a velocity or a weight that is not finite, nor from a sum that overflows. That
// it happened is noted in the state (`diverged`), if there is one.

// How one tensor is updated. state may be null; else nothing is changed unless may_update(), and
// lr, momentum and weight_decay are those of the state, as they are when the operation runs, in
// place of those given. rates may be null; else its row number - 1, also as it is when the
// operation runs, has the lr and the momentum of the tensor, which go before all others.
struct SgdRule {
  float lr, momentum, weight_decay;
  float lr_mult, decay_mult;
  std::uint32_t number;  // not 0; by which the tensor is noted in the state
  const float* rates;    // [parameters, 2]
  StepState* state;
};

struct SgdTensor {
  float* w;
  float* velocity;
  const float* grad;
  std::int64_t count;
  float lr_mult, decay_mult;
  std::uint32_t number;
};

// All parameters in one launch. `tensors` is a host array. The rest is as in SgdRule.
void sgd_update(const SgdTensor* tensors, int tensor_count, float lr, float momentum,
                float weight_decay, const float* rates, StepState* state, Stream stream);

// dense_wgrad, and sgd_update of w by the gradient, which is not stored: w, velocity [K, C] and db
// get the bits that the two would give them. It takes the workspace of dense_wgrad. db [K] may be
// null; else it is the gradient of the bias, which is left to sgd_update.
template <class T>
void dense_wgrad_sgd(const DenseShape& shape, Precision precision, const T* x, const T* dy,
                     const SgdRule& rule, float* w, float* velocity, float* db, Workspace workspace,
                     Stream stream);

// ---- from one type to the other ----------------------------------------------------------------
// y = x.

void to_bfloat16(std::int64_t count, const float* x, Bfloat16* y, Stream stream);
void to_float32(std::int64_t count, const Bfloat16* x, float* y, Stream stream);

// ---- data augmentation (paper, section 4.1) ----------------------------------------------------
//   y[n,p,q,c] = scale * v[p + offset_h, q' + offset_w],   q' = mirror[n] ? Q - 1 - q : q
//   v[h, w] = x[n,h,w,c] + noise[n,c] - mean[h,w,c], and 0 (the mean) at a place outside x
// offsets [N, 2] (rows, columns); mirror [N]; noise [N, C] may be null; mean [H, W, C] or
// [1, 1, C]. affine [N, 2, 2] may be null; else a pixel of the crop is read elsewhere: its distance
// from the crop's centre is multiplied by the image's matrix,
//   (h, w) = centre + affine[n] (p - (P - 1) / 2, q' - (Q - 1) / 2),
//   centre = (offset_h + (P - 1) / 2, offset_w + (Q - 1) / 2),
// and v between pixels is interpolated linearly along both axes (Jaderberg et al., "Spatial
// transformer networks", NIPS 2015, equation 5). The identity gives the crop, to the bit.

template <class T>
void augment(const AugmentShape& shape, const std::uint8_t* x, const std::int32_t* offsets,
             const std::uint8_t* mirror, const float* affine, const float* noise, const float* mean,
             float scale, T* y, Stream stream);

// ---- between devices ---------------------------------------------------------------------------
// dst[row, col] = src[row, col], and dst[row, col] += src[row, col], over a block.

template <class T>
void peer_copy(const PeerShape& shape, const T* src, T* dst, Stream stream);
template <class T>
void peer_add(const PeerShape& shape, const T* src, T* dst, Stream stream);

// Whether a block arrived is found out by its checksum: its number among those that go the same
// way, and the sum of its words, modulo 2^32. Both ends count, in memory of their own.
//   peer_checksum, at the source:  count[0] += 1;  checksum = {count[0], sum of src}
//   peer_check, at the target:     count[0] += 1;  where checksum is not {count[0], sum of src},
//                                  and aborted[0] is 0: aborted[0] = code
//   peer_abort:                    where aborted[0] is 0: aborted[0] = other[0]
// `src` is the block at this end. checksum [2] and `other` may lie on another device.
std::int64_t peer_checksum_workspace();
template <class T>
void peer_checksum(const PeerShape& shape, const T* src, std::uint32_t* count,
                   std::uint32_t* checksum, Workspace workspace, Stream stream);
template <class T>
void peer_check(const PeerShape& shape, const T* src, std::uint32_t* count,
                const std::uint32_t* checksum, std::uint32_t code, std::uint32_t* aborted,
                Workspace workspace, Stream stream);
void peer_abort(const std::uint32_t* other, int other_device, std::uint32_t* aborted,
                Stream stream);

}  // namespace convnet
