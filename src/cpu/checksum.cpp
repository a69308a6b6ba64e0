// What tells whether a block arrived: its number, and the sum of its words (ops.h).
//
// Sums of integers modulo 2^32 are the same in any order. One thread adds them up: the logical
// devices of the host are for tests, and transfers run beside other work.
#include <cstring>

#include "ops.h"
#include "simd.h"

namespace convnet {
namespace {

CONVNET_INLINE std::uint32_t row_sum(std::int64_t count, const std::uint32_t* words) {
  std::uint32_t sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += words[i];
  return sum;
}

std::uint32_t block_sum(const PeerShape& shape, const float* src) {
  const auto* words = reinterpret_cast<const std::uint32_t*>(src);
  std::uint32_t sum = 0;
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    sum += vectorized<row_sum>(shape.cols, words + row * shape.src_stride);
  }
  return sum;
}

}  // namespace

std::int64_t peer_checksum_workspace() { return 0; }

void peer_checksum(const PeerShape& shape, const float* src, std::uint32_t* count,
                   std::uint32_t* checksum, Workspace, Stream) {
  count[0] += 1;
  checksum[0] = count[0];
  checksum[1] = block_sum(shape, src);
}

void peer_check(const PeerShape& shape, const float* src, std::uint32_t* count,
                const std::uint32_t* checksum, std::uint32_t code, std::uint32_t* aborted,
                Workspace, Stream) {
  count[0] += 1;
  const bool arrived = checksum[0] == count[0] && checksum[1] == block_sum(shape, src);
  if (!arrived && aborted[0] == 0) aborted[0] = code;
}

void peer_abort(const std::uint32_t* other, int, std::uint32_t* aborted, Stream) {
  if (aborted[0] == 0) aborted[0] = other[0];
}

}  // namespace convnet
