// How the core says that something went wrong: a CUresult and a sentence. The runtime's cudaError_t
// has the same numbers.
#pragma once
#include <cuda.h>

#include <string>
#include <utility>

namespace vgpu {

struct Failure {
  CUresult code;
  std::string text;  // for the log; empty where the code says it all
};

[[noreturn]] inline void fail(CUresult code, std::string text = {}) {
  throw Failure{code, std::move(text)};
}

inline void require(bool holds, CUresult code, const char* text = "") {
  if (!holds) fail(code, text);
}

}  // namespace vgpu
