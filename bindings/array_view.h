// Turns a Python array into a checked pointer and shape, without copying.
//
// Host backends take NumPy arrays; device backends take any object with
// __cuda_array_interface__ (CuPy, Numba, PyTorch). Whatever is wrong with an array (kind of memory,
// dtype, byte order, contiguity, alignment, read-only) is a ValueError that names the operation and
// the argument.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "ops.h"

namespace convnet {

namespace py = pybind11;

struct ArrayView {
  void* data = nullptr;
  Dims dims;
  std::int64_t bytes = 0;
};

enum class Access { kRead, kWrite };

// NumPy's name of a type, as in array.dtype.str.
template <class T>
const char* type_string();
template <>
inline const char* type_string<float>() {
  return "<f4";
}
template <>
inline const char* type_string<std::int32_t>() {
  return "<i4";
}
template <>
inline const char* type_string<std::uint8_t>() {
  return "|u1";
}

inline std::string type_name(const std::string& type) {
  if (type == "<f4") return "float32";
  if (type == "<i4") return "int32";
  if (type == "|u1") return "uint8";
  if (type == "<f8") return "float64";
  if (type == "<f2") return "float16";
  if (type == "<i8") return "int64";
  return "dtype " + type;
}

inline std::string python_type(py::handle object) {
  return py::str(py::type::handle_of(object).attr("__name__"));
}

inline void check_type(const char* op, const char* arg, const std::string& expected,
                       const std::string& got) {
  if (expected != got) {
    fail(op, arg, type_name(expected), type_name(got), "nothing is converted silently");
  }
}

inline ArrayView host_view(const char* op, const char* arg, py::handle object,
                           const std::string& type, std::int64_t item_size, Access access) {
  if (!py::isinstance<py::array>(object)) {
    const bool device = py::hasattr(object, "__cuda_array_interface__");
    fail(op, arg, "a NumPy array",
         device ? "a GPU array (" + python_type(object) + ")" : python_type(object),
         device ? std::string("the ") + backend_name() + " backend works in host memory" : "");
  }
  const auto array = py::reinterpret_borrow<py::array>(object);
  check_type(op, arg, type, py::str(array.dtype().attr("str")));
  ArrayView view;
  view.dims.assign(array.shape(), array.shape() + array.ndim());
  if ((array.flags() & py::array::c_style) == 0) {
    fail(op, arg, "a C-contiguous array", "shape " + to_string(view.dims) + " with other strides",
         "use numpy.ascontiguousarray");
  }
  view.data = const_cast<void*>(array.data());
  view.bytes = static_cast<std::int64_t>(array.nbytes());
  if (reinterpret_cast<std::uintptr_t>(view.data) % static_cast<std::uintptr_t>(item_size) != 0) {
    fail(op, arg, "an array aligned to its element size", "an unaligned one");
  }
  if (access == Access::kWrite && !array.writeable()) {
    fail(op, arg, "a writable array", "a read-only one");
  }
  return view;
}

inline ArrayView device_view(const char* op, const char* arg, py::handle object,
                             const std::string& type, std::int64_t item_size, Access access) {
  if (!py::hasattr(object, "__cuda_array_interface__")) {
    fail(op, arg, "a GPU array (CuPy, or anything with __cuda_array_interface__)",
         python_type(object), "cupy.asarray copies a NumPy array to the GPU");
  }
  const auto interface = py::dict(object.attr("__cuda_array_interface__"));
  check_type(op, arg, type, py::str(interface["typestr"]));
  ArrayView view;
  for (const auto dim : py::tuple(interface["shape"])) {
    view.dims.push_back(py::cast<std::int64_t>(dim));
  }
  if (interface.contains("strides") && !interface["strides"].is_none()) {
    const auto strides = py::tuple(interface["strides"]);
    std::int64_t expected = item_size;
    for (std::size_t i = view.dims.size(); i-- > 0; expected *= view.dims[i]) {
      if (view.dims[i] != 1 && py::cast<std::int64_t>(strides[i]) != expected) {
        fail(op, arg, "a C-contiguous array",
             "shape " + to_string(view.dims) + " with other strides", "use cupy.ascontiguousarray");
      }
    }
  }
  const auto data = py::tuple(interface["data"]);
  view.data = reinterpret_cast<void*>(py::cast<std::uintptr_t>(data[0]));
  view.bytes = count(view.dims) * item_size;
  if (access == Access::kWrite && py::cast<bool>(data[1])) {
    fail(op, arg, "a writable array", "a read-only one");
  }
  if (reinterpret_cast<std::uintptr_t>(view.data) % static_cast<std::uintptr_t>(item_size) != 0) {
    fail(op, arg, "an array aligned to its element size", "an unaligned one");
  }
  return view;
}

// Refuses memory that kernels on the current device cannot touch.
inline void check_device(const char* op, const char* arg, const void* data) {
  const int device = memory_device(data), current = current_device();
  if (device == current) return;
  fail(op, arg, "memory of the current device, " + std::to_string(current),
       device < 0 ? "memory of no device" : "memory of device " + std::to_string(device),
       device < 0 ? "" : "choose the device before the call (cupy.cuda.Device)");
}

// The arrays of one call. Remembers what was read and written, so that an output that overlaps
// another argument is refused: kernels would read what they have already overwritten.
class Arguments {
 public:
  // `peers`: arrays may lie on other devices than the current one.
  explicit Arguments(const char* op, bool peers = false) : op_(op), peers_(peers) {}

  template <class T>
  const T* in(const char* arg, py::handle object, Dims* dims = nullptr) {
    return static_cast<const T*>(add<T>(arg, object, Access::kRead, dims, false));
  }

  // An input that is known to have these sizes; None gives a null pointer where `optional`.
  template <class T>
  const T* in(const char* arg, py::handle object, const Dims& expected, bool optional = false,
              const char* hint = "") {
    if (optional && object.is_none()) return nullptr;
    Dims dims;
    const T* data = in<T>(arg, object, &dims);
    check_dims(op_, arg, dims, expected, hint);
    return data;
  }

  // `in_place`: the output may be exactly one of the inputs.
  template <class T>
  T* out(const char* arg, py::handle object, const Dims& expected, bool in_place = false,
         bool optional = false) {
    if (optional && object.is_none()) return nullptr;
    Dims dims;
    T* data = static_cast<T*>(add<T>(arg, object, Access::kWrite, &dims, in_place));
    check_dims(op_, arg, dims, expected);
    return data;
  }

  Workspace workspace(py::handle object, std::int64_t bytes) {
    if (bytes == 0) return Workspace{nullptr, 0};
    Dims dims;
    void* data = add<std::uint8_t>("workspace", object, Access::kWrite, &dims, false);
    if (count(dims) < bytes) {
      fail(op_, "workspace", "at least " + std::to_string(bytes) + " bytes",
           std::to_string(count(dims)));
    }
    return Workspace{data, count(dims)};
  }

 private:
  struct Seen {
    std::string arg;
    std::uintptr_t begin, end;
    Access access;
  };

  template <class T>
  void* add(const char* arg, py::handle object, Access access, Dims* dims, bool in_place) {
    const auto size = static_cast<std::int64_t>(sizeof(T));
    const ArrayView view = backend_memory() == Memory::kHost
                               ? host_view(op_, arg, object, type_string<T>(), size, access)
                               : device_view(op_, arg, object, type_string<T>(), size, access);
    if (!peers_ && view.bytes > 0) check_device(op_, arg, view.data);
    const auto begin = reinterpret_cast<std::uintptr_t>(view.data);
    const Seen now{arg, begin, begin + static_cast<std::uintptr_t>(view.bytes), access};
    for (const Seen& other : seen_) {
      if (access == Access::kRead && other.access == Access::kRead) continue;
      if (now.end <= other.begin || other.end <= now.begin) continue;
      const bool same = now.begin == other.begin && now.end == other.end;
      if (same && in_place && other.access == Access::kRead) continue;
      fail(op_, arg, "memory apart from " + other.arg,
           same ? "the same array" : "overlapping arrays");
    }
    seen_.push_back(now);
    if (dims != nullptr) *dims = view.dims;
    return view.data;
  }

  const char* op_;
  bool peers_;
  std::vector<Seen> seen_;
};

}  // namespace convnet
