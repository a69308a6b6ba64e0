// Tensor-core operations, each one PTX instruction that a whole warp executes together.
//
// Who holds what is in the PTX ISA manual, sections "Matrix fragments for mma.m16n8k8 /
// mma.m16n8k16" and "ldmatrix". In them lane = 4 * group + place:
//   A, 16 x k, row-major:      lane holds rows group and group + 8
//   B, k x 8, "column-major":  lane holds column group
//   C and D, 16 x 8:           d[0..1] = (group, 2 place + 0..1), d[2..3] = (group + 8, the same)
// All need sm_80, but ldmatrix sm_75; on older devices they trap.
#pragma once

#include <cuda_runtime.h>

#include "rounding.h"

namespace convnet {

// Whether the architecture being compiled for has the instructions: a kernel that needs them is
// empty where it has not.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool kCompiledForMma = false;
#else
constexpr bool kCompiledForMma = true;
#endif

// ---- conversions -------------------------------------------------------------------------------

// The nearest TF32 (10-bit mantissa; halves away from zero), as the bits of a float.
__device__ inline unsigned to_tf32(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
#else
  const unsigned bits = __float_as_uint(x);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? (bits + 0x1000u) & 0xffffe000u : bits;
#endif
}

// ---- ldmatrix ----------------------------------------------------------------------------------

// Loads `matrices` (1, 2 or 4) 8x8 matrices of 16-bit elements from shared memory. Lane 8 m + r
// passes the address of row r of matrix m, in the shared window, aligned to 16 bytes; lanes from
// 8 * matrices on pass any valid one. `transposed`: each matrix is transposed on the way.
template <int matrices, bool transposed = false>
__device__ inline void ldmatrix(unsigned (&registers)[matrices], unsigned row) {
  static_assert(matrices == 1 || matrices == 2 || matrices == 4, "ldmatrix loads 1, 2 or 4");
  if constexpr (matrices == 1 && !transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(registers[0])
                 : "r"(row)
                 : "memory");
  } else if constexpr (matrices == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(registers[0])
                 : "r"(row)
                 : "memory");
  } else if constexpr (matrices == 2 && !transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(row)
                 : "memory");
  } else if constexpr (matrices == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(row)
                 : "memory");
  } else if constexpr (!transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(row)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(row)
                 : "memory");
  }
}
template <int matrices, bool transposed = false>
__device__ inline void ldmatrix(unsigned (&registers)[matrices], const void* row) {
  ldmatrix<matrices, transposed>(registers, static_cast<unsigned>(__cvta_generic_to_shared(row)));
}

// ---- mma ---------------------------------------------------------------------------------------

// D += A B, 16 x 8 x 8, TF32 products, float32 sums. The low 13 bits of a and b are ignored; use
// to_tf32() for rounded operands.
//   a[0..3] = A(group, place), A(group + 8, place), A(group, place + 4), A(group + 8, place + 4)
//   b[0..1] = B(place, group), B(place + 4, group)
__device__ inline void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4],
                                        const unsigned (&b)[2]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

// D += A B, 16 x 8 x 16, bf16 products, float32 sums. Registers hold two elements each, the one of
// the lower column of A (row of B) in the lower half.
//   a[0..3] = A(group, 2 place), A(group + 8, 2 place), A(group, 2 place + 8),
//             A(group + 8, 2 place + 8)
//   b[0..1] = B(2 place, group), B(2 place + 8, group)
__device__ inline void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4],
                                         const unsigned (&b)[2]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

}  // namespace convnet
