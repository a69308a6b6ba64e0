// One call of an operation: its arrays, checked against each other, and what is done with them.
//
// The same code reads the arguments of an operation in two ways. Inferring (Call::Mode::kInfer)
// looks at shapes only, so that it takes symbolic tensors too, and finds the outputs that have yet
// to be made and the bytes of scratch memory. Running checks the memory, and runs the operation
// with the GIL released.
#pragma once

#include <tuple>
#include <vector>

#include "array.h"
#include "recording.h"

namespace convnet {

enum class Role {
  kIn,      // read
  kOut,     // written, all of it
  kUpdate,  // read and written
  kNote,    // read, and written where something went wrong: the state of the step
};

// An array argument. Null and without dims where it was left out.
struct Tensor {
  std::string name;
  int place;  // among the arguments
  Element element;
  void* data = nullptr;
  Dims dims = {};
  bool left_out = false;
  bool to_make = false;  // an output that does not exist yet
  bool real = false;     // of the type that the call's activations have
};

// The same array from an element on.
template <class A>
A shifted(A array, Int elements) {
  if (array.data) array.data = static_cast<char*>(array.data) + elements * array.element.size;
  return array;
}

// An operation for either type of activations.
template <class Float32, class Half>
struct ByStorage {
  Float32* float32;
  Half* bfloat16;  // null where the backend has none
};
#define BY_STORAGE(function)                                           \
  ByStorage<decltype(function<float>), decltype(function<Bfloat16>)> { \
    &function<float>, &function<Bfloat16>                              \
  }

template <class T, Role role, bool optional = false>
struct Array : Tensor {
  operator T*() const { return static_cast<T*>(data); }
  T* operator+(Int elements) const { return data ? static_cast<T*>(data) + elements : nullptr; }
};
template <Role role, bool optional>
struct Array<const Real, role, optional> : Tensor {
  operator const float*() const { return static_cast<const float*>(data); }
  operator const Bfloat16*() const { return static_cast<const Bfloat16*>(data); }
  Array operator+(Int elements) const { return shifted(*this, elements); }
};
template <Role role, bool optional>
struct Array<Real, role, optional> : Tensor {
  operator float*() const { return static_cast<float*>(data); }
  operator Bfloat16*() const { return static_cast<Bfloat16*>(data); }
  Array operator+(Int elements) const { return shifted(*this, elements); }
};
template <class T>
using In = Array<const T, Role::kIn>;
template <class T>
using MaybeIn = Array<const T, Role::kIn, true>;
template <class T>
using Out = Array<T, Role::kOut>;
template <class T>
using MaybeOut = Array<T, Role::kOut, true>;
template <class T>
using Update = Array<T, Role::kUpdate>;
using State = Array<const StepState, Role::kIn, true>;
using NotedState = Array<StepState, Role::kNote, true>;

constexpr auto kStateWords = static_cast<Int>(sizeof(StepState) / sizeof(std::uint32_t));

// Runs an operation, which may reach nothing but `memory` where the backend checks that.
template <class F>
void run_on(const std::vector<MemoryRange>& memory, const char* op, F run) {
  grant_memory(memory);
  try {
    run();
  } catch (...) {
    revoke_memory(op);
    throw;
  }
  revoke_memory(op);
}

// Remembers what was read and written, so that an output that overlaps another argument is refused:
// kernels would read what they have already overwritten. The device that holds the first array is
// the current one while this object lives; arrays on other devices are refused, except by
// operations between peers.
class Call {
 public:
  enum class Mode { kInfer, kRun };
  struct Output {
    int place;
    Dims dims;
    const char* type;
  };

  Call(const char* name, Mode mode, bool peers) : op(name), peers_(peers), mode_(mode) {}
  ~Call() {
    if (device_ >= 0) set_current_device(device_before_);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  const char* const op;

  void on(std::uintptr_t stream) { stream_ = reinterpret_cast<Stream>(stream); }

  // Reads an array argument; `same_as`: an input whose memory an output may be.
  void read(Tensor& tensor, py::handle object, Role role, bool optional, bool in_place) {
    if (optional && object.is_none()) {
      tensor.left_out = true;
    } else if (mode_ == Mode::kInfer) {
      read_shape(tensor, object, role, optional);
    } else {
      const ArrayInfo array = checked_array(tensor, object, role != Role::kIn);
      tensor.dims = array.dims;
      tensor.data = array.data;
      check_apart(tensor, role != Role::kIn, in_place);
      if (Recording* recording = Recording::active()) recording->keep(object);
    }
  }

  // The shape that an array has to have, or will have.
  void expect(const Tensor& tensor, const Dims& dims, const char* hint = "") {
    if (tensor.left_out) return;
    if (tensor.to_make) {
      const Element made = tensor.real ? element_stored(storage_) : tensor.element;
      outputs_.push_back({tensor.place, dims, made.name});
    }
    if (!tensor.to_make || !tensor.dims.empty()) {
      check_dims(op, tensor.name.c_str(), tensor.dims, dims, hint);
    }
  }

  Workspace workspace(py::handle object, Int bytes) {
    if (mode_ == Mode::kInfer) scratch_ = bytes;
    if (mode_ == Mode::kInfer || bytes == 0) return {nullptr, 0};
    Tensor tensor{"workspace", -1, element<std::uint8_t>()};
    read(tensor, object, Role::kOut, false, false);
    if (count(tensor.dims) < bytes) {
      fail(op, "workspace", "at least " + std::to_string(bytes) + " bytes",
           std::to_string(count(tensor.dims)));
    }
    return {tensor.data, count(tensor.dims)};
  }

  // The type of the call's activations, as its arrays say, or as is asked for where they do not.
  Storage storage() const { return storage_; }
  void store(Storage storage) {
    if (first_real_.empty()) storage_ = storage;
    if (storage_ == storage) return;
    fail(op, first_real_.c_str(), element_stored(storage).name, element_stored(storage_).name);
  }

  // Runs the operation for the type of the call's activations.
  template <class Float32, class Half, class... A>
  void run(const ByStorage<Float32, Half>& functions, const A&... arguments) {
    if (storage_ == Storage::kFloat32) return run(functions.float32, arguments...);
    run(functions.bfloat16, arguments...);
  }

  // Runs an operation of the contract, and notes it where there is a recording. The stream is
  // added.
  template <class... P, class... A>
  void run(void (*function)(P...), const A&... arguments) {
    if (mode_ == Mode::kInfer) return;
    const std::tuple<std::decay_t<P>...> values{arguments..., stream_};
    const auto call = [function, values, name = op, memory = memory()] {
      run_on(memory, name, [&] { std::apply(function, values); });
    };
    {
      GilRelease release;
      call();
    }
    if (Recording* recording = Recording::active()) recording->note(op, call);
  }

  // All arrays of the call, for backends that let it reach nothing else.
  std::vector<MemoryRange> memory() const {
    std::vector<MemoryRange> ranges;
    if (backend_memory() != Memory::kGranted) return ranges;
    for (const Seen& seen : seen_) {
      ranges.push_back({reinterpret_cast<void*>(seen.begin), seen.end - seen.begin});
    }
    return ranges;
  }

  bool runs() const { return mode_ == Mode::kRun; }
  const std::vector<Output>& outputs() const { return outputs_; }
  Int scratch() const { return scratch_; }

 private:
  struct Seen {
    std::string name;
    std::uintptr_t begin, end;
    bool written;
  };

  void read_shape(Tensor& tensor, py::handle object, Role role, bool optional) {
    const char* name = tensor.name.c_str();
    if (role == Role::kOut) {  // None or True: of the shape that follows from the inputs
      tensor.to_make = optional ? object.ptr() == Py_True : object.is_none();
      if (tensor.to_make) return;
      tensor.to_make = py::isinstance<py::tuple>(object) || py::isinstance<py::list>(object);
    }
    static PyObject* const attribute = PyUnicode_InternFromString("shape");
    const auto shape = tensor.to_make ? py::reinterpret_borrow<py::object>(object)
                                      : py::getattr(object, attribute, py::none());
    if (shape.is_none()) fail(op, name, "an array", python_type(object));
    tensor.dims = Value<Dims>::read(op, tensor.name, shape);
    if (tensor.to_make) {
      check_countable(op, name, tensor.dims);
    } else if (tensor.real) {
      infer_storage(tensor, object);
    }
  }

  // Takes the type of a symbolic tensor, or of an array that is looked at for its shape.
  void infer_storage(Tensor& tensor, py::handle object) {
    static PyObject* const attribute = PyUnicode_InternFromString("dtype");
    // Not initialized where it is declared: NumPy gives Python's lock up while it looks the type up,
    // and a thread that waited for the static would hold it.
    static PyObject* plain = nullptr;
    if (plain == nullptr) plain = py::dtype::of<float>().release().ptr();
    const auto type = py::getattr(object, attribute, py::none());
    const std::string name = type.is(py::handle(plain)) ? "float32" : std::string(py::str(type));
    const std::string half = element<Bfloat16>().name;
    const bool is_half = name.size() >= half.size() &&  // PyTorch calls it torch.bfloat16
                         name.compare(name.size() - half.size(), half.size(), half) == 0;
    choose_storage(tensor, is_half ? Storage::kBfloat16 : Storage::kFloat32);
  }

  // The first array decides what the call's activations are; the others have to be like it.
  void choose_storage(Tensor& tensor, Storage storage) {
    if (first_real_.empty()) {
      storage_ = storage;
      first_real_ = tensor.name;
    } else if (storage != storage_) {
      fail(op, tensor.name.c_str(),
           std::string(element_stored(storage_).name) + ", like " + first_real_,
           element_stored(storage).name, "nothing is converted silently");
    }
    tensor.element = element_stored(storage_);
  }

  void check_type(Tensor& tensor, const ArrayInfo& array, bool written) {
    const bool half = array.type == element<Bfloat16>().type;
    if (tensor.real && (half || array.type == element<float>().type)) {
      choose_storage(tensor, half ? Storage::kBfloat16 : Storage::kFloat32);
    } else if (tensor.real && !first_real_.empty()) {
      tensor.element = element_stored(storage_);  // there is no choice
    }
    check_array(op, tensor.name.c_str(), array, tensor.element, written);
  }

  ArrayInfo checked_array(Tensor& tensor, py::handle object, bool written) {
    const char* name = tensor.name.c_str();
    if (backend_memory() != Memory::kDevice) {
      ArrayInfo array = host_array(op, name, object);
      check_type(tensor, array, written);
      return array;
    }
    if (!is_gpu_array(object)) {
      fail(op, name, "a GPU array (CuPy, PyTorch, JAX and others)", python_type(object),
           "cupy.asarray copies a NumPy array to the GPU");
    }
    ArrayInfo array = gpu_array(op, name, object, stream_);
    check_type(tensor, array, written);
    const bool moved = count(array.dims) > 0 && choose_device(name, memory_device(array.data));
    if (moved && array.has_stream) {  // CuPy names the stream of the device that is current
      array = gpu_array(op, name, object, stream_);
    }
    if (array.has_stream && array.stream != stream_) wait_for_stream(op, stream_, array.stream);
    owners_.push_back(array.owner);
    return array;
  }

  // Returns whether another device is the current one now.
  bool choose_device(const char* name, int device) {
    if (device == kAnyDevice) return false;
    if (device == kNoDevice) fail(op, name, "memory of a GPU", "memory of no GPU");
    if (device_ < 0) {
      device_before_ = current_device();
      device_ = device;
      set_current_device(device);
      return device != device_before_;
    }
    if (device != device_ && !peers_) {
      fail(op, name, "memory of device " + std::to_string(device_) + ", like the arrays before it",
           "memory of device " + std::to_string(device));
    }
    return false;
  }

  void check_apart(const Tensor& tensor, bool written, bool in_place) {
    const auto begin = reinterpret_cast<std::uintptr_t>(tensor.data);
    const Int bytes = count(tensor.dims) * tensor.element.size;
    const Seen now{tensor.name, begin, begin + static_cast<std::uintptr_t>(bytes), written};
    for (const Seen& other : seen_) {
      if (!written && !other.written) continue;
      if (now.end <= other.begin || other.end <= now.begin) continue;
      const bool same = now.begin == other.begin && now.end == other.end;
      if (same && in_place && !other.written) continue;
      fail(op, tensor.name.c_str(), "memory apart from " + other.name,
           same ? "the same array" : "overlapping arrays");
    }
    seen_.push_back(now);
  }

  bool peers_;
  Mode mode_;
  Stream stream_ = nullptr;
  int device_ = -1, device_before_ = 0;
  std::vector<py::object> owners_;
  std::vector<Seen> seen_;
  std::vector<Output> outputs_;
  Int scratch_ = 0;
  Storage storage_ = Storage::kFloat32;
  std::string first_real_;  // the array that decided it
};

// The workspace of a call.
struct Scratch {
  Call* call;
  py::handle object;
  Workspace of(Int bytes) const { return call->workspace(object, bytes); }
};

}  // namespace convnet
