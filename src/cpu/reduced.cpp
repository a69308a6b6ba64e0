#include "reduced.h"

#include "isa.h"

namespace convnet {
namespace {

// As kConvLead, of matrix products, which round their operands once (measured, oneDNN 3.2 with AMX:
// 1,845 GFLOP/s in bf16 and 316 in fp32, 5.8), and what loading, rounding and storing a float costs
// in float32 multiplications. With few rows each weight is rounded for few products, which is no
// faster than float32.
constexpr double kProductLead = 4, kRoundingCost = 8;

std::string& pretended() {
  static std::string name;
  return name;
}

}  // namespace

void pretend_implementation(const std::string& name) { pretended() = name; }

bool may_reduce(Math math) {
  return (math == Math::kTf32 || math == Math::kBf16) && (has_amx() || !pretended().empty());
}

bool is_reduced(const std::string& implementation) {
  const std::string& said = pretended().empty() ? implementation : pretended();
  return said.find("amx") != std::string::npos;
}

bool reduction_pays(std::int64_t m, std::int64_t n, std::int64_t k) {
  const double products = 1.0 * m * n * k, operands = 1.0 * m * k + 1.0 * k * n;
  return products / kProductLead + kRoundingCost * operands < products;
}

std::string kernel_name(const std::string& algorithm, Math math) {
  if (math == Math::kTf32) return algorithm + ", tf32";
  return math == Math::kBf16 ? algorithm + ", bf16" : algorithm;
}

}  // namespace convnet
