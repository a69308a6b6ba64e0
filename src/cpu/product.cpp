#include "product.h"

#include "parallel.h"

namespace convnet {
namespace {

using dnnl::memory;

// Multiplications of a piece: enough that cutting costs little. More pieces than kMostPieces would
// only cost, on any number of threads that shares them evenly.
constexpr double kWorkOfPiece = 4e6;
constexpr std::int64_t kMostPieces = 16;
constexpr std::int64_t kRowStep = 16, kColumnStep = 48;  // multiples of any kernel's tiles

// Sums of this length oneDNN's AVX-512 kernel may divide among threads, of a transposed A.
constexpr memory::dim kLongSum = 2048;

bool contains(const std::string& text, const char* word) {
  return text.find(word) != std::string::npos;
}

bool is_transposed(const memory::desc& a) { return a.get_strides().back() != 1; }

// Whether oneDNN's matmul forms every sum on many threads as on one. "brg:avx512_core" does, but
// for those long sums. "gemm:jit", which is what there is for float32 below AVX-512, divides sums
// among threads and chooses its kernel and its blocks by their number.
bool divides_by_shape(const std::string& implementation, const memory::desc& a) {
  return contains(implementation, "brg") && !(is_transposed(a) && a.get_dims().back() >= kLongSum);
}

std::int64_t piece_of(std::int64_t length, std::int64_t step, double work) {
  const auto wanted = static_cast<std::int64_t>(work / kWorkOfPiece);
  const std::int64_t pieces = std::clamp<std::int64_t>(wanted, 1, kMostPieces);
  return ceil_div(ceil_div(length, pieces), step) * step;
}

// Of a matrix, along its longer side. Where the shorter one is long, gemm:jit packs its operands,
// which makes it three times as fast, but not for narrow pieces.
std::int64_t piece_of_side(std::int64_t length, std::int64_t other, std::int64_t step,
                           double work) {
  constexpr std::int64_t kPackedFrom = 256, kNarrowestPacked = 1024;
  const std::int64_t piece = piece_of(length, step, work);
  return other < kPackedFrom ? piece : std::max(piece, kNarrowestPacked);
}

memory::desc piece_of(const Operand& operand, std::int64_t length) {
  if (operand.cut == Operand::kWhole || operand.desc.is_zero()) return operand.desc;
  memory::dims dims = operand.desc.get_dims(), strides = operand.desc.get_strides();
  dims[operand.cut] = length;
  // Of a single row this means nothing; but oneDNN takes a row for one that lies apart, and has
  // only its reference for an inner product that writes such.
  if (dims.size() == 2 && dims[0] == 1) strides[0] = dims[1];
  return memory::desc(dims, operand.desc.get_data_type(), strides);
}

}  // namespace

Product Product::matmul(const memory::desc& a, const memory::desc& b, const memory::desc& bias,
                        const memory::desc& c, const dnnl::primitive_attr& attr) {
  Product product;
  product.parts_ = {make_part(Kind::kMatmul, {a, b, bias, c}, attr)};
  if (divides_by_shape(product.implementation(), a)) return product;
  const memory::dims size = c.get_dims();
  double work = static_cast<double>(a.get_dims().back());
  for (const memory::dim each : size) work *= static_cast<double>(each);
  const int whole = Operand::kWhole;
  if (size.size() == 3) {
    product.cut(Kind::kMatmul, {{{a, 0}, {b, 0}, {bias, whole}, {c, 0}}},
                piece_of(size[0], 1, work), attr);
  } else if (size[0] > size[1]) {
    product.cut(Kind::kMatmul, {{{a, 0}, {b, whole}, {bias, whole}, {c, 0}}},
                piece_of_side(size[0], size[1], kRowStep, work), attr);
  } else {
    product.cut(Kind::kMatmul, {{{a, whole}, {b, 1}, {bias, 1}, {c, 1}}},
                piece_of_side(size[1], size[0], kColumnStep, work), attr);
  }
  return product;
}

Product Product::inner_product(const memory::desc& a, const memory::desc& w,
                               const memory::desc& bias, const memory::desc& c,
                               const dnnl::primitive_attr& attr) {
  const memory::dims size = c.get_dims();
  const double work = 1.0 * size[0] * size[1] * a.get_dims()[1];
  Product product;
  product.name_ = "inner product";
  product.cut(Kind::kInnerProduct, {{{a, Operand::kWhole}, {w, 0}, {bias, 0}, {c, 1}}},
              piece_of(size[1], kColumnStep, work), attr);
  return product;
}

Product::Part Product::make_part(Kind kind, const std::array<memory::desc, 4>& descs,
                                 const dnnl::primitive_attr& attr) {
  const auto& [a, b, bias, c] = descs;
  Part part{{}, descs, {}, {}};
  const auto take = [&](const auto& description) {
    part.scratchpad = description.scratchpad_desc();
    part.implementation = description.impl_info_str();
    return description;
  };
  if (kind == Kind::kMatmul) {
    part.primitive =
        dnnl::matmul(take(dnnl::matmul::primitive_desc(cpu_engine(), a, b, bias, c, attr)));
  } else {
    part.primitive = dnnl::inner_product_forward(take(dnnl::inner_product_forward::primitive_desc(
        cpu_engine(), dnnl::prop_kind::forward_training, a, b, bias, c, attr)));
  }
  return part;
}

void Product::cut(Kind kind, const std::array<Operand, 4>& operands, std::int64_t piece,
                  const dnnl::primitive_attr& attr) {
  const Operand& c = operands[3];
  const std::int64_t length = c.desc.get_dims()[c.cut];
  const OneThread alone;
  is_cut_ = true;
  pieces_ = ceil_div(length, piece);
  parts_.clear();
  for (const std::int64_t size : {std::min(piece, length), length - (pieces_ - 1) * piece}) {
    std::array<memory::desc, 4> descs;
    for (std::size_t i = 0; i < 4; ++i) descs[i] = piece_of(operands[i], size);
    parts_.push_back(make_part(kind, descs, attr));
  }
  for (std::size_t i = 0; i < 4; ++i) {
    const Operand& each = operands[i];
    if (each.cut == Operand::kWhole || each.desc.is_zero()) continue;
    const auto size = static_cast<std::int64_t>(memory::data_type_size(each.desc.get_data_type()));
    steps_[i] = piece * each.desc.get_strides()[each.cut] * size;
  }
}

std::int64_t Product::workspace() const {
  std::int64_t bytes = 0;
  for (const Part& part : parts_) {
    bytes = std::max(bytes, Scratch::padded(part.scratchpad.get_size()));
  }
  return is_cut_ ? std::min<std::int64_t>(pieces_, thread_count()) * bytes : bytes;
}

void Product::run_part(const Part& part, const std::array<const char*, 4>& arrays,
                       void* scratchpad) const {
  constexpr int kNames[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST};
  std::unordered_map<int, memory> args{
      {DNNL_ARG_SCRATCHPAD, memory_at(part.scratchpad, scratchpad)}};
  for (std::size_t i = 0; i < 4; ++i) {
    if (arrays[i] != nullptr) args.emplace(kNames[i], memory_at(part.descs[i], arrays[i]));
  }
  part.primitive.execute(cpu_stream(), args);
  cpu_stream().wait();
}

void Product::run(const void* a, const void* b, const float* bias, void* c,
                  Scratch& scratch) const {
  const auto at = [](const void* array) { return static_cast<const char*>(array); };
  const std::array<const char*, 4> arrays = {at(a), at(b), at(bias), at(c)};
  std::size_t bytes = 0;
  for (const Part& part : parts_) bytes = std::max(bytes, part.scratchpad.get_size());
  if (!is_cut_) return run_part(parts_[0], arrays, scratch.take(bytes));
  std::vector<void*> scratchpads;  // one for each thread
  for (std::int64_t i = 0; i < std::min<std::int64_t>(pieces_, thread_count()); ++i) {
    scratchpads.push_back(scratch.take(bytes));
  }
  parallel_single_threaded(pieces_, [&](std::int64_t piece) {
    std::array<const char*, 4> moved = arrays;
    for (std::size_t i = 0; i < 4; ++i) {
      if (moved[i] != nullptr) moved[i] += piece * steps_[i];
    }
    run_part(parts_[piece + 1 == pieces_ ? 1 : 0], moved, scratchpads[omp_get_thread_num()]);
  });
}

}  // namespace convnet
