// dw [K, C] = dy^T [K, N] x [N, C]: dy is turned and x laid out in pairs of rows, once, and dw is formed in
// blocks that stay in a second-level cache until they have been used.
#include "amx_dense.h"

#include "parallel.h"
#include "tiles.h"

namespace convnet {
namespace {

constexpr int kBlockRows = 2 * kTileRows, kBlockColumns = 4096;

// How it is cut, by the shape alone.
struct Plan {
  int steps, row_tiles, column_tiles;
  int tall, wide;      // blocks from top to bottom, and from left to right
  std::int64_t pitch;  // of a block: rows a little more than a page apart, for the caches' sake

  std::int64_t turned_numbers() const { return std::int64_t{row_tiles} * steps * kTileNumbers; }
  std::int64_t pair_numbers() const { return std::int64_t{column_tiles} * steps * kTileNumbers; }
  std::int64_t block_numbers() const { return kBlockRows * pitch; }
};

Plan plan_of(const DenseShape& s) {
  const auto parts = [](int size, int part) { return static_cast<int>(ceil_div(size, part)); };
  const int columns = std::min(kBlockColumns, parts(s.c, kTileColumns) * kTileColumns);
  return {parts(s.n, kTileDepth), parts(s.k, kTileRows),     parts(s.c, kTileColumns),
          parts(s.k, kBlockRows), parts(s.c, kBlockColumns), columns + kTileColumns};
}

// Columns [0, width) of rows of a matrix as [steps][16][16][2]; zero beyond.
CONVNET_INLINE void pair_columns(const Bfloat16* x, int rows, std::int64_t pitch, int width,
                                 int steps, Bfloat16* to) {
  alignas(64) Bfloat16 pair[2][kTileColumns];
  for (int i = 0; i < steps * kTileDepth; ++i) {
    clear_numbers(kTileColumns, pair[i % 2]);
    if (i < rows) copy_numbers(x + i * pitch, width, pair[i % 2]);
    if (i % 2 == 1) pack_pairs(pair[0], pair[1], to + (i - 1) * kTileColumns);
  }
}

void lay_out(const DenseShape& s, const Plan& plan, const Bfloat16* x, const Bfloat16* dy,
             Bfloat16* turned, Bfloat16* pairs) {
  const std::int64_t strip = std::int64_t{plan.steps} * kTileNumbers;
  parallel_for(plan.row_tiles, [&](std::int64_t tile) {
    const int k = static_cast<int>(tile) * kTileRows;
    for (int step = 0; step < plan.steps; ++step) {
      const int n = step * kTileDepth;
      vectorized<turn_tile>(dy + std::int64_t{n} * s.k + k, s.k, std::min(kTileDepth, s.n - n),
                            std::min(kTileRows, s.k - k),
                            turned + tile * strip + step * kTileNumbers);
    }
  });
  parallel_for(plan.column_tiles, [&](std::int64_t tile) {
    const int c = static_cast<int>(tile) * kTileColumns;
    vectorized<pair_columns>(x + c, s.n, s.c, std::min(kTileColumns, s.c - c), plan.steps,
                             pairs + tile * strip);
  });
}

}  // namespace

bool amx_dense_wgrad_suits(const DenseShape& shape, Precision precision) {
  return shape.storage == Storage::kBfloat16 && precision == Precision::kBf16 && tiles_suit();
}

std::int64_t amx_dense_wgrad_workspace(const DenseShape& shape) {
  const Plan plan = plan_of(shape);
  return Scratch::array_bytes<Bfloat16>(plan.turned_numbers()) +
         Scratch::array_bytes<Bfloat16>(plan.pair_numbers()) +
         thread_count() * Scratch::array_bytes<float>(plan.block_numbers());
}

void amx_dense_wgrad(const char* op, const DenseShape& s, const Bfloat16* x, const Bfloat16* dy,
                     Workspace workspace, const std::function<void(const GradientBlock&)>& done) {
  const Plan plan = plan_of(s);
  Scratch scratch(op, workspace);
  auto* const turned = scratch.take_array<Bfloat16>(plan.turned_numbers());
  auto* const pairs = scratch.take_array<Bfloat16>(plan.pair_numbers());
  std::vector<float*> blocks;  // one for each thread
  for (int i = 0; i < thread_count(); ++i) {
    blocks.push_back(scratch.take_array<float>(plan.block_numbers()));
  }
  const std::int64_t strip = std::int64_t{plan.steps} * kTileNumbers;

  lay_out(s, plan, x, dy, turned, pairs);
  parallel_for(std::int64_t{plan.tall} * plan.wide, [&](std::int64_t task) {
    const int row = static_cast<int>(task / plan.wide) * kBlockRows;
    const int column = static_cast<int>(task % plan.wide) * kBlockColumns;
    const int rows = std::min(kBlockRows, s.k - row),
              columns = std::min(kBlockColumns, s.c - column);
    float* const block = blocks[omp_get_thread_num()];
    multiply_strips(turned + row / kTileRows * strip, static_cast<int>(ceil_div(rows, kTileRows)),
                    pairs + column / kTileColumns * strip,
                    static_cast<int>(ceil_div(columns, kTileColumns)), plan.steps, false, block,
                    plan.pitch);
    done({row, rows, column, columns, block, plan.pitch});
  });
}

}  // namespace convnet
