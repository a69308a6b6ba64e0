// GPU arrays of any library, as they describe themselves to Python.
//
// There are two protocols. __cuda_array_interface__ is a dictionary; from version 3 on it names the
// stream that the contents are being written on (CuPy, Numba). DLPack is a C struct in a capsule,
// whose producer (PyTorch, JAX) is told on which stream the contents will be read. The first is
// used where it says the stream, else the second where there is one, so that no kernel of ours
// begins before its inputs are there. See
//   https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
//   https://dmlc.github.io/dlpack/latest/c_api.html
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "ops.h"
#include "values.h"

namespace convnet {

namespace py = pybind11;

// What an array says of itself, on a GPU or on the host; nothing of it is checked yet.
struct ArrayInfo {
  void* data = nullptr;
  std::string type;  // as in numpy.dtype.str, such as "<f4"
  Dims dims;
  bool contiguous = true;
  bool read_only = false;
  bool has_stream = false;
  Stream stream = nullptr;  // the one its contents are written on, where has_stream
  py::object owner;         // keeps `data` alive
};

// The structs of DLPack, versions 0.x and 1.x.
namespace dlpack {

struct Tensor {
  void* data;
  std::int32_t device_type, device_id;
  std::int32_t rank;
  std::uint8_t type_code, type_bits;
  std::uint16_t type_lanes;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: contiguous
  std::uint64_t byte_offset;
};

struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};

struct ManagedVersioned {
  std::uint32_t major, minor;
  void* context;
  void (*deleter)(ManagedVersioned*);
  std::uint64_t flags;  // bit 0: read-only
  Tensor tensor;
};

constexpr std::uint8_t kBfloat = 4;  // a type code
constexpr std::int32_t kCuda = 2, kCudaHost = 3, kCudaManaged = 13;

}  // namespace dlpack

inline bool is_gpu_array(py::handle object) {
  if (PyType_Check(object.ptr()) != 0) return false;  // a class of arrays, not one
  if (py::hasattr(object, "__cuda_array_interface__")) return true;
  if (!py::hasattr(object, "__dlpack__") || !py::hasattr(object, "__dlpack_device__")) return false;
  const auto device = py::tuple(object.attr("__dlpack_device__")());
  const auto type = py::cast<int>(py::int_(device[0]));  // an enumeration, in some libraries
  return type == dlpack::kCuda || type == dlpack::kCudaHost || type == dlpack::kCudaManaged;
}

// Whether an array with these strides, in units of `unit`, is C-contiguous.
template <class Strides>
bool is_contiguous(const Dims& dims, const Strides& stride, Int unit) {
  Int expected = unit;
  for (std::size_t i = dims.size(); i-- > 0; expected *= dims[i]) {
    if (dims[i] != 1 && stride(i) != expected) return false;
  }
  return true;
}

// Whether a type is bfloat16, of which NumPy knows no more than that it is two bytes: ml_dtypes has
// it.
inline bool is_bfloat16(const std::string& type, py::handle dtype) {
  return type == "<V2" && std::string(py::str(dtype)) == "bfloat16";
}

inline ArrayInfo from_interface(py::handle object, const py::dict& interface) {
  ArrayInfo array;
  array.type = py::str(interface["typestr"]);
  const Int item_size = std::stoi(array.type.substr(2));
  if (is_bfloat16(array.type, py::getattr(object, "dtype", py::none()))) array.type = "bfloat16";
  for (const auto dim : py::tuple(interface["shape"])) {
    array.dims.push_back(py::cast<Int>(dim));
  }
  if (interface.contains("strides") && !interface["strides"].is_none()) {
    const auto strides = py::tuple(interface["strides"]);  // in bytes
    const auto stride = [&](std::size_t i) { return py::cast<Int>(strides[i]); };
    array.contiguous = is_contiguous(array.dims, stride, item_size);
  }
  const auto data = py::tuple(interface["data"]);
  array.data = reinterpret_cast<void*>(py::cast<std::uintptr_t>(data[0]));
  array.read_only = py::cast<bool>(data[1]);
  if (interface.contains("stream") && !interface["stream"].is_none()) {
    array.has_stream = true;
    const auto stream = py::cast<std::uintptr_t>(interface["stream"]);
    array.stream = stream == 1 ? nullptr : reinterpret_cast<Stream>(stream);  // 1: the default one
  }
  return array;
}

inline ArrayInfo from_dlpack(const char* op, const char* arg, py::handle object, Stream stream) {
  // DLPack calls the default stream 1, as 0 would be ambiguous.
  const auto number = stream == nullptr ? 1 : reinterpret_cast<std::uintptr_t>(stream);
  py::object capsule;
  try {
    capsule = object.attr("__dlpack__")(py::arg("stream") = number,
                                        py::arg("max_version") = py::make_tuple(1, 0));
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;  // producers of 0.x know no max_version
    capsule = object.attr("__dlpack__")(py::arg("stream") = number);
  }
  ArrayInfo array;
  const dlpack::Tensor* tensor = nullptr;
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned") != 0) {
    const auto* managed = static_cast<const dlpack::ManagedVersioned*>(
        PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (managed->major != 1) {
      fail(op, arg, "a DLPack tensor of version 1", "version " + std::to_string(managed->major));
    }
    tensor = &managed->tensor;
    array.read_only = (managed->flags & 1) != 0;
  } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor") != 0) {
    tensor = &static_cast<const dlpack::Managed*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"))
                  ->tensor;
  } else {
    fail(op, arg, "a DLPack capsule from __dlpack__", std::string(py::str(capsule)));
  }
  array.owner = capsule;  // not renamed as used: it frees the tensor when it goes
  const char kinds[] = {'i', 'u', 'f'};
  const char kind = tensor->type_code < 3 && tensor->type_lanes == 1 ? kinds[tensor->type_code]
                    : tensor->type_code == 6                         ? 'b'
                                                                     : '?';
  const int bytes = tensor->type_bits / 8;
  array.type = (bytes == 1 ? "|" : "<") + std::string(1, kind) + std::to_string(bytes);
  if (tensor->type_code == dlpack::kBfloat && bytes == 2 && tensor->type_lanes == 1) {
    array.type = "bfloat16";
  }
  array.dims.assign(tensor->shape, tensor->shape + tensor->rank);
  const auto stride = [&](std::size_t i) { return tensor->strides[i]; };
  array.contiguous = tensor->strides == nullptr || is_contiguous(array.dims, stride, 1);
  array.data = static_cast<char*>(tensor->data) + tensor->byte_offset;
  return array;
}

// `stream` is the one the array will be used on.
inline ArrayInfo gpu_array(const char* op, const char* arg, py::handle object, Stream stream) {
  if (py::hasattr(object, "__cuda_array_interface__")) {
    const auto interface = py::dict(object.attr("__cuda_array_interface__"));
    const bool says_stream = py::cast<int>(interface["version"]) >= 3;
    if (says_stream || !py::hasattr(object, "__dlpack__")) {
      return from_interface(object, interface);
    }
  }
  return from_dlpack(op, arg, object, stream);
}

}  // namespace convnet
