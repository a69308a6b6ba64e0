#include "vgpu/counters/access.h"

#include <algorithm>
#include <array>
#include <bit>

namespace vgpu {
namespace {

constexpr unsigned kBanks = 32, kBankBytes = 4, kSectorBytes = 32;

// f(lanes) for each part of the warp that accesses memory together and has lanes that do.
template <typename F>
void each_part(std::uint32_t lanes, unsigned size, F f) {
  const unsigned width = size <= 4 ? 32 : size == 8 ? 16 : 8;
  const std::uint32_t part = width == 32 ? ~0u : (1u << width) - 1;
  for (unsigned first = 0; first < 32; first += width)
    if (const std::uint32_t active = lanes & part << first) f(active);
}

// The distinct ones of some numbers, at most 32.
class Distinct {
 public:
  void add(std::uint64_t number) { numbers_[count_++] = number; }
  void reduce() {
    std::sort(numbers_.begin(), numbers_.begin() + count_);
    count_ = std::unique(numbers_.begin(), numbers_.begin() + count_) - numbers_.begin();
  }
  auto begin() const { return numbers_.begin(); }
  auto end() const { return numbers_.begin() + count_; }
  unsigned count() const { return static_cast<unsigned>(count_); }

 private:
  std::array<std::uint64_t, 32> numbers_;
  std::ptrdiff_t count_ = 0;
};

}  // namespace

AccessCost shared_wavefronts(const std::uint64_t* addresses, std::uint32_t lanes, unsigned size) {
  AccessCost cost;
  each_part(lanes, size, [&](std::uint32_t active) {
    Distinct words;
    for (; active; active &= active - 1)
      for (unsigned at = 0; at < size; at += kBankBytes)
        words.add((addresses[std::countr_zero(active)] + at) / kBankBytes);
    words.reduce();
    std::array<unsigned, kBanks> per_bank = {};
    for (const std::uint64_t word : words) ++per_bank[word % kBanks];
    cost.taken += *std::max_element(per_bank.begin(), per_bank.end());
    ++cost.ideal;
  });
  return cost;
}

AccessCost global_sectors(const std::uint64_t* addresses, std::uint32_t lanes, unsigned size) {
  AccessCost cost;
  each_part(lanes, size, [&](std::uint32_t active) {
    Distinct places, sectors;
    for (; active; active &= active - 1) {
      const std::uint64_t at = addresses[std::countr_zero(active)];
      places.add(at);
      sectors.add(at / kSectorBytes);
    }
    places.reduce();
    sectors.reduce();
    cost.taken += sectors.count();
    cost.ideal += (places.count() * size + kSectorBytes - 1) / kSectorBytes;
  });
  return cost;
}

}  // namespace vgpu
