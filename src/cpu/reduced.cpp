#include "reduced.h"

#include <algorithm>

#include "isa.h"

namespace convnet {
namespace {

// As kConvLead, of matrix products, which round their operands once (measured, oneDNN 3.2 with AMX:
// 1,845 GFLOP/s in bf16 and 316 in fp32, 5.8), and what loading, rounding and storing a float costs
// in float32 multiplications. With few rows each weight is rounded for few products, which is no
// faster than float32.
constexpr double kProductLead = 4, kRoundingCost = 8;

// As kConvLead, of bfloat16 arrays with AVX512-BF16 alone, whose instructions do twice the work of
// float32's.
constexpr double kStoredConvLeadVectors = 1.6;

std::string& pretended() {
  static std::string name;
  return name;
}

}  // namespace

void pretend_implementation(const std::string& name) { pretended() = name; }

bool may_reduce(Precision precision, Storage storage) {
  if (storage == Storage::kBfloat16) {
    return precision == Precision::kBf16 && (takes_bfloat16() || !pretended().empty());
  }
  return (precision == Precision::kTf32 || precision == Precision::kBf16) &&
         (has_amx() || !pretended().empty());
}

bool takes_bfloat16() { return has_amx() || has_avx512_bf16(); }

bool is_reduced(const std::string& implementation, Storage storage) {
  const std::string& said = pretended().empty() ? implementation : pretended();
  const auto has = [&](const char* word) { return said.find(word) != std::string::npos; };
  return has("amx") || (storage == Storage::kBfloat16 && (has("avx512_core_bf16") || has("avx10")));
}

// Of bfloat16 arrays, measured with AMX on the convolutions of the paper's net, what it costs to mask dx
// included. wgrad leaves a part of each tile empty where rows of y are shorter, and more where there are
// few channels.
double conv_lead(const ConvShape& shape, Pass pass) {
  if (shape.storage == Storage::kFloat32) return kConvLead;
  if (!has_amx() && !is_reduced("")) return kStoredConvLeadVectors;
  if (pass != Pass::kWgrad) return pass == Pass::kFprop ? 5 : 6;
  constexpr int kTile = 16;
  const double filled = std::min(1.0, 1.0 * shape.c / shape.groups / kTile);
  return filled * (shape.q < kTile ? 3.4 : 5.5);
}

bool reduction_pays(std::int64_t m, std::int64_t n, std::int64_t k, Storage storage) {
  const double products = 1.0 * m * n * k, weights = 1.0 * k * n;
  const double operands = weights + (storage == Storage::kFloat32 ? 1.0 * m * k : 0.0);
  return products / kProductLead + kRoundingCost * operands < products;
}

std::string kernel_name(const std::string& algorithm, Precision precision) {
  if (precision == Precision::kTf32) return algorithm + ", tf32";
  return precision == Precision::kBf16 ? algorithm + ", bf16" : algorithm;
}

}  // namespace convnet
