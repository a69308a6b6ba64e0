// What src/device_hopper.h stands on in the emulator: barriers in shared memory, the copies that
// complete them, and wgmma.
//
// As with cp.async, what is under way is made visible: the destination of a copy is poisoned when
// the copy starts, and written when somebody has to wait for its barrier; and a wgmma reads its
// operands, B in shared memory included, only when wgmma_wait() is called. So a kernel that reads
// too early or overwrites too early computes with NaN, or with what it should not. The order in
// which threads run is that of block.h, and a thread that waits for a barrier which nobody can
// complete is reported.
#pragma once

#include <cstdint>
#include <vector>

#include "block.h"

namespace convnet::emulator {

// Dynamic shared memory begins there: aligned, but not as swizzles want it.
constexpr unsigned kSharedWindow = 128;
unsigned window_address(const void* pointer, CallSite where);

// ---- barriers and copies: async_bulk.cpp -------------------------------------------------------

void mbarrier_init(std::uint64_t* barrier, unsigned count, CallSite where);
void mbarrier_arrive(std::uint64_t* barrier, unsigned expected_bytes, CallSite where);
void mbarrier_wait(std::uint64_t* barrier, unsigned parity, CallSite where);

struct alignas(64) TensorMap {
  const char* data;
  std::int64_t size[4];    // elements, the contiguous dimension first
  std::int64_t stride[4];  // bytes
  int box[4];
  bool swizzled;
};

void bulk_copy(void* destination, const void* source, unsigned bytes, std::uint64_t* barrier,
               CallSite where);
void tensor_copy(void* destination, const TensorMap& map, const int (&at)[4],
                 std::uint64_t* barrier, CallSite where);

// A copy that was started: the bytes were read then. Runs of 16 bytes, each with its place.
struct BulkCopy {
  struct Piece {
    char* destination;
    unsigned char data[16];
  };
  std::uint64_t* barrier;
  std::vector<Piece> pieces;
  CallSite where;
};

// ---- wgmma: wgmma.cpp --------------------------------------------------------------------------

enum class WgmmaType { kTf32, kBf16 };

// `eights`: columns / 8; a thread has 4 of D in each.
void wgmma(WgmmaType type, float* d, int eights, const unsigned* a, std::uint64_t b,
           bool accumulate, CallSite where);
void wgmma_fence(CallSite where);
void wgmma_commit(CallSite where);
void wgmma_wait(int groups_left, CallSite where);

// A product that was started by a warp.
struct Wgmma {
  WgmmaType type;
  float* d[kWarpSize];
  const unsigned* a[kWarpSize];
  int eights;
  std::uint64_t b;
  bool accumulate;
  unsigned group;
  CallSite where;
};

struct WarpProducts {
  std::vector<Wgmma> started;  // oldest first
  unsigned group = 0;          // number of groups committed
  bool fenced = false;
};

// ---- of a block --------------------------------------------------------------------------------

struct Waiter {
  Thread* thread;
  std::uint64_t* barrier;
  CallSite where;
};

struct AsyncState {
  std::vector<BulkCopy> copies;
  std::vector<Waiter> waiters;
  std::vector<WarpProducts> products;  // by warp
  std::vector<double> operand;         // of the wgmma that is being done

  void clear();
  // What is left when the block has ended, for a message; empty if nothing is.
  const char* left_over(CallSite* where) const;
};

}  // namespace convnet::emulator
