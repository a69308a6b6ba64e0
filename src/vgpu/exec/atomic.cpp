// atom and red: PTX ISA, "Parallel Synchronization and Communication Instructions: atom, red".
#include <algorithm>
#include <mutex>

#include "load_store.h"
#include "types.h"

namespace vgpu {
namespace {

std::mutex atomics;  // blocks may run on several threads of the CPU

template <typename T>
T changed(int operation, T old, T b, T c) {
  switch (operation) {
    case 0:
      return static_cast<T>(old + b);
    case 1:
      return std::min(old, b);
    case 2:
      return std::max(old, b);
    case 3:
      return b;
    case 4:
      return old == b ? c : old;
    default:
      break;
  }
  if constexpr (std::is_integral_v<T>) {
    switch (operation) {
      case 5:
        return old & b;
      case 6:
        return old | b;
      case 7:
        return old ^ b;
      case 8:  // inc
        return old >= b ? 0 : old + 1;
      default:  // dec
        return old == 0 || old > b ? b : old - 1;
    }
  }
  return b;
}

template <typename T>
void change(Warp& w, const Ins& i) {
  u64 a[kLanes];
  addresses(w, i, a);
  const std::lock_guard lock(atomics);
  each_active_lane(w, [&](int l) {
    T* const at = reinterpret_cast<T*>(bytes_at(w, i, i.space, a[l], sizeof(T), l, Access::atomic));
    const T old = *at;
    *at = changed(i.combine, old, reg<T>(w, i.b)[l], i.c < 0 ? T() : reg<T>(w, i.c)[l]);
    if (i.d >= 0) reg<T>(w, i.d)[l] = old;
  });
}

}  // namespace

Handler atomic_handler(const Ins& i) {
  if (i.op != Op::atom) return nullptr;
  const auto choose = [](auto t) -> Handler { return change<decltype(t)>; };
  const Handler handler = for_floats(i.type, choose);
  return handler ? handler : for_integers(i.type, choose);
}

}  // namespace vgpu
