// Convolutions, as ops.h has them: each pass asks for its plan once and takes that main loop.
#include "gemm.cuh"
#include "kernels/device/vectors.h"

namespace convnet {
namespace {

// bfloat16 is copied 16 bytes at a time, or 8.
template <class T>
constexpr bool kFloat = storage_of<T> == Storage::kFloat32;

void check_aligned(OpName op, const char* argument, const void* data) {
  if (reinterpret_cast<std::uintptr_t>(data) % 16 == 0) return;
  fail(op.name, argument, "memory aligned to 16 bytes", "memory that is not");
}

template <class T>
void fprop_of(OpName op, const GemmPlan& plan, const T* x, const void* filters,
              const Epilogue<T>& epilogue, const DropoutRule* rule, T* y, Workspace workspace,
              Stream stream) {
  if (plan.loop == MainLoop::kWgmma) {
    return wgmma_conv(op, plan, x, filters, epilogue, y, stream);
  }
  gemm_fprop(op, plan, x, static_cast<const float*>(filters), epilogue, rule, y, workspace, stream);
}

}  // namespace

template <class T>
void conv_fprop_as(OpName op, ConvShape shape, Precision precision, const T* x, const float* w,
                   const float* b, bool relu, T* y, Workspace workspace, Stream stream,
                   const DropoutRule* rule) {
  shape.storage = storage_of<T>;
  const bool aligned = aligned16(x) && aligned16(y) && (kFloat<T> || aligned16(w));
  const GemmPlan plan = gemm_plan(op, shape, Pass::kFprop, precision, aligned);
  const void* filters = prepare_filters(op, plan, w, &workspace, stream);
  fprop_of<T>(op, plan, x, filters, {b, nullptr, relu}, rule, y, workspace, stream);
}

template <class T>
void conv_dgrad_as(OpName op, ConvShape shape, Precision precision, const T* dy, const float* w,
                   const T* relu_mask, T* dx, Workspace workspace, Stream stream) {
  shape.storage = storage_of<T>;
  const bool aligned =
      aligned16(dy) && aligned16(dx) && aligned16(relu_mask) && (kFloat<T> || aligned16(w));
  const GemmPlan plan = gemm_plan(op, shape, Pass::kDgrad, precision, aligned);
  const Epilogue<T> epilogue{nullptr, relu_mask, false};
  if (plan.loop == MainLoop::kWgmma) {
    const void* filters = prepare_filters(op, plan, w, &workspace, stream);
    return wgmma_conv(op, plan, dy, filters, epilogue, dx, stream);
  }
  gemm_dgrad(op, plan, dy, w, epilogue, dx, workspace, stream);
}

template <class T>
void conv_wgrad_as(OpName op, ConvShape shape, Precision precision, const T* x, const T* dy,
                   float* dw, float* db, Workspace workspace, Stream stream) {
  shape.storage = storage_of<T>;
  const bool aligned = aligned16(x) && aligned16(dw) && (kFloat<T> || aligned16(dy));
  const GemmPlan plan = gemm_plan(op, shape, Pass::kWgrad, precision, aligned);
  if (plan.loop == MainLoop::kWgmma) {
    return wgmma_wgrad(op, plan, x, dy, dw, db, workspace, stream);
  }
  gemm_wgrad(op, plan, x, dy, dw, db, workspace, stream);
}

template <class T>
void conv_fprop(const ConvShape& shape, Precision precision, const T* x, const float* w,
                const float* b, bool relu, T* y, Workspace workspace, Stream stream) {
  conv_fprop_as("conv_fprop", shape, precision, x, w, b, relu, y, workspace, stream);
}

template <class T>
void conv_dgrad(const ConvShape& shape, Precision precision, const T* dy, const float* w,
                const T* relu_mask, T* dx, Workspace workspace, Stream stream) {
  conv_dgrad_as("conv_dgrad", shape, precision, dy, w, relu_mask, dx, workspace, stream);
}

template <class T>
void conv_wgrad(const ConvShape& shape, Precision precision, const T* x, const T* dy, float* dw,
                float* db, Workspace workspace, Stream stream) {
  conv_wgrad_as("conv_wgrad", shape, precision, x, dy, dw, db, workspace, stream);
}

// ---- prepared filters --------------------------------------------------------------------------

std::int64_t conv_prepared_bytes(const ConvShape& shape, Precision precision) {
  return gemm_plan("conv_prepared_bytes", shape, Pass::kFprop, precision).prepared_bytes();
}

std::int64_t conv_prepared_workspace(const ConvShape& shape, Precision precision) {
  const GemmPlan plan = gemm_plan("conv_prepared_workspace", shape, Pass::kFprop, precision);
  return plan.split_floats() == 0 ? 0 : plan.split_floats() * 4 + 16;
}

void conv_prepare(const ConvShape& shape, Precision precision, const float* w, Workspace prepared,
                  Workspace, Stream stream) {
  const OpName op = "conv_prepare";
  check_aligned(op, "prepared", prepared.data);
  prepare_filters(op, gemm_plan(op, shape, Pass::kFprop, precision), w, &prepared, stream);
}

template <class T>
void conv_fprop_prepared(const ConvShape& shape, Precision precision, const T* x,
                         Workspace prepared, const float* b, bool relu, T* y, Workspace workspace,
                         Stream stream) {
  const OpName op = "conv_fprop_prepared";
  const GemmPlan plan = gemm_plan(op, shape, Pass::kFprop, precision);
  check_dims(op.name, "prepared", {prepared.bytes}, {plan.prepared_bytes()});
  check_aligned(op, "x", x);
  check_aligned(op, "prepared", prepared.data);
  check_aligned(op, "y", y);
  fprop_of<T>(op, plan, x, prepared.data, {b, nullptr, relu}, nullptr, y, workspace, stream);
}

// ---- both types --------------------------------------------------------------------------------

#define CONVNET_CONV_OF(T)                                                                        \
  template void conv_fprop(const ConvShape&, Precision, const T*, const float*, const float*,     \
                           bool, T*, Workspace, Stream);                                          \
  template void conv_dgrad(const ConvShape&, Precision, const T*, const float*, const T*, T*,     \
                           Workspace, Stream);                                                    \
  template void conv_wgrad(const ConvShape&, Precision, const T*, const T*, float*, float*,       \
                           Workspace, Stream);                                                    \
  template void conv_fprop_prepared(const ConvShape&, Precision, const T*, Workspace,             \
                                    const float*, bool, T*, Workspace, Stream);                   \
  template void conv_fprop_as(OpName, ConvShape, Precision, const T*, const float*, const float*, \
                              bool, T*, Workspace, Stream, const DropoutRule*);                   \
  template void conv_dgrad_as(OpName, ConvShape, Precision, const T*, const float*, const T*, T*, \
                              Workspace, Stream);                                                 \
  template void conv_wgrad_as(OpName, ConvShape, Precision, const T*, const T*, float*, float*,   \
                              Workspace, Stream)
CONVNET_CONV_OF(float);
CONVNET_CONV_OF(Bfloat16);
#undef CONVNET_CONV_OF

}  // namespace convnet
