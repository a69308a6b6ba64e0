// A launch: its blocks on threads of the CPU.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <numeric>
#include <thread>

#include "fault.h"
#include "vgpu/counters/count.h"
#include "vgpu/counters/counters.h"
#include "worker.h"

namespace vgpu {
namespace {

void count_and_handle(Warp& w, const Ins& i) {
  count_instruction(w, i);
  w.program->uncounted[w.pc](w, i);
}

// Handlers of all instructions; one without is a fault.
Program make_program(PtxModule& module, Kernel& kernel, const Launch& launch) {
  Program p;
  p.order = order_of(env_text("VGPU_ORDER", "forward"));
  p.module = &module, p.kernel = &kernel, p.code = kernel.code.get(), p.launch = &launch;
  int barriers = 0, waits = 0;
  for (const Ins& i : p.code->ins) {
    if (i.op == Op::bar_sync && ++barriers == env("VGPU_DROP_BARRIER", 0))
      p.dropped_barrier = static_cast<int>(p.handlers.size());
    Handler handler = handler_of(i);
    if (i.op == Op::cp_wait && ++waits == env("VGPU_DROP_WAIT", 0)) handler = do_nothing;
    if (!handler)
      throw KernelFault{kLaunchFailed, "no handler for the instruction at PTX line " +
                                           std::to_string(i.line) + " of " + kernel.name};
    p.handlers.push_back(handler);
    if (counting()) {
      p.uncounted.push_back(handler);
      p.handlers.back() = count_and_handle;
    }
  }
  return p;
}

struct Counts {
  std::uint64_t blocks = 0, steps = 0;
};
void run_blocks(const Program& program, Counts* counts) {
  const Launch& launch = *program.launch;
  const std::uint64_t blocks =
      static_cast<std::uint64_t>(launch.grid[0]) * launch.grid[1] * launch.grid[2];
  std::vector<std::uint64_t> numbers(blocks);
  std::iota(numbers.begin(), numbers.end(), 0);
  Random(program.order).shuffle(&numbers);
  std::atomic<std::uint64_t> next{0}, steps{0};
  std::mutex mutex;
  KernelFault first{0, ""};
  LaunchCounts all(program.code->ins.size());
  const auto work = [&] {
    Worker worker(program);
    try {
      for (std::uint64_t b; (b = next++) < blocks;) worker.run_block(numbers[b]);
    } catch (const KernelFault& found) {
      const std::lock_guard lock(mutex);
      if (!first.code) first = found;
      next = blocks;
    }
    steps += worker.steps();
    if (!worker.counts()) return;
    const std::lock_guard lock(mutex);
    all.merge(*worker.counts());
  };
  const int count = static_cast<int>(std::min<std::uint64_t>(env("VGPU_THREADS", 1), blocks));
  std::vector<std::thread> others;
  for (int t = 1; t < count; ++t) others.emplace_back(work);
  work();
  for (std::thread& t : others) t.join();
  *counts = {blocks, steps};
  if (first.code) throw first;
  if (!program.uncounted.empty()) counters_add(*program.module, *program.kernel, launch, all);
}

}  // namespace

long exec_unhandled(const Code& code) {
  long count = 0;
  for (const Ins& i : code.ins) count += !handler_of(i);
  return count;
}

Fault exec_launch(PtxModule& module, Kernel& kernel, const Launch& launch) {
  const auto start = std::chrono::steady_clock::now();
  Fault result;
  Counts counts;
  try {
    run_blocks(make_program(module, kernel, launch), &counts);
  } catch (const KernelFault& found) {
    result = {found.code, found.text};
  }
  if (env("VGPU_TIME", 0)) {
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::fprintf(stderr,
                 "vgpu: %-60.60s %8llu blocks %10llu warp instructions %8.3f ms %7.1f M/s, %d "
                 "virtual registers in %d bytes\n",
                 kernel.name.c_str(), static_cast<unsigned long long>(counts.blocks),
                 static_cast<unsigned long long>(counts.steps), 1e3 * seconds.count(),
                 1e-6 * counts.steps / seconds.count(), kernel.code->virtual_registers,
                 kernel.code->register_bytes);
  }
  return result;
}

}  // namespace vgpu
