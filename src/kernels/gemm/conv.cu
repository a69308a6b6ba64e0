// Convolutions, as ops.h has them: each pass asks for its plan once and takes that main loop.
#include "gemm.cuh"
#include "kernels/device/vectors.h"

namespace convnet {
namespace {

void check_aligned(OpName op, const char* argument, const void* data) {
  if (reinterpret_cast<std::uintptr_t>(data) % 16 == 0) return;
  fail(op.name, argument, "memory aligned to 16 bytes", "memory that is not");
}

void fprop_of(OpName op, const GemmPlan& plan, const float* x, const void* filters,
              const Epilogue& epilogue, const DropoutRule* rule, float* y, Workspace workspace,
              Stream stream) {
  if (plan.loop == MainLoop::kWgmma) {
    wgmma_conv(op, plan, x, filters, epilogue, y, stream);
  } else {
    gemm_fprop(op, plan, x, static_cast<const float*>(filters), epilogue, rule, y, workspace,
               stream);
  }
}

}  // namespace

void conv_fprop_as(OpName op, const ConvShape& shape, Precision precision, const float* x,
                   const float* w, const float* b, bool relu, float* y, Workspace workspace,
                   Stream stream, const DropoutRule* rule) {
  const bool aligned = aligned16(x) && aligned16(y);
  const GemmPlan plan = gemm_plan(op, shape, Pass::kFprop, precision, aligned);
  const void* filters = prepare_filters(op, plan, w, &workspace, stream);
  fprop_of(op, plan, x, filters, {b, nullptr, relu}, rule, y, workspace, stream);
}

void conv_dgrad_as(OpName op, const ConvShape& shape, Precision precision, const float* dy,
                   const float* w, const float* relu_mask, float* dx, Workspace workspace,
                   Stream stream) {
  const bool aligned = aligned16(dy) && aligned16(dx) && aligned16(relu_mask);
  const GemmPlan plan = gemm_plan(op, shape, Pass::kDgrad, precision, aligned);
  const Epilogue epilogue{nullptr, relu_mask, false};
  if (plan.loop == MainLoop::kWgmma) {
    const void* filters = prepare_filters(op, plan, w, &workspace, stream);
    wgmma_conv(op, plan, dy, filters, epilogue, dx, stream);
  } else {
    gemm_dgrad(op, plan, dy, w, epilogue, dx, workspace, stream);
  }
}

void conv_wgrad_as(OpName op, const ConvShape& shape, Precision precision, const float* x,
                   const float* dy, float* dw, float* db, Workspace workspace, Stream stream) {
  const GemmPlan plan = gemm_plan(op, shape, Pass::kWgrad, precision, aligned16(x));
  if (plan.loop == MainLoop::kWgmma) {
    wgmma_wgrad(op, plan, x, dy, dw, db, workspace, stream);
  } else {
    gemm_wgrad(op, plan, x, dy, dw, db, workspace, stream);
  }
}

template <>
void conv_fprop(const ConvShape& shape, Precision precision, const float* x, const float* w,
                const float* b, bool relu, float* y, Workspace workspace, Stream stream) {
  conv_fprop_as("conv_fprop", shape, precision, x, w, b, relu, y, workspace, stream);
}

template <>
void conv_dgrad(const ConvShape& shape, Precision precision, const float* dy, const float* w,
                const float* relu_mask, float* dx, Workspace workspace, Stream stream) {
  conv_dgrad_as("conv_dgrad", shape, precision, dy, w, relu_mask, dx, workspace, stream);
}

template <>
void conv_wgrad(const ConvShape& shape, Precision precision, const float* x, const float* dy,
                float* dw, float* db, Workspace workspace, Stream stream) {
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

template <>
void conv_fprop_prepared(const ConvShape& shape, Precision precision, const float* x,
                         Workspace prepared, const float* b, bool relu, float* y,
                         Workspace workspace, Stream stream) {
  const OpName op = "conv_fprop_prepared";
  const GemmPlan plan = gemm_plan(op, shape, Pass::kFprop, precision);
  check_dims(op.name, "prepared", {prepared.bytes}, {plan.prepared_bytes()});
  check_aligned(op, "x", x);
  check_aligned(op, "prepared", prepared.data);
  check_aligned(op, "y", y);
  fprop_of(op, plan, x, prepared.data, {b, nullptr, relu}, nullptr, y, workspace, stream);
}

}  // namespace convnet
