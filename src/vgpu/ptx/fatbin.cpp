// Images as cuModuleLoadData and cudart hand them over -> PTX text.
//
// A __fatBinC wrapper points to a fatbin: a header and entries, each with a 64-byte header: kind
// (PTX or cubin), header size, payload size, compressed size, sm, flags (how it is compressed) and
// the size that the payload has once decompressed.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "vgpu/ptx/module.h"
#include "vgpu/vgpu.h"

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

// The PTX entries, the newest architecture first.
std::vector<const Entry*> ptx_entries(const FatHeader* fat) {
  const bool logs = env("VGPU_LOG", 0) > 0;
  std::vector<const Entry*> found;
  const char* p = reinterpret_cast<const char*>(fat) + fat->header_size;
  const char* const end = p + fat->size;
  while (p + sizeof(Entry) <= end) {
    const auto* e = reinterpret_cast<const Entry*>(p);
    if (logs) log(*e);
    if (e->kind == kPtx) found.push_back(e);
    p += e->header_size + e->size;
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const Entry* a, const Entry* b) { return a->sm > b->sm; });
  return found;
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

// "sm_90a" of the text's .target; empty without one.
std::string_view target_of(std::string_view text) {
  const std::size_t at = text.find(".target");
  if (at == text.npos) return {};
  const std::size_t from = text.find("sm_", at);
  if (from == text.npos) return {};
  return text.substr(from, text.find_first_of(" ,;\t\r\n", from) - from);
}

// Whether a device takes code for the target: sm_90 from 9.0 on, sm_100f on 10.x, sm_90a on 9.0.
bool runs_on(std::string_view target, int capability) {
  if (target.empty()) return true;
  const int sm = std::atoi(target.data() + 3);
  if (target.back() == 'a') return sm == capability;
  if (target.back() == 'f') return sm / 10 == capability / 10 && sm <= capability;
  return sm <= capability;
}

}  // namespace

std::string image_ptx(const void* image, std::string* error) {
  if (static_cast<const Wrapper*>(image)->magic == kWrapperMagic)
    image = static_cast<const Wrapper*>(image)->data;
  const int capability = env("VGPU_CC", 90);
  const auto* const fat = static_cast<const FatHeader*>(image);
  std::string targets;
  if (fat->magic == kFatMagic) {
    for (const Entry* const e : ptx_entries(fat)) {
      std::string text = entry_text(*e, error);
      const std::string_view target = target_of(text);
      if (!error->empty() || runs_on(target, capability)) return text;
      targets += std::string(targets.empty() ? "" : ", ") + std::string(target);
    }
  } else if (std::memcmp(image, "\177ELF", 4) != 0) {
    std::string text = static_cast<const char*>(image);
    targets = target_of(text);
    if (runs_on(targets, capability)) return text;
  }
  *error = (targets.empty() ? "no PTX, only machine code" : "PTX for " + targets + " only") +
           ", and the device has compute capability " + std::to_string(capability / 10) + "." +
           std::to_string(capability % 10);
  return {};
}

}  // namespace vgpu
