// Layers without parameters: pools, blur, LRN, activations, sums, dropout, conversions of types.
#include "../arguments.h"

namespace convnet {

void add_pool(Schema& schema) {
  schema.op("maxpool_fprop", "x y argmax " POOL,
            [](Call& call, In<Real> x, Out<Real> y, Out<std::uint8_t> argmax, PoolArguments pool) {
              const PoolShape s = pool.max_shape(call.op, x.dims);
              call.expect(y, y_dims(s));
              call.expect(argmax, y_dims(s));
              call.run(BY_STORAGE(maxpool_fprop), s, x, y, argmax);
            });
  schema.op("maxpool_bprop", "dy argmax dx " POOL,
            [](Call& call, In<Real> dy, In<std::uint8_t> argmax, Out<Real> dx, PoolArguments pool) {
              const PoolShape s = pool.max_shape(call.op, dx.dims);
              call.expect(dy, y_dims(s));
              call.expect(argmax, y_dims(s));
              call.expect(dx, x_dims(s));
              call.run(BY_STORAGE(maxpool_bprop), s, dy, argmax, dx);
            });
  schema.op("avgpool_fprop", "x y " POOL,
            [](Call& call, In<Real> x, Out<Real> y, PoolArguments pool) {
              const PoolShape s = pool.shape(call.op, x.dims);
              call.expect(y, y_dims(s));
              call.run(BY_STORAGE(avgpool_fprop), s, x, y);
            });
  schema.op("avgpool_bprop", "dy dx " POOL,
            [](Call& call, In<Real> dy, Out<Real> dx, PoolArguments pool) {
              const PoolShape s = pool.shape(call.op, dx.dims);
              call.expect(dy, y_dims(s));
              call.expect(dx, x_dims(s));
              call.run(BY_STORAGE(avgpool_bprop), s, dy, dx);
            });
}

void add_blur(Schema& schema) {
  schema.op("blur", "x y size std",
            [](Call& call, In<Real> x, Out<Real> y, Int size, double deviation) {
              const BlurShape s = blur_shape(call.op, x.dims, size, deviation);
              call.expect(y, x.dims);
              call.run(BY_STORAGE(blur), s, x, y);
            });
  schema.op("nailbed_fprop", "x y stride start",
            [](Call& call, In<Real> x, Out<Real> y, Int stride, Int start) {
              const NailbedShape s = nailbed_shape(call.op, x.dims, stride, start);
              call.expect(y, y_dims(s));
              call.run(BY_STORAGE(nailbed_fprop), s, x, y);
            });
  schema.op("nailbed_bprop", "dy dx stride start",
            [](Call& call, In<Real> dy, Out<Real> dx, Int stride, Int start) {
              const NailbedShape s = nailbed_shape(call.op, dx.dims, stride, start);
              call.expect(dy, y_dims(s));
              call.expect(dx, x_dims(s));
              call.run(BY_STORAGE(nailbed_bprop), s, dy, dx);
            });
}

void add_lrn(Schema& schema) {
  schema.op("lrn_fprop", "x y " LRN, [](Call& call, In<Real> x, Out<Real> y, LrnArguments lrn) {
    const LrnShape s = lrn.shape(call.op, x.dims);
    call.expect(y, x.dims);
    call.run(BY_STORAGE(lrn_fprop), s, x, y);
  });
  schema.op("lrn_bprop", "x dy dx " LRN,
            [](Call& call, In<Real> x, In<Real> dy, Out<Real> dx, LrnArguments lrn) {
              const LrnShape s = lrn.shape(call.op, x.dims);
              call.expect(dy, x.dims);
              call.expect(dx, x.dims);
              call.run(BY_STORAGE(lrn_bprop), s, x, dy, dx);
            });
  schema.op("lrn_maxpool_fprop", "x y argmax " LRN POOL,
            [](Call& call, In<Real> x, Out<Real> y, Out<std::uint8_t> argmax, LrnArguments lrn,
               PoolArguments pool) {
              const PoolShape p = pool.max_shape(call.op, x.dims);
              const LrnShape l = lrn.shape(call.op, x.dims);
              call.expect(y, y_dims(p));
              call.expect(argmax, y_dims(p));
              call.run(BY_STORAGE(lrn_maxpool_fprop), l, p, x, y, argmax);
            });
  schema.op("lrn_maxpool_bprop", "x dy argmax dx relu_mask " LRN POOL,
            [](Call& call, In<Real> x, In<Real> dy, In<std::uint8_t> argmax, Out<Real> dx,
               bool relu_mask, LrnArguments lrn, PoolArguments pool) {
              const PoolShape p = pool.max_shape(call.op, x.dims);
              const LrnShape l = lrn.shape(call.op, x.dims);
              call.expect(dy, y_dims(p));
              call.expect(argmax, y_dims(p));
              call.expect(dx, x.dims);
              call.run(BY_STORAGE(lrn_maxpool_bprop), l, p, x, dy, argmax, relu_mask, dx);
            });
}

void add_elementwise(Schema& schema) {
  schema.op("activation_fprop", "kind x y=x a b",
            [](Call& call, Activation kind, In<Real> x, Out<Real> y, float a, float b) {
              check_countable(call.op, "x", x.dims);
              call.expect(y, x.dims);
              call.run(BY_STORAGE(activation_fprop), kind, a, b, count(x.dims), x, y);
            });
  schema.op(
      "activation_bprop", "kind saved dy dx=dy a b",
      [](Call& call, Activation kind, In<Real> saved, In<Real> dy, Out<Real> dx, float a, float b) {
        check_countable(call.op, "saved", saved.dims);
        call.expect(dy, saved.dims);
        call.expect(dx, saved.dims);
        call.run(BY_STORAGE(activation_bprop), kind, a, b, count(saved.dims), saved, dy, dx);
      });
  schema.op("accumulate", "src dst", [](Call& call, In<Real> src, Update<Real> dst) {
    check_countable(call.op, "src", src.dims);
    call.expect(dst, src.dims);
    call.run(BY_STORAGE(accumulate), count(src.dims), src, dst);
  });
  schema.op("dropout", "x y=x " MASK, [](Call& call, In<Real> x, Out<Real> y, MaskArguments mask) {
    const DropoutRule r = mask.rule(call.op, x.dims);
    call.expect(y, x.dims);
    call.run(BY_STORAGE(dropout), r.shape, r.drop, r.scale, r.seed, r.stream_id, r.step, r.state, x,
             y);
  });
}

void add_conversions(Schema& schema) {
  schema.op("to_bfloat16", "x y", [](Call& call, In<float> x, Out<Bfloat16> y) {
    check_countable(call.op, "x", x.dims);
    call.expect(y, x.dims);
    call.run(to_bfloat16, count(x.dims), x, y);
  });
  schema.op("to_float32", "x y", [](Call& call, In<Bfloat16> x, Out<float> y) {
    check_countable(call.op, "x", x.dims);
    call.expect(y, x.dims);
    call.run(to_float32, count(x.dims), x, y);
  });
}

}  // namespace convnet
