// Images as cuModuleLoadData and cudart hand them over -> PTX text.
//
// A __fatBinC wrapper (magic 0x466243b1) points to a fatbin (0xba55ed50): a header and entries,
// each with a 64-byte header: kind (1 PTX, 2 cubin), header size, payload size, compressed size,
// sm, flags (0x2000 LZ4, 0x8000 zstd) and the size that the payload has once decompressed.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

#include "vgpu.h"

namespace vgpu {
namespace {

struct Wrapper {
  std::uint32_t magic, version;
  const char* data;
  const void* more;
};
struct FatHeader {
  std::uint32_t magic;
  std::uint16_t version, header_size;
  std::uint64_t size;
};
struct Entry {
  std::uint16_t kind, version;
  std::uint32_t header_size;
  std::uint64_t size;
  std::uint32_t compressed, unknown1;
  std::uint16_t minor, major;
  std::uint32_t sm, name_offset, name_size;
  std::uint64_t flags, unknown2, uncompressed;
};
static_assert(sizeof(Entry) == 64);

bool inflate_zstd(const char* from, std::size_t size, std::string* to) {
  static void* const lib = dlopen("libzstd.so.1", RTLD_NOW);
  if (!lib) return false;
  using F = std::size_t (*)(void*, std::size_t, const void*, std::size_t);
  static const auto f = reinterpret_cast<F>(dlsym(lib, "ZSTD_decompress"));
  const std::size_t got = f(to->data(), to->size(), from, size);
  if (got > to->size()) return false;
  to->resize(got);
  return true;
}

// LZ4 block format.
bool inflate_lz4(const char* from, std::size_t size, std::string* to) {
  const auto* p = reinterpret_cast<const unsigned char*>(from);
  const auto* const end = p + size;
  std::string out;
  out.reserve(to->size());
  const auto more = [&](unsigned n) {
    if (n == 15) {
      unsigned byte;
      do n += byte = p < end ? *p++ : 0;
      while (byte == 255);
    }
    return n;
  };
  while (p < end) {
    const unsigned token = *p++;
    const unsigned literals = more(token >> 4);
    if (literals > static_cast<std::size_t>(end - p)) return false;
    out.append(reinterpret_cast<const char*>(p), literals);
    p += literals;
    if (p + 2 > end) break;
    const unsigned back = p[0] | p[1] << 8;
    p += 2;
    const unsigned match = more(token & 15) + 4;
    if (back == 0 || back > out.size()) return false;
    for (unsigned i = 0; i < match; ++i) out.push_back(out[out.size() - back]);
  }
  *to = std::move(out);
  return true;
}

}  // namespace

std::string image_ptx(const void* image, std::string* error) {
  const char* at = static_cast<const char*>(image);
  if (static_cast<const Wrapper*>(image)->magic == 0x466243b1u)
    at = static_cast<const Wrapper*>(image)->data;
  const auto* fat = reinterpret_cast<const FatHeader*>(at);
  if (fat->magic != 0xba55ed50u) {
    if (std::memcmp(at, "\177ELF", 4) == 0) {
      *error = "a cubin without PTX";
      return {};
    }
    return at;  // PTX text
  }
  const bool log = env("VGPU_LOG", 0) > 0;
  const Entry* best = nullptr;
  const char* p = at + fat->header_size;
  const char* const end = p + fat->size;
  const unsigned capability = env("VGPU_CC", 90);
  while (p + sizeof(Entry) <= end) {
    const auto* e = reinterpret_cast<const Entry*>(p);
    if (log)
      fprintf(stderr,
              "vgpu: fatbin entry kind %u sm %u flags %#llx size %llu compressed %u uncompressed "
              "%llu\n",
              e->kind, e->sm, (unsigned long long)e->flags, (unsigned long long)e->size,
              e->compressed, (unsigned long long)e->uncompressed);
    if (e->kind == 1 && e->sm <= capability && (!best || e->sm > best->sm)) best = e;
    p += e->header_size + e->size;
  }
  if (!best) {
    *error = "no PTX in the fatbin that this device takes";
    return {};
  }
  const char* payload = reinterpret_cast<const char*>(best) + best->header_size;
  std::string text;
  if (best->flags & 0x8000) {
    text.resize(best->uncompressed);
    if (!inflate_zstd(payload, best->compressed, &text)) *error = "cannot decompress zstd";
  } else if (best->flags & 0x2000) {
    text.resize(best->uncompressed);
    if (!inflate_lz4(payload, best->compressed, &text)) *error = "cannot decompress lz4";
  } else {
    text.assign(payload, best->size);
  }
  text.resize(std::strlen(text.c_str()));
  return text;
}

}  // namespace vgpu
