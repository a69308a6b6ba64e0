// Layers with parameters: convolutions, with the same filters everywhere or local ones, and dense
// layers.
#include "../arguments.h"

namespace convnet {
namespace {

constexpr const char* kAsTheyLie = "some that conv_fprop takes as they lie";

// The shape of a dense layer from x and dy.
DenseShape dense_shape_of(const char* op, const Dims& x, const Dims& dy) {
  check_rank(op, "x", x, 2, "[N, C]");
  check_rank(op, "dy", dy, 2, "[N, K]");
  const DenseShape shape = dense_shape(op, x, {dy[1], x[1]});
  check_dims(op, "dy", dy, {shape.n, shape.k});
  return shape;
}

}  // namespace

void add_conv(Schema& schema) {
  schema.op(
      "conv_fprop", "x w b y " WINDOW "groups relu precision workspace",
      [](Call& call, In<Real> x, In<float> w, MaybeIn<float> b, Out<Real> y, WindowArguments window,
         Int groups, bool relu, Precision precision, Scratch scratch) {
        const ConvShape s = stored(call, conv_shape(call.op, x.dims, w.dims, window, groups));
        call.expect(b, {s.k});
        call.expect(y, y_dims(s));
        const Workspace space = scratch.of(conv_workspace(s, Pass::kFprop, precision));
        call.run(BY_STORAGE(conv_fprop), s, precision, x, w, b, relu, y, space);
      });
  schema.op(
      "conv_prepare", "w prepared x_shape " WINDOW "groups precision dtype workspace",
      [](Call& call, In<float> w, Out<std::uint8_t> prepared, Dims x_shape, WindowArguments window,
         Int groups, Precision precision, Storage dtype, Scratch scratch) {
        ConvShape s = conv_shape(call.op, x_shape, w.dims, window, groups);
        s.storage = dtype;
        const Int bytes = conv_prepared_bytes(s, precision);
        if (bytes == 0) fail(call.op, "w", "filters that are prepared", kAsTheyLie);
        call.expect(prepared, {bytes});
        const Workspace space = scratch.of(conv_workspace(s, Pass::kFprop, precision));
        call.run(conv_prepare, s, precision, w, Workspace{prepared.data, bytes}, space);
      });
  schema.op(
      "conv_fprop_prepared", "x prepared b y w_shape " WINDOW "groups relu precision workspace",
      [](Call& call, In<Real> x, In<std::uint8_t> prepared, MaybeIn<float> b, Out<Real> y,
         Dims w_shape, WindowArguments window, Int groups, bool relu, Precision precision,
         Scratch scratch) {
        const ConvShape s = stored(call, conv_shape(call.op, x.dims, w_shape, window, groups));
        const Int bytes = conv_prepared_bytes(s, precision);
        if (bytes == 0) fail(call.op, "w_shape", "filters that are prepared", kAsTheyLie);
        call.expect(prepared, {bytes}, "prepare the filters for this shape of x");
        call.expect(b, {s.k});
        call.expect(y, y_dims(s));
        const Workspace filters{prepared.data, bytes};
        const Workspace space = scratch.of(conv_prepared_workspace(s, precision));
        call.run(BY_STORAGE(conv_fprop_prepared), s, precision, x, filters, b, relu, y, space);
      });
  schema.op("conv_dgrad", "dy w relu_mask dx " WINDOW "groups precision workspace",
            [](Call& call, In<Real> dy, In<float> w, MaybeIn<Real> relu_mask, Out<Real> dx,
               WindowArguments window, Int groups, Precision precision, Scratch scratch) {
              const ConvShape s =
                  stored(call, conv_shape(call.op, dx.dims, w.dims, window, groups));
              call.expect(dy, y_dims(s));
              call.expect(relu_mask, x_dims(s));
              call.expect(dx, x_dims(s));
              const Workspace space = scratch.of(conv_workspace(s, Pass::kDgrad, precision));
              call.run(BY_STORAGE(conv_dgrad), s, precision, dy, w, relu_mask, dx, space);
            });
  schema.op("conv_wgrad", "x dy dw db " WINDOW "groups precision workspace",
            [](Call& call, In<Real> x, In<Real> dy, Out<float> dw, MaybeOut<float> db,
               WindowArguments window, Int groups, Precision precision, Scratch scratch) {
              const ConvShape s =
                  stored(call, conv_shape(call.op, x.dims, dw.dims, window, groups));
              call.expect(dy, y_dims(s));
              call.expect(dw, w_dims(s));
              call.expect(db, {s.k});
              const Workspace space = scratch.of(conv_workspace(s, Pass::kWgrad, precision));
              call.run(BY_STORAGE(conv_wgrad), s, precision, x, dy, dw, db, space);
            });
}

void add_local(Schema& schema) {
  schema.op("local_fprop", "x w b y " WINDOW "groups relu",
            [](Call& call, In<Real> x, In<float> w, MaybeIn<float> b, Out<Real> y,
               WindowArguments window, Int groups, bool relu) {
              const ConvShape s = local_shape(call.op, x.dims, w.dims, window, groups);
              call.expect(b, local_b_dims(s));
              call.expect(y, y_dims(s));
              call.run(BY_STORAGE(local_fprop), s, x, w, b, relu, y);
            });
  schema.op("local_dgrad", "dy w relu_mask dx " WINDOW "groups",
            [](Call& call, In<Real> dy, In<float> w, MaybeIn<Real> relu_mask, Out<Real> dx,
               WindowArguments window, Int groups) {
              const ConvShape s = local_shape(call.op, dx.dims, w.dims, window, groups);
              call.expect(dy, y_dims(s));
              call.expect(relu_mask, x_dims(s));
              call.expect(dx, x_dims(s));
              call.run(BY_STORAGE(local_dgrad), s, dy, w, relu_mask, dx);
            });
  schema.op("local_wgrad", "x dy dw db " WINDOW "groups",
            [](Call& call, In<Real> x, In<Real> dy, Out<float> dw, MaybeOut<float> db,
               WindowArguments window, Int groups) {
              const ConvShape s = local_shape(call.op, x.dims, dw.dims, window, groups);
              call.expect(dy, y_dims(s));
              call.expect(dw, local_w_dims(s));
              call.expect(db, local_b_dims(s));
              call.run(BY_STORAGE(local_wgrad), s, x, dy, dw, db);
            });
}

void add_dense(Schema& schema) {
  schema.op("dense_fprop", "x w b y relu precision workspace",
            [](Call& call, In<Real> x, In<float> w, MaybeIn<float> b, Out<Real> y, bool relu,
               Precision precision, Scratch scratch) {
              const DenseShape s = stored(call, dense_shape(call.op, x.dims, w.dims));
              call.expect(b, {s.k});
              call.expect(y, {s.n, s.k});
              const Workspace space = scratch.of(dense_workspace(s, Pass::kFprop, precision));
              call.run(BY_STORAGE(dense_fprop), s, precision, x, w, b, relu, y, space);
            });
  schema.op("dense_fprop_dropout", "x w b y relu " MASK "precision workspace",
            [](Call& call, In<Real> x, In<float> w, MaybeIn<float> b, Out<Real> y, bool relu,
               MaskArguments mask, Precision precision, Scratch scratch) {
              const DenseShape s = stored(call, dense_shape(call.op, x.dims, w.dims));
              const DropoutRule rule = mask.rule(call.op, {s.n, s.k});
              call.expect(b, {s.k});
              call.expect(y, {s.n, s.k});
              const Workspace space = scratch.of(dense_workspace(s, Pass::kFprop, precision));
              call.run(BY_STORAGE(dense_fprop_dropout), s, precision, x, w, b, relu, rule, y,
                       space);
            });
  schema.op("dense_dgrad", "dy w relu_mask dx precision workspace",
            [](Call& call, In<Real> dy, In<float> w, MaybeIn<Real> relu_mask, Out<Real> dx,
               Precision precision, Scratch scratch) {
              check_rank(call.op, "dy", dy.dims, 2, "[N, K]");
              check_rank(call.op, "w", w.dims, 2, "[K, C]");
              const DenseShape s =
                  stored(call, dense_shape(call.op, {dy.dims[0], w.dims[1]}, w.dims));
              call.expect(dy, {s.n, s.k});
              call.expect(relu_mask, {s.n, s.c});
              call.expect(dx, {s.n, s.c});
              const Workspace space = scratch.of(dense_workspace(s, Pass::kDgrad, precision));
              call.run(BY_STORAGE(dense_dgrad), s, precision, dy, w, relu_mask, dx, space);
            });
  schema.op("dense_wgrad", "x dy dw db precision workspace",
            [](Call& call, In<Real> x, In<Real> dy, Out<float> dw, MaybeOut<float> db,
               Precision precision, Scratch scratch) {
              const DenseShape s = stored(call, dense_shape_of(call.op, x.dims, dy.dims));
              call.expect(dw, {s.k, s.c});
              call.expect(db, {s.k});
              const Workspace space = scratch.of(dense_workspace(s, Pass::kWgrad, precision));
              call.run(BY_STORAGE(dense_wgrad), s, precision, x, dy, dw, db, space);
            });
  schema.op("dense_wgrad_sgd",
            "x dy w velocity db lr momentum weight_decay lr_mult decay_mult number rates state "
            "precision workspace",
            [](Call& call, In<Real> x, In<Real> dy, Update<float> w, Update<float> velocity,
               MaybeOut<float> db, float lr, float momentum, float weight_decay, float lr_mult,
               float decay_mult, Natural number, MaybeIn<float> rates, NotedState state,
               Precision precision, Scratch scratch) {
              const DenseShape s = stored(call, dense_shape_of(call.op, x.dims, dy.dims));
              call.expect(w, {s.k, s.c});
              call.expect(velocity, {s.k, s.c});
              call.expect(db, {s.k});
              expect_rates(call, rates, number);
              const SgdRule rule{lr,         momentum,     weight_decay, lr_mult,
                                 decay_mult, number.value, rates,        state};
              const Workspace space = scratch.of(dense_workspace(s, Pass::kWgrad, precision));
              call.run(BY_STORAGE(dense_wgrad_sgd), s, precision, x, dy, rule, w, velocity, db,
                       space);
            });
}

}  // namespace convnet
