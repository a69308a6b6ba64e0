// Tensor cores: PTX ISA, "Warp-level matrix instructions" (ldmatrix, mma) and "Asynchronous
// warpgroup-level matrix instructions" (wgmma). Lane 4 g + t holds the fragments of row (or column)
// g: tables "Matrix fragments for mma.m16n8k8" and "mma.m16n8k16".
#include <cstring>

#include "block.h"
#include "fault.h"
#include "load_store.h"
#include "rounding.h"
#include "types.h"

namespace vgpu {
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

// The 16 rows of A: 8 columns of TF32, one a register, or 16 of bfloat16, two a register.
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

// A matrix descriptor: PTX ISA, "Matrix descriptor format".
struct Descriptor {
  unsigned start, leading, stride, span;
  explicit Descriptor(u64 bits)
      : start((bits & 0x3fff) << 4),
        leading((bits >> 16 & 0x3fff) << 4),
        stride((bits >> 32 & 0x3fff) << 4) {
    const unsigned mode = static_cast<unsigned>(bits >> 62);
    span = mode == 1 ? 128 : mode == 2 ? 64 : mode == 3 ? 32 : 16;
  }
  // The 16 bytes of k, `half` 0 or 1, of column n of a k-major B: rows of the swizzle's span, eight
  // of them an atom.
  unsigned address(int n, int half) const {
    if (span == 16) return start + n / 8 * stride + n % 8 * 16 + half * leading;
    const unsigned at = start + n / 8 * stride + n % 8 * span + 16 * half;
    return at ^ (at >> 7 & (span / 16 - 1)) << 4;
  }
};

void read_shared_b(Warp& w, const Ins& i, u64 descriptor_bits, int columns, float (*b)[256]) {
  const Descriptor descriptor(descriptor_bits);
  for (int n = 0; n < columns; ++n)
    for (int half = 0; half < 2; ++half) {
      const char* const from = shared_bytes(w, i, descriptor.address(n, half), 16, 0, Access::read);
      if (i.vector == 8) {
        u32 values[4];
        std::memcpy(values, from, sizeof values);
        for (int k = 0; k < 4; ++k) b[4 * half + k][n] = from_tf32(values[k]);
      } else {
        u16 values[8];
        std::memcpy(values, from, sizeof values);
        for (int k = 0; k < 8; ++k) b[8 * half + k][n] = from_bf16(values[k]);
      }
    }
}

// wgmma.mma_async with A in registers: a warp of the group has 16 rows of its own, so the four need
// not meet.
void multiply_warpgroup(Warp& w, const Ins& i) {
  const int columns = static_cast<int>(i.imm), depth = i.vector, count = columns / 2;
  const int* const sums = list_of(w, i);  // `count` written, the same ones read, 4 of A
  const u64* const descriptors = reg<u64>(w, i.a);
  for (int l = 1; l < kLanes; ++l)
    if (descriptors[l] != descriptors[0])
      fault(w, i, kLaunchFailed, l, "wgmma: lanes with different descriptors");
  const bool adds = reg<s32>(w, i.b)[0] != 0;
  alignas(64) float a[16][16], b[16][256], c[16][256];
  read_shared_b(w, i, descriptors[0], columns, b);
  read_a(w, sums + 2 * count, depth, a);
  const auto row_of = [](int l, int r) { return l / 4 + 8 * (r >> 1 & 1); };
  const auto column_of = [](int l, int r) { return 8 * (r / 4) + 2 * (l % 4) + (r & 1); };
  for (int r = 0; r < count; ++r) {
    const float* const values = reg<float>(w, sums[r]);
    for (int l = 0; l < kLanes; ++l) c[row_of(l, r)][column_of(l, r)] = adds ? values[l] : 0.0f;
  }
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < depth; ++k)
      for (int n = 0; n < columns; ++n) c[m][n] += a[m][k] * b[k][n];
  for (int r = 0; r < count; ++r) {
    float* const values = reg<float>(w, sums[r]);
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
    case Op::wgmma:
      return multiply_warpgroup;
    case Op::wgmma_fence:
    case Op::wgmma_commit:
    case Op::wgmma_wait:
      return do_nothing;
    default:
      return nullptr;
  }
}

}  // namespace vgpu
