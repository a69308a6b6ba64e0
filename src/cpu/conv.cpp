// Convolution on the host, in NHWC throughout: by Winograd's algorithm where that pays
// (winograd.cpp, space_to_depth.cpp), of bfloat16 arrays by AMX (amx.h), else directly by oneDNN
// (direct.cpp), which may round operands where `precision` allows it (reduced.h).
//
//   fprop  y  = x * w + b      (equations in ops.h)
//   dgrad  dx = dy * flipped w
//   wgrad  dw = x * dy,  db = sum of dy
//
// Activations are used as they lie. Of bfloat16 arrays Winograd's algorithm reads and writes tiles, so
// that float32 is in its matrices alone.
#include "amx.h"
#include "direct.h"
#include "elements.h"
#include "reduced.h"
#include "space_to_depth.h"
#include "widened.h"
#include "winograd.h"

namespace convnet {
namespace {

enum class Algorithm { kDirect, kWinograd, kSpaceToDepth, kAmx };

template <class T>
constexpr bool kHalf = storage_of<T> == Storage::kBfloat16;

struct Method {
  Algorithm algorithm;
  Precision precision;
};

// kFfma asks for plain sums.
Method method_for(const ConvShape& shape, Pass pass, Precision precision) {
  if (precision == Precision::kFfma) return {Algorithm::kDirect, precision};
  if (shape.storage == Storage::kBfloat16 && precision != Precision::kBf16) {
    return method_for(in_float32(shape), pass, precision);
  }
  const bool reduced = direct_is_reduced(shape, pass, precision);
  const Precision taken = reduced ? precision : Precision::kFp32;
  const double direct = direct_cost(shape) / (reduced ? conv_lead(shape, pass) : 1);
  const double amx = amx_cost(shape, pass).value_or(direct);
  const double amx_blocks = space_to_depth_amx_cost(shape, pass).value_or(direct);
  const double least = std::min({direct, amx, amx_blocks});
  if (winograd_suits(shape, pass, least)) return {Algorithm::kWinograd, Precision::kFp32};
  if (space_to_depth_suits(shape, pass, least)) return {Algorithm::kSpaceToDepth, Precision::kFp32};
  if (amx_blocks < direct && amx_blocks <= amx) return {Algorithm::kSpaceToDepth, precision};
  if (amx < direct) return {Algorithm::kAmx, precision};
  return {Algorithm::kDirect, taken};
}

// Where it is not direct.
FpropBytes fprop_bytes(const ConvShape& shape, Algorithm algorithm) {
  if (algorithm == Algorithm::kAmx) return amx_fprop_bytes(shape);
  return algorithm == Algorithm::kWinograd ? winograd_fprop_bytes(shape)
                                           : space_to_depth_fprop_bytes(shape);
}

// Of prepared filters.
std::int64_t prepared_bytes(const ConvShape& shape, const Method& method) {
  if (method.algorithm != Algorithm::kDirect) return fprop_bytes(shape, method.algorithm).filters;
  return direct_prepared_bytes(shape, method.precision);
}

}  // namespace

std::string conv_kernel(const ConvShape& shape, Pass pass, Precision precision) {
  const Method method = method_for(shape, pass, precision);
  if (method.algorithm == Algorithm::kWinograd) return winograd_name(shape, pass);
  if (method.algorithm == Algorithm::kSpaceToDepth) {
    return kernel_name("space to depth", method.precision);
  }
  if (method.algorithm == Algorithm::kAmx) return kernel_name("tiles", method.precision);
  return kernel_name("direct", method.precision);
}

std::int64_t conv_workspace(const ConvShape& shape, Pass pass, Precision precision) {
  const Method method = method_for(shape, pass, precision);
  if (method.algorithm == Algorithm::kDirect) {
    return direct_workspace(shape, pass, method.precision, false);
  }
  if (pass == Pass::kFprop) return fprop_bytes(shape, method.algorithm).together();
  if (method.algorithm == Algorithm::kAmx) return amx_workspace(shape, pass);
  return method.algorithm == Algorithm::kWinograd
             ? winograd_workspace(shape, pass)
             : space_to_depth_workspace(shape, pass, method.precision);
}

std::int64_t conv_prepared_bytes(const ConvShape& shape, Precision precision) {
  return prepared_bytes(shape, method_for(shape, Pass::kFprop, precision));
}

std::int64_t conv_prepared_workspace(const ConvShape& shape, Precision precision) {
  const Method method = method_for(shape, Pass::kFprop, precision);
  return method.algorithm == Algorithm::kDirect
             ? direct_workspace(shape, Pass::kFprop, method.precision, true)
             : fprop_bytes(shape, method.algorithm).multiply;
}

void conv_prepare(const ConvShape& shape, Precision precision, const float* w, Workspace prepared,
                  Workspace workspace, Stream) {
  const Method method = method_for(shape, Pass::kFprop, precision);
  if (method.algorithm == Algorithm::kWinograd) {
    return winograd_prepare(shape, w, prepared, workspace);
  }
  if (method.algorithm == Algorithm::kSpaceToDepth) {
    return space_to_depth_prepare(shape, w, prepared, workspace);
  }
  if (method.algorithm == Algorithm::kAmx) return amx_prepare(shape, w, prepared);
  direct_prepare(shape, method.precision, w, prepared);
}

template <class T>
void conv_fprop_prepared(const ConvShape& shape, Precision precision, const T* x,
                         Workspace prepared, const float* b, bool relu, T* y, Workspace workspace,
                         Stream) {
  const Method method = method_for(shape, Pass::kFprop, precision);
  check_dims("conv_fprop_prepared", "prepared", {prepared.bytes}, {prepared_bytes(shape, method)});
  if (method.algorithm == Algorithm::kWinograd) {
    return winograd_fprop(shape, x, prepared, b, relu, y, workspace);
  }
  if (method.algorithm == Algorithm::kSpaceToDepth) {
    return space_to_depth_fprop(shape, x, prepared, b, relu, y, workspace);
  }
  if constexpr (kHalf<T>) {
    if (method.algorithm == Algorithm::kAmx)
      return amx_fprop(shape, x, prepared, b, relu, y, workspace);
  }
  direct_fprop(shape, method.precision, x, prepared.data, true, b, relu, y, workspace);
}

template <class T>
void conv_fprop(const ConvShape& shape, Precision precision, const T* x, const float* w,
                const float* b, bool relu, T* y, Workspace workspace, Stream stream) {
  const Method method = method_for(shape, Pass::kFprop, precision);
  if (method.algorithm == Algorithm::kDirect) {
    return direct_fprop(shape, method.precision, x, w, false, b, relu, y, workspace);
  }
  Scratch scratch("conv_fprop", workspace);
  const std::int64_t bytes = prepared_bytes(shape, method);
  const Workspace prepared{scratch.take(bytes), bytes};
  conv_prepare(shape, precision, w, prepared, scratch.rest(), stream);
  conv_fprop_prepared(shape, precision, x, prepared, b, relu, y, scratch.rest(), stream);
}

template <class T>
void conv_dgrad(const ConvShape& shape, Precision precision, const T* dy, const float* w,
                const T* relu_mask, T* dx, Workspace workspace, Stream) {
  const Method method = method_for(shape, Pass::kDgrad, precision);
  if (method.algorithm == Algorithm::kWinograd) {
    return winograd_dgrad(shape, dy, w, relu_mask, dx, workspace);
  }
  if (method.algorithm == Algorithm::kSpaceToDepth) {
    return space_to_depth_dgrad(shape, dy, w, relu_mask, dx, workspace);
  }
  if constexpr (kHalf<T>) {
    if (method.algorithm == Algorithm::kAmx)
      return amx_dgrad(shape, dy, w, relu_mask, dx, workspace);
  }
  direct_dgrad(shape, method.precision, dy, w, dx, workspace);
  apply_relu_mask(count(x_dims(shape)), relu_mask, dx);
}

template <class T>
void conv_wgrad(const ConvShape& shape, Precision precision, const T* x, const T* dy, float* dw,
                float* db, Workspace workspace, Stream) {
  const Method method = method_for(shape, Pass::kWgrad, precision);
  if (method.algorithm == Algorithm::kWinograd) {
    return winograd_wgrad(shape, x, dy, dw, db, workspace);
  }
  if (method.algorithm == Algorithm::kSpaceToDepth) {
    return space_to_depth_wgrad(shape, method.precision, x, dy, dw, db, workspace);
  }
  if constexpr (kHalf<T>) {
    if (method.algorithm == Algorithm::kAmx) return amx_wgrad(shape, x, dy, dw, db, workspace);
  }
  direct_wgrad(shape, method.precision, x, dy, dw, db, workspace);
}

CONVNET_FOR_BOTH_TYPES(conv_fprop);
CONVNET_FOR_BOTH_TYPES(conv_fprop_prepared);
CONVNET_FOR_BOTH_TYPES(conv_dgrad);
CONVNET_FOR_BOTH_TYPES(conv_wgrad);

}  // namespace convnet
