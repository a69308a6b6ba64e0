#include "families.h"

#include <unordered_map>

namespace vgpu::ptx {

const Family* family_of(std::string_view mnemonic) {
  static const std::unordered_map<std::string_view, Family> families = {
      {"add", {decode_add, Op::add}},
      {"sub", {decode_add, Op::sub}},
      {"mul", {decode_mul, Op::mul_lo}},
      {"mad", {decode_mul, Op::mad_lo}},
      {"fma", {decode_fma, Op::fma}},
      {"div", {decode_div, Op::div}},
      {"rem", {decode_rem, Op::rem}},
      {"min", {decode_min_max, Op::min}},
      {"max", {decode_min_max, Op::max}},
      {"neg", {decode_neg_abs, Op::neg}},
      {"abs", {decode_neg_abs, Op::abs}},
      {"rcp", {decode_root, Op::rcp}},
      {"sqrt", {decode_root, Op::sqrt}},
      {"rsqrt", {decode_root, Op::rsqrt}},
      {"ex2", {decode_approximate, Op::ex2}},
      {"lg2", {decode_approximate, Op::lg2}},
      {"sin", {decode_approximate, Op::sin}},
      {"cos", {decode_approximate, Op::cos}},
      {"copysign", {decode_copysign, Op::copysign}},
      {"testp", {decode_testp, Op::testp}},
      {"and", {decode_logic, Op::and_}},
      {"or", {decode_logic, Op::or_}},
      {"xor", {decode_logic, Op::xor_}},
      {"not", {decode_logic, Op::not_}},
      {"shl", {decode_shift, Op::shl}},
      {"shr", {decode_shift, Op::shr}},
      {"bfi", {decode_bit_field, Op::bfi}},
      {"bfe", {decode_bit_field, Op::bfe}},
      {"popc", {decode_count, Op::popc}},
      {"clz", {decode_count, Op::clz}},
      {"prmt", {decode_prmt, Op::prmt}},
      {"setp", {decode_setp, Op::setp}},
      {"selp", {decode_selp, Op::selp}},
      {"cvt", {decode_cvt, Op::cvt}},
      {"mov", {decode_mov, Op::mov}},
      {"cvta", {decode_cvta, Op::mov}},
      {"ld", {decode_ld, Op::ld}},
      {"ldu", {decode_ld, Op::ld}},
      {"st", {decode_st, Op::st}},
      {"atom", {decode_atom, Op::atom}},
      {"red", {decode_atom, Op::atom}},
      {"membar", {decode_fence, Op::fence}},
      {"fence", {decode_fence, Op::fence}},
      {"bra", {decode_bra, Op::bra}},
      {"ret", {decode_ret, Op::ret}},
      {"exit", {decode_ret, Op::ret}},
      {"trap", {decode_ret, Op::trap}},
      {"bar", {decode_bar, Op::bar_sync}},
      {"barrier", {decode_bar, Op::bar_sync}},
      {"shfl", {decode_shfl, Op::shfl}},
      {"vote", {decode_vote, Op::vote}},
      {"activemask", {decode_vote, Op::activemask}},
      {"setmaxnreg", {decode_setmaxnreg, Op::setmaxnreg}},
      {"mma", {decode_mma, Op::mma}},
      {"ldmatrix", {decode_ldmatrix, Op::ldmatrix}},
      {"wgmma", {decode_wgmma, Op::wgmma}},
      {"cp", {decode_cp, Op::cp_async}},
      {"mbarrier", {decode_mbarrier, Op::mbar_arrive}},
  };
  const auto it = families.find(mnemonic);
  return it == families.end() ? nullptr : &it->second;
}

}  // namespace vgpu::ptx
