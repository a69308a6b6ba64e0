// Matrix products: PTX ISA, "Warp Level Matrix Multiply-Accumulate Instructions" and "Asynchronous
// Warpgroup Level Matrix Multiply-Accumulate Instructions".
#include <charconv>

#include "vgpu/ptx/families.h"

namespace vgpu::ptx {
namespace {

struct Shape {
  int m = 0, n = 0, k = 0;
};
Shape shape_of(Statement& s) {
  const std::string_view text = s.shape();  // m16n8k16
  Shape shape;
  const auto number = [&](char letter) {
    int value = 0;
    if (const std::size_t at = text.find(letter); at != text.npos)
      std::from_chars(text.data() + at + 1, text.data() + text.size(), value);
    return value;
  };
  shape.m = number('m'), shape.n = number('n'), shape.k = number('k');
  return shape;
}

// .f32.tf32.tf32 with k = 8, or .f32.bf16.bf16 with k = 16
void operand_types(Statement& s, int k) {
  s.need(s.has("f32"));
  const std::string_view type = k == 8 ? "tf32" : "bf16";
  s.need((k == 8 || k == 16) && s.has(type) && s.has(type));
}

}  // namespace

// mma.sync d, a, b, c. ins.vector is k.
void decode_mma(Statement& s) {
  s.need(s.has("sync") && s.has("aligned") && s.has("row") && s.has("col"));
  const Shape shape = shape_of(s);
  s.need(shape.m == 16 && shape.n == 8);
  operand_types(s, shape.k);
  s.need(s.has("f32"));
  s.ins.vector = static_cast<std::uint8_t>(shape.k);
  s.ins.type = Type::f32;
  s.ins.type2 = shape.k == 8 ? Type::b32 : Type::bf16;  // b32: tf32
  const int d = s.ins.list_defs = s.list(Type::f32);
  s.comma();
  const int a = s.list(Type::b32);
  s.comma();
  const int b = s.list(Type::b32);
  s.comma();
  const int c = s.list(Type::f32);
  s.need(d == 4 && a == 4 && b == 2 && c == 4);
}

void decode_ldmatrix(Statement& s) {
  s.need(s.has("sync") && s.has("aligned") && s.shape() == "m8n8");
  const int count = s.one_of({"x1", "x2", "x4"});
  s.need(count >= 0);
  s.ins.vector = static_cast<std::uint8_t>(1 << count);
  s.ins.combine = s.has("trans");
  s.need(s.shared_space());
  s.ins.space = Space::shared;
  s.ins.type = s.type({Type::b16});
  s.ins.list_defs = s.list(Type::b32);
  s.need(s.ins.list_defs == s.ins.vector);
  s.comma();
  s.address();
}

namespace {

// wgmma.mma_async d, a, descriptor of b, scale-d, scale-a, scale-b{, transposed b}: A in registers,
// B as it lies, both added. ins.imm is n, ins.vector is k.
void decode_wgmma_mma(Statement& s) {
  const Shape shape = shape_of(s);
  s.need(shape.m == 64 && shape.n >= 8 && shape.n <= 256 && shape.n % 8 == 0);
  operand_types(s, shape.k);
  s.ins.imm = shape.n;
  s.ins.vector = static_cast<std::uint8_t>(shape.k);
  s.ins.type = Type::f32;
  s.ins.type2 = shape.k == 8 ? Type::b32 : Type::bf16;  // b32: tf32
  const int d = s.ins.list_defs = s.list(Type::f32);
  s.need(d == shape.n / 2);
  s.repeat_list();  // the accumulators are read too
  s.comma();
  if (!s.at_list()) s.fail("wgmma with A in shared memory");
  s.need(s.list(Type::b32) == 4);
  s.ins.a = s.next(Type::u64);
  s.ins.b = s.next(Type::pred);
  const auto expect_immediate = [&](std::uint64_t value, const char* what) {
    s.comma();
    if (s.immediate() != value) s.fail(std::string("wgmma: ") + what);
  };
  expect_immediate(1, "A is not to be scaled by anything but 1");
  expect_immediate(1, "B is not to be scaled by anything but 1");
  if (shape.k == 16) expect_immediate(0, "a transposed B is not known");
}

}  // namespace

void decode_wgmma(Statement& s) {
  constexpr Op ops[] = {Op::wgmma, Op::wgmma_fence, Op::wgmma_commit, Op::wgmma_wait};
  const int which = s.one_of({"mma_async", "fence", "commit_group", "wait_group"});
  s.need(which >= 0 && s.has("sync") && s.has("aligned"));
  s.ins.op = ops[which];
  if (which == 0) decode_wgmma_mma(s);
  if (which == 3) s.ins.imm = static_cast<std::int64_t>(s.immediate());
}

}  // namespace vgpu::ptx
