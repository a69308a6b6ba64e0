// Turns a Python array into a checked pointer and shape, without copying.
//
// Host backends take NumPy arrays; device backends take the GPU arrays of any library
// (gpu_array.h). Whatever is wrong with an array (kind of memory, dtype, byte order, contiguity,
// alignment, read-only) is a ValueError that names the operation and the argument.
#pragma once

#include <pybind11/numpy.h>

#include "gpu_array.h"
#include "values.h"

namespace convnet {

// What is known of the numbers of an array: NumPy's name of their type, as in array.dtype.str, and
// their size.
struct Element {
  const char* name;
  const char* type;
  Int size;
};
template <class T>
constexpr Element element();
template <>
constexpr Element element<float>() {
  return {"float32", "<f4", 4};
}
template <>
constexpr Element element<Bfloat16>() {
  return {"bfloat16", "bfloat16", 2};
}
template <>
constexpr Element element<std::int32_t>() {
  return {"int32", "<i4", 4};
}
template <>
constexpr Element element<std::uint32_t>() {
  return {"uint32", "<u4", 4};
}
template <>
constexpr Element element<std::uint8_t>() {
  return {"uint8", "|u1", 1};
}
template <>
constexpr Element element<StepState>() {
  return element<std::uint32_t>();  // in words
}

// Of activations and their gradients, in one call all of the same type.
struct Real {};
template <>
constexpr Element element<Real>() {
  return {"float32 or bfloat16", "", 4};
}
inline Element element_stored(Storage storage) {
  return storage == Storage::kBfloat16 ? element<Bfloat16>() : element<float>();
}

inline std::string type_name(const std::string& type) {
  for (const Element& known :
       {element<float>(), element<Bfloat16>(), element<std::int32_t>(), element<std::uint32_t>(),
        element<std::uint8_t>(), Element{"float64", "<f8", 8}, Element{"float16", "<f2", 2},
        Element{"int64", "<i8", 8}}) {
    if (type == known.type) return known.name;
  }
  return "dtype " + type;
}

inline ArrayInfo host_array(const char* op, const char* arg, py::handle object) {
  if (!py::isinstance<py::array>(object)) {
    const bool device = py::hasattr(object, "__cuda_array_interface__");
    fail(op, arg, "a NumPy array",
         device ? "a GPU array (" + python_type(object) + ")" : python_type(object),
         device ? std::string("the ") + backend_name() + " backend works in host memory" : "");
  }
  const auto array = py::reinterpret_borrow<py::array>(object);
  const auto type = array.dtype();
  ArrayInfo info;
  const char order = type.byteorder() == '=' ? '<' : type.byteorder();
  info.type = std::string(1, order) + type.kind() + std::to_string(type.itemsize());
  if (is_bfloat16(info.type, type)) info.type = element<Bfloat16>().type;
  info.dims.assign(array.shape(), array.shape() + array.ndim());
  info.contiguous = (array.flags() & py::array::c_style) != 0;
  info.read_only = !array.writeable();
  info.data = const_cast<void*>(array.data());
  return info;
}

// Refuses an array that an operation could not read, or write, as it lies in memory.
inline void check_array(const char* op, const char* arg, const ArrayInfo& array,
                        const Element& expected, bool written) {
  if (array.type != expected.type) {
    fail(op, arg, expected.name, type_name(array.type), "nothing is converted silently");
  }
  if (!array.contiguous) {
    const bool host = backend_memory() != Memory::kDevice;
    fail(op, arg, "a C-contiguous array", "shape " + to_string(array.dims) + " with other strides",
         std::string("use ") + (host ? "numpy" : "cupy") + ".ascontiguousarray");
  }
  if (reinterpret_cast<std::uintptr_t>(array.data) % static_cast<std::uintptr_t>(expected.size) !=
      0) {
    fail(op, arg, "an array aligned to its element size", "an unaligned one");
  }
  if (written && array.read_only) fail(op, arg, "a writable array", "a read-only one");
}

}  // namespace convnet
