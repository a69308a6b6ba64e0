// The order of blocks and warps: forward, reverse, or shuffled by a seed (VGPU_ORDER). A right
// kernel gives equal bits in every one.
#pragma once
#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace vgpu {

struct Order {
  enum class Kind { forward, reverse, shuffle } kind = Kind::forward;
  std::uint64_t seed = 0;
};
// Of "forward", "reverse" or "shuffle:SEED"; throws KernelFault.
Order order_of(const std::string& text);

class Random {
 public:
  explicit Random(Order order) : order_(order), engine_(order.seed) {}

  // A block's warps are in an order of its own, whoever runs it.
  void begin(std::uint64_t block) {
    if (order_.kind == Order::Kind::shuffle) engine_.seed(order_.seed * 1000003 + block + 1);
  }
  template <typename T>
  void shuffle(std::vector<T>* items) {
    if (order_.kind == Order::Kind::forward) return;
    std::sort(items->begin(), items->end());
    if (order_.kind == Order::Kind::reverse) std::reverse(items->begin(), items->end());
    if (order_.kind == Order::Kind::shuffle) std::shuffle(items->begin(), items->end(), engine_);
  }
  // Whether something that may happen later does so.
  bool later() { return order_.kind == Order::Kind::shuffle && (engine_() & 1); }
  // One of `count`.
  std::size_t choose(std::size_t count) {
    return order_.kind == Order::Kind::shuffle ? engine_() % count : 0;
  }

 private:
  Order order_;
  std::minstd_rand engine_;
};

}  // namespace vgpu
