// What can be asked of a backend: about shapes, about the kernel that a product would take, and,
// for benchmarks, about its tiles.
#include <algorithm>

#include "arguments.h"
#include "philox.h"

namespace convnet {
namespace {

constexpr const char* kConv = "x_shape w_shape " WINDOW "groups";
constexpr const char* kStoredConvPass =
    "pass_name x_shape w_shape " WINDOW "groups precision dtype";
constexpr const char* kConvPass = "pass_name x_shape w_shape " WINDOW "groups precision";

// What there is to know of a pass before it runs; errors name the pass.
std::string pass_of(const char* family, Pass pass) {
  return std::string(family) + "_" + Words<Pass>::names[static_cast<int>(pass)];
}

template <auto function>
void add_conv_query(Schema& schema, const char* name) {
  schema.query(name, kStoredConvPass,
               [](const char*, Pass pass, Dims x, Dims w, WindowArguments window, Int groups,
                  Precision precision, Storage dtype) {
                 const std::string op = pass_of("conv", pass);
                 ConvShape shape = conv_shape(op.c_str(), x, w, window, groups);
                 shape.storage = dtype;
                 return function(shape, pass, precision);
               });
}

template <auto function>
void add_dense_query(Schema& schema, const char* name) {
  schema.query(name, "pass_name x_shape w_shape precision dtype",
               [](const char*, Pass pass, Dims x, Dims w, Precision precision, Storage dtype) {
                 const std::string op = pass_of("dense", pass);
                 DenseShape shape = dense_shape(op.c_str(), x, w);
                 shape.storage = dtype;
                 return function(shape, pass, precision);
               });
}

// Random bits at counters, on the host whatever the backend: data order and augmentation use it.
Bits philox(const char* op, std::uint64_t seed, std::uint32_t stream, std::uint32_t step,
            const py::object& indices) {
  const auto array = py::array::ensure(indices);
  const char kind = array ? array.dtype().kind() : 'O';
  if (kind != 'i' && kind != 'u') {
    fail(op, "indices", "whole numbers", array ? std::string(py::str(array.dtype())) : "none");
  }
  const py::array_t<Int, py::array::c_style | py::array::forcecast> counters(array);
  const Int* index = counters.data();
  const auto count = counters.size();
  Bits bits({count, py::ssize_t{4}});
  std::uint32_t* out = bits.mutable_data();
  Int least = 0;
  {
    GilRelease release;
    for (py::ssize_t i = 0; i < count; ++i) {
      least = std::min(least, index[i]);
      const Philox4 four = philox4x32(seed, static_cast<std::uint64_t>(index[i]), stream, step);
      for (int lane = 0; lane < 4; ++lane) out[4 * i + lane] = four.v[lane];
    }
  }
  if (least < 0) fail(op, "indices", "numbers from 0 on", std::to_string(least));
  return bits;
}

}  // namespace

void add_queries(Schema& schema) {
  schema.query("conv_output_shape", kConv,
               [](const char*, Dims x, Dims w, WindowArguments window, Int groups) {
                 return y_dims(conv_shape("conv", x, w, window, groups));
               });
  schema.query("local_output_shape", kConv,
               [](const char*, Dims x, Dims w, WindowArguments window, Int groups) {
                 return y_dims(local_shape("local", x, w, window, groups));
               });
  schema.query("pool_output_shape", "x_shape " POOL, [](const char*, Dims x, PoolArguments pool) {
    return y_dims(pool.shape("pool", x));
  });
  add_conv_query<&conv_workspace>(schema, "conv_workspace");
  schema.query("conv_prepared_bytes", "x_shape w_shape " WINDOW "groups precision dtype",
               [](const char* op, Dims x, Dims w, WindowArguments window, Int groups,
                  Precision precision, Storage dtype) {
                 ConvShape shape = conv_shape(op, x, w, window, groups);
                 shape.storage = dtype;
                 return conv_prepared_bytes(shape, precision);
               });
  add_conv_query<&conv_kernel>(schema, "conv_kernel");
  add_dense_query<&dense_workspace>(schema, "dense_workspace");
  add_dense_query<&dense_kernel>(schema, "dense_kernel");
  schema.query("philox", "seed stream step indices",
               [](const char* op, std::uint64_t seed, std::uint32_t stream, std::uint32_t step,
                  py::object indices) { return philox(op, seed, stream, step, indices); });
  schema.query("activation_saves_output", "kind",
               [](const char*, Activation kind) { return activation_saves_output(kind); });
  schema.query("precision_description", "precision",
               [](const char*, Precision precision) { return precision_description(precision); });
  schema.query("tiles_of", "pass_name precision", [](const char*, Pass pass, Precision precision) {
    return tiles_of(pass, precision);
  });
  schema.query("tile_choice", kConvPass,
               [](const char* op, Pass pass, Dims x, Dims w, WindowArguments window, Int groups,
                  Precision precision) {
                 const TileChoice c =
                     tile_choice(conv_shape(op, x, w, window, groups), pass, precision);
                 return TileRow{Words<Pass>::names[static_cast<int>(pass)],
                                Words<Precision>::names[static_cast<int>(precision)],
                                {c.m, c.n, c.k, c.products},
                                c.tile,
                                c.splits,
                                c.on_hopper};
               });
}

void set_tile_rows(const std::optional<std::vector<TileRow>>& rows) {
  const char* op = "set_tile_choices";
  if (!rows) return reset_tile_choices();
  std::vector<TileChoice> choices;
  for (const auto& [pass, precision, product, tile, splits, on_hopper] : *rows) {
    choices.push_back({Value<Pass>::read(op, "pass", py::str(pass)),
                       Value<Precision>::read(op, "precision", py::str(precision)), product[0],
                       product[1], product[2], product[3], tile, splits, on_hopper});
  }
  set_tile_choices(choices);
}

}  // namespace convnet
