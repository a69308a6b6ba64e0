// wgmma: noted when started, done when waited for.
//
// Each warp does its 16 rows of D, as B is all that the four of a warpgroup share.
#include "cuda_emulator.h"
#include "hopper.h"

namespace convnet::emulator {
namespace {

constexpr int kMostEights = 32, kMostDepth = 16;
constexpr int kRowBytes = 32;  // of A and of B

WarpProducts& products() {
  std::vector<WarpProducts>& all = current->block->async.products;
  const std::size_t warp = static_cast<std::size_t>(current->number) / kWarpSize;
  if (all.size() <= warp) all.resize(kMaxBlockThreads / kWarpSize);
  return all[warp];
}

// The place in shared memory with that address.
const char* at_shared_address(unsigned address, CallSite where) {
  unsigned start = kSharedWindow;
  for (const SharedArray& array : current->block->arrays) {
    if (address - start < array.bytes) return array.data + (address - start);
    start += static_cast<unsigned>((array.bytes + 127) / 128 * 128);
  }
  fail(where, "wgmma: address %u is not in shared memory", address);
}

double element(WgmmaType type, const void* row, int k) {
  if (type == WgmmaType::kTf32) {
    return static_cast<double>(__uint_as_float(static_cast<const unsigned*>(row)[k] & 0xffffe000u));
  }
  return static_cast<double>(
      __uint_as_float(static_cast<unsigned>(static_cast<const std::uint16_t*>(row)[k]) << 16));
}

// b[k][column], as the descriptor says.
void read_b(const Wgmma& product, int depth, double (*b)[8 * kMostEights]) {
  const CallSite where = product.where;
  const unsigned mode = static_cast<unsigned>(product.b >> 62);
  const unsigned start = static_cast<unsigned>(product.b & 0x3fff) << 4;
  const unsigned eight_rows = static_cast<unsigned>(product.b >> 32 & 0x3fff) << 4;
  if (mode == 0) fail(where, "wgmma: a descriptor without swizzle");
  if ((product.b >> 49 & 7) != 0) fail(where, "wgmma: a descriptor with a base offset");
  const unsigned span = mode == 1 ? 128 : mode == 2 ? 64 : 32;
  if (start % (8 * span) + kRowBytes > span) {
    fail(where, "wgmma: B begins at %u, not in the first row of a swizzled eight", start);
  }
  for (int column = 0; column < 8 * product.eights; ++column) {
    const unsigned row = start + static_cast<unsigned>(column / 8) * eight_rows +
                         static_cast<unsigned>(column % 8) * span;
    alignas(16) char bytes[kRowBytes];
    for (unsigned i = 0; i < kRowBytes; i += 16) {
      const unsigned address = (row + i) ^ ((row + i) >> 7 & (span / 16 - 1)) << 4;
      std::memcpy(bytes + i, at_shared_address(address, where), 16);
    }
    for (int k = 0; k < depth; ++k) b[k][column] = element(product.type, bytes, k);
  }
}

// Sums are rounded once, towards zero, as in mma.
void multiply(const Wgmma& product) {
  const int depth = product.type == WgmmaType::kTf32 ? 8 : 16;
  std::vector<double>& space = current->block->async.operand;
  space.resize(kMostDepth * 8 * kMostEights);
  auto* b = reinterpret_cast<double (*)[8 * kMostEights]>(space.data());
  read_b(product, depth, b);
  double a[16][kMostDepth];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const int group = lane / 4, place = lane % 4;
    for (int i = 0; i < 4; ++i) {
      double* row = a[group + 8 * (i % 2)];
      const unsigned* bits = &product.a[lane][i];
      if (depth == 8) {
        row[place + 4 * (i / 2)] = element(product.type, bits, 0);
      } else {
        row[2 * place + 8 * (i / 2)] = element(product.type, bits, 0);
        row[2 * place + 8 * (i / 2) + 1] = element(product.type, bits, 1);
      }
    }
  }
  const int columns = 8 * product.eights;
  for (int row = 0; row < 16; ++row) {
    double sums[8 * kMostEights] = {};
    for (int k = 0; k < depth; ++k) {
      for (int column = 0; column < columns; ++column) sums[column] += a[row][k] * b[k][column];
    }
    for (int column = 0; column < columns; ++column) {
      float* d = product.d[row % 8 * 4 + column % 8 / 2];
      float& sum = d[column / 8 * 4 + row / 8 * 2 + column % 2];
      sum = round_to_zero(sums[column] + (product.accumulate ? static_cast<double>(sum) : 0.0));
    }
  }
}

struct Operand {
  const Wgmma* product;
  float* d;
  const unsigned* a;
  int number;  // of the wait: groups left
};

void start(void* const* operands, unsigned) {
  WarpProducts& mine = products();
  Wgmma product = *static_cast<const Operand*>(operands[0])->product;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const auto* operand = static_cast<const Operand*>(operands[lane]);
    if (operand->product->b != product.b) {
      fail(product.where, "wgmma: lanes 0 and %d pass different descriptors", lane);
    }
    product.d[lane] = operand->d;
    product.a[lane] = operand->a;
  }
  if (!mine.fenced) fail(product.where, "wgmma without a wgmma_fence since the last wait");
  product.group = mine.group;
  mine.started.push_back(product);
}

void meet(const char* operation, void* operand, Combine combine, CallSite where) {
  if (current->number / 128 * 128 + 128 > static_cast<int>(current->block->launch->block.x)) {
    fail(where, "%s needs a whole warpgroup of 128 threads", operation);
  }
  current->block->warp_operation(operation, kFullWarp, true, operand, combine, where);
}

}  // namespace

void wgmma(WgmmaType type, float* d, int eights, const unsigned* a, std::uint64_t b,
           bool accumulate, CallSite where) {
  const Wgmma product{type, {}, {}, eights, b, accumulate, 0, where};
  Operand mine{&product, d, a, 0};
  meet("wgmma", &mine, start, where);
}

void wgmma_fence(CallSite where) {
  meet("wgmma_fence", nullptr, [](void* const*, unsigned) { products().fenced = true; }, where);
}

void wgmma_commit(CallSite where) {
  meet("wgmma_commit", nullptr, [](void* const*, unsigned) { ++products().group; }, where);
}

void wgmma_wait(int groups_left, CallSite where) {
  Operand mine{nullptr, nullptr, nullptr, groups_left};
  const Combine finish = [](void* const* operands, unsigned) {
    WarpProducts& warp = products();
    const int left = static_cast<const Operand*>(operands[0])->number;
    std::size_t done = 0;
    for (; done < warp.started.size(); ++done) {
      const int newer = static_cast<int>(warp.group - warp.started[done].group);
      if (newer <= left) break;  // 0: not committed yet
      multiply(warp.started[done]);
    }
    warp.started.erase(warp.started.begin(),
                       warp.started.begin() + static_cast<std::ptrdiff_t>(done));
    warp.fenced = false;
  };
  meet("wgmma_wait", &mine, finish, where);
}

}  // namespace convnet::emulator
