// The interpreter: a grid's blocks on the threads of the CPU, a block's warps in turn, an
// instruction for the 32 lanes of a warp at once.
//
// Divergence: a warp is a set of groups of lanes, each with its own place in the program; the group
// that is furthest behind runs, groups that meet are merged. An instruction that names lanes
// (bar.sync, shfl.sync, mma.sync) parks its group until they are there; if they cannot come, that
// is reported. Barriers: a warp runs until it must wait; when all wait and nothing was released,
// that is a deadlock. Checks: every access against allocations and alignment; shared memory read
// before it was written; shared memory touched by two warps without a barrier between (kernels with
// plain barriers only).
#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <thread>

#include "ptx.h"
#include "vgpu.h"

namespace vgpu {
namespace {

struct Thrown {
  int code;
  std::string text;
};

struct Warp;
using Handler = void (*)(Warp&, const Ins&);

struct Program {
  PtxModule* module;
  Kernel* kernel;
  Code* code;
  const Launch* launch;
  std::vector<Handler> handlers;
  bool check_races = true;
  int dropped = -1;  // a bar.sync that is left out, to try the checks
};

struct Block {
  std::vector<char> shared;
  // Of each word of shared memory: epoch << 8 | warp + 1 of the last write and the last read; 255
  // where several warps read. An epoch is an interval between barriers; a word is unwritten where
  // its epoch is before the block's first.
  std::vector<std::uint32_t> writes, reads;
  std::uint32_t epoch = 1, first_epoch = 1;
  bool changed = false;  // an mbarrier did
  unsigned id[3];
  struct Barrier {
    unsigned arrived = 0, expected = 0;
  } barriers[16];
};

// A cp.async instruction under way: its bytes arrive when its group is waited for.
struct Copy {
  std::uint32_t bits, group;
  unsigned size;
  std::uint32_t to[32];
  char data[32][16];
};
constexpr std::uint32_t kUnderWay = 0xffffff;  // the epoch of words that such a copy will write

struct Group {
  int pc;
  std::uint32_t mask;
  bool parked;
};

struct Warp {
  char* regs = nullptr;
  const std::int32_t* m = nullptr;  // the mask of the lanes that execute, 0 or -1 each
  bool full = true;                 // all living lanes do
  std::uint32_t bits = 0;           // the same mask as bits
  const Program* program = nullptr;
  Block* block = nullptr;
  std::vector<char>* local = nullptr;
  int index = 0;
  int pc = 0;
  std::uint32_t live = 0;
  std::vector<Group> others;
  std::vector<Copy> copies;
  std::uint32_t committed[32] = {};
  int waiting = -1;  // the barrier
  bool exited_some = false, yields = false;
  std::uint64_t allocation_from = 1, allocation_to = 0;  // the last one touched
  std::int64_t shift = 0;
  std::uint64_t steps = 0;
  alignas(64) std::int32_t mask[32], predicated[32];
};

template <typename T>
inline T* R(Warp& w, int at) {
  return reinterpret_cast<T*>(w.regs + at);
}

#define LANES _Pragma("GCC ivdep") for (int l = 0; l < 32; ++l)

template <typename D, typename F>
inline __attribute__((always_inline)) void put(Warp& w, D* d, F f) {
  if (w.full) {
    LANES d[l] = f(l);
  } else {
    const std::int32_t* m = w.m;
    LANES d[l] = m[l] ? f(l) : d[l];
  }
}

[[noreturn]] void fault(Warp& w, const Ins& i, int code, int lane, const std::string& what) {
  const Program& p = *w.program;
  char text[1024];
  const unsigned thread = w.index * 32 + lane;
  const unsigned* b = p.launch->block;
  const Location at = i.loc >= 0 && i.loc < static_cast<int>(p.code->locations.size())
                          ? p.code->locations[i.loc]
                          : Location{};
  const auto file = p.module->files.find(at.file);
  snprintf(text, sizeof text,
           "%s, thread (%u, %u, %u) of block (%u, %u, %u), %s:%d, PTX line %d, kernel %s",
           what.c_str(), thread % b[0], thread / b[0] % b[1], thread / b[0] / b[1], w.block->id[0],
           w.block->id[1], w.block->id[2],
           file == p.module->files.end() ? "?" : file->second.c_str(), at.line, i.line,
           p.kernel->name.c_str());
  throw Thrown{code, text};
}
constexpr int kIllegalAddress = 700, kLaunchFailed = 719, kMisaligned = 716;

// --- arithmetic
template <typename T>
void do_mov(Warp& w, const Ins& i) {
  T* d = R<T>(w, i.d);
  const T* a = R<T>(w, i.a);
  put(w, d, [&](int l) { return a[l]; });
}
#define BINARY(name, expression)                  \
  template <typename T>                           \
  void name(Warp& w, const Ins& i) {              \
    T* d = R<T>(w, i.d);                          \
    const T *a = R<T>(w, i.a), *b = R<T>(w, i.b); \
    put(w, d, [&](int l) {                        \
      const T x = a[l], y = b[l];                 \
      return static_cast<T>(expression);          \
    });                                           \
  }
#define UNARY(name, expression)          \
  template <typename T>                  \
  void name(Warp& w, const Ins& i) {     \
    T* d = R<T>(w, i.d);                 \
    const T* a = R<T>(w, i.a);           \
    put(w, d, [&](int l) {               \
      const T x = a[l];                  \
      return static_cast<T>(expression); \
    });                                  \
  }
#define TERNARY(name, expression)                                    \
  template <typename T>                                              \
  void name(Warp& w, const Ins& i) {                                 \
    T* d = R<T>(w, i.d);                                             \
    const T *a = R<T>(w, i.a), *b = R<T>(w, i.b), *c = R<T>(w, i.c); \
    put(w, d, [&](int l) {                                           \
      const T x = a[l], y = b[l], z = c[l];                          \
      return static_cast<T>(expression);                             \
    });                                                              \
  }
BINARY(do_add, x + y)
BINARY(do_sub, x - y)
BINARY(do_mul, x* y)
BINARY(do_and, x& y)
BINARY(do_or, x | y)
BINARY(do_xor, x ^ y)
BINARY(do_fdiv, x / y)
BINARY(do_idiv, y == 0 ? T(-1) : x / y)
BINARY(do_irem, y == 0 ? x : x % y)
BINARY(do_imin, x < y ? x : y)
BINARY(do_imax, x > y ? x : y)
BINARY(do_fmin, x != x ? y : y != y ? x : x < y ? x : y)
BINARY(do_fmax, x != x ? y : y != y ? x : x > y ? x : y)
BINARY(do_copysign, std::copysign(y, x))
UNARY(do_neg, -x)
UNARY(do_iabs, x < 0 ? -x : x)
UNARY(do_fabs, std::fabs(x))
UNARY(do_not, ~x)
UNARY(do_rcp, T(1) / x)
UNARY(do_rsqrt, T(1) / std::sqrt(x))
UNARY(do_sqrt, std::sqrt(x))
UNARY(do_ex2, std::exp2(x))
UNARY(do_lg2, std::log2(x))
UNARY(do_sin, std::sin(x))
UNARY(do_cos, std::cos(x))
UNARY(do_popc, std::popcount(x))
UNARY(do_clz, std::countl_zero(x))
TERNARY(do_mad, x* y + z)
TERNARY(do_fma, std::fma(x, y, z))
template <typename T>
void do_mul_hi(Warp& w, const Ins& i) {
  using Wide =
      std::conditional_t<sizeof(T) == 8,
                         std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>,
                         std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>>;
  T* d = R<T>(w, i.d);
  const T *a = R<T>(w, i.a), *b = R<T>(w, i.b);
  put(w, d, [&](int l) {
    return static_cast<T>((static_cast<Wide>(a[l]) * static_cast<Wide>(b[l])) >> (8 * sizeof(T)));
  });
}
template <typename T, typename Wide>
void do_mul_wide(Warp& w, const Ins& i) {
  Wide* d = R<Wide>(w, i.d);
  const T *a = R<T>(w, i.a), *b = R<T>(w, i.b);
  put(w, d, [&](int l) { return static_cast<Wide>(a[l]) * static_cast<Wide>(b[l]); });
}
template <typename T, typename Wide>
void do_mad_wide(Warp& w, const Ins& i) {
  Wide* d = R<Wide>(w, i.d);
  const T *a = R<T>(w, i.a), *b = R<T>(w, i.b);
  const Wide* c = R<Wide>(w, i.c);
  put(w, d, [&](int l) { return static_cast<Wide>(a[l]) * static_cast<Wide>(b[l]) + c[l]; });
}
template <typename T>
void do_shl(Warp& w, const Ins& i) {
  T* d = R<T>(w, i.d);
  const T* a = R<T>(w, i.a);
  const std::uint32_t* b = R<std::uint32_t>(w, i.b);
  put(w, d, [&](int l) { return b[l] >= 8 * sizeof(T) ? T(0) : static_cast<T>(a[l] << b[l]); });
}
template <typename T>
void do_shr(Warp& w, const Ins& i) {
  T* d = R<T>(w, i.d);
  const T* a = R<T>(w, i.a);
  const std::uint32_t* b = R<std::uint32_t>(w, i.b);
  constexpr std::uint32_t most = 8 * sizeof(T) - 1;
  put(w, d, [&](int l) {
    return b[l] > most ? static_cast<T>(std::is_signed_v<T> ? a[l] >> most : 0)
                       : static_cast<T>(a[l] >> b[l]);
  });
}
template <typename T>
void do_bfi(Warp& w, const Ins& i) {
  T* d = R<T>(w, i.d);
  const T *a = R<T>(w, i.a), *b = R<T>(w, i.b);
  const std::uint32_t *c = R<std::uint32_t>(w, i.c), *e = R<std::uint32_t>(w, i.e);
  put(w, d, [&](int l) {
    const unsigned at = c[l] & 255, length = e[l] & 255, size = 8 * sizeof(T);
    if (at >= size || length == 0) return b[l];
    const T mask = static_cast<T>((length >= size ? ~T(0) : (T(1) << length) - 1) << at);
    return static_cast<T>((b[l] & ~mask) | ((a[l] << at) & mask));
  });
}
template <typename T>
void do_bfe(Warp& w, const Ins& i) {
  T* d = R<T>(w, i.d);
  const T* a = R<T>(w, i.a);
  const std::uint32_t *b = R<std::uint32_t>(w, i.b), *c = R<std::uint32_t>(w, i.c);
  put(w, d, [&](int l) {
    const unsigned at = b[l] & 255, length = c[l] & 255, size = 8 * sizeof(T);
    if (length == 0) return T(0);
    if (at >= size) return static_cast<T>(std::is_signed_v<T> ? a[l] >> (size - 1) : 0);
    const unsigned use = std::min(length, size - at);
    return static_cast<T>(static_cast<T>(a[l] << (size - at - use)) >> (size - use));
  });
}
template <typename T>
void do_selp(Warp& w, const Ins& i) {
  T* d = R<T>(w, i.d);
  const T *a = R<T>(w, i.a), *b = R<T>(w, i.b);
  const std::int32_t* c = R<std::int32_t>(w, i.c);
  put(w, d, [&](int l) { return c[l] ? a[l] : b[l]; });
}
template <typename T, typename F>
void compare(Warp& w, const Ins& i, F f) {
  const T *a = R<T>(w, i.a), *b = R<T>(w, i.b);
  std::int32_t* d = R<std::int32_t>(w, i.d);
  if (!i.combine && i.e < 0) {
    put(w, d, [&](int l) { return f(a[l], b[l]) ? -1 : 0; });
    return;
  }
  std::int32_t r[32];
  LANES r[l] = f(a[l], b[l]) ? -1 : 0;
  const std::int32_t* c = i.combine ? R<std::int32_t>(w, i.c) : nullptr;
  std::int32_t other[32];
  LANES other[l] = ~r[l];
  if (i.combine == 1) LANES r[l] &= c[l], other[l] &= c[l];
  if (i.combine == 2) LANES r[l] |= c[l], other[l] |= c[l];
  if (i.combine == 3) LANES r[l] ^= c[l], other[l] ^= c[l];
  put(w, d, [&](int l) { return r[l]; });
  if (i.e >= 0) put(w, R<std::int32_t>(w, i.e), [&](int l) { return other[l]; });
}
template <typename T, Cmp kCmp>
void do_setp(Warp& w, const Ins& i) {
  compare<T>(w, i, [](T x, T y) {
    if constexpr (std::is_floating_point_v<T>) {
      const bool nan = x != x || y != y;
      switch (kCmp) {
        case Cmp::eq:
          return x == y;
        case Cmp::ne:
          return !nan && x != y;
        case Cmp::lt:
          return x < y;
        case Cmp::le:
          return x <= y;
        case Cmp::gt:
          return x > y;
        case Cmp::ge:
          return x >= y;
        case Cmp::equ:
          return nan || x == y;
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
          return !nan;
        case Cmp::nan:
          return nan;
      }
    } else {
      switch (kCmp) {
        case Cmp::eq:
          return x == y;
        case Cmp::ne:
          return x != y;
        case Cmp::lt:
          return x < y;
        case Cmp::le:
          return x <= y;
        case Cmp::gt:
          return x > y;
        case Cmp::ge:
          return x >= y;
        default:
          break;
      }
    }
    return false;
  });
}
// Rounding toward zero or down, by double.
float rounded(double exact, Round how) {
  float f = static_cast<float>(exact);
  if (how == Round::rz && std::fabs(static_cast<double>(f)) > std::fabs(exact))
    f = std::nextafterf(f, 0.0f);
  if (how == Round::rm && static_cast<double>(f) > exact) f = std::nextafterf(f, -INFINITY);
  if (how == Round::rp && static_cast<double>(f) < exact) f = std::nextafterf(f, INFINITY);
  return f;
}
void do_add_rounded(Warp& w, const Ins& i) {
  float* d = R<float>(w, i.d);
  const float *a = R<float>(w, i.a), *b = R<float>(w, i.b);
  put(w, d, [&](int l) { return rounded(static_cast<double>(a[l]) + b[l], i.round); });
}
void do_fma_rounded(Warp& w, const Ins& i) {
  float* d = R<float>(w, i.d);
  const float *a = R<float>(w, i.a), *b = R<float>(w, i.b), *c = R<float>(w, i.c);
  put(w, d, [&](int l) {
    return rounded(std::fma(static_cast<double>(a[l]), b[l], static_cast<double>(c[l])), i.round);
  });
}
void do_pack(Warp& w, const Ins& i) {
  const int* s = &w.program->code->lists[i.list];
  if (size_of(i.type) == 8) {
    std::uint64_t* d = R<std::uint64_t>(w, i.d);
    const std::uint32_t *a = R<std::uint32_t>(w, s[0]), *b = R<std::uint32_t>(w, s[1]);
    put(w, d, [&](int l) { return a[l] | static_cast<std::uint64_t>(b[l]) << 32; });
  } else {
    std::uint32_t* d = R<std::uint32_t>(w, i.d);
    const std::uint16_t *a = R<std::uint16_t>(w, s[0]), *b = R<std::uint16_t>(w, s[1]);
    put(w, d, [&](int l) { return a[l] | static_cast<std::uint32_t>(b[l]) << 16; });
  }
}
void do_unpack(Warp& w, const Ins& i) {
  const int* s = &w.program->code->lists[i.list];
  if (size_of(i.type) == 8) {
    std::uint64_t v[32];
    std::memcpy(v, R<std::uint64_t>(w, i.a), sizeof v);
    for (int k = 0; k < 2; ++k)
      if (s[k] >= 0)
        put(w, R<std::uint32_t>(w, s[k]),
            [&](int l) { return static_cast<std::uint32_t>(v[l] >> (32 * k)); });
  } else {
    std::uint32_t v[32];
    std::memcpy(v, R<std::uint32_t>(w, i.a), sizeof v);
    for (int k = 0; k < 2; ++k)
      if (s[k] >= 0)
        put(w, R<std::uint16_t>(w, s[k]),
            [&](int l) { return static_cast<std::uint16_t>(v[l] >> (16 * k)); });
  }
}
std::uint32_t bf16_of(float f) {
  std::uint32_t b = std::bit_cast<std::uint32_t>(f);
  if (f != f) return 0x7fff;
  return (b + 0x7fff + (b >> 16 & 1)) >> 16;
}
void do_prmt(Warp& w, const Ins& i) {
  std::uint32_t* d = R<std::uint32_t>(w, i.d);
  const std::uint32_t *a = R<std::uint32_t>(w, i.a), *b = R<std::uint32_t>(w, i.b),
                      *c = R<std::uint32_t>(w, i.c);
  put(w, d, [&](int l) {
    const std::uint64_t v = a[l] | static_cast<std::uint64_t>(b[l]) << 32;
    std::uint32_t r = 0;
    for (int k = 0; k < 4; ++k) {
      const unsigned s = c[l] >> (4 * k) & 15;
      std::uint32_t byte = v >> (8 * (s & 7)) & 255;
      if (s & 8) byte = byte & 128 ? 255 : 0;
      r |= byte << (8 * k);
    }
    return r;
  });
}

// --- conversions, by way of the widest type of the kind
float half_of(std::uint16_t h) {
  _Float16 f;
  std::memcpy(&f, &h, 2);
  return static_cast<float>(f);
}
void do_cvt(Warp& w, const Ins& i) {
  if (i.vector == 2) {
    std::uint32_t* d = R<std::uint32_t>(w, i.d);
    const float *a = R<float>(w, i.a), *b = R<float>(w, i.b);
    put(w, d, [&](int l) { return bf16_of(a[l]) << 16 | bf16_of(b[l]); });
    return;
  }
  std::int64_t n[32];
  double f[32];
  const bool from_float = i.type2 == Type::f32 || i.type2 == Type::f64 || i.type2 == Type::f16;
  const bool to_float = i.type == Type::f32 || i.type == Type::f64 || i.type == Type::f16;
  switch (i.type2) {
    case Type::f16:
      LANES f[l] = half_of(R<std::uint16_t>(w, i.a)[l]);
      break;
    case Type::f32:
      LANES f[l] = R<float>(w, i.a)[l];
      break;
    case Type::f64:
      LANES f[l] = R<double>(w, i.a)[l];
      break;
    default: {
      const char* a = w.regs + i.a;
      const int bytes = size_of(i.type2);
      const bool sign = i.type2 == Type::s8 || i.type2 == Type::s16 || i.type2 == Type::s32;
      for (int l = 0; l < 32; ++l) {
        std::int64_t v = 0;
        std::memcpy(&v, a + l * i.width2, std::min<int>(bytes, i.width2));
        if (sign)
          v = static_cast<std::int64_t>(static_cast<std::uint64_t>(v) << (64 - 8 * bytes)) >>
              (64 - 8 * bytes);
        n[l] = v;
      }
    }
  }
  if (from_float) {
    switch (i.round) {
      case Round::rni:
        LANES f[l] = std::nearbyint(f[l]);
        break;
      case Round::rzi:
        LANES f[l] = std::trunc(f[l]);
        break;
      case Round::rmi:
        LANES f[l] = std::floor(f[l]);
        break;
      case Round::rpi:
        LANES f[l] = std::ceil(f[l]);
        break;
      default:
        break;
    }
    if (i.sat && to_float) LANES f[l] = f[l] != f[l] ? 0.0 : std::min(1.0, std::max(0.0, f[l]));
    if (!to_float) {
      const int width = 8 * size_of(i.type);
      const bool sign =
          i.type == Type::s8 || i.type == Type::s16 || i.type == Type::s32 || i.type == Type::s64;
      const double most = std::ldexp(1.0, width - (sign ? 1 : 0)), least = sign ? -most : 0.0;
      for (int l = 0; l < 32; ++l) {
        if (f[l] != f[l])
          n[l] = 0;
        else if (f[l] >= most)
          n[l] = sign ? static_cast<std::int64_t>((1ull << (width - 1)) - 1)
                      : static_cast<std::int64_t>(width == 64 ? ~0ull : (1ull << width) - 1);
        else if (f[l] <= least)
          n[l] = sign ? -static_cast<std::int64_t>(1ull << (width - 1)) : 0;
        else
          n[l] = sign ? static_cast<std::int64_t>(f[l])
                      : static_cast<std::int64_t>(static_cast<std::uint64_t>(f[l]));
      }
    }
  } else if (to_float) {
    if (i.type2 == Type::u64)
      LANES f[l] = static_cast<double>(static_cast<std::uint64_t>(n[l]));
    else
      LANES f[l] = static_cast<double>(n[l]);
    if (i.type == Type::f32 && size_of(i.type2) == 8) {
      for (int l = 0; l < 32; ++l)
        f[l] = i.type2 == Type::u64 ? static_cast<float>(static_cast<std::uint64_t>(n[l]))
                                    : static_cast<float>(n[l]);
    }
  }
  switch (i.type) {
    case Type::f16:
      put(w, R<std::uint16_t>(w, i.d),
          [&](int l) { return std::bit_cast<std::uint16_t>(static_cast<_Float16>(f[l])); });
      return;
    case Type::f32:
      put(w, R<float>(w, i.d), [&](int l) {
        return i.round >= Round::rz && i.round <= Round::rp && i.type2 == Type::f64
                   ? rounded(f[l], i.round)
                   : static_cast<float>(f[l]);
      });
      return;
    case Type::f64:
      put(w, R<double>(w, i.d), [&](int l) { return f[l]; });
      return;
    default:
      break;
  }
  const int width = 8 * size_of(i.type);
  const bool sign = i.type == Type::s8 || i.type == Type::s16 || i.type == Type::s32;
  if (width < 64) {
    if (sign)
      LANES n[l] = static_cast<std::int64_t>(static_cast<std::uint64_t>(n[l]) << (64 - width)) >>
                   (64 - width);
    else
      LANES n[l] = n[l] & ((1ll << width) - 1);
  }
  if (i.width == 8)
    put(w, R<std::int64_t>(w, i.d), [&](int l) { return n[l]; });
  else if (i.width == 4)
    put(w, R<std::int32_t>(w, i.d), [&](int l) { return static_cast<std::int32_t>(n[l]); });
  else
    put(w, R<std::int16_t>(w, i.d), [&](int l) { return static_cast<std::int16_t>(n[l]); });
}

// --- memory
void addresses(Warp& w, const Ins& i, int reg, int width, std::uint64_t* to) {
  const std::uint64_t imm = static_cast<std::uint64_t>(i.imm);
  if (reg < 0) {
    LANES to[l] = imm;
  } else if (width == 8) {
    const std::uint64_t* a = R<std::uint64_t>(w, reg);
    LANES to[l] = a[l] + imm;
  } else {
    const std::uint32_t* a = R<std::uint32_t>(w, reg);
    LANES to[l] = static_cast<std::uint32_t>(a[l] + imm);
  }
}
std::string hex(std::uint64_t v) {
  char s[32];
  snprintf(s, sizeof s, "%#llx", static_cast<unsigned long long>(v));
  return s;
}
// The bytes of a global address, checked.
char* global_at(Warp& w, const Ins& i, std::uint64_t address, unsigned size, int lane,
                const char* what) {
  if (address < w.allocation_from || address + size > w.allocation_to) {
    const Allocation* a = memory_find(address);
    if (!a || address + size > a->base + a->size) {
      const Allocation* near = memory_find(address - 4096);
      for (unsigned back = 0; !near && back < 4096; back += 64) near = memory_find(address - back);
      std::string place = near ? ", " + std::to_string(address - near->base) +
                                     " bytes into an allocation of " + std::to_string(near->size)
                               : ", in no allocation";
      fault(
          w, i, kIllegalAddress, lane,
          std::string(what) + " of " + std::to_string(size) + " bytes at " + hex(address) + place);
    }
    if (!a->host && !(w.program->launch->peers >> a->device & 1))
      fault(w, i, kIllegalAddress, lane,
            std::string(what) + " of memory of device " + std::to_string(a->device) +
                " by device " + std::to_string(w.program->launch->device) + " without peer access");
    w.allocation_from = a->base, w.allocation_to = a->base + a->size;
    w.shift = memory_host(a->base) - reinterpret_cast<char*>(a->base);
  }
  return reinterpret_cast<char*>(address) + w.shift;
}
char* shared_at(Warp& w, const Ins& i, std::uint64_t address, unsigned size, int lane, bool write,
                bool read) {
  Block& b = *w.block;
  if (address + size > b.shared.size())
    fault(w, i, kIllegalAddress, lane,
          std::string(write ? "shared write" : "shared read") + " of " + std::to_string(size) +
              " bytes at " + std::to_string(address) + " of " + std::to_string(b.shared.size()));
  const std::uint32_t me = w.index + 1, now = b.epoch;
  for (unsigned at = address & ~3u; at < address + size; at += 4) {
    std::uint32_t &wrote = b.writes[at / 4], &did_read = b.reads[at / 4];
    const bool by_other = wrote >> 8 == now && (wrote & 255) != me;
    if (wrote >> 8 == kUnderWay)
      fault(w, i, kLaunchFailed, lane,
            "shared memory at " + std::to_string(at) + " " + (write ? "written" : "read") +
                " while a cp.async of warp " + std::to_string((wrote & 255) - 1) +
                " to it has not been waited for");
    if (read) {
      if (wrote >> 8 < b.first_epoch)
        fault(w, i, kLaunchFailed, lane,
              "shared memory read before it was written, at " + std::to_string(at));
      if (by_other && w.program->check_races)
        fault(w, i, kLaunchFailed, lane,
              "race in shared memory at " + std::to_string(at) + ": read by warp " +
                  std::to_string(me - 1) + ", written by warp " +
                  std::to_string((wrote & 255) - 1) + " since the last barrier");
      did_read = now << 8 | (did_read >> 8 == now && (did_read & 255) != me ? 255 : me);
    }
    if (write) {
      if (w.program->check_races) {
        if (by_other)
          fault(w, i, kLaunchFailed, lane,
                "race in shared memory at " + std::to_string(at) + ": written by warps " +
                    std::to_string(me - 1) + " and " + std::to_string((wrote & 255) - 1) +
                    " without a barrier between");
        if (did_read >> 8 == now && (did_read & 255) != me)
          fault(w, i, kLaunchFailed, lane,
                "race in shared memory at " + std::to_string(at) + ": written by warp " +
                    std::to_string(me - 1) + ", read by another since the last barrier");
      }
      wrote = now << 8 | me;
    }
  }
  return b.shared.data() + address;
}
char* byte_at(Warp& w, const Ins& i, Space space, std::uint64_t address, unsigned size, int lane,
              bool write) {
  if (address & (size - 1))
    fault(w, i, kMisaligned, lane,
          "address " + hex(address) + " is not a multiple of " + std::to_string(size));
  if (space == Space::generic && address >> 56) {
    space = address >> 56 == 1 ? Space::shared : address >> 56 == 2 ? Space::param : Space::local;
    address &= (1ull << 56) - 1;
  }
  switch (space) {
    case Space::shared:
      return shared_at(w, i, address, size, lane, write, !write);
    case Space::param:
      if (address + size > w.program->launch->params.size())
        fault(w, i, kIllegalAddress, lane, "parameter at " + std::to_string(address));
      return const_cast<char*>(w.program->launch->params.data()) + address;
    case Space::local:
      if (address + size > static_cast<unsigned>(w.program->code->local_bytes))
        fault(w, i, kIllegalAddress, lane, "local at " + std::to_string(address));
      return w.local->data() +
             (static_cast<std::size_t>(w.index) * 32 + lane) * w.program->code->local_bytes +
             address;
    default:
      return global_at(w, i, address, size, lane, write ? "write" : "read");
  }
}
template <typename Memory, typename Reg>
void gather(Warp& w, int d, const std::uint64_t* a, std::int64_t shift, int offset) {
  put(w, R<Reg>(w, d), [&](int l) {
    Memory v;
    std::memcpy(&v, reinterpret_cast<const char*>(a[l]) + shift + offset, sizeof v);
    return static_cast<Reg>(v);
  });
}
void do_ld(Warp& w, const Ins& i) {
  const int* s = &w.program->code->lists[i.list];
  const unsigned each = size_of(i.type), size = each * i.vector;
  if (i.space == Space::param && i.a < 0) {  // the same for all lanes
    const char* from = byte_at(w, i, Space::param, i.imm, size, 0, false);
    for (int k = 0; k < i.vector; ++k) {
      if (s[k] < 0) continue;
      std::int64_t v = 0;
      std::memcpy(&v, from + k * each, each);
      if (i.type == Type::s8) v = static_cast<std::int8_t>(v);
      if (i.type == Type::s16) v = static_cast<std::int16_t>(v);
      if (i.width == 8)
        put(w, R<std::int64_t>(w, s[k]), [&](int) { return v; });
      else if (i.width == 4)
        put(w, R<std::int32_t>(w, s[k]), [&](int) { return static_cast<std::int32_t>(v); });
      else
        put(w, R<std::int16_t>(w, s[k]), [&](int) { return static_cast<std::int16_t>(v); });
    }
    return;
  }
  alignas(64) std::uint64_t a[32];
  addresses(w, i, i.a, i.width2, a);
  if (i.space == Space::global && i.type != Type::s8 && i.type != Type::s16 &&
      (each >= 4 || i.width <= 4)) {
    // All lanes in the allocation that was touched last, and aligned?
    std::uint64_t least = ~0ull, most = 0, any = 0;
    if (w.full && w.live == ~0u) {
      LANES least = std::min(least, a[l]), most = std::max(most, a[l]), any |= a[l];
    } else {
      const std::int32_t* m = w.m;
      std::uint64_t fallback = 0;
      for (int l = 0; l < 32; ++l)
        if (m[l]) fallback = a[l];
      LANES a[l] = m[l] ? a[l] : fallback;
      LANES least = std::min(least, a[l]), most = std::max(most, a[l]), any |= a[l];
    }
    if (!(any & (size - 1)) && least >= w.allocation_from && most + size <= w.allocation_to) {
      for (int k = 0; k < i.vector; ++k) {
        if (s[k] < 0) continue;
        if (each == 4 && i.width == 8)
          gather<std::uint32_t, std::uint64_t>(w, s[k], a, w.shift, 4 * k);
        else if (each == 4)
          gather<std::uint32_t, std::uint32_t>(w, s[k], a, w.shift, 4 * k);
        else if (each == 8)
          gather<std::uint64_t, std::uint64_t>(w, s[k], a, w.shift, 8 * k);
        else if (each == 2)
          i.width == 2 ? gather<std::uint16_t, std::uint16_t>(w, s[k], a, w.shift, 2 * k)
                       : gather<std::uint16_t, std::uint32_t>(w, s[k], a, w.shift, 2 * k);
        else
          i.width == 2 ? gather<std::uint8_t, std::uint16_t>(w, s[k], a, w.shift, k)
                       : gather<std::uint8_t, std::uint32_t>(w, s[k], a, w.shift, k);
      }
      return;
    }
  }
  for (int l = 0; l < 32; ++l) {
    if (!(w.bits >> l & 1)) continue;
    const char* from = byte_at(w, i, i.space, a[l], size, l, false);
    for (int k = 0; k < i.vector; ++k) {
      if (s[k] < 0) continue;
      std::int64_t v = 0;
      std::memcpy(&v, from + k * each, each);
      if (i.type == Type::s8) v = static_cast<std::int8_t>(v);
      if (i.type == Type::s16) v = static_cast<std::int16_t>(v);
      std::memcpy(w.regs + s[k] + l * i.width, &v, i.width);
    }
  }
}
void do_st(Warp& w, const Ins& i) {
  const int* s = &w.program->code->lists[i.list];
  const unsigned each = size_of(i.type), size = each * i.vector;
  alignas(64) std::uint64_t a[32];
  addresses(w, i, i.a, i.width2, a);
  if (i.space == Space::global) {
    std::uint64_t least = ~0ull, most = 0, any = 0;
    const std::uint64_t other = a[std::countr_zero(w.bits)];
    const std::int32_t* m = w.m;
    std::uint64_t b[32];
    LANES b[l] = m[l] ? a[l] : other;
    LANES least = std::min(least, b[l]), most = std::max(most, b[l]), any |= b[l];
    if (!(any & (size - 1)) && least >= w.allocation_from && most + size <= w.allocation_to) {
      for (std::uint32_t rest = w.bits; rest; rest &= rest - 1) {
        const int l = std::countr_zero(rest);
        char* to = reinterpret_cast<char*>(a[l]) + w.shift;
        if (each == 4)
          for (int k = 0; k < i.vector; ++k) std::memcpy(to + 4 * k, w.regs + s[k] + 4 * l, 4);
        else
          for (int k = 0; k < i.vector; ++k)
            std::memcpy(to + k * each, w.regs + s[k] + l * i.width, each);
      }
      return;
    }
  }
  for (int l = 0; l < 32; ++l) {
    if (!(w.bits >> l & 1)) continue;
    char* to = byte_at(w, i, i.space, a[l], size, l, true);
    for (int k = 0; k < i.vector; ++k)
      std::memcpy(to + k * each, w.regs + s[k] + l * i.width, each);
  }
}
void do_cp_async(Warp& w, const Ins& i) {
  std::uint64_t to[32];
  addresses(w, i, i.a, i.width2, to);
  const std::uint64_t* from = R<std::uint64_t>(w, i.b);
  Copy& copy = w.copies.emplace_back();
  copy.bits = w.bits, copy.size = i.vector, copy.group = w.committed[std::countr_zero(w.bits)];
  for (int l = 0; l < 32; ++l) {
    if (!(w.bits >> l & 1)) continue;
    const unsigned size = i.vector,
                   take = i.c < 0 ? size : std::min(size, R<std::uint32_t>(w, i.c)[l]);
    if (w.committed[l] != copy.group)
      fault(w, i, kLaunchFailed, l,
            "cp.async: lanes of a warp with different groups are not supported");
    byte_at(w, i, Space::shared, to[l], size, l, true);
    for (unsigned at = static_cast<unsigned>(to[l]); at < to[l] + size; at += 4)
      w.block->writes[at / 4] = kUnderWay << 8 | (w.index + 1);
    copy.to[l] = static_cast<std::uint32_t>(to[l]);
    std::memset(copy.data[l], 0, 16);
    if (from[l] & (size - 1)) fault(w, i, kMisaligned, l, "cp.async from " + hex(from[l]));
    if (take) std::memcpy(copy.data[l], global_at(w, i, from[l], take, l, "cp.async"), take);
  }
}
void do_cp_commit(Warp& w, const Ins&) {
  for (int l = 0; l < 32; ++l) w.committed[l] += w.bits >> l & 1;
}
void do_cp_wait(Warp& w, const Ins& i) {
  if (i.combine) do_cp_commit(w, i);
  const std::uint32_t committed = w.committed[std::countr_zero(w.bits)];
  Block& b = *w.block;
  std::size_t kept = 0;
  for (std::size_t k = 0; k < w.copies.size(); ++k) {
    Copy& c = w.copies[k];
    if (static_cast<std::int64_t>(c.group) >= static_cast<std::int64_t>(committed) - i.imm ||
        (c.bits & ~w.bits)) {
      if (kept != k) w.copies[kept] = c;
      ++kept;
      continue;
    }
    for (int l = 0; l < 32; ++l) {
      if (!(c.bits >> l & 1)) continue;
      std::memcpy(b.shared.data() + c.to[l], c.data[l], c.size);
      for (unsigned at = c.to[l]; at < c.to[l] + c.size; at += 4)
        b.writes[at / 4] = b.epoch << 8 | (w.index + 1);
    }
  }
  w.copies.resize(kept);
}
// Shared memory, words of four bytes: the checks of shared_at() in a row, which is redone for the
// message.
template <int kWords>
void do_ld_shared(Warp& w, const Ins& i) {
  Block& b = *w.block;
  alignas(64) std::uint32_t a[32];
  const std::uint32_t imm = static_cast<std::uint32_t>(i.imm);
  if (i.a < 0) {
    LANES a[l] = imm;
  } else if (i.width2 == 4) {
    const std::uint32_t* r = R<std::uint32_t>(w, i.a);
    LANES a[l] = r[l] + imm;
  } else {
    const std::uint64_t* r = R<std::uint64_t>(w, i.a);
    LANES a[l] = static_cast<std::uint32_t>(r[l]) + imm;
  }
  if (!w.full || w.live != ~0u) {
    const std::uint32_t other = a[std::countr_zero(w.bits)];
    const std::int32_t* m = w.m;
    LANES a[l] = m[l] ? a[l] : other;
  }
  std::uint32_t most = 0, any = 0;
  for (int l = 0; l < 32; ++l) most = std::max(most, a[l]), any |= a[l];
  if (most + 4 * kWords > b.shared.size() || any & (4 * kWords - 1)) return do_ld(w, i);
  const std::uint32_t me = w.index + 1, now = b.epoch, first = b.first_epoch;
  const std::uint32_t* writes = b.writes.data();
  std::uint32_t* reads = b.reads.data();
  const bool races = w.program->check_races;
  std::uint32_t bad = 0;
  for (int k = 0; k < kWords; ++k)
    for (int l = 0; l < 32; ++l) {
      const std::uint32_t t = writes[a[l] / 4 + k];
      bad |= (t >> 8 < first) | (t >> 8 > now) | (races & (t >> 8 == now) & ((t & 255) != me));
    }
  if (bad) return do_ld(w, i);
  if (races)
    for (int k = 0; k < kWords; ++k)
      for (int l = 0; l < 32; ++l) {
        std::uint32_t& t = reads[a[l] / 4 + k];
        t = now << 8 | ((t >> 8 == now) & ((t & 255) != me) ? 255 : me);
      }
  const int* s = &w.program->code->lists[i.list];
  const auto* from = reinterpret_cast<const std::uint32_t*>(b.shared.data());
  for (int k = 0; k < kWords; ++k)
    if (s[k] >= 0) put(w, R<std::uint32_t>(w, s[k]), [&](int l) { return from[a[l] / 4 + k]; });
}
// Conversions between integers whose registers are as wide as they are.
template <typename From, typename To>
void do_cvt_int(Warp& w, const Ins& i) {
  To* d = R<To>(w, i.d);
  const From* a = R<From>(w, i.a);
  put(w, d, [&](int l) { return static_cast<To>(a[l]); });
}
template <typename From>
Handler cvt_int_to(int width) {
  switch (width) {
    case 2:
      return do_cvt_int<From, std::uint16_t>;
    case 4:
      return do_cvt_int<From, std::uint32_t>;
    default:
      return do_cvt_int<From, std::uint64_t>;
  }
}
Handler cvt_handler(const Ins& i) {
  if (i.vector == 2) return do_cvt;
  const auto integer = [](Type t) {
    return t != Type::f16 && t != Type::f32 && t != Type::f64 && size_of(t) > 1;
  };
  if (i.sat || i.width != size_of(i.type) || i.width2 != size_of(i.type2)) return do_cvt;
  if (integer(i.type) && integer(i.type2)) {
    switch (i.type2) {
      case Type::s16:
        return cvt_int_to<std::int16_t>(i.width);
      case Type::s32:
        return cvt_int_to<std::int32_t>(i.width);
      case Type::s64:
        return cvt_int_to<std::int64_t>(i.width);
      case Type::u16:
      case Type::b16:
        return cvt_int_to<std::uint16_t>(i.width);
      case Type::u64:
      case Type::b64:
        return cvt_int_to<std::uint64_t>(i.width);
      default:
        return cvt_int_to<std::uint32_t>(i.width);
    }
  }
  if (i.type == Type::f32 && i.type2 == Type::s32 && i.round == Round::rn)
    return do_cvt_int<std::int32_t, float>;
  if (i.type == Type::f32 && i.type2 == Type::u32 && i.round == Round::rn)
    return do_cvt_int<std::uint32_t, float>;
  return do_cvt;
}
std::mutex atom_mutex;
template <typename T>
void do_atom(Warp& w, const Ins& i) {
  std::uint64_t a[32];
  addresses(w, i, i.a, i.width2, a);
  std::lock_guard lock(atom_mutex);
  for (int l = 0; l < 32; ++l) {
    if (!(w.bits >> l & 1)) continue;
    T* at = reinterpret_cast<T*>(byte_at(w, i, i.space, a[l], sizeof(T), l, true));
    const T old = *at, b = R<T>(w, i.b)[l];
    T v = b;
    switch (i.combine) {
      case 0:
        v = old + b;
        break;
      case 1:
        v = std::min(old, b);
        break;
      case 2:
        v = std::max(old, b);
        break;
      case 3:
        v = b;
        break;
      case 4:
        v = old == b ? R<T>(w, i.c)[l] : old;
        break;
      default:
        if constexpr (std::is_integral_v<T>)
          v = i.combine == 5   ? old & b
              : i.combine == 6 ? old | b
              : i.combine == 7 ? old ^ b
              : old >= b       ? 0
                               : old + 1;
    }
    *at = v;
    if (i.d >= 0) R<T>(w, i.d)[l] = old;
  }
}

// --- instructions of a whole warp
void do_shfl(Warp& w, const Ins& i) {
  const int* s = &w.program->code->lists[i.list];
  std::uint32_t a[32];
  std::memcpy(a, R<std::uint32_t>(w, s[2]), sizeof a);
  const std::uint32_t *b = R<std::uint32_t>(w, s[3]), *c = R<std::uint32_t>(w, s[4]);
  for (int l = 0; l < 32; ++l) {
    if (!(w.bits >> l & 1)) continue;
    const int clamp = c[l] & 31, segment = c[l] >> 8 & 31, distance = b[l] & 31;
    const int most = (l & segment) | (clamp & ~segment), least = l & segment;
    int from;
    bool in;
    switch (i.combine) {
      case 0:
        from = l - distance, in = from >= most;
        break;
      case 1:
        from = l + distance, in = from <= most;
        break;
      case 2:
        from = l ^ distance, in = from <= most;
        break;
      default:
        from = least | (distance & ~segment), in = from <= most;
    }
    if (!in) from = l;
    if (!(w.bits >> from & 1))
      fault(w, i, kLaunchFailed, l,
            "shfl.sync from lane " + std::to_string(from) + ", which does not take part");
    R<std::uint32_t>(w, s[0])[l] = a[from];
    if (s[1] >= 0) R<std::int32_t>(w, s[1])[l] = in ? -1 : 0;
  }
}
void do_vote(Warp& w, const Ins& i) {
  const std::int32_t* a = R<std::int32_t>(w, i.a);
  std::uint32_t ballot = 0;
  for (int l = 0; l < 32; ++l)
    if (a[l] && (w.bits >> l & 1)) ballot |= 1u << l;
  if (i.combine == 0)
    put(w, R<std::uint32_t>(w, i.d), [&](int) { return ballot; });
  else
    put(w, R<std::int32_t>(w, i.d),
        [&](int) { return (i.combine == 1 ? ballot != 0 : ballot == w.bits) ? -1 : 0; });
}
void do_ldmatrix(Warp& w, const Ins& i) {
  const int* s = &w.program->code->lists[i.list];
  std::uint64_t a[32];
  addresses(w, i, i.a, i.width2, a);
  for (int k = 0; k < i.vector; ++k) {
    std::uint16_t rows[8][8];
    for (int r = 0; r < 8; ++r)
      std::memcpy(rows[r], byte_at(w, i, Space::shared, a[8 * k + r], 16, 8 * k + r, false), 16);
    std::uint32_t* d = R<std::uint32_t>(w, s[k]);
    for (int l = 0; l < 32; ++l) {
      const int r = l / 4, c = 2 * (l % 4);
      d[l] = i.combine ? rows[c][r] | static_cast<std::uint32_t>(rows[c + 1][r]) << 16
                       : rows[r][c] | static_cast<std::uint32_t>(rows[r][c + 1]) << 16;
    }
  }
}
float tf32(std::uint32_t b) { return std::bit_cast<float>(b & ~0x1fffu); }
float bf16(std::uint32_t b) { return std::bit_cast<float>(b << 16); }
// d[16, 8] = a[16, k] b[k, 8] + c: fragments as in the PTX ISA, "Matrix Fragments for mma.m16n8k8 /
// m16n8k16".
void do_mma(Warp& w, const Ins& i) {
  const int* s = &w.program->code->lists[i.list];
  alignas(64) float a[16][16], b[16][8], c[16][8];
  const int k_count = i.vector;
  for (int l = 0; l < 32; ++l) {
    const int g = l / 4, t = l % 4;
    if (k_count == 8) {
      for (int r = 0; r < 4; ++r)
        a[g + 8 * (r & 1)][t + 4 * (r >> 1)] = tf32(R<std::uint32_t>(w, s[4 + r])[l]);
      for (int r = 0; r < 2; ++r) b[t + 4 * r][g] = tf32(R<std::uint32_t>(w, s[8 + r])[l]);
    } else {
      for (int r = 0; r < 4; ++r) {
        const std::uint32_t v = R<std::uint32_t>(w, s[4 + r])[l];
        for (int h = 0; h < 2; ++h)
          a[g + 8 * (r & 1)][2 * t + h + 8 * (r >> 1)] = bf16(v >> (16 * h) & 0xffff);
      }
      for (int r = 0; r < 2; ++r) {
        const std::uint32_t v = R<std::uint32_t>(w, s[8 + r])[l];
        for (int h = 0; h < 2; ++h) b[2 * t + h + 8 * r][g] = bf16(v >> (16 * h) & 0xffff);
      }
    }
    for (int r = 0; r < 4; ++r) c[g + 8 * (r >> 1)][2 * t + (r & 1)] = R<float>(w, s[10 + r])[l];
  }
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < k_count; ++k)
      for (int n = 0; n < 8; ++n) c[m][n] += a[m][k] * b[k][n];
  for (int l = 0; l < 32; ++l) {
    const int g = l / 4, t = l % 4;
    for (int r = 0; r < 4; ++r) R<float>(w, s[r])[l] = c[g + 8 * (r >> 1)][2 * t + (r & 1)];
  }
}
// wgmma with A in registers: a warp of the group has 16 rows of its own, so warps need not meet. B
// is k-major in shared memory, rows of the swizzle's span, eight of them an atom.
void do_wgmma(Warp& w, const Ins& i) {
  const int* s = &w.program->code->lists[i.list];
  const int n_count = static_cast<int>(i.imm), k_count = i.vector, regs = n_count / 2;
  const std::uint64_t descriptor = R<std::uint64_t>(w, i.a)[0];
  for (int l = 1; l < 32; ++l)
    if (R<std::uint64_t>(w, i.a)[l] != descriptor)
      fault(w, i, kLaunchFailed, l, "wgmma: lanes with different descriptors");
  const bool adds = R<std::int32_t>(w, i.b)[0] != 0;
  const unsigned start = (descriptor & 0x3fff) << 4, lead = (descriptor >> 16 & 0x3fff) << 4,
                 stride = (descriptor >> 32 & 0x3fff) << 4;
  const unsigned mode = static_cast<unsigned>(descriptor >> 62), span = mode == 1   ? 128
                                                                        : mode == 2 ? 64
                                                                        : mode == 3 ? 32
                                                                                    : 16;
  alignas(64) float a[16][16], b[16][256], c[16][256];
  for (int n = 0; n < n_count; ++n)
    for (int piece = 0; piece < 2; ++piece) {  // 32 bytes of k
      unsigned at = start + n / 8 * stride + n % 8 * span + 16 * piece;
      if (mode == 0)
        at = start + n / 8 * stride + n % 8 * 16 + piece * lead;
      else
        at ^= (at >> 7 & (span / 16 - 1)) << 4;
      const char* from = shared_at(w, i, at, 16, 0, false, true);
      if (k_count == 8) {
        for (int k = 0; k < 4; ++k) {
          std::uint32_t v;
          std::memcpy(&v, from + 4 * k, 4);
          b[4 * piece + k][n] = tf32(v);
        }
      } else {
        for (int k = 0; k < 8; ++k) {
          std::uint16_t v;
          std::memcpy(&v, from + 2 * k, 2);
          b[8 * piece + k][n] = bf16(v);
        }
      }
    }
  const int* sa = s + 2 * regs;
  for (int l = 0; l < 32; ++l) {
    const int g = l / 4, t = l % 4;
    for (int r = 0; r < 4; ++r) {
      const std::uint32_t v = R<std::uint32_t>(w, sa[r])[l];
      if (k_count == 8)
        a[g + 8 * (r & 1)][t + 4 * (r >> 1)] = tf32(v);
      else
        for (int h = 0; h < 2; ++h)
          a[g + 8 * (r & 1)][2 * t + h + 8 * (r >> 1)] = bf16(v >> (16 * h) & 0xffff);
    }
    for (int r = 0; r < regs; ++r)
      c[g + 8 * (r >> 1 & 1)][8 * (r / 4) + 2 * t + (r & 1)] = adds ? R<float>(w, s[r])[l] : 0.0f;
  }
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < k_count; ++k)
      for (int n = 0; n < n_count; ++n) c[m][n] += a[m][k] * b[k][n];
  for (int l = 0; l < 32; ++l) {
    const int g = l / 4, t = l % 4;
    for (int r = 0; r < regs; ++r)
      R<float>(w, s[r])[l] = c[g + 8 * (r >> 1 & 1)][8 * (r / 4) + 2 * t + (r & 1)];
  }
}

// --- mbarriers: 64 bits of shared memory, laid out as it suits us
struct Mbar {
  std::uint16_t count, pending;
  std::int32_t bytes : 31;
  std::uint32_t phase : 1;
};
static_assert(sizeof(Mbar) == 8);
Mbar* mbar_at(Warp& w, const Ins& i, std::uint64_t address, int lane) {
  if (address & 7) fault(w, i, kMisaligned, lane, "mbarrier at " + hex(address));
  if (address + 8 > w.block->shared.size())
    fault(w, i, kIllegalAddress, lane, "mbarrier at " + hex(address));
  if (w.block->writes[address / 4] >> 8 < w.block->first_epoch)
    fault(w, i, kLaunchFailed, lane, "mbarrier used before mbarrier.init");
  return reinterpret_cast<Mbar*>(w.block->shared.data() + address);
}
void mbar_settle(Warp& w, const Ins& i, Mbar* b, int lane) {
  if (b->pending == 0 && b->bytes == 0) b->phase ^= 1, b->pending = b->count;
  if (b->bytes < 0 && b->pending == 0)
    fault(w, i, kLaunchFailed, lane, "mbarrier: more bytes arrived than were expected");
  w.block->changed = true;
}
void do_mbar_init(Warp& w, const Ins& i) {
  std::uint64_t a[32];
  addresses(w, i, i.a, i.width2, a);
  for (int l = 0; l < 32; ++l) {
    if (!(w.bits >> l & 1)) continue;
    auto* b = reinterpret_cast<Mbar*>(byte_at(w, i, Space::shared, a[l], 8, l, true));
    const auto count = static_cast<std::uint16_t>(R<std::uint32_t>(w, i.b)[l]);
    *b = {count, count, 0, 0};
  }
}
void do_mbar_arrive(Warp& w, const Ins& i) {
  std::uint64_t a[32];
  addresses(w, i, i.a, i.width2, a);
  for (int l = 0; l < 32; ++l) {
    if (!(w.bits >> l & 1)) continue;
    Mbar* b = mbar_at(w, i, a[l], l);
    if (i.op == Op::mbar_expect) b->bytes += static_cast<std::int32_t>(R<std::uint32_t>(w, i.b)[l]);
    if (b->pending == 0) fault(w, i, kLaunchFailed, l, "mbarrier: more arrivals than it counts");
    --b->pending;
    mbar_settle(w, i, b, l);
  }
}
void do_mbar_wait(Warp& w, const Ins& i) {
  std::uint64_t a[32];
  addresses(w, i, i.a, i.width2, a);
  bool all = true;
  std::int32_t r[32] = {};
  for (int l = 0; l < 32; ++l) {
    if (!(w.bits >> l & 1)) continue;
    const Mbar* b = mbar_at(w, i, a[l], l);
    const bool complete = b->phase != (R<std::uint32_t>(w, i.b)[l] & 1);
    r[l] = complete ? -1 : 0;
    all = all && complete;
  }
  put(w, R<std::int32_t>(w, i.d), [&](int l) { return r[l]; });
  w.yields = !all;
}
void do_bulk(Warp& w, const Ins& i) {
  std::uint64_t to[32];
  addresses(w, i, i.a, i.width2, to);
  for (int l = 0; l < 32; ++l) {
    if (!(w.bits >> l & 1)) continue;
    const unsigned size = R<std::uint32_t>(w, i.e)[l];
    const std::uint64_t from = R<std::uint64_t>(w, i.b)[l];
    if ((size | from | to[l]) & 15)
      fault(w, i, kMisaligned, l, "cp.async.bulk: addresses and size must be multiples of 16");
    std::memcpy(shared_at(w, i, to[l], size, l, true, false),
                global_at(w, i, from, size, l, "cp.async.bulk"), size);
    Mbar* b = mbar_at(w, i, R<std::uint32_t>(w, i.c)[l], l);
    b->bytes -= static_cast<std::int32_t>(size);
    mbar_settle(w, i, b, l);
  }
}
void do_tma(Warp& w, const Ins& i) {
  const int* s = &w.program->code->lists[i.list];
  std::uint64_t to[32];
  addresses(w, i, i.a, i.width2, to);
  for (int l = 0; l < 32; ++l) {
    if (!(w.bits >> l & 1)) continue;
    const std::uint64_t at = R<std::uint64_t>(w, i.b)[l];
    if (at & 63) fault(w, i, kMisaligned, l, "tensor map at " + hex(at));
    TensorMap map;
    for (unsigned k = 0; k < sizeof map; k += 8)
      std::memcpy(reinterpret_cast<char*>(&map) + k,
                  byte_at(w, i, Space::generic, at + k, 8, l, false), 8);
    if (map.magic != TensorMap::kMagic || map.rank != i.vector)
      fault(w, i, kLaunchFailed, l, "not a tensor map of this rank");
    const unsigned span = map.swizzle == 1   ? 32
                          : map.swizzle == 2 ? 64
                          : map.swizzle == 3 ? 128
                                             : 0;
    if (to[l] & (span ? 8 * span - 1 : 127) & 127)
      fault(w, i, kMisaligned, l, "cp.async.bulk.tensor to " + hex(to[l]));
    unsigned count = 1;
    for (unsigned r = 0; r < map.rank; ++r) count *= map.box[r];
    for (unsigned e = 0; e < count; ++e) {
      unsigned rest = e;
      std::uint64_t from = map.address;
      bool inside = true;
      for (unsigned r = 0; r < map.rank; ++r) {
        const std::int64_t index = R<std::int32_t>(w, s[r])[l] +
                                   static_cast<std::int64_t>(rest % map.box[r]) * map.step[r];
        rest /= map.box[r];
        inside = inside && index >= 0 && index < static_cast<std::int64_t>(map.size[r]);
        from += static_cast<std::uint64_t>(index) * (r == 0 ? map.element : map.stride[r - 1]);
      }
      std::uint64_t d = to[l] + static_cast<std::uint64_t>(e) * map.element;
      if (span) d ^= (d >> 7 & (span / 16 - 1)) << 4;
      char* target = shared_at(w, i, d, map.element, l, true, false);
      if (inside)
        std::memcpy(target, global_at(w, i, from, map.element, l, "cp.async.bulk.tensor"),
                    map.element);
      else
        std::memset(target, 0, map.element);
    }
    Mbar* b = mbar_at(w, i, R<std::uint32_t>(w, i.c)[l], l);
    b->bytes -= static_cast<std::int32_t>(count * map.element);
    mbar_settle(w, i, b, l);
  }
}
void do_testp(Warp& w, const Ins& i) {
  const auto test = [&](auto x) {
    return i.combine == 1 ? std::isnan(x) : i.combine == 2 ? std::isinf(x) : std::isfinite(x);
  };
  if (i.type == Type::f64)
    put(w, R<std::int32_t>(w, i.d), [&](int l) { return test(R<double>(w, i.a)[l]) ? -1 : 0; });
  else
    put(w, R<std::int32_t>(w, i.d), [&](int l) { return test(R<float>(w, i.a)[l]) ? -1 : 0; });
}
void do_activemask(Warp& w, const Ins& i) {
  put(w, R<std::uint32_t>(w, i.d), [&](int) { return w.bits; });
}
void do_trap(Warp& w, const Ins& i) {
  fault(w, i, kLaunchFailed, std::countr_zero(w.bits), "trap");
}
void do_nothing(Warp&, const Ins&) {}

// --- which handler
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;
#define INTEGERS(f)   \
  switch (i.type) {   \
    case Type::b16:   \
    case Type::u16:   \
      return f<u16>;  \
    case Type::s16:   \
      return f<s16>;  \
    case Type::b32:   \
    case Type::u32:   \
      return f<u32>;  \
    case Type::s32:   \
      return f<s32>;  \
    case Type::b64:   \
    case Type::u64:   \
      return f<u64>;  \
    case Type::s64:   \
      return f<s64>;  \
    default:          \
      return nullptr; \
  }
#define UNSIGNED(f)          \
  switch (size_of(i.type)) { \
    case 2:                  \
      return f<u16>;         \
    case 8:                  \
      return f<u64>;         \
    default:                 \
      return f<u32>;         \
  }
#define FLOATS(f)                           \
  if (i.type == Type::f32) return f<float>; \
  if (i.type == Type::f64) return f<double>;

template <typename T>
Handler setp_of(Cmp c) {
  switch (c) {
    case Cmp::eq:
      return do_setp<T, Cmp::eq>;
    case Cmp::ne:
      return do_setp<T, Cmp::ne>;
    case Cmp::lt:
      return do_setp<T, Cmp::lt>;
    case Cmp::le:
      return do_setp<T, Cmp::le>;
    case Cmp::gt:
      return do_setp<T, Cmp::gt>;
    case Cmp::ge:
      return do_setp<T, Cmp::ge>;
    case Cmp::equ:
      return do_setp<T, Cmp::equ>;
    case Cmp::neu:
      return do_setp<T, Cmp::neu>;
    case Cmp::ltu:
      return do_setp<T, Cmp::ltu>;
    case Cmp::leu:
      return do_setp<T, Cmp::leu>;
    case Cmp::gtu:
      return do_setp<T, Cmp::gtu>;
    case Cmp::geu:
      return do_setp<T, Cmp::geu>;
    case Cmp::num:
      return do_setp<T, Cmp::num>;
    case Cmp::nan:
      return do_setp<T, Cmp::nan>;
  }
  return nullptr;
}

Handler handler_of(const Ins& i) {
  const bool odd = i.round == Round::rz || i.round == Round::rm || i.round == Round::rp;
  switch (i.op) {
    case Op::mov:
      UNSIGNED(do_mov)
    case Op::add:
      if (odd && i.type == Type::f32) return do_add_rounded;
    FLOATS(do_add) INTEGERS(do_add) case Op::sub:
    FLOATS(do_sub) INTEGERS(do_sub) case Op::mul_lo:
    FLOATS(do_mul) INTEGERS(do_mul) case Op::mul_hi:
      INTEGERS(do_mul_hi)
    case Op::mad_lo:
    FLOATS(do_fma) INTEGERS(do_mad) case Op::mul_wide:
      switch (i.type) {
        case Type::u16:
          return do_mul_wide<u16, u32>;
        case Type::s16:
          return do_mul_wide<s16, s32>;
        case Type::s32:
          return do_mul_wide<s32, s64>;
        default:
          return do_mul_wide<u32, u64>;
      }
    case Op::mad_wide:
      switch (i.type) {
        case Type::u16:
          return do_mad_wide<u16, u32>;
        case Type::s16:
          return do_mad_wide<s16, s32>;
        case Type::s32:
          return do_mad_wide<s32, s64>;
        default:
          return do_mad_wide<u32, u64>;
      }
    case Op::fma:
      if (odd && i.type == Type::f32) return do_fma_rounded;
      FLOATS(do_fma) return nullptr;
    case Op::div:
    FLOATS(do_fdiv) INTEGERS(do_idiv) case Op::rem:
      INTEGERS(do_irem)
    case Op::min:
    FLOATS(do_fmin) INTEGERS(do_imin) case Op::max:
    FLOATS(do_fmax) INTEGERS(do_imax) case Op::neg:
    FLOATS(do_neg) INTEGERS(do_neg) case Op::abs:
    FLOATS(do_fabs) INTEGERS(do_iabs) case Op::not_:
      UNSIGNED(do_not)
    case Op::and_:
      UNSIGNED(do_and)
    case Op::or_:
      UNSIGNED(do_or)
    case Op::xor_:
      UNSIGNED(do_xor)
    case Op::shl:
      UNSIGNED(do_shl)
    case Op::shr:
      INTEGERS(do_shr)
    case Op::bfi:
      UNSIGNED(do_bfi)
    case Op::bfe:
      INTEGERS(do_bfe)
    case Op::selp:
      UNSIGNED(do_selp)
    case Op::setp:
      switch (i.type) {
        case Type::f32:
          return setp_of<float>(i.cmp);
        case Type::f64:
          return setp_of<double>(i.cmp);
        case Type::s16:
          return setp_of<s16>(i.cmp);
        case Type::b16:
        case Type::u16:
          return setp_of<u16>(i.cmp);
        case Type::s32:
          return setp_of<s32>(i.cmp);
        case Type::s64:
          return setp_of<s64>(i.cmp);
        case Type::b64:
        case Type::u64:
          return setp_of<u64>(i.cmp);
        default:
          return setp_of<u32>(i.cmp);
      }
    case Op::cvt:
      return cvt_handler(i);
    case Op::rcp:
      FLOATS(do_rcp) return nullptr;
    case Op::rsqrt:
      FLOATS(do_rsqrt) return nullptr;
    case Op::sqrt:
      FLOATS(do_sqrt) return nullptr;
    case Op::ex2:
      return do_ex2<float>;
    case Op::lg2:
      return do_lg2<float>;
    case Op::sin:
      return do_sin<float>;
    case Op::cos:
      return do_cos<float>;
    case Op::copysign:
      FLOATS(do_copysign) return nullptr;
    case Op::popc:
      UNSIGNED(do_popc)
    case Op::clz:
      UNSIGNED(do_clz)
    case Op::prmt:
      return do_prmt;
    case Op::pack:
      return do_pack;
    case Op::unpack:
      return do_unpack;
    case Op::ld:
      if (i.space == Space::shared && size_of(i.type) == 4 && i.width == 4)
        return i.vector == 1 ? do_ld_shared<1> : i.vector == 2 ? do_ld_shared<2> : do_ld_shared<4>;
      return do_ld;
    case Op::st:
      return do_st;
    case Op::cp_async:
      return do_cp_async;
    case Op::cp_commit:
      return do_cp_commit;
    case Op::cp_wait:
      return do_cp_wait;
    case Op::atom:
      if (i.type == Type::f32) return do_atom<float>;
      if (i.type == Type::f64) return do_atom<double>;
      switch (i.type) {
        case Type::s32:
          return do_atom<s32>;
        case Type::s64:
          return do_atom<s64>;
        case Type::u64:
        case Type::b64:
          return do_atom<u64>;
        default:
          return do_atom<u32>;
      }
    case Op::shfl:
      return do_shfl;
    case Op::vote:
      return do_vote;
    case Op::activemask:
      return do_activemask;
    case Op::testp:
      return do_testp;
    case Op::ldmatrix:
      return do_ldmatrix;
    case Op::mma:
      return do_mma;
    case Op::wgmma:
      return do_wgmma;
    case Op::mbar_init:
      return do_mbar_init;
    case Op::mbar_arrive:
    case Op::mbar_expect:
      return do_mbar_arrive;
    case Op::mbar_wait:
      return do_mbar_wait;
    case Op::bulk:
      return do_bulk;
    case Op::tma:
      return do_tma;
    case Op::trap:
      return do_trap;
    case Op::nothing:
    case Op::fence:
    case Op::wgmma_fence:
    case Op::wgmma_commit:
    case Op::wgmma_wait:
    case Op::setmaxnreg:
    case Op::bra:
    case Op::ret:
    case Op::bar_sync:
    case Op::bar_warp:
      return do_nothing;
      default : return nullptr;
  }
}

// --- a warp
void set_mask(Warp& w, std::uint32_t bits) {
  w.bits = bits;
  w.full = bits == w.live;
  LANES w.mask[l] = bits >> l & 1 ? -1 : 0;
  w.m = w.mask;
}
std::uint32_t bits_of(const std::int32_t* m) {
  std::uint32_t bits = 0;
  LANES bits |= m[l] ? 1u << l : 0u;
  return bits;
}
void merge(Warp& w) {
  std::uint32_t bits = w.bits;
  for (std::size_t k = 0; k < w.others.size();) {
    if (w.others[k].pc == w.pc) {
      bits |= w.others[k].mask;
      w.others[k] = w.others.back();
      w.others.pop_back();
    } else {
      ++k;
    }
  }
  // The group that is furthest behind goes on.
  int next = -1;
  for (std::size_t k = 0; k < w.others.size(); ++k)
    if (!w.others[k].parked && w.others[k].pc < (next < 0 ? w.pc : w.others[next].pc))
      next = static_cast<int>(k);
  if (next >= 0) {
    const Group g = w.others[next];
    w.others[next] = {w.pc, bits, false};
    w.pc = g.pc;
    set_mask(w, g.mask);
    merge(w);
  } else if (bits != w.bits) {
    set_mask(w, bits);
  }
}
// After a group ended or was parked: another, or false where there is none that can run.
bool resume(Warp& w) {
  int next = -1;
  for (int round = 0; round < 2 && next < 0; ++round) {
    for (std::size_t k = 0; k < w.others.size(); ++k)
      if (!w.others[k].parked && (next < 0 || w.others[k].pc < w.others[next].pc))
        next = static_cast<int>(k);
    if (next < 0 && w.exited_some) {
      w.exited_some = false;
      for (Group& g : w.others) g.parked = false;
    }
  }
  if (next < 0) return false;
  const Group g = w.others[next];
  w.others[next] = w.others.back();
  w.others.pop_back();
  w.pc = g.pc;
  set_mask(w, g.mask);
  merge(w);
  return true;
}
// Whether the lanes that a warp-wide instruction needs are here; parks the group if not.
bool gathered(Warp& w, const Ins& i, std::uint32_t need) {
  if ((w.bits & need) == need) return true;
  std::uint32_t bits = w.bits;
  for (std::size_t k = 0; k < w.others.size();) {
    if (w.others[k].pc == w.pc) {
      bits |= w.others[k].mask;
      w.others[k] = w.others.back();
      w.others.pop_back();
    } else {
      ++k;
    }
  }
  set_mask(w, bits);
  if ((bits & need) == need) return true;
  w.others.push_back({w.pc, bits, true});
  const std::uint32_t here = bits;
  if (!resume(w)) {
    w.bits = here;
    fault(w, i, kLaunchFailed, std::countr_zero(here),
          "a warp-wide instruction reached by lanes " + hex(here) + " only; it needs " + hex(need));
  }
  return false;
}

enum class Stop { done, barrier, yield };

Stop run(Warp& w) {
  const Program& p = *w.program;
  const Ins* const ins = p.code->ins.data();
  const Handler* const handlers = p.handlers.data();
  std::uint64_t steps = 0;
  while (true) {
    const Ins* i = &ins[w.pc];
    if (i->leader && !w.others.empty()) {
      merge(w);
      i = &ins[w.pc];
    }
    ++steps;
    if (i->op == Op::bra) {
      if (i->pred < 0) {
        w.pc = static_cast<int>(i->imm);
        continue;
      }
      const std::int32_t* pred = R<std::int32_t>(w, i->pred);
      std::uint32_t taken = bits_of(pred);
      if (i->negated) taken = ~taken;
      taken &= w.bits;
      if (taken == w.bits) {
        w.pc = static_cast<int>(i->imm);
      } else if (taken == 0) {
        ++w.pc;
      } else {
        w.others.push_back({static_cast<int>(i->imm), taken, false});
        set_mask(w, w.bits & ~taken);
        ++w.pc;
      }
      continue;
    }
    bool predicated = false;
    const std::uint32_t bits = w.bits;
    const bool full = w.full;
    if (i->pred >= 0) {
      const std::int32_t* pred = R<std::int32_t>(w, i->pred);
      const std::int32_t flip = i->negated ? -1 : 0;
      LANES w.predicated[l] = w.mask[l] & (pred[l] ^ flip);
      const std::uint32_t active = bits_of(w.predicated);
      if (active == 0) {
        ++w.pc;
        continue;
      }
      if (active != bits) predicated = true, w.bits = active, w.full = false, w.m = w.predicated;
    }
    switch (i->op) {
      case Op::ret: {
        w.live &= ~w.bits;
        w.exited_some = true;
        const std::uint32_t rest = predicated ? bits & ~w.bits : 0;
        if (rest) {
          w.full = full;
          set_mask(w, rest);
          ++w.pc;
          continue;
        }
        if (w.live == 0) {
          w.steps += steps;
          return Stop::done;
        }
        if (!resume(w))
          fault(w, *i, kLaunchFailed, 0,
                "the lanes " + hex(w.live) +
                    " wait at a warp-wide instruction for lanes that have exited");
        continue;
      }
      case Op::bar_sync: {
        if (w.pc == p.dropped) break;
        if (!gathered(w, *i, w.live)) continue;
        w.waiting = static_cast<int>(R<std::uint32_t>(w, i->a)[std::countr_zero(w.bits)]) & 15;
        w.block->barriers[w.waiting].expected =
            i->b < 0 ? 0 : R<std::uint32_t>(w, i->b)[std::countr_zero(w.bits)];
        ++w.pc;
        w.steps += steps;
        return Stop::barrier;
      }
      case Op::bar_warp:
        if (!gathered(w, *i, R<std::uint32_t>(w, i->a)[std::countr_zero(w.bits)] & w.live))
          continue;
        break;
      case Op::shfl:
        if (!gathered(
                w, *i,
                R<std::uint32_t>(w, p.code->lists[i->list + 5])[std::countr_zero(w.bits)] & w.live))
          continue;
        do_shfl(w, *i);
        break;
      case Op::mma:
      case Op::ldmatrix:
      case Op::wgmma:
        if (!gathered(w, *i, ~0u)) continue;
        handlers[w.pc](w, *i);
        break;
      default:
        handlers[w.pc](w, *i);
    }
    if (predicated) w.bits = bits, w.full = full, w.m = w.mask;
    ++w.pc;
    if (w.yields) {  // a phase that is not complete: the other warps first
      w.yields = false;
      w.steps += steps;
      return Stop::yield;
    }
  }
}

// One thread of the CPU: blocks one after another.
struct Worker {
  const Program& program;
  std::vector<Warp> warps;
  std::vector<char> registers, local;
  Block block;
  std::uint64_t steps = 0;

  explicit Worker(const Program& p) : program(p) {
    const Launch& launch = *p.launch;
    const unsigned threads = launch.block[0] * launch.block[1] * launch.block[2],
                   count = (threads + 31) / 32;
    warps.resize(count);
    const std::size_t bytes = (p.code->register_bytes + 63) / 64 * 64;
    registers.resize(bytes * count + 64);
    char* base =
        registers.data() + (64 - reinterpret_cast<std::uintptr_t>(registers.data()) % 64) % 64;
    local.resize(static_cast<std::size_t>(p.code->local_bytes) * 32 * count);
    const std::size_t shared = p.code->shared_bytes + launch.dynamic_shared;
    block.shared.resize(shared);
    block.writes.resize(shared / 4 + 2);
    block.reads.resize(shared / 4 + 2);
    for (unsigned k = 0; k < count; ++k) {
      Warp& w = warps[k];
      w.regs = base + bytes * k;
      w.program = &p;
      w.block = &block;
      w.local = &local;
      w.index = static_cast<int>(k);
      for (const Constant& c : p.code->constants)
        for (int l = 0; l < 32; ++l) std::memcpy(w.regs + c.slot + l * c.size, &c.bits, c.size);
      for (const auto& [slot, name] : p.code->specials)
        for (unsigned l = 0; l < 32; ++l) {
          const unsigned t = 32 * k + l;
          const unsigned* b = launch.block;
          unsigned v = 0;
          if (name == "%tid.x")
            v = t % b[0];
          else if (name == "%tid.y")
            v = t / b[0] % b[1];
          else if (name == "%tid.z")
            v = t / b[0] / b[1];
          else if (name.substr(0, 6) == "%ntid.")
            v = b[name[6] - 'x'];
          else if (name.substr(0, 8) == "%nctaid.")
            v = launch.grid[name[8] - 'x'];
          else if (name == "%laneid")
            v = l;
          else if (name == "%warpid")
            v = k;
          else if (name == "%nwarpid")
            v = count;
          else if (name == "%lanemask_lt")
            v = (1u << l) - 1;
          else if (name == "%lanemask_eq")
            v = 1u << l;
          R<std::uint32_t>(w, slot)[l] = v;
        }
    }
  }

  void run_block(std::uint64_t number) {
    const Launch& launch = *program.launch;
    const unsigned threads = launch.block[0] * launch.block[1] * launch.block[2];
    block.id[0] = number % launch.grid[0], block.id[1] = number / launch.grid[0] % launch.grid[1];
    block.id[2] = static_cast<unsigned>(number / launch.grid[0] / launch.grid[1]);
    block.first_epoch = ++block.epoch;
    for (auto& b : block.barriers) b = {};
    for (Warp& w : warps) {
      const unsigned lanes = std::min(32u, threads - 32 * w.index);
      w.live = lanes == 32 ? ~0u : (1u << lanes) - 1;
      set_mask(w, w.live);
      w.pc = 0;
      w.others.clear();
      w.copies.clear();
      std::fill(w.committed, w.committed + 32, 0);
      w.waiting = -1;
      for (const auto& [slot, name] : program.code->specials)
        if (name.substr(0, 7) == "%ctaid.")
          for (int l = 0; l < 32; ++l) R<std::uint32_t>(w, slot)[l] = block.id[name[7] - 'x'];
    }
    unsigned alive = static_cast<unsigned>(warps.size());
    while (alive > 0) {
      bool progress = false;
      for (Warp& w : warps) {
        if (w.live == 0 || w.waiting >= 0) continue;
        block.changed = false;
        const Stop stop = run(w);
        if (stop != Stop::yield || block.changed) progress = true;
        if (stop == Stop::done)
          --alive;
        else if (stop == Stop::barrier)
          block.barriers[w.waiting].arrived += 32;
      }
      for (int id = 0; id < 16; ++id) {
        auto& b = block.barriers[id];
        if (b.arrived == 0 || b.arrived < (b.expected ? b.expected : 32 * alive)) continue;
        b.arrived = 0;
        progress = true;
        ++block.epoch;
        for (Warp& w : warps)
          if (w.waiting == id) w.waiting = -1;
      }
      if (!progress)
        for (Warp& w : warps)
          if (w.live)
            fault(
                w, program.code->ins[w.pc - 1], kLaunchFailed, 0,
                w.waiting >= 0
                    ? "deadlock: this warp waits at barrier " + std::to_string(w.waiting) +
                          " for warps that wait elsewhere"
                    : "deadlock: this warp waits for an mbarrier's phase that nobody can complete");
    }
  }
};

}  // namespace

long exec_unhandled(const Code& code) {
  long n = 0;
  for (const Ins& i : code.ins) n += !handler_of(i);
  return n;
}

Fault exec_launch(PtxModule& module, Kernel& kernel, const Launch& launch) {
  Program p;
  p.module = &module, p.kernel = &kernel, p.code = kernel.code.get(), p.launch = &launch;
  int barriers = 0, waits = 0;
  for (const Ins& i : p.code->ins) {
    if (i.op == Op::bar_sync && ++barriers == env("VGPU_DROP_BARRIER", 0))
      p.dropped = static_cast<int>(p.handlers.size());
    Handler h = handler_of(i);
    if (i.op == Op::cp_wait && ++waits == env("VGPU_DROP_WAIT", 0)) h = do_nothing;
    if (!h)
      return {kLaunchFailed, "no handler for the instruction at PTX line " +
                                 std::to_string(i.line) + " of " + kernel.name};
    p.handlers.push_back(h);
    if (i.op == Op::bar_sync && i.b >= 0) p.check_races = false;
    if (i.op == Op::bar_warp || i.op == Op::mbar_wait) p.check_races = false;
  }
  const std::uint64_t blocks =
      static_cast<std::uint64_t>(launch.grid[0]) * launch.grid[1] * launch.grid[2];
  const auto start = std::chrono::steady_clock::now();
  std::atomic<std::uint64_t> next{0}, steps{0};
  std::mutex mutex;
  Fault result;
  const auto work = [&] {
    Worker worker(p);
    try {
      for (std::uint64_t b; (b = next++) < blocks;) worker.run_block(b);
    } catch (const Thrown& t) {
      std::lock_guard lock(mutex);
      if (!result.code) result = {t.code, t.text};
      next = blocks;
    }
    for (const Warp& w : worker.warps) steps += w.steps;
  };
  const int count = static_cast<int>(std::min<std::uint64_t>(env("VGPU_THREADS", 1), blocks));
  std::vector<std::thread> pool;
  for (int t = 1; t < count; ++t) pool.emplace_back(work);
  work();
  for (std::thread& t : pool) t.join();
  if (env("VGPU_TIME", 0)) {
    const double s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    fprintf(stderr,
            "vgpu: %-60.60s %8llu blocks %10llu warp instructions %8.3f ms %7.1f M/s, %d virtual "
            "registers in %d bytes\n",
            kernel.name.c_str(), (unsigned long long)blocks, (unsigned long long)steps, 1e3 * s,
            steps / s * 1e-6, p.code->virtual_registers, p.code->register_bytes);
  }
  return result;
}

}  // namespace vgpu
