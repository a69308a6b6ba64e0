// Which function decodes which instructions. Each reads the modifiers and the operands of its
// family from the statement, and fails for a form that the interpreter would not run as the PTX
// manual says.
#pragma once
#include <string_view>

#include "vgpu/ptx/statement.h"

namespace vgpu::ptx {

struct Family {
  void (*decode)(Statement&);
  Op op;
};
// Null for an instruction that is not known.
const Family* family_of(std::string_view mnemonic);

// arithmetic.cpp
void decode_add(Statement& s);
void decode_mul(Statement& s);
void decode_fma(Statement& s);
void decode_div(Statement& s);
void decode_rem(Statement& s);
void decode_min_max(Statement& s);
void decode_neg_abs(Statement& s);
void decode_root(Statement& s);
void decode_approximate(Statement& s);
void decode_copysign(Statement& s);
void decode_testp(Statement& s);
// bits.cpp
void decode_logic(Statement& s);
void decode_shift(Statement& s);
void decode_bit_field(Statement& s);
void decode_count(Statement& s);
void decode_funnel(Statement& s);
void decode_lop3(Statement& s);
void decode_prmt(Statement& s);
void decode_setp(Statement& s);
void decode_selp(Statement& s);
void decode_cvt(Statement& s);
// memory.cpp
void decode_mov(Statement& s);
void decode_cvta(Statement& s);
void decode_ld(Statement& s);
void decode_st(Statement& s);
void decode_atom(Statement& s);
void decode_fence(Statement& s);
void decode_prefetch(Statement& s);
// control.cpp
void decode_bra(Statement& s);
void decode_ret(Statement& s);
void decode_bar(Statement& s);
void decode_shfl(Statement& s);
void decode_vote(Statement& s);
void decode_setmaxnreg(Statement& s);
void decode_mapa(Statement& s);
void decode_griddepcontrol(Statement& s);
// tensor.cpp
void decode_mma(Statement& s);
void decode_ldmatrix(Statement& s);
void decode_wgmma(Statement& s);
// async.cpp
void decode_cp(Statement& s);
void decode_mbarrier(Statement& s);
void decode_st_async(Statement& s);

}  // namespace vgpu::ptx
