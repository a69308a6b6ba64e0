// A training step around its layers: the images that go in, the loss, the update, and what goes
// from one device to another.
#include "../arguments.h"

namespace convnet {
namespace {

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

// The columns of a block that is [rows, cols]: all from `first` on by default.
Int columns(const std::optional<Int>& cols, const Dims& dims, Int first) {
  if (cols) return *cols;
  const bool inside = dims.size() == 2 && 0 <= first && first < dims[1];
  return inside ? dims[1] - first : 1;  // else `first` is refused
}

}  // namespace

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

}  // namespace convnet
