// A launch: its blocks on threads of the CPU.
#include <atomic>
#include <mutex>
#include <numeric>
#include <thread>

#include "fault.h"
#include "grid_dependency.h"
#include "runs.h"
#include "vgpu/counters/count.h"
#include "vgpu/counters/counters.h"
#include "worker.h"

namespace vgpu {
namespace {

void count_and_handle(Warp& w, const Ins& i) {
  count_instruction(w, i);
  w.program->uncounted[w.pc](w, i);
}

// Executed again until it succeeds: counts itself, once.
bool is_repeated(const Ins& i) { return i.op == Op::cluster_wait || i.op == Op::setmaxnreg; }

void watch_and_handle(Warp& w, const Ins& i) {
  watch_instruction(w, i);
  w.program->unwatched[w.pc](w, i);
}

// Handlers of all instructions; one without is a fault.
Program make_program(PtxModule& module, Kernel& kernel, const Launch& launch) {
  Program p;
  p.order = order_of(env_text("VGPU_ORDER", "forward"));
  p.module = &module, p.kernel = &kernel, p.code = kernel.code.get(), p.launch = &launch;
  for (const Ins& i : p.code->ins) {
    const Handler handler = handler_of(i);
    if (!handler)
      throw KernelFault{kLaunchFailed, "no handler for the instruction at PTX line " +
                                           std::to_string(i.line) + " of " + kernel.name};
    p.handlers.push_back(handler);
    if (watches_memory(launch)) {
      p.unwatched.push_back(handler);
      p.handlers.back() = watch_and_handle;
    }
    if (counting()) {
      p.uncounted.push_back(p.handlers.back());
      if (!is_repeated(i)) p.handlers.back() = count_and_handle;
    }
  }
  p.steps = steps_of(*p.code);
  if (!counting() && !watches_memory(launch)) join_multiply_adds(p);
  return p;
}

void run_clusters(const Program& program) {
  const Launch& launch = *program.launch;
  std::uint64_t clusters = 1;
  for (int k = 0; k < 3; ++k) clusters *= launch.grid[k] / launch.cluster[k];
  std::vector<std::uint64_t> numbers(clusters);
  std::iota(numbers.begin(), numbers.end(), 0);
  Random(program.order).shuffle(&numbers);
  std::atomic<std::uint64_t> next{0};
  std::mutex mutex;
  KernelFault first{0, ""};
  LaunchCounts all(program.code->ins.size());
  if (launch.accesses) launch.accesses->clear();
  bool every_block_waited = true;
  const auto work = [&] {
    Worker worker(program);
    try {
      for (std::uint64_t c; (c = next++) < clusters;) worker.run_cluster(numbers[c]);
    } catch (const KernelFault& found) {
      const std::lock_guard lock(mutex);
      if (!first.code) first = found;
      next = clusters;
    }
    const std::lock_guard lock(mutex);
    if (worker.counts()) all.merge(*worker.counts());
    if (worker.accesses()) launch.accesses->merge(*worker.accesses());
    every_block_waited = every_block_waited && worker.every_block_waited();
  };
  const int count = static_cast<int>(std::min<std::uint64_t>(env("VGPU_THREADS", 1), clusters));
  std::vector<std::thread> others;
  for (int t = 1; t < count; ++t) others.emplace_back(work);
  work();
  for (std::thread& t : others) t.join();
  if (launch.accesses && !every_block_waited) launch.accesses->add(launch.may_run);
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
  try {
    run_clusters(make_program(module, kernel, launch));
  } catch (const KernelFault& found) {
    return {found.code, found.text};
  }
  return {};
}

}  // namespace vgpu
