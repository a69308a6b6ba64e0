// Shuffles and votes: one meeting of the lanes each.
#include <cstring>

#include "cuda_emulator.h"

namespace convnet::emulator {

namespace {

struct Shuffle {
  std::uint64_t value, result;
  int source;
};

void do_shuffle(void* const* operands, unsigned lanes) {
  for (unsigned rest = lanes; rest != 0; rest &= rest - 1) {
    auto* mine = static_cast<Shuffle*>(operands[__builtin_ctz(rest)]);
    const bool there = (lanes >> mine->source & 1) != 0;
    mine->result =
        there ? static_cast<const Shuffle*>(operands[mine->source])->value : ~std::uint64_t{0};
  }
}

struct Vote {
  bool predicate;
  unsigned result;
};

void do_ballot(void* const* operands, unsigned lanes) {
  unsigned result = 0;
  for (unsigned rest = lanes; rest != 0; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    if (static_cast<const Vote*>(operands[lane])->predicate) result |= 1u << lane;
  }
  for (unsigned rest = lanes; rest != 0; rest &= rest - 1) {
    static_cast<Vote*>(operands[__builtin_ctz(rest)])->result = result;
  }
}

}  // namespace

std::uint64_t shuffle(const char* operation, unsigned mask, std::uint64_t value, int source,
                      CallSite where) {
  Shuffle mine{value, 0, source & (kWarpSize - 1)};
  current->block->warp_operation(operation, mask, false, &mine, do_shuffle, where);
  return mine.result;
}

unsigned ballot(const char* operation, unsigned mask, bool predicate, CallSite where) {
  Vote mine{predicate, 0};
  current->block->warp_operation(operation, mask, false, &mine, do_ballot, where);
  return mine.result;
}

}  // namespace convnet::emulator
