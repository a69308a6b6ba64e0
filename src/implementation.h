// What every implementation of the contract (ops.h) says of itself, and how it is told about
// devices, streams, memory and threads.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace convnet {

using Stream = void*;  // a cudaStream_t, or null

// How the products of convolutions and dense layers are formed, of arrays of either type. Sums are
// float32 in all.
enum class Precision {
  kFp32,  // to float32 accuracy, in the fastest way that has it
  kFfma,  // by float32 multiply-adds, one after the other; for comparison with kFp32
  kTf32,  // operands rounded to 11 significant bits
  kBf16,  // operands rounded to 8 significant bits
};

// kGranted: of the host, and a call reaches only what it was granted (grant_memory).
enum class Memory { kHost, kDevice, kGranted };

// Called when the module has been loaded. Throws std::invalid_argument where a variable of the
// environment has a value that means nothing.
void start_backend();
const char* backend_name();  // "cpu", "cuda", "vgpu"
Memory backend_memory();     // where array pointers must live
int device_count();          // 0 where there is no usable device; never throws

// Which device operations run on, and which holds some memory. Hosts have one device, 0.
constexpr int kAnyDevice = -1;  // memory that all devices reach: pinned or managed
constexpr int kNoDevice = -2;   // memory that none can: of the host
int current_device();
void set_current_device(int device);
int memory_device(const void* data);
// Lets `stream` begin what comes next only when `other` has done all it was given; host
// implementations do nothing.
void wait_for_stream(const char* op, Stream stream, Stream other);

// The memory that operations of this thread may reach until revoke_memory(), which waits for them
// and throws std::runtime_error with what they did wrong. Of use where memory is kGranted.
struct MemoryRange {
  void* data;
  std::size_t bytes;
};
void grant_memory(const std::vector<MemoryRange>& ranges);
void revoke_memory(const char* op);

// One line naming the device, for example "AMD EPYC, 2 threads, AVX-512".
std::string device_description(int device);
// What `precision` comes to on the current device, for example "3xTF32 on tensor cores" or "as fp32: no
// bfloat16 unit".
std::string precision_description(Precision precision);
// For tests of what another processor would do: as if the library that forms products named this
// implementation ("brgconv:avx512_core_amx") for each that is asked for in lower precision, until
// it is called with "". What is computed stays right, to float32 or better than was asked for.
// Implementations that ask no library throw std::invalid_argument.
void pretend_implementation(const std::string& name);
// What the implementation was built with: "oneDNN 3.2.0, OpenMP" or "CUDA 13.0; sm_80 sm_90 PTX
// 90".
std::string build_description();
int thread_count();
void set_thread_count(int threads);  // host implementations; others throw std::invalid_argument

}  // namespace convnet
