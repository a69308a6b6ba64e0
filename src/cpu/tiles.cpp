#include "tiles.h"

#include <algorithm>
#include <vector>

#include "choice.h"
#include "isa.h"

// Tiles are named by number in the instructions: 0 to 3 are C, 4 and 5 A, 6 and 7 B.
#if defined(__x86_64__) && defined(__GNUC__) && (defined(__clang__) || __GNUC__ >= 11)
#include <immintrin.h>
#define CONVNET_AMX __attribute__((target("amx-tile,amx-bf16")))
#endif

namespace convnet {
namespace {

void multiply_by_loops(const TileProduct& t) {
  for (int i = 0; i < t.m; ++i) {
    for (int j = 0; j < t.n; ++j) {
      for (int row = 0; row < t.rows; ++row) {
        float sum[kTileColumns] = {};
        float* c = t.c[i][j] + row * t.c_pitch;
        for (int step = 0; step < t.steps; ++step) {
          const Bfloat16* a = t.a[i] + t.offsets[step] + row * t.pitch;
          const Bfloat16* b = t.b[j] + step * kTileNumbers;
          for (int k = 0; k < kTileDepth; ++k) {
            const Bfloat16* pairs = b + k / 2 * 2 * kTileColumns + k % 2;
            for (int x = 0; x < kTileColumns; ++x) sum[x] += read(a[k]) * read(pairs[2 * x]);
          }
        }
        for (int x = 0; x < kTileColumns; ++x) c[x] = (t.add ? c[x] : 0.0f) + sum[x];
      }
    }
  }
}

#ifdef CONVNET_AMX

struct Configuration {
  unsigned char palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  unsigned char rows[16] = {};
};
static_assert(sizeof(Configuration) == 64);

// The intrinsics do not tell the compiler which memory they read and write: all of it, then.
inline void memory_is_used(const void* pointer) { asm volatile("" : : "r"(pointer) : "memory"); }

CONVNET_AMX void configure(int rows, unsigned char* before) {
  Configuration own;
  for (int tile = 0; tile < 8; ++tile) {
    own.rows[tile] = static_cast<unsigned char>(tile < 6 ? rows : kTileRows);
  }
  memory_is_used(&own);
  _tile_storeconfig(before);
  _tile_loadconfig(&own);
  memory_is_used(before);
}

CONVNET_AMX void restore(const unsigned char* before) {
  if (before[0] == 0) return _tile_release();  // there was none
  _tile_loadconfig(before);
}

template <int m, int n>
CONVNET_AMX void multiply(const TileProduct& t) {
  constexpr int kPitch = 64;  // of B, in bytes
  const std::int64_t c_pitch = t.c_pitch * static_cast<std::int64_t>(sizeof(float));
  memory_is_used(&t);
  if (t.add) {
    _tile_loadd(0, t.c[0][0], c_pitch);
    if constexpr (n == 2) _tile_loadd(1, t.c[0][1], c_pitch);
    if constexpr (m == 2) _tile_loadd(2, t.c[1][0], c_pitch);
    if constexpr (m == 2 && n == 2) _tile_loadd(3, t.c[1][1], c_pitch);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const std::int64_t pitch = t.pitch * static_cast<std::int64_t>(sizeof(Bfloat16));
  for (int step = 0; step < t.steps; ++step) {
    const std::int64_t at = t.offsets[step];
    // Loads first: the products wait for them less than taking turns with them.
    _tile_loadd(4, t.a[0] + at, pitch);
    _tile_loadd(6, t.b[0] + step * kTileNumbers, kPitch);
    if constexpr (n == 2) _tile_loadd(7, t.b[1] + step * kTileNumbers, kPitch);
    if constexpr (m == 2) _tile_loadd(5, t.a[1] + at, pitch);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (n == 2) _tile_dpbf16ps(1, 4, 7);
    if constexpr (m == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (m == 2 && n == 2) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, t.c[0][0], c_pitch);
  if constexpr (n == 2) _tile_stored(1, t.c[0][1], c_pitch);
  if constexpr (m == 2) _tile_stored(2, t.c[1][0], c_pitch);
  if constexpr (m == 2 && n == 2) _tile_stored(3, t.c[1][1], c_pitch);
  memory_is_used(&t);
}

bool has_unit() {
  static const bool has = has_amx();
  return has;
}

#else

void configure(int, unsigned char*) {}
void restore(const unsigned char*) {}
template <int m, int n>
void multiply(const TileProduct&) {}
bool has_unit() { return false; }

#endif

}  // namespace

bool tiles_suit() {
  const Choice chosen = choice_of("CONVNET_AMX");
  return chosen == Choice::kAlways || (chosen == Choice::kAuto && has_unit());
}

TileScope::TileScope(int rows) {
  if (has_unit()) configure(rows, before_);
}

TileScope::~TileScope() {
  if (has_unit()) restore(before_);
}

void multiply_tiles(const TileProduct& t) {
  if (!has_unit()) return multiply_by_loops(t);
  if (t.m == 2) return t.n == 2 ? multiply<2, 2>(t) : multiply<2, 1>(t);
  return t.n == 2 ? multiply<1, 2>(t) : multiply<1, 1>(t);
}

void multiply_strips(const Bfloat16* a, int rows, const Bfloat16* b, int columns, int steps,
                     bool add, float* c, std::int64_t pitch) {
  const TileScope scope(kTileRows);
  const std::int64_t strip = std::int64_t{steps} * kTileNumbers;
  std::vector<std::int32_t> offsets;
  for (int step = 0; step < steps; ++step) offsets.push_back(step * kTileNumbers);
  TileProduct product{};
  product.rows = kTileRows, product.steps = steps, product.add = add;
  product.pitch = kTileDepth, product.offsets = offsets.data(), product.c_pitch = pitch;
  for (int column = 0; column < columns; column += 2) {
    product.n = std::min(2, columns - column);
    for (int j = 0; j < product.n; ++j) product.b[j] = b + (column + j) * strip;
    for (int row = 0; row < rows; row += 2) {
      product.m = std::min(2, rows - row);
      for (int i = 0; i < product.m; ++i) {
        product.a[i] = a + (row + i) * strip;
        float* const line = c + (row + i) * kTileRows * pitch;
        for (int j = 0; j < product.n; ++j) product.c[i][j] = line + (column + j) * kTileColumns;
      }
      multiply_tiles(product);
    }
  }
}

}  // namespace convnet
