// Products in lower precision: where oneDNN has them for float32 arrays, and where they pay.
//
// Of float32 arrays, `precision` only allows oneDNN to round operands (its fpmath mode). Whether it does depends on the
// operation and on the shape, and is told by the name of the implementation that it chose: in
// oneDNN 3 those of AMX round ("brgconv:avx512_core_amx", "brg:avx512_core_amx"), every one of
// them, and no other does. So each pass asks for its own shape. A pass that has no such product, or
// that is faster without, is computed as for fp32, by the algorithm that fp32 takes.
#pragma once

#include <cstdint>
#include <string>

#include "ops.h"

namespace convnet {

// How many multiplications of a direct convolution in lower precision take as long as one in
// float32. It rounds its operands anew for every tile, so little of the lead that matrix products
// have is left: with all of them direct, the convolutions of the paper's net took 1.8 times as long
// in bf16 as in fp32 by Winograd's algorithm, which by its own count saves a third (oneDNN 3.2 with
// AMX; the gradients of w, which are in float32 there, have their share in that).
constexpr double kConvLead = 1.25;

// Whether oneDNN may have products of lower precision of arrays of this type here at all: of float32
// with AMX, of bfloat16 with AMX or AVX512-BF16.
bool may_reduce(Precision precision, Storage storage = Storage::kFloat32);

// Whether oneDNN takes bfloat16 arrays here. Where only the tests pretend that it does, they are
// computed in float32.
bool takes_bfloat16();

// Whether an implementation of such a product, by oneDNN's name, rounds the operands.
bool is_reduced(const std::string& implementation, Storage storage = Storage::kFloat32);

// How many multiplications of a direct convolution so take as long as one in float32.
double conv_lead(const ConvShape& shape, Pass pass);

// Whether a matrix product [m, k] x [k, n] is worth the rounding of its operands: of both, or, where
// those of m x k are bfloat16, of the others.
bool reduction_pays(std::int64_t m, std::int64_t n, std::int64_t k,
                    Storage storage = Storage::kFloat32);

// "direct" and kFp32: "direct"; "direct" and kBf16: "direct, bf16".
std::string kernel_name(const std::string& algorithm, Precision precision);

}  // namespace convnet
