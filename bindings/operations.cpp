// The operations of the contract (src/ops.h): their arguments, the shapes these must have, and the
// function that runs. convnet/ops documents them.
#include "arguments.h"

namespace convnet {
namespace {

// The columns of a block that is [rows, cols]: all from `first` on by default.
Int columns(const std::optional<Int>& cols, const Dims& dims, Int first) {
  if (cols) return *cols;
  const bool inside = dims.size() == 2 && 0 <= first && first < dims[1];
  return inside ? dims[1] - first : 1;  // else `first` is refused
}

// The shape, with the type of the call's activations.
template <class Shape>
Shape stored(const Call& call, Shape shape) {
  shape.storage = call.storage();
  return shape;
}

// ---- products ----------------------------------------------------------------------------------

constexpr const char* kAsTheyLie = "some that conv_fprop takes as they lie";

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

// The shape of a dense layer from x and dy.
DenseShape dense_shape_of(const char* op, const Dims& x, const Dims& dy) {
  check_rank(op, "x", x, 2, "[N, C]");
  check_rank(op, "dy", dy, 2, "[N, K]");
  const DenseShape shape = dense_shape(op, x, {dy[1], x[1]});
  check_dims(op, "dy", dy, {shape.n, shape.k});
  return shape;
}

// Learning rates and momenta of parameters: a row for each number up to that of a tensor.
void expect_rates(Call& call, const Tensor& rates, Natural number) {
  if (rates.left_out) return;
  const Int rows = rates.dims.empty() ? 0 : rates.dims[0];
  call.expect(rates, {std::max<Int>(rows, number.value), 2},
              "learning rate and momentum of each parameter");
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

// ---- pooling and normalization -----------------------------------------------------------------

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

// ---- elementwise -------------------------------------------------------------------------------

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

// ---- the ends of a net -------------------------------------------------------------------------

// Labels in host memory can be read here, so a bad one is refused and not turned into NaN.
void check_labels(const char* op, const std::int32_t* labels, const SoftmaxShape& shape) {
  if (backend_memory() == Memory::kDevice) return;
  for (int n = 0; n < shape.n; ++n) {
    if (labels[n] < 0 || labels[n] >= shape.classes) {
      fail(op, ("labels[" + std::to_string(n) + "]").c_str(),
           "0 to " + std::to_string(shape.classes - 1), std::to_string(labels[n]));
    }
  }
}

// sgd_update with its table, which is of the host, held by the call.
void update_all(const std::vector<SgdTensor>& table, float lr, float momentum, float weight_decay,
                const float* rates, StepState* state, Stream stream) {
  sgd_update(table.data(), static_cast<int>(table.size()), lr, momentum, weight_decay, rates, state,
             stream);
}

void add_ends(Schema& schema) {
  schema.op("augment", "x offsets mirror affine noise mean y crop scale dtype",
            [](Call& call, In<std::uint8_t> x, In<std::int32_t> offsets, In<std::uint8_t> mirror,
               MaybeIn<float> affine, MaybeIn<float> noise, In<float> mean, Out<Real> y, Pair crop,
               float scale, std::optional<Storage> dtype) {
              if (dtype) call.store(*dtype);
              const AugmentShape s = augment_shape(call.op, x.dims, mean.dims, crop.h, crop.w);
              call.expect(offsets, {s.n, 2});
              call.expect(mirror, {s.n});
              call.expect(affine, {s.n, 2, 2});
              call.expect(noise, {s.n, s.c});
              call.expect(y, y_dims(s));
              call.run(BY_STORAGE(augment), s, x, offsets, mirror, affine, noise, mean, scale, y);
            });
  schema.op("softmax_fprop", "logits probs", [](Call& call, In<Real> logits, Out<Real> probs) {
    const SoftmaxShape s = softmax_shape(call.op, logits.dims);
    call.expect(probs, logits.dims);
    call.run(BY_STORAGE(softmax_fprop), s, logits, probs);
  });
  schema.op("softmax_xent", "logits labels weights loss dlogits rank scale",
            [](Call& call, In<Real> logits, In<std::int32_t> labels, MaybeIn<float> weights,
               Out<float> loss, MaybeOut<Real> dlogits, Out<std::int32_t> rank,
               std::optional<float> scale) {
              const SoftmaxShape s = softmax_shape(call.op, logits.dims);
              call.expect(labels, {s.n});
              call.expect(weights, {s.classes});
              call.expect(loss, {s.n});
              call.expect(dlogits, logits.dims);
              call.expect(rank, {s.n});
              if (call.runs()) check_labels(call.op, labels, s);
              const float factor = scale.value_or(static_cast<float>(1.0 / s.n));
              call.run(BY_STORAGE(softmax_xent), s, logits, labels, weights, factor, loss, dlogits,
                       rank);
            });
  schema.op(
      "sgd_update",
      "w velocity grad lr_mult decay_mult number lr momentum weight_decay rates state",
      [](Call& call, std::vector<Update<float>> w, std::vector<Update<float>> velocity,
         std::vector<In<float>> grad, std::vector<float> lr_mult, std::vector<float> decay_mult,
         std::vector<Natural> number, float lr, float momentum, float weight_decay,
         MaybeIn<float> rates, NotedState state) {
        const Dims counts{static_cast<Int>(velocity.size()), static_cast<Int>(grad.size()),
                          static_cast<Int>(lr_mult.size()), static_cast<Int>(decay_mult.size()),
                          static_cast<Int>(number.size())};
        if (counts != Dims(counts.size(), static_cast<Int>(w.size()))) {
          fail(call.op, "velocity, grad, lr_mult, decay_mult, number",
               std::to_string(w.size()) + " entries each, one per parameter", to_string(counts));
        }
        std::vector<SgdTensor> table;
        for (std::size_t i = 0; i < w.size(); ++i) {
          check_countable(call.op, grad[i].name.c_str(), grad[i].dims);
          expect_rates(call, rates, number[i]);
          call.expect(w[i], grad[i].dims);
          call.expect(velocity[i], grad[i].dims);
          table.push_back({w[i], velocity[i], grad[i], count(grad[i].dims), lr_mult[i],
                           decay_mult[i], number[i].value});
        }
        call.run(update_all, table, lr, momentum, weight_decay, rates, state);
      });
}

// ---- between devices ---------------------------------------------------------------------------

void add_peers(Schema& schema) {
  const char* const arguments = "src dst src_col dst_col cols src_device dst_device";
  const auto block = [](const Call& call, const Tensor& src, const Tensor& dst, Int src_col,
                        Int dst_col, const std::optional<Int>& cols, int src_device,
                        int dst_device) {
    return peer_shape(call.op, dst.dims, dst_col, src.dims, src_col,
                      columns(cols, src.dims, src_col), dst_device, src_device);
  };
  schema.peer_op("peer_copy", arguments,
                 [block](Call& call, In<Real> src, Out<Real> dst, Int src_col, Int dst_col,
                         std::optional<Int> cols, int src_device, int dst_device) {
                   const PeerShape s =
                       block(call, src, dst, src_col, dst_col, cols, src_device, dst_device);
                   call.run(BY_STORAGE(peer_copy), s, src + src_col, dst + dst_col);
                 });
  schema.peer_op("peer_add", arguments,
                 [block](Call& call, In<Real> src, Update<Real> dst, Int src_col, Int dst_col,
                         std::optional<Int> cols, int src_device, int dst_device) {
                   const PeerShape s =
                       block(call, src, dst, src_col, dst_col, cols, src_device, dst_device);
                   call.run(BY_STORAGE(peer_add), s, src + src_col, dst + dst_col);
                 });
  schema.peer_op(
      "peer_checksum", "src count checksum src_col cols device other_device workspace",
      [](Call& call, In<Real> src, Update<std::uint32_t> count, Out<std::uint32_t> checksum,
         Int src_col, std::optional<Int> cols, int device, int other_device, Scratch scratch) {
        const PeerShape s = peer_block(call.op, src.dims, src_col, columns(cols, src.dims, src_col),
                                       other_device, device);
        call.expect(count, {1});
        call.expect(checksum, {2});
        const Workspace space = scratch.of(peer_checksum_workspace());
        call.run(BY_STORAGE(peer_checksum), s, src + src_col, count, checksum, space);
      });
  schema.peer_op("peer_check", "src count checksum aborted code src_col cols device workspace",
                 [](Call& call, In<Real> src, Update<std::uint32_t> count,
                    In<std::uint32_t> checksum, Update<std::uint32_t> aborted, Natural code,
                    Int src_col, std::optional<Int> cols, int device, Scratch scratch) {
                   const PeerShape s = peer_block(call.op, src.dims, src_col,
                                                  columns(cols, src.dims, src_col), device, device);
                   call.expect(count, {1});
                   call.expect(checksum, {2});
                   call.expect(aborted, {1});
                   const Workspace space = scratch.of(peer_checksum_workspace());
                   call.run(BY_STORAGE(peer_check), s, src + src_col, count, checksum, code.value,
                            aborted, space);
                 });
  schema.peer_op(
      "peer_abort", "aborted other other_device",
      [](Call& call, Update<std::uint32_t> aborted, In<std::uint32_t> other, int other_device) {
        call.expect(aborted, {1});
        call.expect(other, {1});
        call.run(peer_abort, other, other_device, aborted);
      });
}

}  // namespace

void add_operations(Schema& schema) {
  add_conv(schema);
  add_local(schema);
  add_dense(schema);
  add_pool(schema);
  add_blur(schema);
  add_lrn(schema);
  add_elementwise(schema);
  add_conversions(schema);
  add_ends(schema);
  add_peers(schema);
}

}  // namespace convnet
