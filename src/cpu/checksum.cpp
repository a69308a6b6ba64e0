// What tells whether a block arrived: its number, and the sum of its words (ops.h).
//
// Sums of integers modulo 2^32 are the same in any order. One thread adds them up: the logical
// devices of the host are for tests, and transfers run beside other work.
#include <cstring>
#include <type_traits>

#include "elements.h"
#include "ops.h"

namespace convnet {
namespace {

// The bits of an element as a whole number.
template <class T>
using Word = std::conditional_t<sizeof(T) == 2, std::uint16_t, std::uint32_t>;

template <class Word>
CONVNET_INLINE std::uint32_t row_sum(std::int64_t count, const Word* words) {
  std::uint32_t sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += words[i];
  return sum;
}

template <class T>
std::uint32_t block_sum(const PeerShape& shape, const T* src) {
  const auto* words = reinterpret_cast<const Word<T>*>(src);
  std::uint32_t sum = 0;
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    sum += vectorized<row_sum<Word<T>>>(shape.cols, words + row * shape.src_stride);
  }
  return sum;
}

}  // namespace

std::int64_t peer_checksum_workspace() { return 0; }

template <class T>
void peer_checksum(const PeerShape& shape, const T* src, std::uint32_t* count,
                   std::uint32_t* checksum, Workspace, Stream) {
  count[0] += 1;
  checksum[0] = count[0];
  checksum[1] = block_sum(shape, src);
}

template <class T>
void peer_check(const PeerShape& shape, const T* src, std::uint32_t* count,
                const std::uint32_t* checksum, std::uint32_t code, std::uint32_t* aborted,
                Workspace, Stream) {
  count[0] += 1;
  const bool arrived = checksum[0] == count[0] && checksum[1] == block_sum(shape, src);
  if (!arrived && aborted[0] == 0) aborted[0] = code;
}

void peer_abort(const std::uint32_t* other, int, std::uint32_t* aborted, Stream) {
  if (aborted[0] == 0) aborted[0] = other[0];
}

CONVNET_FOR_BOTH_TYPES(peer_checksum);
CONVNET_FOR_BOTH_TYPES(peer_check);

}  // namespace convnet
