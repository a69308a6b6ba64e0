#include "block.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "hopper.h"
#include "memory.h"

namespace convnet::emulator {

__thread Thread* current = nullptr;

Block::Block()
    : async(*new AsyncState),
      signal_stack(map_stack()),
      landing_stack(map_stack()),
      threads_(kMaxBlockThreads),
      extras_(kMaxBlockThreads),
      warps_(kMaxBlockThreads / kWarpSize) {}

Block::~Block() {
  end();
  for (char* stack : free_stacks_) unmap_stack(stack);
  unmap_stack(signal_stack);
  unmap_stack(landing_stack);
  delete &async;
}

void Block::begin(const Launch& new_launch) {
  launch = &new_launch;
  order_ = new_launch.schedule.order;
  const dim3 size = new_launch.block;
  thread_count_ = static_cast<int>(size.x * size.y * size.z);
  warp_count_ = (thread_count_ + kWarpSize - 1) / kWarpSize;
  for (int i = 0; i < thread_count_; ++i) {
    Thread& thread = threads_[i];
    const unsigned n = static_cast<unsigned>(i);
    thread.index = {n % size.x, n / size.x % size.y, n / (size.x * size.y)};
    thread.number = i;
    thread.block = this;
    thread.warp = &warps_[i / kWarpSize];
  }
  for (int w = 0; w < warp_count_; ++w) {
    const int lanes = thread_count_ - w * kWarpSize;
    warps_[w].threads = &threads_[w * kWarpSize];
    warps_[w].lanes = lanes >= kWarpSize ? kFullWarp : (1u << lanes) - 1;
  }
}

void Block::end() {
  for (SharedArray& array : arrays) free_shared_array(&array);
  arrays.clear();
}

void Block::reset(std::uint64_t block_number) {
  const dim3 grid = launch->grid;
  index = {static_cast<unsigned>(block_number % grid.x),
           static_cast<unsigned>(block_number / grid.x % grid.y),
           static_cast<unsigned>(block_number / (std::uint64_t{grid.x} * grid.y))};
  ++serial;
  error[0] = 0;
  if (extras_used_) {
    for (int i = 0; i < thread_count_; ++i) {
      extras_[i].copies.clear();
      extras_[i].next_copy = 0;
      extras_[i].copy_group = 0;
    }
    extras_used_ = false;
  }
  async.clear();
  ready_warps_ = warp_count_ == 32 ? ~0u : (1u << warp_count_) - 1;
  for (int w = 0; w < warp_count_; ++w) {
    Warp& warp = warps_[w];
    warp.ready = warp.lanes;
    warp.started = warp.at_barrier = warp.exited = 0;
    warp.meeting_count = 0;
  }
  exited_ = arrived_ = 0;
  phase_ = 0;
  predicates_[0] = predicates_[1] = 0;
  random_ =
      (launch->schedule.seed * 0x9E3779B97F4A7C15ull) ^ (block_number * 0xD1B54A32D192ED03ull);
  random_ |= 1;
  warp_ = pick_bit(ready_warps_);
}

ThreadExtra& Block::extra() {
  extras_used_ = true;
  return extras_[static_cast<std::size_t>(current->number)];
}

void Block::run(std::uint64_t block_number) {
  reset(block_number);
  Thread* first = pick();
  start(first);
  current = first;
  host = Fiber{};
  switch_fiber(&host, &first->fiber);
  current = nullptr;
  if (error[0] == 0 && exited_ < thread_count_) report_stall();
  if (error[0] == 0) check_canaries();
  if (error[0] == 0) check_async();
  if (error[0] != 0) {
    reclaim_stacks();
    throw std::runtime_error(error);
  }
}

// ---- scheduling --------------------------------------------------------------------------------

int Block::pick_bit(unsigned bits) {
  if (order_ == Order::kForward) return __builtin_ctz(bits);
  if (order_ == Order::kReverse) return 31 - __builtin_clz(bits);
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  const unsigned start = static_cast<unsigned>(random_ >> 20) & 31;
  const unsigned turned = (bits >> start) | (bits << ((32 - start) & 31));
  return static_cast<int>((static_cast<unsigned>(__builtin_ctz(turned)) + start) & 31);
}

// The next thread to run, taken out of the ready ones; null when there is none.
Thread* Block::pick() {
  if (ready_warps_ == 0) return nullptr;
  Warp* warp = &warps_[warp_];
  // Shuffled orders leave a warp now and then before it has to wait.
  const bool leave = order_ == Order::kShuffle && (random_ >> 40) % 8 == 0;
  if (warp->ready == 0 || leave) {
    warp_ = pick_bit(ready_warps_);
    warp = &warps_[warp_];
  }
  const int lane = pick_bit(warp->ready);
  warp->ready &= ~(1u << lane);
  if (warp->ready == 0) ready_warps_ &= ~(1u << warp_);
  return &warp->threads[lane];
}

namespace {

bool is_started(const Thread* thread) {
  return (thread->warp->started >> (thread->number % kWarpSize) & 1) != 0;
}

bool same_text(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }

void fiber_main() {
  fiber_entered(&current->block->host);
  current->block->run_threads();
}

}  // namespace

void Block::start(Thread* thread) {
  char* stack;
  if (free_stacks_.empty()) {
    stack = map_stack();
  } else {
    stack = free_stacks_.back();
    free_stacks_.pop_back();
  }
  prepare_fiber(&thread->fiber, stack, static_cast<unsigned>(thread->number), fiber_main);
  thread->warp->started |= lane_bit(thread);
}

// Lets others run until `current` is ready and picked again.
void Block::suspend() {
  Thread* self = current;
  Thread* next = pick();
  if (next == self) return;
  current = next;
  if (next == nullptr) {
    switch_fiber(&self->fiber, &host);  // a stall; run() reports it
  } else {
    if (!is_started(next)) start(next);
    switch_fiber(&self->fiber, &next->fiber);
  }
}

void Block::run_threads() {
  do {
    char thrown[256] = "";
    try {
      launch->call_kernel(launch->arguments);
    } catch (const std::exception& exception) {
      std::snprintf(thrown, sizeof thrown, "the kernel threw: %s", exception.what());
    }
    if (thrown[0] != 0) fail(launch->where, "%s", thrown);
  } while (exit_thread());
  __builtin_unreachable();
}

// Ends the current thread. Returns true with a fresh thread to run on the same stack.
bool Block::exit_thread() {
  Thread* self = current;
  if (extras_used_) cp_async_wait(-1);
  ++exited_;
  Warp* warp = self->warp;
  warp->exited |= lane_bit(self);
  // Lanes that have ended are not waited for.
  for (int i = warp->meeting_count - 1; i >= 0; --i) {
    if (warp->missing(warp->meetings[i]) == 0) complete(warp, i);
  }
  Thread* next = pick();
  current = next;
  if (next != nullptr && !is_started(next)) {
    next->fiber = self->fiber;  // the stack
    next->warp->started |= lane_bit(next);
    return true;
  }
  free_stacks_.push_back(self->fiber.stack);
  switch_fiber(&self->fiber, next != nullptr ? &next->fiber : &host, true);
  __builtin_unreachable();
}

void Block::sleep() { suspend(); }

void Block::wake(Thread* thread) {
  thread->warp->ready |= lane_bit(thread);
  ready_warps_ |= 1u << (thread->warp - warps_.data());
}

void Block::abandon() {
  Thread* self = current;
  current = nullptr;
  switch_fiber(&self->fiber, &host, true);
  __builtin_unreachable();
}

void Block::reclaim_stacks() {
  for (int w = 0; w < warp_count_; ++w) {
    const Warp& warp = warps_[w];
    for (unsigned lanes = warp.started & ~warp.exited; lanes != 0; lanes &= lanes - 1) {
      free_stacks_.push_back(warp.threads[__builtin_ctz(lanes)].fiber.stack);
    }
  }
}

// ---- meeting points ----------------------------------------------------------------------------

int Block::barrier(const char* operation, int predicate, CallSite where) {
  const Thread* self = current;
  if (arrived_ == 0) {
    first_at_barrier_ = self;
    barrier_operation_ = operation;
    barrier_where_ = where;
  } else if (barrier_where_.line != where.line || !same_text(barrier_where_.file, where.file) ||
             !same_text(barrier_operation_, operation)) {
    const uint3 other = first_at_barrier_->index;
    fail(where,
         "divergent barriers: this thread waits in %s here, thread (%u, %u, %u) in %s at %s:%d",
         operation, other.x, other.y, other.z, barrier_operation_, barrier_where_.file,
         barrier_where_.line);
  }
  const unsigned phase = phase_ & 1;
  predicates_[phase] += predicate != 0;
  self->warp->at_barrier |= lane_bit(self);
  if (++arrived_ == thread_count_) release_barrier();
  suspend();
  return predicates_[phase];
}

void Block::release_barrier() {
  arrived_ = 0;
  ++phase_;
  predicates_[phase_ & 1] = 0;
  for (int w = 0; w < warp_count_; ++w) {
    warps_[w].at_barrier = 0;
    warps_[w].ready = warps_[w].lanes;
  }
  ready_warps_ = warp_count_ == 32 ? ~0u : (1u << warp_count_) - 1;
  warp_ = pick_bit(ready_warps_);
}

void Block::warp_operation(const char* operation, unsigned mask, bool aligned, void* operand,
                           Combine combine, CallSite where) {
  const Thread* self = current;
  Warp* warp = self->warp;
  const int lane = self->number % kWarpSize;
  if ((mask >> lane & 1) == 0) {
    fail(where, "%s: the mask 0x%08x does not name the calling lane %d", operation, mask, lane);
  }
  if (aligned && (warp->lanes & ~warp->exited) != kFullWarp) {
    fail(where, "%s needs all 32 lanes of the warp; lanes 0x%08x are there", operation,
         warp->lanes & ~warp->exited);
  }
  mask &= warp->lanes;
  int i = 0;
  while (i < warp->meeting_count && warp->meetings[i].mask != mask) ++i;
  Meeting* meeting = &warp->meetings[i];
  if (i == warp->meeting_count) {
    *meeting = Meeting{mask, 0, aligned, operation, where, combine};
    ++warp->meeting_count;
  } else if (!same_text(meeting->operation, operation) ||
             (aligned && meeting->where.line != where.line)) {
    fail(where, "divergent warp: this thread is in %s (mask 0x%08x), other lanes in %s at %s:%d",
         operation, mask, meeting->operation, meeting->where.file, meeting->where.line);
  }
  warp->operands[lane] = operand;
  meeting->arrived |= 1u << lane;
  if (warp->missing(*meeting) == 0) complete(warp, i);
  suspend();
}

// All lanes are there: does the operation for all of them and lets them go on.
void Block::complete(Warp* warp, int meeting) {
  const Meeting done = warp->meetings[meeting];
  warp->meetings[meeting] = warp->meetings[--warp->meeting_count];
  done.combine(warp->operands, done.arrived);
  warp->ready |= done.arrived;
  ready_warps_ |= 1u << (warp - warps_.data());
}

// ---- shared memory -----------------------------------------------------------------------------

void* Block::shared(const void* key, const char* name, std::size_t bytes, CallSite where) {
  for (SharedArray& array : arrays) {
    if (array.key != key) continue;
    if (array.block_serial != serial) {
      array.block_serial = serial;
      std::memset(array.data, kPoison, array.bytes);
    }
    return array.data;
  }
  check_shared_bytes(key == nullptr ? 0 : bytes, where);
  SharedArray array{key, name, where, nullptr, bytes, serial};
  allocate_shared_array(&array);
  arrays.push_back(array);
  return array.data;
}

// What the compiler and the launch of a GPU refuse, as far as the static arrays are known: those
// that this block has come to, and `more`.
void Block::check_shared_bytes(std::size_t more, CallSite where) {
  std::size_t bytes = 0;
  const auto count = [&](std::size_t array) { bytes += (array + 15) / 16 * 16; };
  for (const SharedArray& array : arrays) {
    if (array.key != nullptr) count(array.bytes);
  }
  count(more);
  if (bytes > kSharedBytes) {
    fail(where, "%zu bytes of static shared memory, the limit is %zu", bytes, kSharedBytes);
  }
  const bool allowed = launch->allowed_dynamic_bytes.has_value();
  const std::size_t most = allowed ? kMaxSharedBytes : kSharedBytes;
  if (bytes + launch->dynamic_shared_bytes > most) {
    fail(where, "%zu static and %zu dynamic bytes of shared memory, the limit%s is %zu", bytes,
         launch->dynamic_shared_bytes, allowed ? "" : " without cudaFuncSetAttribute", most);
  }
}

void Block::check_async() {
  CallSite where{};
  const char* left = async.left_over(&where);
  if (left == nullptr) return;
  std::snprintf(error, sizeof error, "%s:%d: block (%u, %u, %u) ends with %s", where.file,
                where.line, index.x, index.y, index.z, left);
}

void Block::check_canaries() {
  for (const SharedArray& array : arrays) {
    if (canaries_intact(array)) continue;
    std::snprintf(error, sizeof error,
                  "%s:%d: shared-memory overrun: block (%u, %u, %u) wrote outside %s (%zu bytes)",
                  array.where.file, array.where.line, index.x, index.y, index.z, array.name,
                  array.bytes);
    return;
  }
}

}  // namespace convnet::emulator
