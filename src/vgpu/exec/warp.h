// What an instruction works on: a warp, whose registers hold 32 lanes each, in a block, in a
// launch.
#pragma once
#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "../vgpu.h"
#include "order.h"
#include "random.h"
#include "vgpu/ptx/instruction.h"

namespace vgpu {

constexpr int kLanes = 32;
constexpr std::uint32_t kAllLanes = ~0u;

class GlobalAccesses;  // grid_dependency.h
struct Block;
struct LaunchCounts;  // counters/counters.h
struct Warp;
using Handler = void (*)(Warp&, const Ins&);

// Operands of a multiply-add, and how many follow upon each other from here on, this one included.
struct MultiplyAdd {
  int d, a, b, c, run;
};

// A kernel that is being run, the same for all blocks.
struct Program {
  PtxModule* module;
  Kernel* kernel;
  Code* code;
  const Launch* launch;
  std::vector<Handler> handlers;    // one for each instruction
  std::vector<Handler> uncounted;   // where launches are counted: what a handler then calls
  std::vector<Handler> unwatched;   // where memory is watched (grid_dependency.h): likewise
  std::vector<std::uint8_t> steps;  // what of an instruction concerns the scheduler (schedule.cpp)
  std::vector<MultiplyAdd> multiply_adds;  // runs.h: of each instruction, run 0 where it is none
  Order order;                             // of blocks and warps
};

// A cp.async instruction under way: its bytes arrive when its group is waited for.
struct AsyncCopy {
  std::uint32_t lanes;  // whose bytes have not arrived
  unsigned size;
  int pc;
  std::uint32_t group[kLanes], to[kLanes];
  char data[kLanes][16];
};

// Lanes of a diverged warp that are at the same place.
struct LaneGroup {
  int pc;
  std::uint32_t lanes;
  bool parked;         // at an instruction that needs more lanes than these
  bool waits = false;  // for what another one has to do, until all others had their turn
};

// How the addresses of a warp's lanes lie to the first lane's, and which lanes stand for all: of
// those with the same address the first.
struct LanePattern {
  alignas(64) std::uint32_t distance[kLanes] = {};
  std::uint32_t lanes = 1;
};

struct Warp {
  // The lanes that execute, as a mask of bits and as 0 or -1 of each.
  std::uint32_t active = 0;
  const std::int32_t* active_mask = nullptr;
  bool all_active = true;  // all lanes that have not exited
  std::uint32_t live = 0;

  LaunchCounts* counts = nullptr;  // null where the launch is not counted
  char* registers = nullptr;
  const Program* program = nullptr;
  Block* block = nullptr;
  char* local = nullptr;  // of lane 0; the others' behind it
  int index = 0;          // in the block
  int column = 0;         // of the cluster's clock
  int pc = 0;

  std::vector<LaneGroup> other_groups;
  bool exited_some = false;  // lanes ended since parked groups were last looked at
  bool yields = false;       // an mbarrier's phase was not complete: the other warps first
  int waits_at = -1;         // the barrier

  // barrier.cluster: the lanes that have arrived in the phase that goes on; in one that is complete
  // and that they have not waited for; and how many phases each lane has waited for.
  std::uint32_t cluster_arrived = 0, cluster_complete = 0;
  std::uint32_t cluster_waits[kLanes] = {};

  int register_count = 0;  // of a thread, by setmaxnreg; 0: not known

  std::uint32_t grid_waited = 0;       // lanes that have executed griddepcontrol.wait
  GlobalAccesses* accesses = nullptr;  // where those of this launch are noted, if anywhere

  std::vector<AsyncCopy> copies;
  std::uint32_t committed[kLanes] = {};  // groups of cp.async

  // Of wgmma: groups committed, products not waited for, and whether wgmma.fence was executed since
  // the last wait. What a product under way does with a register is in `product_registers`, by its
  // place in the file / 64.
  std::uint32_t product_groups = 0;
  int products_under_way = 0;
  bool product_fence = false;
  enum class Use : std::uint8_t { none, operand, sum };
  std::vector<Use> product_registers;

  WarpOrder order;

  // The allocation that was touched last, whose bytes lie `host_shift` above its addresses.
  std::uint64_t allocation_begin = 1, allocation_end = 0;
  std::int64_t host_shift = 0;

  LanePattern patterns[4];  // the last ones of accesses to shared memory
  unsigned next_pattern = 0;

  alignas(64) std::int32_t group_mask[kLanes], predicated_mask[kLanes];
};

// The lanes' values of a register.
template <typename T>
inline T* reg(const Warp& w, int slot) {
  return reinterpret_cast<T*>(w.registers + slot);
}
// A list of registers: {%f1, %f2}.
inline const int* list_of(const Warp& w, const Ins& i) { return &w.program->code->lists[i.list]; }

template <typename F>
inline __attribute__((always_inline)) void each_lane(F f) {
#pragma GCC ivdep
  for (int lane = 0; lane < kLanes; ++lane) f(lane);
}
template <typename F>
inline __attribute__((always_inline)) void each_active_lane(const Warp& w, F f) {
  for (std::uint32_t rest = w.active; rest != 0; rest &= rest - 1) f(std::countr_zero(rest));
}
inline int first_active(const Warp& w) { return std::countr_zero(w.active); }

// d[lane] = f(lane) for the active lanes.
template <typename D, typename F>
inline __attribute__((always_inline)) void write_lanes(Warp& w, D* d, F f) {
  if (w.all_active) {
    each_lane([&](int lane) { d[lane] = f(lane); });
  } else {
    const std::int32_t* const mask = w.active_mask;
    each_lane([&](int lane) { d[lane] = mask[lane] ? f(lane) : d[lane]; });
  }
}

inline std::uint32_t bits_of(const std::int32_t* mask) {
  std::uint32_t bits = 0;
  each_lane([&](int lane) { bits |= mask[lane] ? 1u << lane : 0u; });
  return bits;
}
inline void set_active(Warp& w, std::uint32_t lanes) {
  w.active = lanes;
  w.all_active = lanes == w.live;
  each_lane([&](int lane) { w.group_mask[lane] = lanes >> lane & 1 ? -1 : 0; });
  w.active_mask = w.group_mask;
}

// --- schedule.cpp
enum class Stop { done, barrier, yield };
// Runs the warp until it has to wait or has ended.
Stop run_warp(Warp& w);
// Program::steps.
std::vector<std::uint8_t> steps_of(const Code& code);

// --- dispatch.cpp: the handler of an instruction, or null where there is none. The others are of
// the files of their names.
Handler handler_of(const Ins& i);
Handler arithmetic_handler(const Ins& i);
Handler bits_handler(const Ins& i);
Handler compare_handler(const Ins& i);
Handler convert_handler(const Ins& i);
Handler load_store_handler(const Ins& i);
Handler atomic_handler(const Ins& i);
Handler lanes_handler(const Ins& i);
Handler tensor_handler(const Ins& i);
Handler async_copy_handler(const Ins& i);
Handler mbarrier_handler(const Ins& i);
Handler bulk_copy_handler(const Ins& i);
Handler wgmma_handler(const Ins& i);
Handler cluster_handler(const Ins& i);
Handler register_pool_handler(const Ins& i);
void do_nothing(Warp& w, const Ins& i);

}  // namespace vgpu
