// Matrix products by oneDNN whose bits do not depend on the number of threads.
//
//   C [m, n] = A [m, k] B [k, n] + b [n], or a batch of such products
//
// oneDNN divides a product among the threads itself where it forms every sum as one thread would.
// Elsewhere the product is cut here, by its shape alone (parallel.h), into rows, columns or parts
// of a batch, and each piece is computed by one thread.
#pragma once

#include <array>

#include "onednn.h"

namespace convnet {

// An array of a product, and which of its dimensions is cut.
struct Operand {
  dnnl::memory::desc desc;
  int cut = kWhole;
  static constexpr int kWhole = -1;
};

class Product {
 public:
  // C = A B; with `bias`, a description of one row, + b. Of three dimensions, the first is the
  // batch's.
  static Product matmul(const dnnl::memory::desc& a, const dnnl::memory::desc& b,
                        const dnnl::memory::desc& bias, const dnnl::memory::desc& c,
                        const dnnl::primitive_attr& attr);

  // C [m, n] = A [m, k] W^T + b, for W [n, k] as it lies.
  static Product inner_product(const dnnl::memory::desc& a, const dnnl::memory::desc& w,
                               const dnnl::memory::desc& bias, const dnnl::memory::desc& c,
                               const dnnl::primitive_attr& attr);

  const char* name() const { return name_; }  // "matmul" or "inner product"
  const std::string& implementation() const { return parts_[0].implementation; }  // oneDNN's name
  std::int64_t workspace() const;                                                 // in bytes

  // `bias` is null where the product has none.
  void run(const void* a, const void* b, const float* bias, void* c, Scratch& scratch) const;

 private:
  enum class Kind { kMatmul, kInnerProduct };

  // The product, or a piece of it.
  struct Part {
    dnnl::primitive primitive;
    std::array<dnnl::memory::desc, 4> descs;  // a, b, bias, c
    dnnl::memory::desc scratchpad;
    std::string implementation;
  };

  static Part make_part(Kind kind, const std::array<dnnl::memory::desc, 4>& descs,
                        const dnnl::primitive_attr& attr);
  void cut(Kind kind, const std::array<Operand, 4>& operands, std::int64_t piece,
           const dnnl::primitive_attr& attr);
  void run_part(const Part& part, const std::array<const char*, 4>& arrays, void* scratchpad) const;

  const char* name_ = "matmul";
  std::vector<Part> parts_;  // the whole; or all pieces but the last, and the last
  std::int64_t pieces_ = 1;
  bool is_cut_ = false;
  std::array<std::int64_t, 4> steps_{};  // from piece to piece of each array, in bytes
};

}  // namespace convnet
