// wgmma with A in registers and B in shared memory. The product is computed when it is started, and
// it is seen to that nobody can tell: until wgmma.wait_group its registers must not be touched, nor
// what it reads of shared memory be written.
#include "wgmma.h"

#include <algorithm>
#include <cstring>

#include "cluster.h"
#include "fault.h"
#include "rounding.h"
#include "tensor.h"
#include "types.h"

namespace vgpu {
namespace {

// A matrix descriptor: PTX ISA, "Matrix descriptor format".
struct Descriptor {
  unsigned start, leading, stride, span;
  explicit Descriptor(u64 bits)
      : start((bits & 0x3fff) << 4),
        leading((bits >> 16 & 0x3fff) << 4),
        stride((bits >> 32 & 0x3fff) << 4) {
    const unsigned mode = static_cast<unsigned>(bits >> 62);
    span = mode == 1 ? 128 : mode == 2 ? 64 : mode == 3 ? 32 : 16;
  }
  // The 16 bytes of k, `half` 0 or 1, of column n of a k-major B: rows of the swizzle's span, eight
  // of them an atom.
  unsigned address(int n, int half) const {
    if (span == 16) return start + n / 8 * stride + n % 8 * 16 + half * leading;
    const unsigned at = start + n / 8 * stride + n % 8 * span + 16 * half;
    return at ^ (at >> 7 & (span / 16 - 1)) << 4;
  }
};
template <typename F>
void each_piece(u64 descriptor, int columns, F f) {
  const Descriptor d(descriptor);
  for (int n = 0; n < columns; ++n)
    for (int half = 0; half < 2; ++half) f(d.address(n, half), n, half);
}

// Before a product reads 16 bytes of B: written by an asynchronous copy, or with a fence since.
void check_operand(Warp& w, const Ins& i, unsigned begin) {
  const SharedMemory& m = w.block->shared;
  for (unsigned word = begin / 4; word < begin / 4 + 4; ++word) {
    const u32 stamp = m.written[word];
    const int column = m.writer[word].column;
    if (knows_fenced(w, 0, column, lane_of(stamp), tick_of(stamp))) continue;
    fault(w, i, kLaunchFailed, 0,
          "wgmma reads byte " + std::to_string(4 * word) +
              " of shared memory, which was written by " +
              thread_name(w, column % kColumns, lane_of(stamp)) +
              of_block(w, *w.block->cluster.blocks[rank_of(column)]) + " at " +
              place_of(w, m.writer[word].pc) + " with no fence.proxy.async since");
  }
}
void read_b(Warp& w, const Ins& i, u64 descriptor, int columns, float (*b)[256]) {
  each_piece(descriptor, columns, [&](unsigned at, int n, int half) {
    const char* const from = shared_bytes(w, i, *w.block, at, 16, 0, Access::look);
    check_operand(w, i, at);
    if (i.vector == 8) {
      u32 values[4];
      std::memcpy(values, from, sizeof values);
      for (int k = 0; k < 4; ++k) b[4 * half + k][n] = from_tf32(values[k]);
    } else {
      u16 values[8];
      std::memcpy(values, from, sizeof values);
      for (int k = 0; k < 8; ++k) b[8 * half + k][n] = from_bf16(values[k]);
    }
  });
}

// d += a b: a warp of the group has 16 rows of its own, so the four need not meet.
void multiply(Warp& w, const Ins& i, u64 descriptor) {
  const int columns = static_cast<int>(i.imm), depth = i.vector, count = columns / 2;
  const int* const sums = list_of(w, i);  // `count` written, the same ones read, 4 of A
  const bool adds = reg<s32>(w, i.b)[0] != 0;
  alignas(64) float a[16][16], b[16][256], c[16][256];
  read_b(w, i, descriptor, columns, b);
  read_a(w, sums + 2 * count, depth, a);
  const auto row_of = [](int l, int r) { return l / 4 + 8 * (r >> 1 & 1); };
  const auto column_of = [](int l, int r) { return 8 * (r / 4) + 2 * (l % 4) + (r & 1); };
  for (int r = 0; r < count; ++r) {
    const float* const values = reg<float>(w, sums[r]);
    for (int l = 0; l < kLanes; ++l) c[row_of(l, r)][column_of(l, r)] = adds ? values[l] : 0.0f;
  }
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < depth; ++k)
      for (int n = 0; n < columns; ++n) c[m][n] += a[m][k] * b[k][n];
  for (int r = 0; r < count; ++r) {
    float* const values = reg<float>(w, sums[r]);
    for (int l = 0; l < kLanes; ++l) values[l] = c[row_of(l, r)][column_of(l, r)];
  }
}

void note_product(Warp& w, const Ins& i, u64 descriptor) {
  const int columns = static_cast<int>(i.imm), count = columns / 2;
  Product product{w.index, descriptor, columns, ~0u, 0, w.pc, w.product_groups, 0};
  each_piece(descriptor, columns, [&](unsigned at, int, int) {
    product.begin = std::min(product.begin, at), product.end = std::max(product.end, at + 16);
  });
  // The same operand read before, and waited for: this read is the later one.
  std::erase_if(w.block->products, [&](const Product& p) {
    return p.warp == w.index && p.waited_for && p.descriptor == descriptor && p.columns == columns;
  });
  w.block->products.push_back(product);
  ++w.products_under_way;
  const int* const registers = list_of(w, i);
  for (int r = 0; r < count; ++r) w.product_registers[registers[r] / 64] = Warp::Use::sum;
  for (int r = 0; r < 4; ++r)
    w.product_registers[registers[2 * count + r] / 64] = Warp::Use::operand;
}

void start_product(Warp& w, const Ins& i) {
  const u64* const descriptors = reg<u64>(w, i.a);
  for (int l = 1; l < kLanes; ++l)
    if (descriptors[l] != descriptors[0])
      fault(w, i, kLaunchFailed, l, "wgmma: lanes with different descriptors");
  if (!w.product_fence)
    fault(w, i, kLaunchFailed, 0, "wgmma.mma_async without a wgmma.fence since the last wait");
  w.product_registers.resize(w.program->code->register_bytes / 64 + 1);
  multiply(w, i, descriptors[0]);
  note_product(w, i, descriptors[0]);
}

void fence(Warp& w, const Ins&) { w.product_fence = true; }
void commit(Warp& w, const Ins&) { ++w.product_groups; }

// imm: how many of the newest groups may stay under way.
void wait(Warp& w, const Ins& i) {
  ClusterClock& clock = w.block->clock;
  const int column = w.column + kFirstProductColumn;
  w.product_fence = false;
  w.products_under_way = 0;
  std::fill(w.product_registers.begin(), w.product_registers.end(), Warp::Use::none);
  for (Product& p : w.block->products) {
    if (p.warp != w.index || p.waited_for) continue;
    if (static_cast<s64>(w.product_groups) - p.group > i.imm) {
      p.waited_for = clock.now;
      continue;
    }
    ++w.products_under_way;
    const Ins& product = w.program->code->ins[p.pc];
    const int* const registers = list_of(w, product);
    for (int r = 0; r < product.list_count; ++r)
      w.product_registers[registers[r] / 64] =
          r < product.list_defs
              ? Warp::Use::sum
              : std::max(w.product_registers[registers[r] / 64], Warp::Use::operand);
  }
  note_access(*w.block, column);
  w.order.known.seen.set(column, clock.now);
  ++clock.now;
}

}  // namespace

namespace {

void check_products(Warp& w, const Ins& i, Block& block, u32 begin, u32 end, int lane) {
  for (const Product& p : block.products) {
    if (begin >= p.end || end <= p.begin) continue;
    const int column = block.rank * kColumns + kFirstProductColumn + p.warp;
    if (p.waited_for && knows(w, lane, column, 0, p.waited_for)) continue;
    bool overlaps = false;
    each_piece(p.descriptor, p.columns, [&](unsigned at, int, int) {
      overlaps = overlaps || (begin < at + 16 && end > at);
    });
    if (!overlaps) continue;
    fault(w, i, kLaunchFailed, lane,
          "race in shared memory" + of_block(w, block) + " at byte " + std::to_string(begin) +
              ": written here, " + (p.waited_for ? "read by" : "while it is read by") +
              " the wgmma of warp " + std::to_string(p.warp) + " at " + place_of(w, p.pc) +
              (p.waited_for ? ", with no barrier between" : ", which was not waited for"));
  }
}

void check_copies(Warp& w, const Ins& i, Block& block, u32 begin, u32 end, int lane) {
  for (const AsyncRead& r : block.async_reads) {
    if (begin >= r.end || end <= r.begin) continue;
    if (r.done && knows(w, lane, r.column, 0, r.done)) continue;
    fault(w, i, kLaunchFailed, lane,
          "race in shared memory" + of_block(w, block) + " at byte " + std::to_string(begin) +
              ": written here, while it may still be read by the copy at " + place_of(w, r.pc) +
              ", which was not waited for");
  }
}

}  // namespace

void check_asynchronous_reads(Warp& w, const Ins& i, Block& block, u32 begin, u32 end, int lane) {
  check_products(w, i, block, begin, end, lane);
  check_copies(w, i, block, begin, end, lane);
}

void check_registers_of_products(Warp& w, const Ins& i) {
  const auto use_of = [&](int slot) {
    return slot < 0 ? Warp::Use::none : w.product_registers[slot / 64];
  };
  const auto report = [&](const char* what) {
    fault(w, i, kLaunchFailed, first_active(w),
          std::string(what) + " of a wgmma under way: there was no wgmma.wait_group since");
  };
  const int* const list = i.list < 0 ? nullptr : list_of(w, i);
  const bool product = i.op == Op::wgmma;
  const auto reads = [&](int slot) {
    if (use_of(slot) == Warp::Use::sum) report("reads a sum");
  };
  const auto writes = [&](int slot) {
    if (use_of(slot) == Warp::Use::sum) report("writes to a sum");
    if (use_of(slot) == Warp::Use::operand) report("writes to an operand");
  };
  for (const int slot : {i.pred, i.a, i.b, i.c}) reads(slot);
  writes(i.d);
  i.op == Op::setp ? writes(i.e) : reads(i.e);
  // A product may add to the sums of one before it.
  const int first = product ? 2 * i.list_defs : 0;
  for (int k = first; k < i.list_count; ++k) k < i.list_defs ? writes(list[k]) : reads(list[k]);
}

Handler wgmma_handler(const Ins& i) {
  switch (i.op) {
    case Op::wgmma:
      return start_product;
    case Op::wgmma_fence:
      return fence;
    case Op::wgmma_commit:
      return commit;
    case Op::wgmma_wait:
      return wait;
    default:
      return nullptr;
  }
}

}  // namespace vgpu
