// PTX ISA, "Warp-level matrix instructions": ldmatrix and mma. Lane 4 g + t holds the fragments of
// row (or column) g: tables "Matrix fragments for mma.m16n8k8" and "mma.m16n8k16".
#include <cstring>

#include "block.h"
#include "fault.h"
#include "load_store.h"
#include "rounding.h"
#include "tensor.h"
#include "types.h"

namespace vgpu {

void read_a(const Warp& w, const int* slots, int depth, float (*a)[16]) {
  for (int r = 0; r < 4; ++r) {
    const u32* const values = reg<u32>(w, slots[r]);
    for (int l = 0; l < kLanes; ++l) {
      const int row = l / 4 + 8 * (r & 1), t = l % 4;
      if (depth == 8) {
        a[row][t + 4 * (r >> 1)] = from_tf32(values[l]);
      } else {
        a[row][2 * t + 8 * (r >> 1)] = from_bf16(values[l] & 0xffff);
        a[row][2 * t + 1 + 8 * (r >> 1)] = from_bf16(values[l] >> 16);
      }
    }
  }
}

namespace {

// Matrix m is eight rows of eight 16-bit elements, row r at the address of lane 8 m + r. A lane
// receives two neighbours of row g; with .trans, of column g.
void load_matrices(Warp& w, const Ins& i) {
  const int* const to = list_of(w, i);
  u64 a[kLanes];
  addresses(w, i, a);
  for (int m = 0; m < i.vector; ++m) {
    u16 rows[8][8];
    for (int r = 0; r < 8; ++r) {
      const int lane = 8 * m + r;
      std::memcpy(rows[r], bytes_at(w, i, Space::shared, a[lane], 16, lane, Access::read), 16);
    }
    u32* const d = reg<u32>(w, to[m]);
    for (int l = 0; l < kLanes; ++l) {
      const int g = l / 4, t = 2 * (l % 4);
      const u16 low = i.combine ? rows[t][g] : rows[g][t],
                high = i.combine ? rows[t + 1][g] : rows[g][t + 1];
      d[l] = low | static_cast<u32>(high) << 16;
    }
  }
}

void read_b(const Warp& w, const int* slots, int depth, float (*b)[8]) {
  for (int r = 0; r < 2; ++r) {
    const u32* const values = reg<u32>(w, slots[r]);
    for (int l = 0; l < kLanes; ++l) {
      const int column = l / 4, t = l % 4;
      if (depth == 8) {
        b[t + 4 * r][column] = from_tf32(values[l]);
      } else {
        b[2 * t + 8 * r][column] = from_bf16(values[l] & 0xffff);
        b[2 * t + 1 + 8 * r][column] = from_bf16(values[l] >> 16);
      }
    }
  }
}

// d[16, 8] = a[16, depth] b[depth, 8] + c.
void multiply_matrices(Warp& w, const Ins& i) {
  const int* const operands = list_of(w, i);  // 4 of d, 4 of a, 2 of b, 4 of c
  alignas(64) float a[16][16], b[16][8], c[16][8];
  const int depth = i.vector;
  read_a(w, operands + 4, depth, a);
  read_b(w, operands + 8, depth, b);
  const auto row_of = [](int l, int r) { return l / 4 + 8 * (r >> 1); };
  const auto column_of = [](int l, int r) { return 2 * (l % 4) + (r & 1); };
  for (int r = 0; r < 4; ++r) {
    const float* const values = reg<float>(w, operands[10 + r]);
    for (int l = 0; l < kLanes; ++l) c[row_of(l, r)][column_of(l, r)] = values[l];
  }
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < depth; ++k)
      for (int n = 0; n < 8; ++n) c[m][n] += a[m][k] * b[k][n];
  for (int r = 0; r < 4; ++r) {
    float* const values = reg<float>(w, operands[r]);
    for (int l = 0; l < kLanes; ++l) values[l] = c[row_of(l, r)][column_of(l, r)];
  }
}

}  // namespace

Handler tensor_handler(const Ins& i) {
  switch (i.op) {
    case Op::ldmatrix:
      return load_matrices;
    case Op::mma:
      return multiply_matrices;
    default:
      return nullptr;
  }
}

}  // namespace vgpu
