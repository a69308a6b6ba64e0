// Shape structs of every operation, and the functions that make and check them.
//
// This header and shapes.cpp are the only place that knows how large an output is and which
// arguments go together. Every function here throws std::invalid_argument with the operation, the
// argument, what was expected and what was found.
//
// Names: N batch, H W C input, K R S filters, P Q output, G groups. Activations are NHWC, filters
// KRSC with C/G channels. All sizes fit in an int: tensors of 2^31 elements or more are refused, so
// that kernels may index with 32 bits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bfloat16.h"

namespace convnet {

using Dims = std::vector<std::int64_t>;

// How the last, incomplete step of a window is counted. kCeil lets the window overhang the image on
// the right and the bottom (cuda-convnet's rule); kFloor drops it (the rule of most libraries).
enum class Rounding { kFloor, kCeil };

// Window parameters as a caller gives them.
struct Window {
  std::int64_t stride_h = 1, stride_w = 1;
  std::int64_t pad_h = 0, pad_w = 0;
  Rounding rounding = Rounding::kFloor;
};

struct ConvShape {
  int n, h, w, c;  // x [N, H, W, C]
  int k, r, s;     // w [K, R, S, C/G], or unshared ("local"): w [P, Q, K, R, S, C/G]
  int p, q;        // y [N, P, Q, K]
  int groups;
  int stride_h, stride_w, pad_h, pad_w;
  Storage storage = Storage::kFloat32;  // of x and y
};

struct DenseShape {
  int n, c, k;                          // x [N, C], w [K, C], y [N, K]
  Storage storage = Storage::kFloat32;  // of x and y
};

struct PoolShape {
  int n, h, w, c;      // x [N, H, W, C]
  int size_h, size_w;  // the window
  int p, q;            // y [N, P, Q, C]
  int stride_h, stride_w, pad_h, pad_w;
};

constexpr int kMostBlurSize = 9;

// A Gaussian over each channel, as a filter down and one across.
struct BlurShape {
  int n, h, w, c;                // x, y [N, H, W, C]
  int size;                      // 3, 5, 7 or 9 pixels
  float weights[kMostBlurSize];  // `size` of them, symmetric, with the sum 1
};

// Every stride-th pixel of each channel, from row and column `start` on.
struct NailbedShape {
  int n, h, w, c;  // x [N, H, W, C]
  int p, q;        // y [N, P, Q, C]
  int stride, start;
};

// Response normalization across channels (paper, section 3.3). `alpha` multiplies the plain sum of
// squares; lrn_shape() has already divided it by n where the caller asked for the mean.
struct LrnShape {
  int pixels;  // N * H * W
  int c;
  int n;  // channels [i - n/2, i - n/2 + n), clipped to the channel's group
  int groups;
  float k, alpha, beta;
};

// A [rows, cols] block of a tensor that is [*, global_cols] as a whole. Masks are drawn by the
// position in the whole tensor, so that a slice on a second device or rank draws the same mask.
struct DropoutShape {
  std::int64_t rows, cols;
  std::int64_t row_offset, col_offset, global_cols;
};

struct SoftmaxShape {
  int n, classes;  // logits [N, classes]
};

struct AugmentShape {
  int n, h, w, c;      // x [N, H, W, C] uint8
  int p, q;            // y [N, P, Q, C] float, a P x Q crop
  int mean_h, mean_w;  // mean is [H, W, C] or [1, 1, C]
};

// A [rows, cols] block inside two row-major matrices whose rows are `*_stride` elements apart.
struct PeerShape {
  std::int64_t rows, cols, dst_stride, src_stride;
  int dst_device, src_device;
};

// Number of window positions along one axis. The only output-size formula there is:
//   floor: 1 + floor((size + 2 pad - window) / stride)
//   ceil:  1 + ceil ((size + 2 pad - window) / stride)
// With `inside`, positions that would start past the last row of the image are dropped: a pool has
// nothing to take the maximum of there.
std::int64_t output_size(const char* op, const char* axis, std::int64_t size, std::int64_t window,
                         std::int64_t stride, std::int64_t pad, Rounding rounding, bool inside);

ConvShape conv_shape(const char* op, const Dims& x, const Dims& w, const Window& window,
                     std::int64_t groups);
ConvShape local_shape(const char* op, const Dims& x, const Dims& w, const Window& window,
                      std::int64_t groups);
DenseShape dense_shape(const char* op, const Dims& x, const Dims& w);
PoolShape pool_shape(const char* op, const Dims& x, std::int64_t size_h, std::int64_t size_w,
                     const Window& window);
BlurShape blur_shape(const char* op, const Dims& x, std::int64_t size, double deviation);
NailbedShape nailbed_shape(const char* op, const Dims& x, std::int64_t stride, std::int64_t start);
LrnShape lrn_shape(const char* op, const Dims& x, std::int64_t n, double k, double alpha,
                   double beta, std::int64_t groups, bool alpha_is_mean);
DropoutShape dropout_shape(const char* op, const Dims& x, double drop, std::int64_t row_offset,
                           std::int64_t col_offset, std::int64_t global_cols);
SoftmaxShape softmax_shape(const char* op, const Dims& logits);
AugmentShape augment_shape(const char* op, const Dims& x, const Dims& mean, std::int64_t p,
                           std::int64_t q);
// A block at one end of a transfer: dst_stride is 0, and dst_device that of the other end.
PeerShape peer_block(const char* op, const Dims& src, std::int64_t src_offset, std::int64_t cols,
                     int other_device, int device);
PeerShape peer_shape(const char* op, const Dims& dst, std::int64_t dst_offset, const Dims& src,
                     std::int64_t src_offset, std::int64_t cols, int dst_device, int src_device);

Dims x_dims(const ConvShape& shape);
Dims w_dims(const ConvShape& shape);
Dims local_w_dims(const ConvShape& shape);
Dims local_b_dims(const ConvShape& shape);
Dims y_dims(const ConvShape& shape);
Dims x_dims(const PoolShape& shape);
Dims y_dims(const PoolShape& shape);
Dims x_dims(const NailbedShape& shape);
Dims y_dims(const NailbedShape& shape);
Dims y_dims(const AugmentShape& shape);

// Checks. `rank` and `dims` compare a tensor with what the operation needs.
void check_rank(const char* op, const char* arg, const Dims& got, std::size_t rank,
                const char* layout);
void check_dims(const char* op, const char* arg, const Dims& got, const Dims& expected,
                const char* hint = "");
void check_countable(const char* op, const char* arg, const Dims& dims);  // 1 .. 2^31 - 1 elements
std::int64_t count(const Dims& dims);
std::string to_string(const Dims& dims);

[[noreturn]] void fail(const char* op, const char* arg, const std::string& expected,
                       const std::string& got, const std::string& hint = "");

}  // namespace convnet
