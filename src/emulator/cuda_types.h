// CUDA's vector types, with CUDA's sizes and alignments.
#pragma once

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define CONVNET_VECTOR_TYPES(T, name)                                                \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                 \
  struct name##3 { T x, y, z; };                                                     \
  struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; }; \
  inline name##2 make_##name##2(T x, T y) { return name##2 {x, y}; }                 \
  inline name##3 make_##name##3(T x, T y, T z) { return name##3 {x, y, z}; }         \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return name##4 {x, y, z, w}; }

CONVNET_VECTOR_TYPES(float, float)
CONVNET_VECTOR_TYPES(int, int)
CONVNET_VECTOR_TYPES(short, short)
CONVNET_VECTOR_TYPES(unsigned short, ushort)
CONVNET_VECTOR_TYPES(signed char, char)
CONVNET_VECTOR_TYPES(unsigned char, uchar)
#undef CONVNET_VECTOR_TYPES

// uint3 is needed above (threadIdx); the rest of its family here.
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return uint2{x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return uint3{x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return uint4{x, y, z, w};
}
inline double2 make_double2(double x, double y) { return double2{x, y}; }
