// A program of named cases. `program CASE` runs one and prints one line:
//   returned HASH, COUNT NaN   what the kernel wrote, as a hash of the bits, or
//   threw MESSAGE              the error of the launch.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

using Bits = std::vector<float>;
using Cases = std::map<std::string, std::function<Bits()>>;

inline std::uint64_t hash(const Bits& values) {
  std::uint64_t h = 1469598103934665603ull;  // FNV-1a over the words
  for (const float value : values) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    h = (h ^ bits) * 1099511628211ull;
  }
  return h;
}

inline void expect(bool right, const char* what) {
  if (!right) throw std::logic_error(std::string("WRONG: ") + what);
}

// A copy of an array in the current device's memory, so that the cases run on a GPU as well.
template <typename T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& values) : count_(values.size()) {
    expect(cudaMalloc(&data_, bytes()) == cudaSuccess, "cudaMalloc");
    expect(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice) == cudaSuccess,
           "cudaMemcpy to the device");
  }
  ~OnDevice() { cudaFree(data_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  T* data() const { return data_; }
  std::vector<T> values() const {
    std::vector<T> host(count_);
    expect(cudaMemcpy(host.data(), data_, bytes(), cudaMemcpyDeviceToHost) == cudaSuccess,
           "cudaMemcpy from the device");
    return host;
  }

 private:
  std::size_t bytes() const { return count_ * sizeof(T); }
  std::size_t count_;
  T* data_ = nullptr;
};

// Small whole numbers, so that sums are exact in any order.
inline Bits whole_numbers(std::size_t count, int seed) {
  Bits values(count);
  std::uint32_t state = 2463534242u + static_cast<std::uint32_t>(seed);
  for (float& value : values) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    value = static_cast<float>(static_cast<int>(state % 17) - 8);
  }
  return values;
}

inline int run_case(const Cases& cases, int argc, char** argv) {
  if (argc != 2 || cases.count(argv[1]) == 0) {
    for (const auto& entry : cases) std::printf("%s\n", entry.first.c_str());
    return 2;
  }
  try {
    const Bits bits = cases.at(argv[1])();
    int nans = 0;
    for (const float value : bits) nans += value != value;
    std::printf("returned %016llx, %d NaN\n", static_cast<unsigned long long>(hash(bits)), nans);
  } catch (const std::exception& exception) {
    std::printf("threw %s\n", exception.what());
  }
  return 0;
}
