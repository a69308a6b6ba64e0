// When a convolution goes by tiles.
#include "amx.h"

#include "choice.h"
#include "tiles.h"

namespace convnet {
namespace {

// How many products of tiles take as long as one of oneDNN's direct convolution in float32, and what
// it costs, in the latter, to copy a number, and to lay out one of a window in pairs: fast where channels come
// in 16s (measured).
constexpr double kTileLead = 7, kWgradTileLead = 4.9, kCopyCost = 4;
constexpr double kPairCost = 3.7, kOddPairCost = 60;

bool has_form(const ConvShape& s, Pass pass) {
  if (s.storage != Storage::kBfloat16 || !tiles_suit()) return false;
  if (pass != Pass::kDgrad) return true;
  return s.stride_h == 1 && s.stride_w == 1 && s.pad_h < s.r && s.pad_w < s.s;
}

}  // namespace

std::optional<double> amx_cost(const ConvShape& s, Pass pass) {
  if (!has_form(s, pass)) return std::nullopt;
  if (choice_of("CONVNET_AMX") == Choice::kAlways) return 0.0;
  if (pass == Pass::kWgrad) {
    const double windows = 1.0 * s.n * s.p * s.q * s.r * s.s * s.c;
    const bool even = s.c / s.groups % kTileColumns == 0;
    return amx_wgrad_products(s) / kWgradTileLead + (even ? kPairCost : kOddPairCost) * windows;
  }
  const auto copied = static_cast<double>(count(x_dims(s)) + count(y_dims(s)) + count(w_dims(s)));
  return amx_correlate_products(s, pass) / kTileLead + kCopyCost * copied;
}

std::int64_t amx_workspace(const ConvShape& shape, Pass pass) {
  return pass == Pass::kWgrad ? amx_wgrad_workspace(shape) : amx_dgrad_workspace(shape);
}

}  // namespace convnet
