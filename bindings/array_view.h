// Turns a Python array into a checked pointer and shape, without copying.
//
// Host backends take NumPy arrays; device backends take the GPU arrays of any library
// (gpu_array.h). Whatever is wrong with an array (kind of memory, dtype, byte order, contiguity,
// alignment, read-only) is a ValueError that names the operation and the argument.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "gpu_array.h"
#include "ops.h"
#include "recording.h"

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
inline const char* type_string<std::uint32_t>() {
  return "<u4";
}
template <>
inline const char* type_string<std::uint8_t>() {
  return "|u1";
}

inline std::string type_name(const std::string& type) {
  if (type == "<f4") return "float32";
  if (type == "<i4") return "int32";
  if (type == "<u4") return "uint32";
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

inline ArrayView gpu_view(const char* op, const char* arg, const GpuArray& array,
                          const std::string& type, std::int64_t item_size, Access access) {
  check_type(op, arg, type, array.type);
  if (!array.contiguous) {
    fail(op, arg, "a C-contiguous array", "shape " + to_string(array.dims) + " with other strides",
         "use cupy.ascontiguousarray");
  }
  if (access == Access::kWrite && array.read_only) {
    fail(op, arg, "a writable array", "a read-only one");
  }
  if (reinterpret_cast<std::uintptr_t>(array.data) % static_cast<std::uintptr_t>(item_size) != 0) {
    fail(op, arg, "an array aligned to its element size", "an unaligned one");
  }
  return ArrayView{array.data, array.dims, count(array.dims) * item_size};
}

constexpr auto kStateWords = static_cast<std::int64_t>(sizeof(StepState) / sizeof(std::uint32_t));

// The arrays of one call. Remembers what was read and written, so that an output that overlaps
// another argument is refused: kernels would read what they have already overwritten. The device
// that holds the first array is the current one while this object lives; arrays on other devices
// are refused, except by operations between peers.
class Arguments {
 public:
  Arguments(const char* op, std::uintptr_t stream, bool peers = false)
      : op_(op), stream_(reinterpret_cast<Stream>(stream)), peers_(peers) {
    if (Recording* recording = Recording::active()) recording->expect(op);
  }
  ~Arguments() {
    if (device_ >= 0) set_current_device(device_before_);
  }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  Stream stream() const { return stream_; }

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

  // The step's state, a uint32 array of its words; None gives a null pointer.
  const StepState* state(py::handle object) {
    return reinterpret_cast<const StepState*>(
        in<std::uint32_t>("state", object, Dims{kStateWords}, true));
  }
  // The same for operations that also write it.
  StepState* updated_state(py::handle object) {
    return reinterpret_cast<StepState*>(
        out<std::uint32_t>("state", object, Dims{kStateWords}, false, true));
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
                               : device_view(arg, object, type_string<T>(), size, access);
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
    if (Recording* recording = Recording::active()) recording->keep(object);
    if (dims != nullptr) *dims = view.dims;
    return view.data;
  }

  ArrayView device_view(const char* arg, py::handle object, const std::string& type,
                        std::int64_t item_size, Access access) {
    if (!is_gpu_array(object)) {
      fail(op_, arg, "a GPU array (CuPy, PyTorch, JAX and others)", python_type(object),
           "cupy.asarray copies a NumPy array to the GPU");
    }
    GpuArray array = gpu_array(op_, arg, object, item_size, stream_);
    const ArrayView view = gpu_view(op_, arg, array, type, item_size, access);
    const bool moved = view.bytes > 0 && choose_device(arg, memory_device(view.data));
    if (moved && array.has_stream) {  // CuPy names the stream of the device that is current
      array = gpu_array(op_, arg, object, item_size, stream_);
    }
    if (array.has_stream && array.stream != stream_) wait_for_stream(op_, stream_, array.stream);
    owners_.push_back(std::move(array.owner));
    return view;
  }

  // Returns whether another device is the current one now.
  bool choose_device(const char* arg, int device) {
    if (device == kAnyDevice) return false;
    if (device == kNoDevice) fail(op_, arg, "memory of a GPU", "memory of no GPU");
    if (device_ < 0) {
      device_before_ = current_device();
      device_ = device;
      set_current_device(device);
      return device != device_before_;
    }
    if (device != device_ && !peers_) {
      fail(op_, arg, "memory of device " + std::to_string(device_) + ", like the arrays before it",
           "memory of device " + std::to_string(device));
    }
    return false;
  }

  const char* op_;
  Stream stream_;
  bool peers_;
  int device_ = -1, device_before_ = 0;
  std::vector<py::object> owners_;
  std::vector<Seen> seen_;
};

}  // namespace convnet
