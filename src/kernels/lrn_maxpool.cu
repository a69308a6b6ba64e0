// LRN and the max-pool above it in one kernel each way; the output of LRN is never in memory.
//   z_i = x_i (k + alpha sum_j x_j^2)^-beta (lrn.cu),   y, argmax = max-pool of z (maxpool.cu)
//   dz = gather of dy (maxpool.cu),   dx from x and dz (lrn.cu), 0 where x <= 0 if relu_mask
// Both are calculated by what lrn.cu and maxpool.cu calculate by, in the same order: the results
// have the same bits; in bfloat16 z and dz are rounded, as where they are stored.
//
// Tensors:  x [N,H,W,C], dy [N,P,Q,C], argmax [N,P,Q,C] read; y, argmax, dx written; all but argmax
//           float32 or bfloat16.
// Mapping:  forward, a block takes a tile of one image: a band of rows of outputs, tile_q columns,
//           `slab` fours of channels. It keeps a ring of size_h rows of z in shared memory, at most
//           kRingBytes. For each row of outputs it makes the rows of z that are new (stride_h of
//           them), a thread for four channels, which reads the four before and after too, from
//           the L1 cache; then, after a barrier, it pools, a thread for four channels of an output;
//           then a barrier before the ring is written again.
//           Backward, lrn.cu's kernels, by warps or by blocks, with a gather in place of the load
//           of dy: at most four windows at 3/2. No shared memory by warps.
//           Forward too there is another way for windows that are not of 3 or 5 channels, for
//           groups that are not multiples of four channels and for arrays that are not aligned: a
//           thread for an output, which makes each z of its window anew.
// Limits:   at 3/2, 4 bytes read and 1.25 written an element forward, 5.25 and 4 backward; apart
//           13.25 and 17.25, and 12 for the mask. In bfloat16 2 and 0.75, 2.75 and 2. Rows and columns of z that two tiles share are
//           made twice: for the paper's norm1, 58 rows and 56 columns for 55.
#include "device/launch.h"
#include "device/vectors.h"
#include "lrn.cuh"
#include "maxpool.cuh"

namespace convnet {
namespace {

constexpr int kRingBytes = 40 << 10;  // five blocks on a multiprocessor of sm_90
constexpr int kTargetBlocks = 1024;

// How the forward pass is cut, by its shape alone.
struct Roll {
  PoolShape shape;
  float k, alpha, beta;
  int fours, fours_per_group;
  int slab, slabs;      // fours of a block
  int tile_q, tiles_q;  // columns of outputs
  int cols;             // columns of z that such a tile needs, at most
  int band_p, bands;    // rows of outputs
  int slots;            // rows of the ring
  FastDivmod by_group, by_slab, by_cols;
};

struct RollTile {
  int n, first_four, fours;
  int p_begin, p_end, q_begin, q_end, col_begin, col_end;
};

__device__ RollTile tile_of(const Roll& roll) {
  const PoolShape& shape = roll.shape;
  int rest = static_cast<int>(blockIdx.x);
  RollTile tile;
  tile.first_four = rest % roll.slabs * roll.slab;
  tile.fours = min(roll.slab, roll.fours - tile.first_four);
  rest /= roll.slabs;
  tile.q_begin = rest % roll.tiles_q * roll.tile_q;
  tile.q_end = min(tile.q_begin + roll.tile_q, shape.q);
  rest /= roll.tiles_q;
  tile.p_begin = rest % roll.bands * roll.band_p;
  tile.p_end = min(tile.p_begin + roll.band_p, shape.p);
  tile.n = rest / roll.bands;
  tile.col_begin = max(tile.q_begin * shape.stride_w - shape.pad_w, 0);
  tile.col_end = min((tile.q_end - 1) * shape.stride_w - shape.pad_w + shape.size_w, shape.w);
  return tile;
}

// z of four channels; `four` is their place in the group.
template <int kWindow, class T>
__device__ Floats<4> normalized(const Roll& roll, const T* x, int four) {
  constexpr int kLeft = kWindow / 2, kRight = kWindow - 1 - kLeft;
  const Floats<4> none = all_floats<4>(0.0f);
  Floats<4> values = load_floats<4>(x);
  const Floats<4> left = squares(four > 0 ? load_floats<4>(x - 4) : none);
  const Floats<4> here = squares(values);
  const Floats<4> right = squares(four + 1 < roll.fours_per_group ? load_floats<4>(x + 4) : none);
  float row[12];
  for (int i = 0; i < 4; ++i) {
    row[i] = left.v[i];
    row[4 + i] = here.v[i];
    row[8 + i] = right.v[i];
  }
  const Floats<4> s = scales(roll.k, roll.alpha, row_sums<kLeft, kRight>(row));
  const Floats<4> power = powers(s, roll.beta).main;
  for (int i = 0; i < 4; ++i) values.v[i] *= power.v[i];
  return values;
}

// Rows [begin, end) of z, into their slots of the ring.
template <int kWindow, class T>
__device__ void fill_rows(const Roll& roll, const RollTile& tile, int begin, int end, const T* x,
                          T* ring) {
  const PoolShape& shape = roll.shape;
  const int count = (end - begin) * roll.cols * roll.slab;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kBlockThreads) {
    auto rest = static_cast<unsigned>(i);
    const int four = roll.by_slab.split(&rest), col = roll.by_cols.split(&rest);
    const int w = tile.col_begin + col, h = begin + static_cast<int>(rest);
    if (four >= tile.fours || w >= tile.col_end) continue;
    auto group = static_cast<unsigned>(tile.first_four + four);
    const int place = roll.by_group.split(&group);
    const T* at = x + ((std::int64_t{tile.n} * shape.h + h) * shape.w + w) * shape.c +
                  4 * (tile.first_four + four);
    T* slot = ring + 4 * ((h % roll.slots * roll.cols + col) * roll.slab + four);
    store_floats(slot, normalized<kWindow>(roll, at, place));
  }
}

// Row p of the outputs, from the ring.
template <class T>
__device__ void pool_row(const Roll& roll, const RollTile& tile, int p, const Span& rows,
                         const T* ring, T* y, std::uint8_t* argmax) {
  const PoolShape& shape = roll.shape;
  const int count = (tile.q_end - tile.q_begin) * roll.slab;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kBlockThreads) {
    auto rest = static_cast<unsigned>(i);
    const int four = roll.by_slab.split(&rest), q = tile.q_begin + static_cast<int>(rest);
    if (four >= tile.fours) continue;
    const Span cols = window_span(q, shape.stride_w, shape.pad_w, shape.size_w, shape.w);
    Best<4> best;
    bool first = true;
    for (int h = rows.begin; h < rows.end; ++h) {
      const T* z = ring + 4 * (h % roll.slots * roll.cols * roll.slab + four);
      for (int w = cols.begin; w < cols.end; ++w) {
        const Floats<4> value = load_floats<4>(z + 4 * (w - tile.col_begin) * roll.slab);
        const int code = (h - rows.start) * shape.size_w + w - cols.start;
        if (first) {
          best.value = value;
          for (int t = 0; t < 4; ++t) best.code[t] = code;
          first = false;
        } else {
          best.offer(value, code);
        }
      }
    }
    const std::int64_t out = ((std::int64_t{tile.n} * shape.p + p) * shape.q + q) * shape.c +
                             4 * (tile.first_four + four);
    store_floats(y + out, best.value);
    store_codes(argmax + out, best.code);
  }
}

template <int kWindow, class T>
__global__ void __launch_bounds__(kBlockThreads)
    lrn_maxpool_fprop_kernel(Roll roll, const T* __restrict__ x, T* __restrict__ y,
                             std::uint8_t* __restrict__ argmax) {
  extern __shared__ __align__(128) unsigned char shared[];
  T* ring = reinterpret_cast<T*>(shared);
  const RollTile tile = tile_of(roll);
  const PoolShape& shape = roll.shape;
  int next = 0;  // rows before it have been made, or are not needed
  for (int p = tile.p_begin; p < tile.p_end; ++p) {
    const Span rows = window_span(p, shape.stride_h, shape.pad_h, shape.size_h, shape.h);
    fill_rows<kWindow>(roll, tile, max(next, rows.begin), rows.end, x, ring);
    next = rows.end;
    __syncthreads();
    pool_row(roll, tile, p, rows, ring, y, argmax);
    __syncthreads();  // before the ring is written again
  }
}

// Everything else: a thread for an output.
template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    lrn_maxpool_fprop_each_kernel(Rows norm, PoolIndex index, unsigned threads,
                                  const T* __restrict__ x, T* __restrict__ y,
                                  std::uint8_t* __restrict__ argmax) {
  const unsigned thread = global_thread();
  if (thread >= threads) return;
  const PoolShape& shape = index.shape;
  unsigned n = thread;
  const int channel = index.by_channels.split(&n);
  const int q = index.by_q.split(&n);
  const int p = index.by_p.split(&n);
  const Span rows = window_span(p, shape.stride_h, shape.pad_h, shape.size_h, shape.h);
  const Span cols = window_span(q, shape.stride_w, shape.pad_w, shape.size_w, shape.w);
  Best<1> best;
  bool first = true;
  for (int h = rows.begin; h < rows.end; ++h) {
    for (int w = cols.begin; w < cols.end; ++w) {
      const unsigned i = ((n * shape.h + h) * shape.w + w) * shape.c + channel;
      const Floats<1> value{{rounded_to<T>(load(x + i) * powers_at(norm, x, i).main.v[0])}};
      const int code = (h - rows.start) * shape.size_w + w - cols.start;
      if (first) {
        best.value = value;
        best.code[0] = code;
        first = false;
      } else {
        best.offer(value, code);
      }
    }
  }
  store(y + thread, best.value.v[0]);
  argmax[thread] = static_cast<std::uint8_t>(best.code[0]);
}

// ---- backward ----------------------------------------------------------------------------------

// dz, in place of an array of gradients.
template <class T>
struct Gathered {
  static constexpr bool kLate = true;
  PoolIndex index;  // with channels in fours for four(), singly for one()
  const T* dy;
  const std::uint8_t* argmax;

  template <int kChannels>
  __device__ Floats<kChannels> at(unsigned place) const {
    unsigned n = place;
    const int channel = kChannels * index.by_channels.split(&n);
    const int w = index.by_w.split(&n);
    const int h = index.by_h.split(&n);
    return rounded_to<T>(gathered<kChannels>(index, n, h, w, channel, dy, argmax));
  }
  __device__ Floats<4> four(int place) const { return at<4>(static_cast<unsigned>(place)); }
  __device__ float one(unsigned place) const { return at<1>(place).v[0]; }
};

template <int kWindow, class T>
__global__ void __launch_bounds__(kBlockThreads)
    lrn_maxpool_bprop_warp_kernel(Line line, Gathered<T> dz, bool relu_mask,
                                  const T* __restrict__ x, T* __restrict__ dx) {
  lrn_bprop_lane<kWindow>(line, x, dz, relu_mask, dx);
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    lrn_maxpool_bprop_kernel(Rows rows, Gathered<T> dz, bool relu_mask, const T* __restrict__ x,
                             T* __restrict__ dx) {
  lrn_bprop_tile(rows, x, dz, relu_mask, dx);
}

// ---- launchers ---------------------------------------------------------------------------------

int ceil_over(int a, int b) { return (a + b - 1) / b; }

Roll make_roll(const LrnShape& lrn, const PoolShape& pool, int four_bytes) {
  Roll roll;
  roll.shape = pool;
  roll.k = lrn.k;
  roll.alpha = lrn.alpha;
  roll.beta = lrn.beta;
  roll.fours = pool.c / 4;
  roll.fours_per_group = pool.c / lrn.groups / 4;
  roll.slots = pool.size_h < pool.h ? pool.size_h : pool.h;
  // Up to 32 fours: 512 or 256 bytes next to each other. Fewer if not even one output would fit, which
  // it does with a single four: a window has at most 256 elements.
  roll.slab = roll.fours < kWarpLanes ? roll.fours : kWarpLanes;
  const auto columns = [&] { return kRingBytes / (four_bytes * roll.slots * roll.slab); };
  while (columns() < pool.size_w && roll.slab > 1) roll.slab = ceil_over(roll.slab, 2);
  roll.slabs = ceil_over(roll.fours, roll.slab);
  const int fitting = (columns() - pool.size_w) / pool.stride_w + 1;
  roll.tiles_q = ceil_over(pool.q, fitting < pool.q ? fitting : pool.q);
  roll.tile_q = ceil_over(pool.q, roll.tiles_q);
  roll.tiles_q = ceil_over(pool.q, roll.tile_q);
  roll.cols = (roll.tile_q - 1) * pool.stride_w + pool.size_w;
  const std::int64_t blocks = std::int64_t{pool.n} * roll.slabs * roll.tiles_q;
  const std::int64_t bands = (kTargetBlocks + blocks - 1) / blocks;
  roll.band_p = ceil_over(pool.p, static_cast<int>(bands < pool.p ? bands : pool.p));
  roll.bands = ceil_over(pool.p, roll.band_p);
  roll.by_group = FastDivmod(roll.fours_per_group);
  roll.by_slab = FastDivmod(roll.slab);
  roll.by_cols = FastDivmod(roll.cols);
  return roll;
}

template <int kWindow, class T>
void run_roll(const LrnShape& lrn, const PoolShape& pool, const T* x, T* y, std::uint8_t* argmax,
              Stream stream) {
  const Roll roll = make_roll(lrn, pool, 4 * sizeof(T));
  const std::size_t bytes = 4 * sizeof(T) * roll.slots * roll.cols * roll.slab;
  const std::int64_t blocks = std::int64_t{pool.n} * roll.slabs * roll.tiles_q * roll.bands;
  launch("lrn_maxpool_fprop", lrn_maxpool_fprop_kernel<kWindow, T>,
         dim3(static_cast<unsigned>(blocks)), dim3(kBlockThreads), bytes, stream, roll, x, y,
         argmax);
}

}  // namespace

template <class T>
void lrn_maxpool_fprop(const LrnShape& lrn, const PoolShape& pool, const T* x, T* y,
                       std::uint8_t* argmax, Stream stream) {
  if (fits_warps(lrn) && four_channels(pool, x, y, argmax)) {
    if (lrn.n == 5) {
      run_roll<5>(lrn, pool, x, y, argmax, stream);
    } else {
      run_roll<3>(lrn, pool, x, y, argmax, stream);
    }
  } else {
    const std::int64_t threads = count(y_dims(pool));
    launch("lrn_maxpool_fprop", lrn_maxpool_fprop_each_kernel<T>, blocks_for(threads),
           dim3(kBlockThreads), 0, stream, make_rows(lrn), pool_index(pool, 1),
           static_cast<unsigned>(threads), x, y, argmax);
  }
}

template <class T>
void lrn_maxpool_bprop(const LrnShape& lrn, const PoolShape& pool, const T* x, const T* dy,
                       const std::uint8_t* argmax, bool relu_mask, T* dx, Stream stream) {
  const char* op = "lrn_maxpool_bprop";
  const dim3 block(kBlockThreads);
  if (fits_warps(lrn) && four_channels(pool, x, dx, argmax) && aligned4(dy)) {
    const Line line = make_line(lrn);
    const Gathered<T> dz{pool_index(pool, 4), dy, argmax};
    if (lrn.n == 5) {
      launch(op, lrn_maxpool_bprop_warp_kernel<5, T>, grid_of(line), block, 0, stream, line, dz,
             relu_mask, x, dx);
    } else {
      launch(op, lrn_maxpool_bprop_warp_kernel<3, T>, grid_of(line), block, 0, stream, line, dz,
             relu_mask, x, dx);
    }
  } else {
    const Rows rows = make_rows(lrn);
    const Gathered<T> dz{pool_index(pool, 1), dy, argmax};
    launch(op, lrn_maxpool_bprop_kernel<T>, blocks_for(rows.count, kTile), block, 0, stream, rows,
           dz, relu_mask, x, dx);
  }
}

CONVNET_FOR_BOTH_TYPES(lrn_maxpool_fprop);
CONVNET_FOR_BOTH_TYPES(lrn_maxpool_bprop);

}  // namespace convnet
