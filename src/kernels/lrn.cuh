// The device side of LRN, which lrn.cu and lrn_maxpool.cu share: both give the same bits. lrn.cu
// says how it works.
//
// Products that are added up come from __fmul_rn, which the compiler does not join with the sum:
// whether it would can depend on the code around it.
#pragma once

#include "device/fast_math.h"
#include "fast_divmod.cuh"
#include "floats.cuh"
#include "ops.h"
#include "warp.cuh"

namespace convnet {

// ---- s^-beta -----------------------------------------------------------------------------------

template <int kCount>
struct Powers {
  Floats<kCount> main, next;  // s^-beta and s^(-beta - 1)
};

// beta = 3/4. From m, which approximates s^(-1/4) to about 21 bits and whose error shows in
// s m^4 = 1 - e:  s^(-3/4) = m^3 (1 + 3/4 e),  1 / s = m^4 (1 + e).  For all normal s.
__device__ inline void three_quarter_powers(float s, float* main, float* next) {
  const float r = inverse_root_22(s);
  const float m = r * inverse_root_22(r);
  const float m2 = m * m, m3 = m2 * m;
  const float e = 1.0f - s * m2 * m2;
  *main = m3 + m3 * (0.75f * e);
  *next = *main * (m2 * m2) * (1.0f + e);
}

template <int kCount>
__device__ inline Powers<kCount> powers(Floats<kCount> s, float beta) {
  constexpr float kSmallest = 1.17549435e-38f, kLargest = 3.40282347e38f;
  Powers<kCount> result;
  // Infinity would give 0 * inf, and denormal numbers infinity. A NaN stays.
  for (int i = 0; i < kCount; ++i) {
    s.v[i] = kLargest < s.v[i] ? kLargest : (kSmallest > s.v[i] ? kSmallest : s.v[i]);
  }
  if (beta == 0.75f) {
    for (int i = 0; i < kCount; ++i) {
      three_quarter_powers(s.v[i], &result.main.v[i], &result.next.v[i]);
    }
  } else {
    for (int i = 0; i < kCount; ++i) {
      result.main.v[i] = powf(s.v[i], -beta);
      result.next.v[i] = result.main.v[i] / s.v[i];
    }
  }
  return result;
}

// ---- by warps ----------------------------------------------------------------------------------

struct Line {
  float k, alpha, beta;
  int fours;  // of the tensor
  int fours_per_group;
  FastDivmod by_group;
  int halo, step;  // lanes at either end whose result is dropped, and those in between
};

// What a lane holds: channels 4 four .. 4 four + 3 of the line, and whether its group goes on
// before and after them.
struct Lane {
  int four;
  bool inside;  // the tensor
  bool writes;  // and not the halo
  bool has_left, has_right;
};

__device__ inline Lane lane_of(const Line& line) {
  const int lane = static_cast<int>(threadIdx.x % kWarpLanes);
  const int warp = static_cast<int>(global_thread() / kWarpLanes);
  Lane result;
  result.four = warp * line.step - line.halo + lane;
  result.inside = result.four >= 0 && result.four < line.fours;
  result.writes = result.inside && lane >= line.halo && lane < line.halo + line.step;
  unsigned group = result.inside ? static_cast<unsigned>(result.four) : 0u;
  const int place = line.by_group.split(&group);
  result.has_left = place > 0;
  result.has_right = place + 1 < line.fours_per_group;
  return result;
}

// sums[i] = row[4 + i - kLeft] + .. + row[4 + i + kRight], of the fours before, here and after.
template <int kLeft, int kRight>
__device__ inline Floats<4> row_sums(const float (&row)[12]) {
  Floats<4> sums;
  for (int i = 0; i < 4; ++i) {
    sums.v[i] = row[4 + i - kLeft];
    for (int t = 1 - kLeft; t <= kRight; ++t) sums.v[i] += row[4 + i + t];
  }
  return sums;
}

// sums[i] = values[i - kLeft] + .. + values[i + kRight], over the four of this lane and those of
// the lanes beside it. All lanes of the warp call it.
template <int kLeft, int kRight>
__device__ inline Floats<4> window_sums(const Lane& lane, const Floats<4>& values) {
  static_assert(kLeft <= 4 && kRight <= 4, "a window reaches no further than one lane");
  float row[12];  // of the lane before, this one, and the one after
  for (int i = 0; i < 4; ++i) {
    row[4 + i] = values.v[i];
    if (i >= 4 - kLeft) {
      const float left = __shfl_up_sync(kFullWarp, values.v[i], 1);
      row[i] = lane.has_left ? left : 0.0f;
    }
    if (i < kRight) {
      const float right = __shfl_down_sync(kFullWarp, values.v[i], 1);
      row[8 + i] = lane.has_right ? right : 0.0f;
    }
  }
  return row_sums<kLeft, kRight>(row);
}

// s from the sums of squares.
__device__ inline Floats<4> scales(float k, float alpha, Floats<4> sums) {
  for (int i = 0; i < 4; ++i) sums.v[i] = k + alpha * sums.v[i];
  return sums;
}

__device__ inline Floats<4> squares(const Floats<4>& values) {
  Floats<4> result;
  for (int i = 0; i < 4; ++i) result.v[i] = __fmul_rn(values.v[i], values.v[i]);
  return result;
}

// dx of a lane. `dy` gives the gradients: dy.four(four) those of the lane. Gradient::kLate: they
// are asked for when they are needed, as they take many registers to find, and powf is a call,
// around which registers are saved.
template <int kWindow, class T, class Gradient>
__device__ inline void lrn_bprop_lane(const Line& line, const T* x, const Gradient& dy,
                                      bool relu_mask, T* dx) {
  constexpr int kLeft = kWindow / 2, kRight = kWindow - 1 - kLeft;
  const Lane lane = lane_of(line);
  Floats<4> values = all_floats<4>(0.0f), grad = values;
  if (lane.inside) {
    values = load_floats<4>(x + 4 * lane.four);
    if constexpr (!Gradient::kLate) grad = dy.four(lane.four);
  }
  const Floats<4> sums = window_sums<kLeft, kRight>(lane, squares(values));
  const Powers<4> power = powers(scales(line.k, line.alpha, sums), line.beta);
  if constexpr (Gradient::kLate) {
    if (lane.inside) grad = dy.four(lane.four);
  }
  Floats<4> terms;
  for (int i = 0; i < 4; ++i) {
    terms.v[i] = __fmul_rn(grad.v[i] * values.v[i], power.next.v[i]);
    grad.v[i] = __fmul_rn(grad.v[i], power.main.v[i]);
  }
  // The windows that hold i are those of i - kRight .. i + kLeft: the mirror image.
  const Floats<4> inner = window_sums<kRight, kLeft>(lane, terms);
  const float factor = 2.0f * line.alpha * line.beta;
  for (int i = 0; i < 4; ++i) {
    grad.v[i] -= factor * values.v[i] * inner.v[i];
    if (relu_mask && values.v[i] <= 0.0f) grad.v[i] = 0.0f;
  }
  if (lane.writes) store_floats(dx + 4 * lane.four, grad);
}

// ---- by blocks ---------------------------------------------------------------------------------

constexpr int kPerThread = 2;
constexpr int kTile = kPerThread * kBlockThreads;  // elements of dx per block
constexpr int kPiece = 1024;                       // terms in shared memory

struct Rows {
  float k, alpha, beta;
  unsigned count;
  int channels;     // per group: the tensor is rows of this many
  int left, right;  // the window's reach, no further than a group needs
  FastDivmod by_channels;
};

struct Range {
  unsigned begin, end;
};

// The elements from i - left to i + right in the group of i, as indices of the tensor.
__device__ inline Range window_at(const Rows& rows, unsigned i, int left, int right) {
  unsigned group = i;
  const int place = rows.by_channels.split(&group);
  const int begin = max(place - left, 0), end = min(place + right + 1, rows.channels);
  return {i - place + begin, i - place + end};
}

template <class T>
__device__ inline Powers<1> powers_at(const Rows& rows, const T* x, unsigned i) {
  const Range window = window_at(rows, i, rows.left, rows.right);
  float sum = 0.0f;
  for (unsigned j = window.begin; j < window.end; ++j) sum += load(x + j) * load(x + j);
  return powers(Floats<1>{{rows.k + rows.alpha * sum}}, rows.beta);
}

// dx of the elements of a block; dy.one(i) is the gradient of element i.
template <class T, class Gradient>
__device__ inline void lrn_bprop_tile(const Rows& rows, const T* x, const Gradient& dy,
                                      bool relu_mask, T* dx) {
  __shared__ __align__(16) float terms[kPiece];
  __shared__ __align__(16) float directs[kPiece];
  const unsigned tile = blockIdx.x * kTile;
  const unsigned tile_end = min(tile + kTile, rows.count);
  const auto right = static_cast<unsigned>(rows.right), left = static_cast<unsigned>(rows.left);
  const unsigned begin = tile < right ? 0 : tile - right;
  const unsigned end = min(tile_end + left, rows.count);
  float inner[kPerThread] = {}, direct[kPerThread] = {};
  for (unsigned piece = begin; piece < end; piece += kPiece) {
    const unsigned piece_end = min(piece + kPiece, end);
    // Apart from the loop below, for the registers that a call of powf saves; a thread reads what
    // it has written itself.
    for (unsigned j = piece + threadIdx.x; j < piece_end; j += kBlockThreads) {
      directs[j - piece] = dy.one(j);
    }
    for (unsigned j = piece + threadIdx.x; j < piece_end; j += kBlockThreads) {
      const Powers<1> power = powers_at(rows, x, j);
      const float grad = directs[j - piece];
      terms[j - piece] = grad * load(x + j) * power.next.v[0];
      directs[j - piece] = grad * power.main.v[0];
    }
    __syncthreads();
    for (int t = 0; t < kPerThread; ++t) {
      const unsigned i = tile + t * kBlockThreads + threadIdx.x;
      if (i >= tile_end) continue;
      const Range window = window_at(rows, i, rows.right, rows.left);  // the mirror image
      const unsigned last = min(window.end, piece_end);
      for (unsigned j = max(window.begin, piece); j < last; ++j) inner[t] += terms[j - piece];
      if (i >= piece && i < piece_end) direct[t] = directs[i - piece];
    }
    __syncthreads();  // before the next piece
  }
  const float factor = 2.0f * rows.alpha * rows.beta;
  for (int t = 0; t < kPerThread; ++t) {
    const unsigned i = tile + t * kBlockThreads + threadIdx.x;
    if (i >= tile_end) continue;
    const float here = load(x + i);
    store(dx + i, relu_mask && here <= 0.0f ? 0.0f : direct[t] - factor * here * inner[t]);
  }
}

// ---- for launchers -----------------------------------------------------------------------------

inline Line make_line(const LrnShape& shape) {
  Line line;
  line.k = shape.k;
  line.alpha = shape.alpha;
  line.beta = shape.beta;
  line.fours = static_cast<int>(std::int64_t{shape.pixels} * shape.c / 4);
  line.fours_per_group = shape.c / shape.groups / 4;
  line.by_group = FastDivmod(line.fours_per_group);
  line.halo = kWarpLanes % line.fours_per_group == 0 ? 0 : 1;
  line.step = kWarpLanes - 2 * line.halo;
  return line;
}

inline dim3 grid_of(const Line& line) {
  return blocks_for(line.fours, line.step * (kBlockThreads / kWarpLanes));
}

inline Rows make_rows(const LrnShape& shape) {
  Rows rows;
  rows.k = shape.k;
  rows.alpha = shape.alpha;
  rows.beta = shape.beta;
  rows.count = static_cast<unsigned>(shape.pixels) * static_cast<unsigned>(shape.c);
  rows.channels = shape.c / shape.groups;
  const int furthest = rows.channels - 1, left = shape.n / 2, right = shape.n - 1 - left;
  rows.left = left < furthest ? left : furthest;
  rows.right = right < furthest ? right : furthest;
  rows.by_channels = FastDivmod(rows.channels);
  return rows;
}

inline bool fits_warps(const LrnShape& shape) {
  return (shape.n == 3 || shape.n == 5) && shape.c / shape.groups % 4 == 0;
}

}  // namespace convnet
