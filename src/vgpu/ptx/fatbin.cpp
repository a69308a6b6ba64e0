// Images as cuModuleLoadData and cudart hand them over -> PTX text.
//
// A __fatBinC wrapper points to a fatbin: a header and entries, each with a 64-byte header: kind
// (PTX or cubin), header size, payload size, compressed size, sm, flags (how it is compressed) and
// the size that the payload has once decompressed.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "../vgpu.h"
#include "module.h"

namespace vgpu {
namespace {

constexpr std::uint32_t kWrapperMagic = 0x466243b1, kFatMagic = 0xba55ed50;
constexpr unsigned kPtx = 1;  // kind of an entry; 2 is a cubin
constexpr std::uint64_t kLz4 = 0x2000, kZstd = 0x8000;

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

void log(const Entry& e) {
  fprintf(
      stderr,
      "vgpu: fatbin entry kind %u sm %u flags %#llx size %llu compressed %u uncompressed %llu\n",
      e.kind, e.sm, static_cast<unsigned long long>(e.flags),
      static_cast<unsigned long long>(e.size), e.compressed,
      static_cast<unsigned long long>(e.uncompressed));
}

// The PTX for the newest architecture up to `capability`, or null.
const Entry* newest_ptx(const FatHeader* fat, unsigned capability) {
  const bool logs = env("VGPU_LOG", 0) > 0;
  const Entry* best = nullptr;
  const char* p = reinterpret_cast<const char*>(fat) + fat->header_size;
  const char* const end = p + fat->size;
  while (p + sizeof(Entry) <= end) {
    const auto* e = reinterpret_cast<const Entry*>(p);
    if (logs) log(*e);
    if (e->kind == kPtx && e->sm <= capability && (!best || e->sm > best->sm)) best = e;
    p += e->header_size + e->size;
  }
  return best;
}

std::string entry_text(const Entry& e, std::string* error) {
  const char* const payload = reinterpret_cast<const char*>(&e) + e.header_size;
  std::string text;
  if (e.flags & kZstd) {
    text.resize(e.uncompressed);
    if (!inflate_zstd(payload, e.compressed, &text)) *error = "cannot decompress zstd";
  } else if (e.flags & kLz4) {
    text.resize(e.uncompressed);
    if (!inflate_lz4(payload, e.compressed, &text)) *error = "cannot decompress LZ4";
  } else {
    text.assign(payload, e.size);
  }
  text.resize(std::strlen(text.c_str()));
  return text;
}

}  // namespace

std::string image_ptx(const void* image, std::string* error) {
  if (static_cast<const Wrapper*>(image)->magic == kWrapperMagic)
    image = static_cast<const Wrapper*>(image)->data;
  const auto* const fat = static_cast<const FatHeader*>(image);
  if (fat->magic != kFatMagic) {
    if (std::memcmp(image, "\177ELF", 4) != 0) return static_cast<const char*>(image);
    *error = "a cubin without PTX";
    return {};
  }
  const unsigned capability = env("VGPU_CC", 90);
  if (const Entry* const e = newest_ptx(fat, capability)) return entry_text(*e, error);
  *error = "no PTX in the fatbin for compute capability " + std::to_string(capability / 10) + "." +
           std::to_string(capability % 10) + " or less";
  return {};
}

}  // namespace vgpu
