// setp, selp and testp: PTX ISA, "Comparison and Selection Instructions". A predicate is 0 or -1.
#include <cmath>
#include <limits>

#include "rounding.h"
#include "types.h"

namespace vgpu {
namespace {

// The second group of comparisons is true where an operand is a NaN.
template <Cmp comparison, typename T>
bool holds(T x, T y) {
  switch (comparison) {
    case Cmp::eq:
      return x == y;
    case Cmp::ne:
      return x == x && y == y && x != y;
    case Cmp::lt:
      return x < y;
    case Cmp::le:
      return x <= y;
    case Cmp::gt:
      return x > y;
    case Cmp::ge:
      return x >= y;
    case Cmp::equ:
      return x != x || y != y || x == y;
    case Cmp::neu:
      return x != y;
    case Cmp::ltu:
      return !(x >= y);
    case Cmp::leu:
      return !(x > y);
    case Cmp::gtu:
      return !(x <= y);
    case Cmp::geu:
      return !(x < y);
    case Cmp::num:
      return x == x && y == y;
    case Cmp::nan:
      return x != x || y != y;
  }
  return false;
}

// d = (a ? b) op c, and e = !(a ? b) op c where there is an e.
template <typename T, Cmp comparison, bool flushes>
void set_predicate(Warp& w, const Ins& i) {
  const T *const a = reg<T>(w, i.a), *const b = reg<T>(w, i.b);
  s32* const d = reg<s32>(w, i.d);
  const auto compare = [&](int l) {
    if constexpr (flushes) return holds<comparison>(flush(a[l]), flush(b[l])) ? -1 : 0;
    return holds<comparison>(a[l], b[l]) ? -1 : 0;
  };
  if (!i.combine && i.e < 0) {
    write_lanes(w, d, compare);
    return;
  }
  s32 result[kLanes], opposite[kLanes];
  each_lane([&](int l) { result[l] = compare(l), opposite[l] = ~result[l]; });
  const s32* const c = i.combine ? reg<s32>(w, i.c) : nullptr;
  if (i.combine == 1) each_lane([&](int l) { result[l] &= c[l], opposite[l] &= c[l]; });
  if (i.combine == 2) each_lane([&](int l) { result[l] |= c[l], opposite[l] |= c[l]; });
  if (i.combine == 3) each_lane([&](int l) { result[l] ^= c[l], opposite[l] ^= c[l]; });
  write_lanes(w, d, [&](int l) { return result[l]; });
  if (i.e >= 0) write_lanes(w, reg<s32>(w, i.e), [&](int l) { return opposite[l]; });
}

template <typename T, bool flushes>
Handler set_predicate_of(Cmp comparison) {
  switch (comparison) {
    case Cmp::eq:
      return set_predicate<T, Cmp::eq, flushes>;
    case Cmp::ne:
      return set_predicate<T, Cmp::ne, flushes>;
    case Cmp::lt:
      return set_predicate<T, Cmp::lt, flushes>;
    case Cmp::le:
      return set_predicate<T, Cmp::le, flushes>;
    case Cmp::gt:
      return set_predicate<T, Cmp::gt, flushes>;
    case Cmp::ge:
      return set_predicate<T, Cmp::ge, flushes>;
    default:
      break;
  }
  if constexpr (std::is_floating_point_v<T>) {
    switch (comparison) {
      case Cmp::equ:
        return set_predicate<T, Cmp::equ, flushes>;
      case Cmp::neu:
        return set_predicate<T, Cmp::neu, flushes>;
      case Cmp::ltu:
        return set_predicate<T, Cmp::ltu, flushes>;
      case Cmp::leu:
        return set_predicate<T, Cmp::leu, flushes>;
      case Cmp::gtu:
        return set_predicate<T, Cmp::gtu, flushes>;
      case Cmp::geu:
        return set_predicate<T, Cmp::geu, flushes>;
      case Cmp::num:
        return set_predicate<T, Cmp::num, flushes>;
      case Cmp::nan:
        return set_predicate<T, Cmp::nan, flushes>;
      default:
        break;
    }
  }
  return nullptr;
}

template <typename T>
void select(Warp& w, const Ins& i) {
  const T *const a = reg<T>(w, i.a), *const b = reg<T>(w, i.b);
  const s32* const c = reg<s32>(w, i.c);
  write_lanes(w, reg<T>(w, i.d), [&](int l) { return c[l] ? a[l] : b[l]; });
}

template <typename T>
bool has_property(int which, T x) {
  switch (which) {
    case 0:
      return std::isfinite(x);
    case 1:
      return std::isnan(x);
    case 2:
      return std::isinf(x);
    case 3:
      return !std::isnan(x);
    case 4:
      return std::isnormal(x);
    default:
      return x != 0 && std::fabs(x) < std::numeric_limits<T>::min();
  }
}
template <typename T>
void test_property(Warp& w, const Ins& i) {
  const T* const a = reg<T>(w, i.a);
  write_lanes(w, reg<s32>(w, i.d), [&](int l) { return has_property(i.combine, a[l]) ? -1 : 0; });
}

}  // namespace

Handler compare_handler(const Ins& i) {
  const auto set_predicate = [&](auto t) { return set_predicate_of<decltype(t), false>(i.cmp); };
  switch (i.op) {
    case Op::setp: {
      if (i.ftz) return set_predicate_of<float, true>(i.cmp);
      const Handler handler = for_floats(i.type, set_predicate);
      return handler ? handler : for_integers(i.type, set_predicate);
    }
    case Op::selp:
      return for_bits(i.type, [](auto t) -> Handler { return select<decltype(t)>; });
    case Op::testp:
      return for_floats(i.type, [](auto t) -> Handler { return test_property<decltype(t)>; });
    default:
      return nullptr;
  }
}

}  // namespace vgpu
