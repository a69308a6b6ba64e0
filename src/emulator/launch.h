// Kernel launches: a grid's blocks shared out over OS threads.
#pragma once

#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "block.h"
#include "memory.h"

namespace convnet::emulator {

// The order in which ready threads, and blocks, run. nullptr returns to CONVNET_EMULATOR_ORDER.
// "forward", "reverse" or "shuffle:SEED"; throws std::runtime_error for anything else.
void set_order(const char* order);
Schedule schedule();

// OS threads that share a grid: CONVNET_EMULATOR_THREADS, or as many as the machine has.
int worker_count();

// cudaFuncSetAttribute: launches of the kernel on this device may have so many bytes of dynamic
// shared memory. Without it, static and dynamic ones together are at most kSharedBytes.
void allow_dynamic_shared(const void* kernel, int device, std::size_t bytes);
std::optional<std::size_t> allowed_dynamic_shared(const void* kernel, int device);

// Runs the grid and returns when it is done. Throws std::runtime_error, beginning with launch.op.
void run_grid(const Launch& launch);

template <typename... Parameters>
struct Call {
  void (*kernel)(Parameters...);
  std::tuple<Parameters...> arguments;
};

template <typename... Parameters, typename... Arguments>
void launch_kernel(const char* op, CallSite where, void (*kernel)(Parameters...), dim3 grid,
                   dim3 block, std::size_t dynamic_shared_bytes, Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments),
                "launch: the kernel has another number of parameters");
  const Call<Parameters...> call{kernel,
                                 {static_cast<Parameters>(std::forward<Arguments>(arguments))...}};
  const auto run = [](const void* erased) {
    const auto& call = *static_cast<const Call<Parameters...>*>(erased);
    std::apply(call.kernel, call.arguments);
  };
  const Launch launch{
      op,
      where,
      run,
      &call,
      sizeof(call),
      grid,
      block,
      dynamic_shared_bytes,
      allowed_dynamic_shared(reinterpret_cast<const void*>(kernel), current_device()),
      current_device(),
      schedule()};
  std::apply(
      [&](const auto&... values) {
        int position = 0;
        const auto check = [&](const auto& value) {
          if constexpr (std::is_pointer_v<std::decay_t<decltype(value)>>) {
            check_pointer_argument(launch, value, position);
          }
          ++position;
        };
        (check(values), ...);
      },
      call.arguments);
  run_grid(launch);
}

}  // namespace convnet::emulator
