// The instruction sets that this implementation uses: its own vector code, and oneDNN.
//
// CONVNET_CPU_ISA = sse2, avx2, avx512 or amx in the environment holds both back, so that a machine
// runs what an older one would; amx is no limit. ONEDNN_MAX_CPU_ISA, where it is set too, decides
// for oneDNN instead.
#pragma once

#include <string>

namespace convnet {

enum class Isa { kBaseline, kAvx2, kAvx512 };

// Of our own vector code (simd.h, vectors.h): the widest that processor and environment allow.
Isa vector_isa();

// Whether oneDNN may use AMX.
bool has_amx();

// Whether oneDNN may use AVX-512's products of bfloat16.
bool has_avx512_bf16();

// "AVX2", "AVX-512 with AMX"; empty where it is not known.
std::string vector_isa_name();
std::string onednn_isa_name();

}  // namespace convnet
