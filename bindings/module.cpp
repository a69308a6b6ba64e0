// The Python module: one function per operation of the contract, compiled once for each backend.
//
// Every function takes arrays (inputs first, then outputs), then hyper-parameters, checks all of
// it, and runs the operation with the GIL released. Nothing is allocated here: convnet/ops.py is
// the comfortable layer above, with defaults, allocation and documentation.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <tuple>
#include <vector>

#include "array_view.h"
#include "gil.h"
#include "ops.h"
#include "philox.h"

#ifndef CONVNET_MODULE
#error "define CONVNET_MODULE as the module's name, for example _cpu"
#endif

namespace convnet {
namespace {

using Array = const py::object&;
using Size = std::int64_t;

Dims dims_of(const char* op, const char* arg, const py::object& sizes) {
  Dims dims;
  if (!py::isinstance<py::tuple>(sizes) && !py::isinstance<py::list>(sizes)) {
    fail(op, arg, "a tuple of sizes", python_type(sizes));
  }
  for (const auto size : sizes) {
    if (!py::isinstance<py::int_>(size)) {
      fail(op, arg, "a tuple of integers", py::repr(sizes));
    }
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(size.ptr(), &overflow);
    if (overflow != 0) fail(op, arg, "sizes below 2^31", py::repr(sizes));
    dims.push_back(value);
  }
  return dims;
}

py::tuple as_tuple(const Dims& dims) {
  py::tuple result(dims.size());
  for (std::size_t i = 0; i < dims.size(); ++i) result[i] = dims[i];
  return result;
}

Dims array_dims(const char* op, const char* arg, const py::object& array) {
  if (!py::hasattr(array, "shape")) fail(op, arg, "an array", python_type(array));
  return dims_of(op, arg, array.attr("shape"));
}

Window window_of(const char* op, Size stride_h, Size stride_w, Size pad_h, Size pad_w,
                 const std::string& rounding) {
  if (rounding != "floor" && rounding != "ceil") {
    fail(op, "rounding", "\"floor\" or \"ceil\"", "\"" + rounding + "\"");
  }
  return Window{stride_h, stride_w, pad_h, pad_w,
                rounding == "ceil" ? Rounding::kCeil : Rounding::kFloor};
}

Pass pass_of(const char* op, const std::string& pass) {
  if (pass == "fprop") return Pass::kFprop;
  if (pass == "dgrad") return Pass::kDgrad;
  if (pass == "wgrad") return Pass::kWgrad;
  fail(op, "pass", "\"fprop\", \"dgrad\" or \"wgrad\"", "\"" + pass + "\"");
}

Math math_of(const char* op, const std::string& math) {
  if (math == "fp32") return Math::kFp32;
  if (math == "ffma") return Math::kFfma;
  if (math == "tf32") return Math::kTf32;
  if (math == "bf16") return Math::kBf16;
  fail(op, "math", "\"fp32\", \"ffma\", \"tf32\" or \"bf16\"", "\"" + math + "\"");
}

Activation activation_of(const char* op, const std::string& kind) {
  static const std::pair<const char*, Activation> kinds[] = {
      {"relu", Activation::kRelu},         {"tanh", Activation::kTanh},
      {"logistic", Activation::kLogistic}, {"abs", Activation::kAbs},
      {"softrelu", Activation::kSoftRelu}, {"square", Activation::kSquare},
      {"sqrt", Activation::kSqrt},         {"log", Activation::kLog},
      {"brelu", Activation::kBrelu},       {"linear", Activation::kLinear},
      {"drelu", Activation::kDrelu}};
  std::string names;
  for (const auto& [name, activation] : kinds) {
    if (kind == name) return activation;
    names += std::string(names.empty() ? "" : ", ") + name;
  }
  fail(op, "kind", "one of " + names, "\"" + kind + "\"");
}

// Positional and keyword arguments shared by the windowed operations.
#define CONVNET_WINDOW_PARAMETERS \
  Size stride_h, Size stride_w, Size pad_h, Size pad_w, const std::string &rounding
#define CONVNET_WINDOW_ARGUMENTS stride_h, stride_w, pad_h, pad_w, rounding
#define CONVNET_WINDOW_NAMES \
  py::arg("stride_h"), py::arg("stride_w"), py::arg("pad_h"), py::arg("pad_w"), py::arg("rounding")

// ---- tiles, for benchmarks ---------------------------------------------------------------------

// A row: (pass, math, (m, n, k, products), tile, splits, on_hopper).
using TileRow = std::tuple<std::string, std::string, std::array<std::int64_t, 4>, std::string, int,
                           std::string>;

void bind_tiles(py::module_& m) {
  m.def(
      "tile_choice",
      [](const std::string& pass, const py::object& x_shape, const py::object& w_shape,
         CONVNET_WINDOW_PARAMETERS, Size groups, const std::string& math) {
        const char* op = "tile_choice";
        const ConvShape shape = conv_shape(op, dims_of(op, "x", x_shape), dims_of(op, "w", w_shape),
                                           window_of(op, CONVNET_WINDOW_ARGUMENTS), groups);
        const TileChoice choice = tile_choice(shape, pass_of(op, pass), math_of(op, math));
        return TileRow{pass,        math,          {choice.m, choice.n, choice.k, choice.products},
                       choice.tile, choice.splits, choice.on_hopper};
      },
      py::arg("pass"), py::arg("x_shape"), py::arg("w_shape"), CONVNET_WINDOW_NAMES,
      py::arg("groups"), py::arg("math"));
  m.def(
      "tiles_of",
      [](const std::string& pass, const std::string& math) {
        return tiles_of(pass_of("tiles_of", pass), math_of("tiles_of", math));
      },
      py::arg("pass"), py::arg("math"));
  m.def(
      "set_tile_choices",
      [](const std::optional<std::vector<TileRow>>& rows) {
        const char* op = "set_tile_choices";
        if (!rows) return reset_tile_choices();
        std::vector<TileChoice> choices;
        for (const auto& [pass, math, product, tile, splits, on_hopper] : *rows) {
          choices.push_back({pass_of(op, pass), math_of(op, math), product[0], product[1],
                             product[2], product[3], tile, splits, on_hopper});
        }
        set_tile_choices(choices);
      },
      py::arg("rows"));
}

// ---- convolution and locally connected layers --------------------------------------------------

void bind_conv(py::module_& m) {
  m.def("conv_output_shape", [](const py::object& x_shape, const py::object& w_shape,
                                CONVNET_WINDOW_PARAMETERS, Size groups) {
    const char* op = "conv";
    return as_tuple(y_dims(conv_shape(op, dims_of(op, "x", x_shape), dims_of(op, "w", w_shape),
                                      window_of(op, CONVNET_WINDOW_ARGUMENTS), groups)));
  });
  // What there is to know of a pass before it runs.
  const auto of_pass = [&m](const char* name, auto* function) {
    m.def(
        name,
        [function](const std::string& pass, const py::object& x_shape, const py::object& w_shape,
                   CONVNET_WINDOW_PARAMETERS, Size groups, const std::string& math) {
          const std::string op_name = "conv_" + pass;
          const char* op = op_name.c_str();
          return function(conv_shape(op, dims_of(op, "x", x_shape), dims_of(op, "w", w_shape),
                                     window_of(op, CONVNET_WINDOW_ARGUMENTS), groups),
                          pass_of(op, pass), math_of(op, math));
        },
        py::arg("pass"), py::arg("x_shape"), py::arg("w_shape"), CONVNET_WINDOW_NAMES,
        py::arg("groups"), py::arg("math") = "fp32");
  };
  of_pass("conv_workspace", &conv_workspace);
  of_pass("conv_kernel", &conv_kernel);
  m.def(
      "conv_fprop",
      [](Array x, Array w, Array b, Array y, CONVNET_WINDOW_PARAMETERS, Size groups, bool relu,
         Array workspace, std::uintptr_t stream, const std::string& math_name) {
        const char* op = "conv_fprop";
        Arguments args(op, stream);
        const Math math = math_of(op, math_name);
        const ConvShape shape = conv_shape(op, array_dims(op, "x", x), array_dims(op, "w", w),
                                           window_of(op, CONVNET_WINDOW_ARGUMENTS), groups);
        const auto* x_data = args.in<float>("x", x, x_dims(shape));
        const auto* w_data = args.in<float>("w", w, w_dims(shape));
        const auto* b_data = args.in<float>("b", b, Dims{shape.k}, true);
        auto* y_data = args.out<float>("y", y, y_dims(shape));
        const Workspace space =
            args.workspace(workspace, conv_workspace(shape, Pass::kFprop, math));
        GilRelease release;
        conv_fprop(shape, math, x_data, w_data, b_data, relu, y_data, space, args.stream());
      },
      py::arg("x"), py::arg("w"), py::arg("b"), py::arg("y"), CONVNET_WINDOW_NAMES,
      py::arg("groups"), py::arg("relu"), py::arg("workspace"), py::arg("stream") = 0,
      py::arg("math") = "fp32");
  m.def(
      "conv_dgrad",
      [](Array dy, Array w, Array relu_mask, Array dx, CONVNET_WINDOW_PARAMETERS, Size groups,
         Array workspace, std::uintptr_t stream, const std::string& math_name) {
        const char* op = "conv_dgrad";
        Arguments args(op, stream);
        const Math math = math_of(op, math_name);
        const ConvShape shape = conv_shape(op, array_dims(op, "dx", dx), array_dims(op, "w", w),
                                           window_of(op, CONVNET_WINDOW_ARGUMENTS), groups);
        const auto* dy_data = args.in<float>("dy", dy, y_dims(shape));
        const auto* w_data = args.in<float>("w", w, w_dims(shape));
        const auto* mask = args.in<float>("relu_mask", relu_mask, x_dims(shape), true);
        auto* dx_data = args.out<float>("dx", dx, x_dims(shape));
        const Workspace space =
            args.workspace(workspace, conv_workspace(shape, Pass::kDgrad, math));
        GilRelease release;
        conv_dgrad(shape, math, dy_data, w_data, mask, dx_data, space, args.stream());
      },
      py::arg("dy"), py::arg("w"), py::arg("relu_mask"), py::arg("dx"), CONVNET_WINDOW_NAMES,
      py::arg("groups"), py::arg("workspace"), py::arg("stream") = 0, py::arg("math") = "fp32");
  m.def(
      "conv_wgrad",
      [](Array x, Array dy, Array dw, Array db, CONVNET_WINDOW_PARAMETERS, Size groups,
         Array workspace, std::uintptr_t stream, const std::string& math_name) {
        const char* op = "conv_wgrad";
        Arguments args(op, stream);
        const Math math = math_of(op, math_name);
        const ConvShape shape = conv_shape(op, array_dims(op, "x", x), array_dims(op, "dw", dw),
                                           window_of(op, CONVNET_WINDOW_ARGUMENTS), groups);
        const auto* x_data = args.in<float>("x", x, x_dims(shape));
        const auto* dy_data = args.in<float>("dy", dy, y_dims(shape));
        auto* dw_data = args.out<float>("dw", dw, w_dims(shape));
        auto* db_data = args.out<float>("db", db, Dims{shape.k}, false, true);
        const Workspace space =
            args.workspace(workspace, conv_workspace(shape, Pass::kWgrad, math));
        GilRelease release;
        conv_wgrad(shape, math, x_data, dy_data, dw_data, db_data, space, args.stream());
      },
      py::arg("x"), py::arg("dy"), py::arg("dw"), py::arg("db"), CONVNET_WINDOW_NAMES,
      py::arg("groups"), py::arg("workspace"), py::arg("stream") = 0, py::arg("math") = "fp32");
}

void bind_local(py::module_& m) {
  m.def("local_output_shape", [](const py::object& x_shape, const py::object& w_shape,
                                 CONVNET_WINDOW_PARAMETERS, Size groups) {
    const char* op = "local";
    return as_tuple(y_dims(local_shape(op, dims_of(op, "x", x_shape), dims_of(op, "w", w_shape),
                                       window_of(op, CONVNET_WINDOW_ARGUMENTS), groups)));
  });
  m.def(
      "local_fprop",
      [](Array x, Array w, Array b, Array y, CONVNET_WINDOW_PARAMETERS, Size groups, bool relu,
         std::uintptr_t stream) {
        const char* op = "local_fprop";
        Arguments args(op, stream);
        const ConvShape shape = local_shape(op, array_dims(op, "x", x), array_dims(op, "w", w),
                                            window_of(op, CONVNET_WINDOW_ARGUMENTS), groups);
        const auto* x_data = args.in<float>("x", x, x_dims(shape));
        const auto* w_data = args.in<float>("w", w, local_w_dims(shape));
        const auto* b_data = args.in<float>("b", b, local_b_dims(shape), true);
        auto* y_data = args.out<float>("y", y, y_dims(shape));
        GilRelease release;
        local_fprop(shape, x_data, w_data, b_data, relu, y_data, args.stream());
      },
      py::arg("x"), py::arg("w"), py::arg("b"), py::arg("y"), CONVNET_WINDOW_NAMES,
      py::arg("groups"), py::arg("relu"), py::arg("stream") = 0);
  m.def(
      "local_dgrad",
      [](Array dy, Array w, Array relu_mask, Array dx, CONVNET_WINDOW_PARAMETERS, Size groups,
         std::uintptr_t stream) {
        const char* op = "local_dgrad";
        Arguments args(op, stream);
        const ConvShape shape = local_shape(op, array_dims(op, "dx", dx), array_dims(op, "w", w),
                                            window_of(op, CONVNET_WINDOW_ARGUMENTS), groups);
        const auto* dy_data = args.in<float>("dy", dy, y_dims(shape));
        const auto* w_data = args.in<float>("w", w, local_w_dims(shape));
        const auto* mask = args.in<float>("relu_mask", relu_mask, x_dims(shape), true);
        auto* dx_data = args.out<float>("dx", dx, x_dims(shape));
        GilRelease release;
        local_dgrad(shape, dy_data, w_data, mask, dx_data, args.stream());
      },
      py::arg("dy"), py::arg("w"), py::arg("relu_mask"), py::arg("dx"), CONVNET_WINDOW_NAMES,
      py::arg("groups"), py::arg("stream") = 0);
  m.def(
      "local_wgrad",
      [](Array x, Array dy, Array dw, Array db, CONVNET_WINDOW_PARAMETERS, Size groups,
         std::uintptr_t stream) {
        const char* op = "local_wgrad";
        Arguments args(op, stream);
        const ConvShape shape = local_shape(op, array_dims(op, "x", x), array_dims(op, "dw", dw),
                                            window_of(op, CONVNET_WINDOW_ARGUMENTS), groups);
        const auto* x_data = args.in<float>("x", x, x_dims(shape));
        const auto* dy_data = args.in<float>("dy", dy, y_dims(shape));
        auto* dw_data = args.out<float>("dw", dw, local_w_dims(shape));
        auto* db_data = args.out<float>("db", db, local_b_dims(shape), false, true);
        GilRelease release;
        local_wgrad(shape, x_data, dy_data, dw_data, db_data, args.stream());
      },
      py::arg("x"), py::arg("dy"), py::arg("dw"), py::arg("db"), CONVNET_WINDOW_NAMES,
      py::arg("groups"), py::arg("stream") = 0);
}

// ---- dense -------------------------------------------------------------------------------------

void bind_dense(py::module_& m) {
  const auto of_pass = [&m](const char* name, auto* function) {
    m.def(
        name,
        [function](const std::string& pass, const py::object& x_shape, const py::object& w_shape,
                   const std::string& math) {
          const std::string op_name = "dense_" + pass;
          const char* op = op_name.c_str();
          return function(dense_shape(op, dims_of(op, "x", x_shape), dims_of(op, "w", w_shape)),
                          pass_of(op, pass), math_of(op, math));
        },
        py::arg("pass"), py::arg("x_shape"), py::arg("w_shape"), py::arg("math") = "fp32");
  };
  of_pass("dense_workspace", &dense_workspace);
  of_pass("dense_kernel", &dense_kernel);
  m.def(
      "dense_fprop",
      [](Array x, Array w, Array b, Array y, bool relu, Array workspace, std::uintptr_t stream,
         const std::string& math_name) {
        const char* op = "dense_fprop";
        Arguments args(op, stream);
        const Math math = math_of(op, math_name);
        const DenseShape s = dense_shape(op, array_dims(op, "x", x), array_dims(op, "w", w));
        const auto* x_data = args.in<float>("x", x, Dims{s.n, s.c});
        const auto* w_data = args.in<float>("w", w, Dims{s.k, s.c});
        const auto* b_data = args.in<float>("b", b, Dims{s.k}, true);
        auto* y_data = args.out<float>("y", y, Dims{s.n, s.k});
        const Workspace space = args.workspace(workspace, dense_workspace(s, Pass::kFprop, math));
        GilRelease release;
        dense_fprop(s, math, x_data, w_data, b_data, relu, y_data, space, args.stream());
      },
      py::arg("x"), py::arg("w"), py::arg("b"), py::arg("y"), py::arg("relu"), py::arg("workspace"),
      py::arg("stream") = 0, py::arg("math") = "fp32");
  m.def(
      "dense_fprop_dropout",
      [](Array x, Array w, Array b, Array y, bool relu, double drop, float scale,
         std::uint64_t seed, std::uint32_t stream_id, std::uint32_t step, Size row_offset,
         Size col_offset, Size global_cols, Array state, Array workspace, std::uintptr_t stream,
         const std::string& math_name) {
        const char* op = "dense_fprop_dropout";
        Arguments args(op, stream);
        const Math math = math_of(op, math_name);
        const DenseShape s = dense_shape(op, array_dims(op, "x", x), array_dims(op, "w", w));
        const auto* x_data = args.in<float>("x", x, Dims{s.n, s.c});
        const auto* w_data = args.in<float>("w", w, Dims{s.k, s.c});
        const auto* b_data = args.in<float>("b", b, Dims{s.k}, true);
        const DropoutShape mask =
            dropout_shape(op, Dims{s.n, s.k}, drop, row_offset, col_offset, global_cols);
        const DropoutRule rule{mask, drop, scale, seed, stream_id, step, args.state(state)};
        auto* y_data = args.out<float>("y", y, Dims{s.n, s.k});
        const Workspace space = args.workspace(workspace, dense_workspace(s, Pass::kFprop, math));
        GilRelease release;
        dense_fprop_dropout(s, math, x_data, w_data, b_data, relu, rule, y_data, space,
                            args.stream());
      },
      py::arg("x"), py::arg("w"), py::arg("b"), py::arg("y"), py::arg("relu"), py::arg("drop"),
      py::arg("scale"), py::arg("seed"), py::arg("stream_id"), py::arg("step"),
      py::arg("row_offset"), py::arg("col_offset"), py::arg("global_cols"), py::arg("state"),
      py::arg("workspace"), py::arg("stream") = 0, py::arg("math") = "fp32");
  m.def(
      "dense_dgrad",
      [](Array dy, Array w, Array relu_mask, Array dx, Array workspace, std::uintptr_t stream,
         const std::string& math_name) {
        const char* op = "dense_dgrad";
        Arguments args(op, stream);
        const Math math = math_of(op, math_name);
        const DenseShape s = dense_shape(op, array_dims(op, "dx", dx), array_dims(op, "w", w));
        const auto* dy_data = args.in<float>("dy", dy, Dims{s.n, s.k});
        const auto* w_data = args.in<float>("w", w, Dims{s.k, s.c});
        const auto* mask = args.in<float>("relu_mask", relu_mask, Dims{s.n, s.c}, true);
        auto* dx_data = args.out<float>("dx", dx, Dims{s.n, s.c});
        const Workspace space = args.workspace(workspace, dense_workspace(s, Pass::kDgrad, math));
        GilRelease release;
        dense_dgrad(s, math, dy_data, w_data, mask, dx_data, space, args.stream());
      },
      py::arg("dy"), py::arg("w"), py::arg("relu_mask"), py::arg("dx"), py::arg("workspace"),
      py::arg("stream") = 0, py::arg("math") = "fp32");
  m.def(
      "dense_wgrad",
      [](Array x, Array dy, Array dw, Array db, Array workspace, std::uintptr_t stream,
         const std::string& math_name) {
        const char* op = "dense_wgrad";
        Arguments args(op, stream);
        const Math math = math_of(op, math_name);
        const DenseShape s = dense_shape(op, array_dims(op, "x", x), array_dims(op, "dw", dw));
        const auto* x_data = args.in<float>("x", x, Dims{s.n, s.c});
        const auto* dy_data = args.in<float>("dy", dy, Dims{s.n, s.k});
        auto* dw_data = args.out<float>("dw", dw, Dims{s.k, s.c});
        auto* db_data = args.out<float>("db", db, Dims{s.k}, false, true);
        const Workspace space = args.workspace(workspace, dense_workspace(s, Pass::kWgrad, math));
        GilRelease release;
        dense_wgrad(s, math, x_data, dy_data, dw_data, db_data, space, args.stream());
      },
      py::arg("x"), py::arg("dy"), py::arg("dw"), py::arg("db"), py::arg("workspace"),
      py::arg("stream") = 0, py::arg("math") = "fp32");
  m.def(
      "dense_wgrad_sgd",
      [](Array x, Array dy, Array w, Array velocity, Array db, float lr, float momentum,
         float weight_decay, float lr_mult, float decay_mult, std::uint32_t number, Array state,
         Array workspace, std::uintptr_t stream, const std::string& math_name) {
        const char* op = "dense_wgrad_sgd";
        Arguments args(op, stream);
        const Math math = math_of(op, math_name);
        const DenseShape s = dense_shape(op, array_dims(op, "x", x), array_dims(op, "w", w));
        const auto* x_data = args.in<float>("x", x, Dims{s.n, s.c});
        const auto* dy_data = args.in<float>("dy", dy, Dims{s.n, s.k});
        const SgdRule rule{lr,         momentum, weight_decay, lr_mult,
                           decay_mult, number,   false,        args.updated_state(state)};
        auto* w_data = args.out<float>("w", w, Dims{s.k, s.c});
        auto* v_data = args.out<float>("velocity", velocity, Dims{s.k, s.c});
        auto* db_data = args.out<float>("db", db, Dims{s.k}, false, true);
        const Workspace space = args.workspace(workspace, dense_workspace(s, Pass::kWgrad, math));
        GilRelease release;
        dense_wgrad_sgd(s, math, x_data, dy_data, rule, w_data, v_data, db_data, space,
                        args.stream());
      },
      py::arg("x"), py::arg("dy"), py::arg("w"), py::arg("velocity"), py::arg("db"), py::arg("lr"),
      py::arg("momentum"), py::arg("weight_decay"), py::arg("lr_mult"), py::arg("decay_mult"),
      py::arg("number"), py::arg("state"), py::arg("workspace"), py::arg("stream") = 0,
      py::arg("math") = "fp32");
}

// ---- pooling -----------------------------------------------------------------------------------

#define CONVNET_POOL_PARAMETERS Size size_h, Size size_w, CONVNET_WINDOW_PARAMETERS
#define CONVNET_POOL_NAMES py::arg("size_h"), py::arg("size_w"), CONVNET_WINDOW_NAMES

PoolShape pool_of(const char* op, const Dims& x, CONVNET_POOL_PARAMETERS) {
  return pool_shape(op, x, size_h, size_w, window_of(op, CONVNET_WINDOW_ARGUMENTS));
}

PoolShape maxpool_of(const char* op, const Dims& x, CONVNET_POOL_PARAMETERS) {
  const PoolShape shape = pool_of(op, x, size_h, size_w, CONVNET_WINDOW_ARGUMENTS);
  if (size_h * size_w > 256) {
    fail(op, "size", "at most 256 elements in a window (argmax is a uint8)",
         to_string({size_h, size_w}));
  }
  return shape;
}

void bind_pool(py::module_& m) {
  m.def("pool_output_shape", [](const py::object& x_shape, CONVNET_POOL_PARAMETERS) {
    const char* op = "pool";
    return as_tuple(
        y_dims(pool_of(op, dims_of(op, "x", x_shape), size_h, size_w, CONVNET_WINDOW_ARGUMENTS)));
  });
  m.def(
      "maxpool_fprop",
      [](Array x, Array y, Array argmax, CONVNET_POOL_PARAMETERS, std::uintptr_t stream) {
        const char* op = "maxpool_fprop";
        Arguments args(op, stream);
        const PoolShape shape =
            maxpool_of(op, array_dims(op, "x", x), size_h, size_w, CONVNET_WINDOW_ARGUMENTS);
        const auto* x_data = args.in<float>("x", x, x_dims(shape));
        auto* y_data = args.out<float>("y", y, y_dims(shape));
        auto* argmax_data = args.out<std::uint8_t>("argmax", argmax, y_dims(shape));
        GilRelease release;
        maxpool_fprop(shape, x_data, y_data, argmax_data, args.stream());
      },
      py::arg("x"), py::arg("y"), py::arg("argmax"), CONVNET_POOL_NAMES, py::arg("stream") = 0);
  m.def(
      "maxpool_bprop",
      [](Array dy, Array argmax, Array dx, CONVNET_POOL_PARAMETERS, std::uintptr_t stream) {
        const char* op = "maxpool_bprop";
        Arguments args(op, stream);
        const PoolShape shape =
            maxpool_of(op, array_dims(op, "dx", dx), size_h, size_w, CONVNET_WINDOW_ARGUMENTS);
        const auto* dy_data = args.in<float>("dy", dy, y_dims(shape));
        const auto* argmax_data = args.in<std::uint8_t>("argmax", argmax, y_dims(shape));
        auto* dx_data = args.out<float>("dx", dx, x_dims(shape));
        GilRelease release;
        maxpool_bprop(shape, dy_data, argmax_data, dx_data, args.stream());
      },
      py::arg("dy"), py::arg("argmax"), py::arg("dx"), CONVNET_POOL_NAMES, py::arg("stream") = 0);
  m.def(
      "avgpool_fprop",
      [](Array x, Array y, CONVNET_POOL_PARAMETERS, std::uintptr_t stream) {
        const char* op = "avgpool_fprop";
        Arguments args(op, stream);
        const PoolShape shape =
            pool_of(op, array_dims(op, "x", x), size_h, size_w, CONVNET_WINDOW_ARGUMENTS);
        const auto* x_data = args.in<float>("x", x, x_dims(shape));
        auto* y_data = args.out<float>("y", y, y_dims(shape));
        GilRelease release;
        avgpool_fprop(shape, x_data, y_data, args.stream());
      },
      py::arg("x"), py::arg("y"), CONVNET_POOL_NAMES, py::arg("stream") = 0);
  m.def(
      "avgpool_bprop",
      [](Array dy, Array dx, CONVNET_POOL_PARAMETERS, std::uintptr_t stream) {
        const char* op = "avgpool_bprop";
        Arguments args(op, stream);
        const PoolShape shape =
            pool_of(op, array_dims(op, "dx", dx), size_h, size_w, CONVNET_WINDOW_ARGUMENTS);
        const auto* dy_data = args.in<float>("dy", dy, y_dims(shape));
        auto* dx_data = args.out<float>("dx", dx, x_dims(shape));
        GilRelease release;
        avgpool_bprop(shape, dy_data, dx_data, args.stream());
      },
      py::arg("dy"), py::arg("dx"), CONVNET_POOL_NAMES, py::arg("stream") = 0);
}

// ---- normalization, elementwise, dropout -------------------------------------------------------

#define CONVNET_LRN_PARAMETERS \
  Size n, double k, double alpha, double beta, Size groups, const std::string &alpha_mode
#define CONVNET_LRN_NAMES                                                           \
  py::arg("n"), py::arg("k"), py::arg("alpha"), py::arg("beta"), py::arg("groups"), \
      py::arg("alpha_mode")

LrnShape lrn_of(const char* op, const Dims& x, CONVNET_LRN_PARAMETERS) {
  if (alpha_mode != "sum" && alpha_mode != "mean") {
    fail(op, "alpha_mode", "\"sum\" or \"mean\"", "\"" + alpha_mode + "\"",
         "alpha multiplies the sum of squares in the paper, their mean in some libraries");
  }
  return lrn_shape(op, x, n, k, alpha, beta, groups, alpha_mode == "mean");
}

void bind_lrn(py::module_& m) {
  m.def(
      "lrn_fprop",
      [](Array x, Array y, CONVNET_LRN_PARAMETERS, std::uintptr_t stream) {
        const char* op = "lrn_fprop";
        Arguments args(op, stream);
        Dims dims;
        const auto* x_data = args.in<float>("x", x, &dims);
        const LrnShape shape = lrn_of(op, dims, n, k, alpha, beta, groups, alpha_mode);
        auto* y_data = args.out<float>("y", y, dims);
        GilRelease release;
        lrn_fprop(shape, x_data, y_data, args.stream());
      },
      py::arg("x"), py::arg("y"), CONVNET_LRN_NAMES, py::arg("stream") = 0);
  m.def(
      "lrn_bprop",
      [](Array x, Array dy, Array dx, CONVNET_LRN_PARAMETERS, std::uintptr_t stream) {
        const char* op = "lrn_bprop";
        Arguments args(op, stream);
        Dims dims;
        const auto* x_data = args.in<float>("x", x, &dims);
        const LrnShape shape = lrn_of(op, dims, n, k, alpha, beta, groups, alpha_mode);
        const auto* dy_data = args.in<float>("dy", dy, dims);
        auto* dx_data = args.out<float>("dx", dx, dims);
        GilRelease release;
        lrn_bprop(shape, x_data, dy_data, dx_data, args.stream());
      },
      py::arg("x"), py::arg("dy"), py::arg("dx"), CONVNET_LRN_NAMES, py::arg("stream") = 0);
}

void bind_lrn_maxpool(py::module_& m) {
  m.def(
      "lrn_maxpool_fprop",
      [](Array x, Array y, Array argmax, CONVNET_LRN_PARAMETERS, CONVNET_POOL_PARAMETERS,
         std::uintptr_t stream) {
        const char* op = "lrn_maxpool_fprop";
        Arguments args(op, stream);
        const PoolShape pool =
            maxpool_of(op, array_dims(op, "x", x), size_h, size_w, CONVNET_WINDOW_ARGUMENTS);
        const LrnShape lrn = lrn_of(op, x_dims(pool), n, k, alpha, beta, groups, alpha_mode);
        const auto* x_data = args.in<float>("x", x, x_dims(pool));
        auto* y_data = args.out<float>("y", y, y_dims(pool));
        auto* argmax_data = args.out<std::uint8_t>("argmax", argmax, y_dims(pool));
        GilRelease release;
        lrn_maxpool_fprop(lrn, pool, x_data, y_data, argmax_data, args.stream());
      },
      py::arg("x"), py::arg("y"), py::arg("argmax"), CONVNET_LRN_NAMES, CONVNET_POOL_NAMES,
      py::arg("stream") = 0);
  m.def(
      "lrn_maxpool_bprop",
      [](Array x, Array dy, Array argmax, Array dx, bool relu_mask, CONVNET_LRN_PARAMETERS,
         CONVNET_POOL_PARAMETERS, std::uintptr_t stream) {
        const char* op = "lrn_maxpool_bprop";
        Arguments args(op, stream);
        const PoolShape pool =
            maxpool_of(op, array_dims(op, "x", x), size_h, size_w, CONVNET_WINDOW_ARGUMENTS);
        const LrnShape lrn = lrn_of(op, x_dims(pool), n, k, alpha, beta, groups, alpha_mode);
        const auto* x_data = args.in<float>("x", x, x_dims(pool));
        const auto* dy_data = args.in<float>("dy", dy, y_dims(pool));
        const auto* argmax_data = args.in<std::uint8_t>("argmax", argmax, y_dims(pool));
        auto* dx_data = args.out<float>("dx", dx, x_dims(pool));
        GilRelease release;
        lrn_maxpool_bprop(lrn, pool, x_data, dy_data, argmax_data, relu_mask, dx_data,
                          args.stream());
      },
      py::arg("x"), py::arg("dy"), py::arg("argmax"), py::arg("dx"), py::arg("relu_mask"),
      CONVNET_LRN_NAMES, CONVNET_POOL_NAMES, py::arg("stream") = 0);
}

void bind_elementwise(py::module_& m) {
  m.def("activation_saves_output", [](const std::string& kind) {
    return activation_saves_output(activation_of("activation", kind));
  });
  m.def(
      "activation_fprop",
      [](const std::string& kind, Array x, Array y, float a, float b, std::uintptr_t stream) {
        const char* op = "activation_fprop";
        const Activation activation = activation_of(op, kind);
        Arguments args(op, stream);
        Dims dims;
        const auto* x_data = args.in<float>("x", x, &dims);
        check_countable(op, "x", dims);
        auto* y_data = args.out<float>("y", y, dims, true);
        GilRelease release;
        activation_fprop(activation, a, b, count(dims), x_data, y_data, args.stream());
      },
      py::arg("kind"), py::arg("x"), py::arg("y"), py::arg("a"), py::arg("b"),
      py::arg("stream") = 0);
  m.def(
      "activation_bprop",
      [](const std::string& kind, Array saved, Array dy, Array dx, float a, float b,
         std::uintptr_t stream) {
        const char* op = "activation_bprop";
        const Activation activation = activation_of(op, kind);
        Arguments args(op, stream);
        Dims dims;
        const auto* saved_data = args.in<float>("saved", saved, &dims);
        check_countable(op, "saved", dims);
        const auto* dy_data = args.in<float>("dy", dy, dims);
        auto* dx_data = args.out<float>("dx", dx, dims, true);
        GilRelease release;
        activation_bprop(activation, a, b, count(dims), saved_data, dy_data, dx_data,
                         args.stream());
      },
      py::arg("kind"), py::arg("saved"), py::arg("dy"), py::arg("dx"), py::arg("a"), py::arg("b"),
      py::arg("stream") = 0);
  m.def(
      "accumulate",
      [](Array src, Array dst, std::uintptr_t stream) {
        const char* op = "accumulate";
        Arguments args(op, stream);
        Dims dims;
        const auto* src_data = args.in<float>("src", src, &dims);
        check_countable(op, "src", dims);
        auto* dst_data = args.out<float>("dst", dst, dims);
        GilRelease release;
        accumulate(count(dims), src_data, dst_data, args.stream());
      },
      py::arg("src"), py::arg("dst"), py::arg("stream") = 0);
  m.def(
      "dropout",
      [](Array x, Array y, double drop, float scale, std::uint64_t seed, std::uint32_t stream_id,
         std::uint32_t step, Size row_offset, Size col_offset, Size global_cols, Array state,
         std::uintptr_t stream) {
        const char* op = "dropout";
        Arguments args(op, stream);
        Dims dims;
        const auto* x_data = args.in<float>("x", x, &dims);
        const DropoutShape shape =
            dropout_shape(op, dims, drop, row_offset, col_offset, global_cols);
        auto* y_data = args.out<float>("y", y, dims, true);
        const StepState* step_state = args.state(state);
        GilRelease release;
        dropout(shape, drop, scale, seed, stream_id, step, step_state, x_data, y_data,
                args.stream());
      },
      py::arg("x"), py::arg("y"), py::arg("drop"), py::arg("scale"), py::arg("seed"),
      py::arg("stream_id"), py::arg("step"), py::arg("row_offset"), py::arg("col_offset"),
      py::arg("global_cols"), py::arg("state"), py::arg("stream") = 0);
}

// ---- softmax, update, augmentation -------------------------------------------------------------

// Labels in host memory can be read here, so a bad one is refused and not turned into NaN.
void check_labels(const char* op, const std::int32_t* labels, const SoftmaxShape& shape) {
  if (backend_memory() != Memory::kHost) return;
  for (int n = 0; n < shape.n; ++n) {
    if (labels[n] < 0 || labels[n] >= shape.classes) {
      fail(op, ("labels[" + std::to_string(n) + "]").c_str(),
           "0 to " + std::to_string(shape.classes - 1), std::to_string(labels[n]));
    }
  }
}

void bind_softmax(py::module_& m) {
  m.def(
      "softmax_fprop",
      [](Array logits, Array probs, std::uintptr_t stream) {
        const char* op = "softmax_fprop";
        Arguments args(op, stream);
        Dims dims;
        const auto* logits_data = args.in<float>("logits", logits, &dims);
        const SoftmaxShape shape = softmax_shape(op, dims);
        auto* probs_data = args.out<float>("probs", probs, dims);
        GilRelease release;
        softmax_fprop(shape, logits_data, probs_data, args.stream());
      },
      py::arg("logits"), py::arg("probs"), py::arg("stream") = 0);
  m.def(
      "softmax_xent",
      [](Array logits, Array labels, Array loss, Array dlogits, Array rank, float scale,
         std::uintptr_t stream) {
        const char* op = "softmax_xent";
        Arguments args(op, stream);
        Dims dims;
        const auto* logits_data = args.in<float>("logits", logits, &dims);
        const SoftmaxShape shape = softmax_shape(op, dims);
        const auto* labels_data = args.in<std::int32_t>("labels", labels, Dims{shape.n});
        check_labels(op, labels_data, shape);
        auto* loss_data = args.out<float>("loss", loss, Dims{shape.n});
        auto* dlogits_data = args.out<float>("dlogits", dlogits, dims, false, true);
        auto* rank_data = args.out<std::int32_t>("rank", rank, Dims{shape.n});
        GilRelease release;
        softmax_xent(shape, logits_data, labels_data, scale, loss_data, dlogits_data, rank_data,
                     args.stream());
      },
      py::arg("logits"), py::arg("labels"), py::arg("loss"), py::arg("dlogits"), py::arg("rank"),
      py::arg("scale"), py::arg("stream") = 0);
}

void bind_update(py::module_& m) {
  m.def(
      "sgd_update",
      [](const py::list& w, const py::list& velocity, const py::list& grad,
         const std::vector<float>& lr_mult, const std::vector<float>& decay_mult,
         const std::vector<std::uint32_t>& number, float lr, float momentum, float weight_decay,
         bool own_rates, Array state, std::uintptr_t stream) {
        const char* op = "sgd_update";
        const std::size_t tensors = w.size();
        if (velocity.size() != tensors || grad.size() != tensors || lr_mult.size() != tensors ||
            decay_mult.size() != tensors || number.size() != tensors) {
          fail(op, "velocity, grad, lr_mult, decay_mult, number",
               std::to_string(tensors) + " entries each, one per parameter",
               to_string({static_cast<Size>(velocity.size()), static_cast<Size>(grad.size()),
                          static_cast<Size>(lr_mult.size()), static_cast<Size>(decay_mult.size()),
                          static_cast<Size>(number.size())}));
        }
        std::vector<SgdTensor> table;
        Arguments args(op, stream);  // one for all: no two parameters may share memory
        for (std::size_t i = 0; i < tensors; ++i) {
          const std::string at = "[" + std::to_string(i) + "]";
          const std::string g_arg = "grad" + at, w_arg = "w" + at, v_arg = "velocity" + at;
          Dims dims;
          const auto* g = args.in<float>(g_arg.c_str(), grad[i], &dims);
          check_countable(op, g_arg.c_str(), dims);
          auto* w_data = args.out<float>(w_arg.c_str(), w[i], dims);
          auto* v_data = args.out<float>(v_arg.c_str(), velocity[i], dims);
          table.push_back(
              SgdTensor{w_data, v_data, g, count(dims), lr_mult[i], decay_mult[i], number[i]});
        }
        StepState* step_state = args.updated_state(state);
        GilRelease release;
        sgd_update(table.data(), static_cast<int>(tensors), lr, momentum, weight_decay, own_rates,
                   step_state, args.stream());
      },
      py::arg("w"), py::arg("velocity"), py::arg("grad"), py::arg("lr_mult"), py::arg("decay_mult"),
      py::arg("number"), py::arg("lr"), py::arg("momentum"), py::arg("weight_decay"),
      py::arg("own_rates"), py::arg("state"), py::arg("stream") = 0);
  m.def(
      "augment",
      [](Array x, Array offsets, Array mirror, Array noise, Array mean, Array y, Size crop_h,
         Size crop_w, float scale, std::uintptr_t stream) {
        const char* op = "augment";
        Arguments args(op, stream);
        Dims dims, mean_dims;
        const auto* x_data = args.in<std::uint8_t>("x", x, &dims);
        const auto* mean_data = args.in<float>("mean", mean, &mean_dims);
        const AugmentShape shape = augment_shape(op, dims, mean_dims, crop_h, crop_w);
        const auto* offset_data = args.in<std::int32_t>("offsets", offsets, Dims{shape.n, 2});
        const auto* mirror_data = args.in<std::uint8_t>("mirror", mirror, Dims{shape.n});
        const auto* noise_data = args.in<float>("noise", noise, Dims{shape.n, shape.c}, true);
        auto* y_data = args.out<float>("y", y, y_dims(shape));
        GilRelease release;
        augment(shape, x_data, offset_data, mirror_data, noise_data, mean_data, scale, y_data,
                args.stream());
      },
      py::arg("x"), py::arg("offsets"), py::arg("mirror"), py::arg("noise"), py::arg("mean"),
      py::arg("y"), py::arg("crop_h"), py::arg("crop_w"), py::arg("scale"), py::arg("stream") = 0);
}

// ---- between devices, and the module itself ----------------------------------------------------

template <class Run>
void bind_peer(py::module_& m, const char* op, Run run) {
  m.def(
      op,
      [op, run](Array src, Array dst, Size src_col, Size dst_col, Size cols, int src_device,
                int dst_device, std::uintptr_t stream) {
        Arguments args(op, stream, true);
        Dims src_dims;
        const auto* src_data = args.in<float>("src", src, &src_dims);
        const Dims dst_dims = array_dims(op, "dst", dst);
        const PeerShape shape =
            peer_shape(op, dst_dims, dst_col, src_dims, src_col, cols, dst_device, src_device);
        auto* dst_data = args.out<float>("dst", dst, dst_dims);
        GilRelease release;
        run(shape, src_data + src_col, dst_data + dst_col, args.stream());
      },
      py::arg("src"), py::arg("dst"), py::arg("src_col"), py::arg("dst_col"), py::arg("cols"),
      py::arg("src_device") = 0, py::arg("dst_device") = 0, py::arg("stream") = 0);
}

void bind_stamps(py::module_& m) {
  m.def("peer_stamp_workspace", &peer_stamp_workspace);
  m.def(
      "peer_stamp",
      [](Array src, Array count, Array stamp, Size src_col, Size cols, int device, int other_device,
         Array workspace, std::uintptr_t stream) {
        const char* op = "peer_stamp";
        Arguments args(op, stream, true);
        Dims dims;
        const auto* src_data = args.in<float>("src", src, &dims);
        const PeerShape shape = peer_block(op, dims, src_col, cols, other_device, device);
        auto* count_data = args.out<std::uint32_t>("count", count, Dims{1});
        auto* stamp_data = args.out<std::uint32_t>("stamp", stamp, Dims{2});
        const Workspace space = args.workspace(workspace, peer_stamp_workspace());
        GilRelease release;
        peer_stamp(shape, src_data + src_col, count_data, stamp_data, space, args.stream());
      },
      py::arg("src"), py::arg("count"), py::arg("stamp"), py::arg("src_col"), py::arg("cols"),
      py::arg("device"), py::arg("other_device"), py::arg("workspace"), py::arg("stream") = 0);
  m.def(
      "peer_check",
      [](Array src, Array count, Array stamp, Array halt, std::uint32_t code, Size src_col,
         Size cols, int device, Array workspace, std::uintptr_t stream) {
        const char* op = "peer_check";
        Arguments args(op, stream, true);
        Dims dims;
        const auto* src_data = args.in<float>("src", src, &dims);
        const PeerShape shape = peer_block(op, dims, src_col, cols, device, device);
        auto* count_data = args.out<std::uint32_t>("count", count, Dims{1});
        const auto* stamp_data = args.in<std::uint32_t>("stamp", stamp, Dims{2});
        auto* halt_data = args.out<std::uint32_t>("halt", halt, Dims{1});
        const Workspace space = args.workspace(workspace, peer_stamp_workspace());
        GilRelease release;
        peer_check(shape, src_data + src_col, count_data, stamp_data, code, halt_data, space,
                   args.stream());
      },
      py::arg("src"), py::arg("count"), py::arg("stamp"), py::arg("halt"), py::arg("code"),
      py::arg("src_col"), py::arg("cols"), py::arg("device"), py::arg("workspace"),
      py::arg("stream") = 0);
  m.def(
      "peer_halt",
      [](Array halt, Array other, int other_device, std::uintptr_t stream) {
        const char* op = "peer_halt";
        Arguments args(op, stream, true);
        auto* halt_data = args.out<std::uint32_t>("halt", halt, Dims{1});
        const auto* other_data = args.in<std::uint32_t>("other", other, Dims{1});
        GilRelease release;
        peer_halt(other_data, other_device, halt_data, args.stream());
      },
      py::arg("halt"), py::arg("other"), py::arg("other_device"), py::arg("stream") = 0);
}

void bind_peers(py::module_& m) {
  bind_peer(m, "peer_copy", peer_copy);
  bind_peer(m, "peer_add", peer_add);
  bind_stamps(m);
}

// Each module has a Recording of its own: it notes calls of its own operations only.
void bind_recording(py::module_& m) {
  py::class_<Recording>(m, "Recording", py::module_local())
      .def(py::init<>())
      .def("begin", &Recording::begin)
      .def("end", &Recording::end)
      .def("run", &Recording::run)
      .def_property_readonly("names", &Recording::names)
      .def_property_readonly("missing", &Recording::missing);
}

// Random bits at counters, on the host whatever the backend: data order and augmentation use it.
void bind_philox(py::module_& m) {
  m.def(
      "philox",
      [](std::uint64_t seed, std::uint32_t stream, std::uint32_t step,
         const py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>& indices) {
        const auto count = indices.size();
        py::array_t<std::uint32_t> bits({count, py::ssize_t{4}});
        const std::int64_t* index = indices.data();
        std::uint32_t* out = bits.mutable_data();
        GilRelease release;
        for (py::ssize_t i = 0; i < count; ++i) {
          const Philox4 four = philox4x32(seed, static_cast<std::uint64_t>(index[i]), stream, step);
          for (int lane = 0; lane < 4; ++lane) out[4 * i + lane] = four.v[lane];
        }
        return bits;
      },
      py::arg("seed"), py::arg("stream"), py::arg("step"), py::arg("indices"));
}

void bind_backend(py::module_& m) {
  m.def("start_backend", &start_backend);
  m.def("backend_name", &backend_name);
  m.def("device_count", &device_count);
  m.def("device_description", &device_description, py::arg("device") = 0);
  m.def("build_description", &build_description);
  m.def(
      "math_description",
      [](const std::string& math) { return math_description(math_of("math_description", math)); },
      py::arg("math"));
  m.def("pretend_implementation", &pretend_implementation, py::arg("name"));
  m.def("thread_count", &thread_count);
  m.def("set_thread_count", &set_thread_count, py::arg("threads"));
}

}  // namespace
}  // namespace convnet

PYBIND11_MODULE(CONVNET_MODULE, m) {
  using namespace convnet;
  m.doc() = "The operations of convnet on checked arrays; convnet.ops is the public layer above.";
  Py_AtExit(GilRelease::wait_for_all);
  bind_backend(m);
  bind_tiles(m);
  bind_conv(m);
  bind_local(m);
  bind_dense(m);
  bind_pool(m);
  bind_lrn(m);
  bind_lrn_maxpool(m);
  bind_elementwise(m);
  bind_softmax(m);
  bind_update(m);
  bind_peers(m);
  bind_recording(m);
  bind_philox(m);
}
