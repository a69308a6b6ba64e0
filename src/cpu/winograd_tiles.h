// The algorithms of winograd.cpp as matrices, and the transforms of tiles by them.
//
// A tile of m x m outputs is  A^T [ (G g G^T) . (B^T d B) ] A  with the r x r filter g, the a x a
// inputs d (a = m + r - 1) and the elementwise product "." of a x a numbers: F(m x m, r x r). The
// matrices come from polynomial interpolation in a - 1 points and infinity. Pairs of points like 2
// and -1/2 lose less to rounding than 2 and -2 (Barabasz and others, "Error Analysis and Improving
// the Accuracy of Winograd Convolution for Deep Neural Networks", 2020).
#pragma once

#include <cstdint>
#include <utility>

#include "elements.h"
#include "epilogue.h"

namespace convnet::winograd {

struct F2x3 {  // points 0, 1, -1
  static constexpr int m = 2, r = 3, a = 4;
  static constexpr float bt[4][4] = {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, -1, 0, 1}};
  static constexpr float g[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
  static constexpr float at[2][4] = {{1, 1, 1, 0}, {0, 1, -1, 1}};
};

struct F3x3 {  // points 0, 1, -1/2, -2
  static constexpr int m = 3, r = 3, a = 5;
  static constexpr float bt[5][5] = {{-1, -1.5, 1.5, 1, 0},
                                     {0, 1, 2.5, 1, 0},
                                     {0, -2, 1, 1, 0},
                                     {0, -0.5, -0.5, 1, 0},
                                     {0, -1, -1.5, 1.5, 1}};
  static constexpr float ninth = 1.0f / 9;
  static constexpr float g[5][3] = {{-1, 0, 0},
                                    {2 * ninth, 2 * ninth, 2 * ninth},
                                    {8 * ninth, -4 * ninth, 2 * ninth},
                                    {-ninth, 2 * ninth, -4 * ninth},
                                    {0, 0, 1}};
  static constexpr float at[3][5] = {{1, 1, 1, 1, 0}, {0, 1, -0.5, -2, 0}, {0, 1, 0.25, 4, 1}};
};

struct F2x5 {  // points 0, 1, -1, 2, -1/2
  static constexpr int m = 2, r = 5, a = 6;
  static constexpr float bt[6][6] = {{1, 1.5, -2, -1.5, 1, 0}, {0, -1, -2.5, -0.5, 1, 0},
                                     {0, 1, 0.5, -2.5, 1, 0},  {0, -0.5, -1, 0.5, 1, 0},
                                     {0, 2, -1, -2, 1, 0},     {0, 1, 1.5, -2, -1.5, 1}};
  static constexpr float third = 1.0f / 3, fifteenth = 1.0f / 15;
  static constexpr float g[6][5] = {
      {1, 0, 0, 0, 0},
      {-third, -third, -third, -third, -third},
      {third, -third, third, -third, third},
      {fifteenth, 2 * fifteenth, 4 * fifteenth, 8 * fifteenth, 16 * fifteenth},
      {-16 * fifteenth, 8 * fifteenth, -4 * fifteenth, 2 * fifteenth, -fifteenth},
      {0, 0, 0, 0, 1}};
  static constexpr float at[2][6] = {{1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -0.5, 1}};
};

// What a transform multiplies by, on both sides: rows x cols.
template <class F>
struct Data {  // B^T
  static constexpr int rows = F::a, cols = F::a;
  static constexpr float at(int i, int j) { return F::bt[i][j]; }
};
template <class F>
struct Filter {  // G
  static constexpr int rows = F::a, cols = F::r;
  static constexpr float at(int i, int j) { return F::g[i][j]; }
};
template <class F>
struct Output {  // A^T
  static constexpr int rows = F::m, cols = F::a;
  static constexpr float at(int i, int j) { return F::at[i][j]; }
};
template <class Matrix>
struct Transposed {
  static constexpr int rows = Matrix::cols, cols = Matrix::rows;
  static constexpr float at(int i, int j) { return Matrix::at(j, i); }
};

// sum + the products of row i from column j on; those by 0 are left out. Values travel as
// arguments, not as an array, which would keep the compiler from vectorising.
template <class Matrix, int i, int j>
CONVNET_INLINE float add_products(float sum) {
  return sum;
}
template <class Matrix, int i, int j, class... Rest>
CONVNET_INLINE float add_products(float sum, float v, Rest... rest) {
  constexpr float factor = Matrix::at(i, j);
  if constexpr (factor == 0) {
    return add_products<Matrix, i, j + 1>(sum, rest...);
  } else {
    return add_products<Matrix, i, j + 1>(sum + factor * v, rest...);
  }
}

// The sum of the products of row i, from column j on.
template <class Matrix, int i, int j, class... Rest>
CONVNET_INLINE float product(float v, Rest... rest) {
  constexpr float factor = Matrix::at(i, j);
  if constexpr (factor == 0) {
    return product<Matrix, i, j + 1>(rest...);
  } else {
    return add_products<Matrix, i, j + 1>(factor * v, rest...);
  }
}

template <class Matrix, int... i, class... Values>
CONVNET_INLINE void store_products(std::integer_sequence<int, i...>, float* const* out, int c,
                                   Values... v) {
  ((out[i][c] = product<Matrix, i, 0>(v...)), ...);
}

template <class Matrix, class In, int... j>
CONVNET_INLINE void multiply(std::integer_sequence<int, j...>, const In* const* in,
                             float* const* out, int width) {
  const std::make_integer_sequence<int, Matrix::rows> rows;
  CONVNET_SIMD
  for (int c = 0; c < width; ++c) store_products<Matrix>(rows, out, c, read(in[j][c])...);
}

// out[i][c] = sum_j matrix[i][j] in[j][c] for `width` channels.
template <class Matrix, class In>
CONVNET_INLINE void multiply(const In* const* in, float* const* out, int width) {
  multiply<Matrix>(std::make_integer_sequence<int, Matrix::cols>(), in, out, width);
}

constexpr int kLanes = 32;  // channels transformed at a time: a tile of them stays in the L1 cache

// An image (or filter) of pixels that lie anywhere regular, and tiles of it. What tiles have
// outside the image reads as zero and is not written.
template <class Number>
struct Image {
  Number* data;  // of image 0, pixel (0, 0), first channel
  std::int64_t stride_n, stride_h, stride_w;
  int h, w;
  int tiles_h, tiles_w, step;  // tile (i, j) begins at row i * step - pad_h
  int pad_h, pad_w;

  struct Corner {
    Number* data;
    int h, w;
  };
  CONVNET_INLINE Corner corner(std::int64_t tile) const {
    const int column = static_cast<int>(tile % tiles_w);
    const int row = static_cast<int>(tile / tiles_w % tiles_h);
    return {data + tile / tiles_w / tiles_h * stride_n, row * step - pad_h, column * step - pad_w};
  }
};

// Where numbers (i, j) of transformed tiles lie: matrix number i * a + j, row `tile`, `channels`.
template <class Float>
struct Matrices {
  Float* data;
  std::int64_t stride;  // from one matrix to the next
  int channels;
};

// Tiles [begin, begin + count) of `from`, multiplied from both sides, into rows 0, 1, ... of `to`.
template <class Matrix, class T>
CONVNET_INLINE void scatter_tiles(const Image<const T>& from, std::int64_t begin, int count,
                                  const Matrices<float>& to) {
  constexpr int rows = Matrix::rows, cols = Matrix::cols;
  alignas(64) static const T zeros[kLanes] = {};
  alignas(64) float half[rows][cols][kLanes];
  for (int tile = 0; tile < count; ++tile) {
    const auto corner = from.corner(begin + tile);
    for (int c = 0; c < to.channels; c += kLanes) {
      const int width = to.channels - c < kLanes ? to.channels - c : kLanes;
      const T* pixels[cols];
      const float* in[cols];
      float* out[rows];
      for (int j = 0; j < cols; ++j) {
        const int column = corner.w + j;
        for (int i = 0; i < cols; ++i) {
          const int row = corner.h + i;
          const bool inside = row >= 0 && row < from.h && column >= 0 && column < from.w;
          pixels[i] =
              inside ? corner.data + row * from.stride_h + column * from.stride_w + c : zeros;
        }
        for (int i = 0; i < rows; ++i) out[i] = half[i][j];
        multiply<Matrix>(pixels, out, width);
      }
      float* first = to.data + static_cast<std::int64_t>(tile) * to.channels + c;
      for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < cols; ++j) in[j] = half[i][j];
        for (int j = 0; j < rows; ++j) out[j] = first + (i * rows + j) * to.stride;
        multiply<Matrix>(in, out, width);
      }
    }
  }
}

// The way back: rows 0, 1, ... of `from`, multiplied from both sides, into the tiles of `to`.
template <class Matrix, class T>
CONVNET_INLINE void gather_tiles(const Matrices<const float>& from, std::int64_t begin, int count,
                                 const Image<T>& to, const Epilogue<T>& epilogue) {
  constexpr int rows = Matrix::rows, cols = Matrix::cols;
  alignas(64) float half[rows][cols][kLanes], whole[rows][kLanes];
  for (int tile = 0; tile < count; ++tile) {
    const auto corner = to.corner(begin + tile);
    for (int c = 0; c < from.channels; c += kLanes) {
      const int width = from.channels - c < kLanes ? from.channels - c : kLanes;
      const float* first = from.data + static_cast<std::int64_t>(tile) * from.channels + c;
      const float* in[cols];
      float* out[rows];
      for (int j = 0; j < cols; ++j) {
        for (int i = 0; i < cols; ++i) in[i] = first + (i * cols + j) * from.stride;
        for (int i = 0; i < rows; ++i) out[i] = half[i][j];
        multiply<Matrix>(in, out, width);
      }
      for (int i = 0; i < rows && corner.h + i < to.h; ++i) {
        for (int j = 0; j < cols; ++j) in[j] = half[i][j];
        for (int j = 0; j < rows; ++j) out[j] = whole[j];
        multiply<Matrix>(in, out, width);
        for (int j = 0; j < rows && corner.w + j < to.w; ++j) {
          const std::int64_t offset = (corner.data - to.data) + (corner.h + i) * to.stride_h +
                                      (corner.w + j) * to.stride_w + c;
          epilogue.store(whole[j], to.data, offset, c, width);
        }
      }
    }
  }
}

}  // namespace convnet::winograd
