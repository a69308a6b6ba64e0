// What a block says when its threads cannot go on.
#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "block.h"
#include "hopper.h"

namespace convnet::emulator {

// Nobody is ready and somebody waits: says who waits where, and for whom.
void Block::report_stall() {
  if (!async.waiters.empty()) {
    const Waiter& waiter = async.waiters[0];
    std::snprintf(error, sizeof error,
                  "%s:%d: deadlock: thread (%u, %u, %u) of block (%u, %u, %u) waits in "
                  "mbarrier_wait for a phase that nobody completes",
                  waiter.where.file, waiter.where.line, waiter.thread->index.x,
                  waiter.thread->index.y, waiter.thread->index.z, index.x, index.y, index.z);
    return;
  }
  const Thread* waiting = nullptr;
  const Thread* absent = nullptr;
  const Meeting* meeting = nullptr;
  for (int w = 0; w < warp_count_ && meeting == nullptr; ++w) {
    const Warp& warp = warps_[w];
    if (warp.meeting_count == 0) continue;
    meeting = &warp.meetings[0];
    waiting = &warp.threads[__builtin_ctz(meeting->arrived)];
    absent = &warp.threads[__builtin_ctz(warp.missing(*meeting))];
  }
  for (int w = 0; w < warp_count_ && meeting == nullptr; ++w) {
    const Warp& warp = warps_[w];
    if (warp.at_barrier != 0) waiting = &warp.threads[__builtin_ctz(warp.at_barrier)];
    if (warp.exited != 0) absent = &warp.threads[__builtin_ctz(warp.exited)];
  }
  const CallSite where = meeting != nullptr ? meeting->where : barrier_where_;
  char what[256];
  describe_wait(absent, what, sizeof what);
  std::snprintf(error, sizeof error,
                "%s:%d: %s: thread (%u, %u, %u) of block (%u, %u, %u) waits in %s, but thread "
                "(%u, %u, %u) %s",
                where.file, where.line,
                meeting != nullptr ? "deadlocked warp operation" : "divergent barriers",
                waiting->index.x, waiting->index.y, waiting->index.z, index.x, index.y, index.z,
                meeting != nullptr ? meeting->operation : barrier_operation_, absent->index.x,
                absent->index.y, absent->index.z, what);
}

void Block::describe_wait(const Thread* thread, char* text, std::size_t bytes) const {
  const Warp& warp = *thread->warp;
  const char* operation = barrier_operation_;
  CallSite where = barrier_where_;
  for (int i = 0; i < warp.meeting_count; ++i) {
    if ((warp.meetings[i].arrived & lane_bit(thread)) == 0) continue;
    operation = warp.meetings[i].operation;
    where = warp.meetings[i].where;
  }
  if ((warp.exited & lane_bit(thread)) != 0) {
    std::snprintf(text, bytes, "has ended");
  } else {
    std::snprintf(text, bytes, "waits in %s at %s:%d", operation, where.file, where.line);
  }
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
