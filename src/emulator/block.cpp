#include "block.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "memory.h"

namespace convnet::emulator {

__thread Thread* current = nullptr;

Block::Block() : threads_(kMaxBlockThreads), warps_(kMaxBlockThreads / kWarpSize) {}

Block::~Block() {
  end();
  for (char* stack : free_stacks_) unmap_stack(stack);
}

void Block::begin(const Launch& new_launch) {
  launch = &new_launch;
  const dim3 size = new_launch.block;
  thread_count_ = static_cast<int>(size.x * size.y * size.z);
  for (int i = 0; i < thread_count_; ++i) {
    Thread& thread = threads_[i];
    const unsigned n = static_cast<unsigned>(i);
    thread.index = {n % size.x, n / size.x % size.y, n / (size.x * size.y)};
    thread.number = i;
    thread.block = this;
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
  first_epoch = ++epoch;
  error[0] = 0;
  for (int i = 0; i < thread_count_; ++i) {
    Thread& thread = threads_[i];
    thread.state = State::kReady;
    thread.started = false;
    thread.copies.clear();
    thread.next_copy = 0;
    thread.copy_group = 0;
    thread.warp_clock = 0;
  }
  const int warp_count = (thread_count_ + kWarpSize - 1) / kWarpSize;
  for (int w = 0; w < warp_count; ++w) {
    const int lanes = thread_count_ - w * kWarpSize;
    Warp& warp = warps_[w];
    warp.threads = &threads_[w * kWarpSize];
    warp.lanes = lanes >= kWarpSize ? kFullWarp : (1u << lanes) - 1;
    warp.ready = warp.lanes;
    warp.exited = 0;
    warp.meeting_count = 0;
  }
  ready_warps_ = warp_count == 32 ? ~0u : (1u << warp_count) - 1;
  exited_ = arrived_ = 0;
  phase_ = 0;
  predicates_[0] = predicates_[1] = 0;
  random_ = (launch->schedule.seed * 0x9E3779B97F4A7C15ull) ^ (block_number * 0xD1B54A32D192ED03ull);
  random_ |= 1;
  warp_ = pick_bit(ready_warps_);
}

void Block::run(std::uint64_t block_number) {
  reset(block_number);
  Thread* first = pick();
  start(first);
  current = first;
  switch_fiber(&host, &first->fiber);
  current = nullptr;
  if (error[0] == 0 && exited_ < thread_count_) report_stall();
  if (error[0] == 0) check_canaries();
  if (error[0] != 0) {
    reclaim_stacks();
    throw std::runtime_error(error);
  }
}

// ---- scheduling --------------------------------------------------------------------------------

int Block::pick_bit(unsigned bits) {
  switch (launch->schedule.order) {
    case Order::kForward:
      return __builtin_ctz(bits);
    case Order::kReverse:
      return 31 - __builtin_clz(bits);
    default:
      break;
  }
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
  const bool leave = launch->schedule.order == Order::kShuffle && (random_ >> 40) % 8 == 0;
  if (warp->ready == 0 || leave) {
    warp_ = pick_bit(ready_warps_);
    warp = &warps_[warp_];
  }
  const int lane = pick_bit(warp->ready);
  warp->ready &= ~(1u << lane);
  if (warp->ready == 0) ready_warps_ &= ~(1u << warp_);
  return &warp->threads[lane];
}

void Block::set_ready(Thread* thread) {
  const int warp = thread->number / kWarpSize;
  thread->state = State::kReady;
  warps_[warp].ready |= 1u << (thread->number % kWarpSize);
  ready_warps_ |= 1u << warp;
}

namespace {
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
  thread->started = true;
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
    if (!next->started) start(next);
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
  cp_async_wait(-1, launch->where);
  self->state = State::kExited;
  ++exited_;
  Warp* warp = &warps_[self->number / kWarpSize];
  warp->exited |= 1u << (self->number % kWarpSize);
  // Lanes that have ended are not waited for.
  for (int i = warp->meeting_count - 1; i >= 0; --i) {
    if ((warp->meetings[i].mask & ~warp->exited) == warp->meetings[i].arrived) complete(warp, i);
  }
  Thread* next = pick();
  current = next;
  if (next != nullptr && !next->started) {
    next->fiber.stack = self->fiber.stack;
    next->fiber.stack_bytes = self->fiber.stack_bytes;
    next->started = true;
    return true;
  }
  free_stacks_.push_back(self->fiber.stack);
  switch_fiber(&self->fiber, next != nullptr ? &next->fiber : &host, true);
  __builtin_unreachable();
}

void Block::abandon() {
  Thread* self = current;
  current = nullptr;
  switch_fiber(&self->fiber, &host, true);
  __builtin_unreachable();
}

void Block::reclaim_stacks() {
  for (int i = 0; i < thread_count_; ++i) {
    const Thread& thread = threads_[i];
    if (thread.started && thread.state != State::kExited) free_stacks_.push_back(thread.fiber.stack);
  }
}

// ---- meeting points ----------------------------------------------------------------------------

int Block::barrier(const char* operation, int predicate, CallSite where) {
  Thread* self = current;
  if (arrived_ == 0) {
    first_at_barrier_ = self;
  } else if (first_at_barrier_->where.line != where.line ||
             std::strcmp(first_at_barrier_->where.file, where.file) != 0 ||
             std::strcmp(first_at_barrier_->operation, operation) != 0) {
    char other[64];
    fail(where, "divergent barriers: this thread waits in %s here, %s in %s at %s:%d", operation,
         describe(first_at_barrier_, other, sizeof other), first_at_barrier_->operation,
         first_at_barrier_->where.file, first_at_barrier_->where.line);
  }
  self->state = State::kAtBarrier;
  self->operation = operation;
  self->where = where;
  const unsigned phase = phase_ & 1;
  predicates_[phase] += predicate != 0;
  if (++arrived_ == thread_count_) release_barrier();
  suspend();
  return predicates_[phase];
}

void Block::release_barrier() {
  arrived_ = 0;
  ++epoch;
  ++phase_;
  predicates_[phase_ & 1] = 0;
  ready_warps_ = 0;
  for (int w = 0; w * kWarpSize < thread_count_; ++w) {
    warps_[w].ready = warps_[w].lanes;
    ready_warps_ |= 1u << w;
  }
  for (int i = 0; i < thread_count_; ++i) threads_[i].state = State::kReady;
  warp_ = pick_bit(ready_warps_);
}

void Block::warp_operation(const char* operation, unsigned mask, bool aligned, void* operand,
                           Combine combine, CallSite where) {
  Thread* self = current;
  Warp* warp = &warps_[self->number / kWarpSize];
  const unsigned lane_bit = 1u << (self->number % kWarpSize);
  if ((mask & lane_bit) == 0) {
    fail(where, "%s: the mask 0x%08x does not name the calling lane %d", operation, mask,
         self->number % kWarpSize);
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
    *meeting = Meeting{mask, 0, operation, where, combine};
    ++warp->meeting_count;
  } else if (std::strcmp(meeting->operation, operation) != 0 ||
             (aligned && meeting->where.line != where.line)) {
    fail(where, "divergent warp: this thread is in %s (mask 0x%08x), other lanes in %s at %s:%d",
         operation, mask, meeting->operation, meeting->where.file, meeting->where.line);
  }
  self->state = State::kInWarpOperation;
  self->operation = operation;
  self->where = where;
  self->operand = operand;
  meeting->arrived |= lane_bit;
  if ((mask & ~warp->exited) == meeting->arrived) complete(warp, i);
  suspend();
}

// All lanes are there: does the operation for all of them and lets them go on.
void Block::complete(Warp* warp, int meeting) {
  const Meeting done = warp->meetings[meeting];
  warp->meetings[meeting] = warp->meetings[--warp->meeting_count];
  void* operands[kWarpSize] = {};
  for (unsigned lanes = done.arrived; lanes != 0; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    operands[lane] = warp->threads[lane].operand;
    warp->threads[lane].state = State::kReady;
  }
  done.combine(operands, done.arrived);
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
  std::size_t total = bytes;
  for (const SharedArray& array : arrays) total += array.bytes;
  if (total > kMaxSharedBytes) {
    fail(where, "%zu bytes of shared memory, the limit is %zu", total, kMaxSharedBytes);
  }
  SharedArray array{key, name, where, nullptr, bytes, serial, nullptr};
  allocate_shared_array(&array);
  arrays.push_back(array);
  return array.data;
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

// ---- errors ------------------------------------------------------------------------------------

const char* Block::describe(const Thread* thread, char* text, std::size_t bytes) const {
  std::snprintf(text, bytes, "thread (%u, %u, %u)", thread->index.x, thread->index.y,
                thread->index.z);
  return text;
}

Thread* Block::find(State state) {
  for (int i = 0; i < thread_count_; ++i) {
    if (threads_[i].state == state) return &threads_[i];
  }
  return nullptr;
}

// Nobody is ready and somebody waits: says who waits where, and for whom.
void Block::report_stall() {
  char who[64], other_who[64], what[256];
  const Thread* waiting = find(State::kInWarpOperation);
  const Thread* other = nullptr;
  if (waiting != nullptr) {
    const Warp& warp = warps_[waiting->number / kWarpSize];
    for (int i = 0; i < warp.meeting_count; ++i) {
      const Meeting& meeting = warp.meetings[i];
      if ((meeting.arrived >> (waiting->number % kWarpSize) & 1) == 0) continue;
      const unsigned missing = meeting.mask & ~warp.exited & ~meeting.arrived;
      other = &warp.threads[__builtin_ctz(missing)];
    }
  } else {
    waiting = find(State::kAtBarrier);
    other = find(State::kExited);
  }
  if (waiting == nullptr || other == nullptr) throw std::logic_error("emulator: stalled");
  describe(waiting, who, sizeof who);
  describe(other, other_who, sizeof other_who);
  if (other->state == State::kExited) {
    std::snprintf(what, sizeof what, "%s has ended", other_who);
  } else {
    std::snprintf(what, sizeof what, "%s waits in %s at %s:%d", other_who, other->operation,
                  other->where.file, other->where.line);
  }
  std::snprintf(error, sizeof error, "%s:%d: %s: %s of block (%u, %u, %u) waits in %s, but %s",
                waiting->where.file, waiting->where.line,
                waiting->state == State::kAtBarrier ? "divergent barriers"
                                                    : "deadlocked warp operation",
                who, index.x, index.y, index.z, waiting->operation, what);
}

void fail(CallSite where, const char* format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  if (current == nullptr) {
    throw std::runtime_error(std::string(where.file) + ":" + std::to_string(where.line) + ": " +
                             message);
  }
  Block* block = current->block;
  const uint3 thread = current->index;
  std::snprintf(block->error, sizeof block->error,
                "%s:%d: %s, in thread (%u, %u, %u) of block (%u, %u, %u)", where.file, where.line,
                message, thread.x, thread.y, thread.z, block->index.x, block->index.y,
                block->index.z);
  block->abandon();
}

}  // namespace convnet::emulator
