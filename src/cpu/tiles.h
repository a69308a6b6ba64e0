// Products of bfloat16 tiles, 16 x 32 by 32 x 16, summed in float32: what AMX does in an instruction.
//
//   C [rows, 16] = (C +) sum over steps of A [rows, 32] B [32, 16]
//
// Up to 2 x 2 tiles of C are formed at once, so each operand that is loaded is used twice. B lies in pairs
// of rows, [16][16][2], as the instruction wants it (pack_pairs below). Where the processor has no AMX
// the same is done by loops, for the tests.
#pragma once

#include <cstdint>
#include <cstring>

#include "elements.h"

namespace convnet {

constexpr int kTileRows = 16, kTileColumns = 16, kTileDepth = 32;
constexpr int kTileNumbers = kTileRows * kTileDepth;  // of A or B
constexpr int kTileBytes = 1024;                      // of any of the three

struct TileProduct {
  int m, n;         // tiles of C: 1 or 2 by 1 or 2
  int rows, steps;  // rows as TileScope has them
  const Bfloat16* a[2];
  std::int64_t pitch;           // from row to row of A, in numbers
  const std::int32_t* offsets;  // [steps]: where each step's A is, in numbers from a[i]
  const Bfloat16* b[2];         // [steps][16][16][2]
  float* c[2][2];               // [rows][16] each
  std::int64_t c_pitch;         // from row to row of C, in numbers
  bool add;                     // to what is in C
};

// Whether there is AMX, or the environment variable CONVNET_AMX is "always"; no if it is "off".
bool tiles_suit();

// While it lives, this thread may multiply tiles of so many rows of A and C, 1 to 16. It leaves the
// configuration that it found, which may be oneDNN's.
class TileScope {
 public:
  explicit TileScope(int rows);
  ~TileScope();
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  alignas(64) unsigned char before_[64];
};

void multiply_tiles(const TileProduct& product);

// C (+)= A B for `rows` by `columns` tiles of C, whose rows lie `pitch` numbers apart: A [rows][steps] and
// B [columns][steps] are tiles one after the other, those of A of 16 rows.
void multiply_strips(const Bfloat16* a, int rows, const Bfloat16* b, int columns, int steps,
                     bool add, float* c, std::int64_t pitch);

// Bits are copied: of the structure the compiler makes no vectors.
CONVNET_INLINE void copy_numbers(const Bfloat16* from, int count, Bfloat16* to) {
  CONVNET_SIMD
  for (int i = 0; i < count; ++i) to[i].bits = from[i].bits;
}

CONVNET_INLINE void clear_numbers(int count, Bfloat16* to) {
  CONVNET_SIMD
  for (int i = 0; i < count; ++i) to[i].bits = 0;
}

// 16 columns of two rows of a matrix as a row of pairs.
CONVNET_INLINE void pack_pairs(const Bfloat16* even, const Bfloat16* odd, Bfloat16* to) {
  CONVNET_SIMD_16
  for (int i = 0; i < kTileColumns; ++i) {
    to[2 * i].bits = even[i].bits;
    to[2 * i + 1].bits = odd[i].bits;
  }
}

// Tile [16 columns][32 rows] of a matrix, turned; zero beyond the rows and columns that there are.
CONVNET_INLINE void turn_tile(const Bfloat16* x, std::int64_t pitch, int rows, int columns,
                              Bfloat16* to) {
  alignas(64) std::uint32_t pairs[kTileRows][kTileColumns];  // of rows
  for (int i = 0; i < kTileRows; ++i) {
    const Bfloat16 *even = x + 2 * i * pitch, *odd = even + pitch;
    const int even_width = 2 * i < rows ? columns : 0, odd_width = 2 * i + 1 < rows ? columns : 0;
    for (int j = 0; j < kTileColumns; ++j) pairs[i][j] = 0;
    CONVNET_SIMD_16
    for (int j = 0; j < even_width; ++j) pairs[i][j] = even[j].bits;
    CONVNET_SIMD_16
    for (int j = 0; j < odd_width; ++j) pairs[i][j] |= std::uint32_t{odd[j].bits} << 16;
  }
  for (int j = 0; j < kTileColumns; ++j) {
    for (int i = 0; i < kTileRows; ++i) {
      std::memcpy(to + j * kTileDepth + 2 * i, &pairs[i][j], sizeof pairs[i][j]);
    }
  }
}

}  // namespace convnet
