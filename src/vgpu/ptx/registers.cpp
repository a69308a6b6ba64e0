// Liveness over basic blocks, one interval of instructions for each register, and a linear scan
// over the intervals. Lanes that have parted may be at different places of the program; as every
// instruction writes only the lanes that execute it, they do not disturb each other.
#include "vgpu/ptx/registers.h"

#include <algorithm>
#include <bit>
#include <map>

namespace vgpu::ptx {
namespace {

template <typename F>
void each_use(const Code& code, const Ins& i, F f) {
  for (const int r : {i.pred, i.a, i.b, i.c, i.op == Op::setp ? -1 : i.e})
    if (r >= 0) f(r);
  for (int k = i.list_defs; k < i.list_count; ++k)
    if (code.lists[i.list + k] >= 0) f(code.lists[i.list + k]);
}
template <typename F>
void each_def(const Code& code, const Ins& i, F f) {
  for (const int r : {i.d, i.op == Op::setp ? i.e : -1})
    if (r >= 0) f(r);
  for (int k = 0; k < i.list_defs; ++k)
    if (code.lists[i.list + k] >= 0) f(code.lists[i.list + k]);
}

// A set of registers for each basic block.
class Sets {
 public:
  Sets(int blocks, int registers)
      : words_((registers + 63) / 64), bits_(static_cast<std::size_t>(blocks) * words_) {}
  std::uint64_t* operator[](int block) {
    return bits_.data() + static_cast<std::size_t>(block) * words_;
  }
  int words() const { return words_; }

 private:
  int words_;
  std::vector<std::uint64_t> bits_;
};
bool has(const std::uint64_t* set, int r) { return set[r / 64] >> (r % 64) & 1; }
void add(std::uint64_t* set, int r) { set[r / 64] |= 1ull << (r % 64); }

struct Interval {
  int from, to = -1;  // instructions; to < from where the register is not used
  void reach(int at) { from = std::min(from, at), to = std::max(to, at); }
};

class Liveness {
 public:
  Liveness(const Code& code, int registers)
      : code_(code),
        registers_(registers),
        blocks_(find_blocks()),
        live_in_(blocks_, registers),
        used_(blocks_, registers),
        defined_(blocks_, registers),
        live_out_(live_in_.words()) {
    for (int b = 0; b < blocks_; ++b) summarise(b);
    bool changed = true;
    while (changed) {
      changed = false;
      for (int b = blocks_ - 1; b >= 0; --b) changed |= update(b);
    }
  }

  std::vector<Interval> intervals() {
    std::vector<Interval> result(registers_, {static_cast<int>(code_.ins.size())});
    const auto reach_all = [&](const std::uint64_t* set, int at) {
      for (int w = 0; w < live_in_.words(); ++w)
        for (std::uint64_t v = set[w]; v; v &= v - 1)
          result[w * 64 + std::countr_zero(v)].reach(at);
    };
    for (int b = 0; b < blocks_; ++b) {
      find_live_out(b);
      reach_all(live_in_[b], starts_[b]);
      reach_all(live_out_.data(), starts_[b + 1] - 1);
      for (int i = starts_[b]; i < starts_[b + 1]; ++i) {
        each_use(code_, code_.ins[i], [&](int r) { result[r].reach(i); });
        each_def(code_, code_.ins[i], [&](int r) { result[r].reach(i); });
      }
    }
    return result;
  }

 private:
  int find_blocks() {
    const int n = static_cast<int>(code_.ins.size());
    block_of_.resize(n);
    for (int i = 0; i < n; ++i) {
      if (code_.ins[i].leader) starts_.push_back(i);
      block_of_[i] = static_cast<int>(starts_.size()) - 1;
    }
    starts_.push_back(n);
    return static_cast<int>(starts_.size()) - 1;
  }

  // What the block reads before it writes it, and what it surely writes.
  void summarise(int b) {
    for (int i = starts_[b]; i < starts_[b + 1]; ++i) {
      const Ins& ins = code_.ins[i];
      each_use(code_, ins, [&](int r) {
        if (!has(defined_[b], r)) add(used_[b], r);
      });
      if (ins.pred < 0) each_def(code_, ins, [&](int r) { add(defined_[b], r); });
    }
  }

  void find_live_out(int b) {
    std::fill(live_out_.begin(), live_out_.end(), 0);
    const Ins& last = code_.ins[starts_[b + 1] - 1];
    const auto merge = [&](int to) {
      for (int w = 0; w < live_in_.words(); ++w) live_out_[w] |= live_in_[to][w];
    };
    if (last.op == Op::bra) merge(block_of_[last.imm]);
    const bool leaves = (last.op == Op::bra || last.op == Op::ret) && last.pred < 0;
    if (!leaves && b + 1 < blocks_) merge(b + 1);
  }

  bool update(int b) {
    find_live_out(b);
    bool changed = false;
    for (int w = 0; w < live_in_.words(); ++w) {
      const std::uint64_t value = used_[b][w] | (live_out_[w] & ~defined_[b][w]);
      changed |= value != live_in_[b][w];
      live_in_[b][w] = value;
    }
    return changed;
  }

  const Code& code_;
  const int registers_;
  std::vector<int> starts_, block_of_;
  const int blocks_;
  Sets live_in_, used_, defined_;
  std::vector<std::uint64_t> live_out_;
};

// Gives places in the order of the intervals' beginnings, those that have become free first.
std::vector<int> linear_scan(const std::vector<Interval>& intervals,
                             const std::vector<RegClass>& classes, int* bytes) {
  const int registers = static_cast<int>(intervals.size());
  std::vector<int> order(registers), place(registers, -1);
  for (int r = 0; r < registers; ++r) order[r] = r;
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return intervals[a].from < intervals[b].from; });
  std::vector<int> live;
  std::map<int, std::vector<int>> spare;  // bytes of a lane -> places
  int top = 0;
  for (const int r : order) {
    if (intervals[r].to < 0) continue;
    for (std::size_t k = 0; k < live.size();) {
      if (intervals[live[k]].to < intervals[r].from) {
        spare[lane_bytes(classes[live[k]])].push_back(place[live[k]]);
        live[k] = live.back();
        live.pop_back();
      } else {
        ++k;
      }
    }
    const int size = lane_bytes(classes[r]);
    std::vector<int>& free = spare[size];
    if (!free.empty()) {
      place[r] = free.back();
      free.pop_back();
    } else {
      place[r] = top;
      top += 32 * size;
    }
    live.push_back(r);
  }
  *bytes = top;
  return place;
}

}  // namespace

void allocate_registers(Code& code, const std::vector<RegClass>& classes,
                        const std::vector<int>& fixed) {
  std::vector<Interval> intervals = Liveness(code, static_cast<int>(classes.size())).intervals();
  const Interval whole = {-1, static_cast<int>(code.ins.size())};
  for (const int r : fixed) intervals[r] = whole;
  // The registers of a product under way are not free before wgmma.wait_group.
  for (const Ins& i : code.ins)
    for (int k = 0; k < (i.op == Op::wgmma ? i.list_count : 0); ++k)
      if (const int r = code.lists[i.list + k]; r >= 0) intervals[r] = whole;
  const std::vector<int> place = linear_scan(intervals, classes, &code.register_bytes);
  const auto move = [&](int& r) {
    if (r >= 0) r = place[r];
  };
  for (Ins& i : code.ins)
    for (int* r : {&i.pred, &i.d, &i.a, &i.b, &i.c, &i.e}) move(*r);
  for (int& r : code.lists) move(r);
  for (Constant& c : code.constants) move(c.slot);
  for (auto& [slot, name] : code.specials) move(slot);
}

}  // namespace vgpu::ptx
