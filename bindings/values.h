// Arguments that are not arrays, read from Python: numbers, words, pairs and shapes.
//
// Value<T>::read says what was expected and what was found; Value<T>::type() is the type's name in
// Python. Ranges that depend on other arguments are those of shapes.cpp.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "ops.h"

namespace convnet {

namespace py = pybind11;
using Int = std::int64_t;

enum class AlphaMode { kSum, kMean };          // what alpha of an LRN multiplies
enum class DropoutMode { kPaper, kInverted };  // whether training or testing scales

struct Pair {
  Int h, w;
};

struct Natural {  // from 1 on
  std::uint32_t value;
};

inline std::string python_type(py::handle object) {
  return py::str(py::type::handle_of(object).attr("__name__"));
}

// A short value as Python writes it, of anything else the type.
inline std::string shown(py::handle value) {
  const bool is_short = value.is_none() || py::isinstance<py::str>(value) ||
                        py::isinstance<py::int_>(value) || py::isinstance<py::float_>(value) ||
                        py::isinstance<py::tuple>(value) || py::isinstance<py::list>(value);
  return is_short ? std::string(py::repr(value)) : python_type(value);
}

// The whole number that an object stands for, as operator.index has it; else null.
inline py::object index_of(py::handle value) {
  auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!index) PyErr_Clear();
  return index;
}

template <class T, class = void>
struct Value;

template <class T>
struct Value<T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool>>> {
  static std::string type() { return "int"; }
  static T read(const char* op, const std::string& arg, py::handle value) {
    const py::object index = index_of(value);
    if (!index) fail(op, arg.c_str(), "a whole number", shown(value));
    using Limits = std::numeric_limits<T>;
    bool fits = false;
    T number{};
    if constexpr (std::is_signed_v<T>) {
      int overflow = 0;
      const long long wide = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
      fits = overflow == 0 && Limits::min() <= wide && wide <= Limits::max();
      number = static_cast<T>(wide);
    } else {
      const unsigned long long wide = PyLong_AsUnsignedLongLong(index.ptr());
      fits = PyErr_Occurred() == nullptr && wide <= Limits::max();
      PyErr_Clear();
      number = static_cast<T>(wide);
    }
    if (!fits) {
      fail(op, arg.c_str(), std::to_string(Limits::min()) + " to " + std::to_string(Limits::max()),
           shown(index));
    }
    return number;
  }
};

template <>
struct Value<Natural> {
  static std::string type() { return "int"; }
  static Natural read(const char* op, const std::string& arg, py::handle value) {
    const auto number = Value<std::uint32_t>::read(op, arg, value);
    if (number == 0) fail(op, arg.c_str(), "1 to 4294967295", "0");
    return {number};
  }
};

template <class T>
struct Value<T, std::enable_if_t<std::is_floating_point_v<T>>> {
  static std::string type() { return "float"; }
  static T read(const char* op, const std::string& arg, py::handle value) {
    const double number = PyFloat_AsDouble(value.ptr());
    if (number == -1.0 && PyErr_Occurred() != nullptr) {
      PyErr_Clear();
      fail(op, arg.c_str(), "a number", shown(value));
    }
    return static_cast<T>(number);
  }
};

template <>
struct Value<bool> {
  static std::string type() { return "bool"; }
  static bool read(const char*, const std::string&, py::handle value) {
    const int truth = PyObject_IsTrue(value.ptr());
    if (truth < 0) throw py::error_already_set();
    return truth != 0;
  }
};

template <class T>
struct Value<std::optional<T>> {
  static std::string type() { return Value<T>::type() + " | None"; }
  static std::optional<T> read(const char* op, const std::string& arg, py::handle value) {
    if (value.is_none()) return std::nullopt;
    return Value<T>::read(op, arg, value);
  }
};

template <>
struct Value<py::object> {
  static std::string type() { return "Any"; }
  static py::object read(const char*, const std::string&, py::handle value) {
    return py::reinterpret_borrow<py::object>(value);
  }
};

template <>
struct Value<Pair> {
  static std::string type() { return "int | tuple[int, int]"; }
  static Pair read(const char* op, const std::string& arg, py::handle value) {
    const bool several = py::isinstance<py::tuple>(value) || py::isinstance<py::list>(value);
    const auto number = [&](py::handle one) {
      const py::object index = PyBool_Check(one.ptr()) != 0 ? py::object() : index_of(one);
      if (!index) refuse(op, arg, value);
      int overflow = 0;
      const Int wide = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
      if (overflow != 0 || wide != static_cast<std::int32_t>(wide)) {
        fail(op, arg.c_str(), "numbers below 2^31", shown(value));
      }
      return wide;
    };
    if (!several) {
      const Int both = number(value);
      return {both, both};
    }
    if (py::len(value) != 2) refuse(op, arg, value);
    const auto pair = py::reinterpret_borrow<py::sequence>(value);
    const Int h = number(py::object(pair[0]));
    return {h, number(py::object(pair[1]))};
  }
  [[noreturn]] static void refuse(const char* op, const std::string& arg, py::handle value) {
    fail(op, arg.c_str(), "a whole number or a pair of them", shown(value));
  }
};

template <>
struct Value<Dims> {
  static std::string type() { return "Sequence[int]"; }
  static Dims read(const char* op, const std::string& arg, py::handle value) {
    if (!py::isinstance<py::tuple>(value) && !py::isinstance<py::list>(value)) {
      fail(op, arg.c_str(), "a tuple of sizes", shown(value));
    }
    Dims dims;
    for (const auto size : value) {
      const py::object index = index_of(size);
      if (!index) fail(op, arg.c_str(), "a tuple of sizes", shown(value));
      int overflow = 0;
      dims.push_back(PyLong_AsLongLongAndOverflow(index.ptr(), &overflow));
      if (overflow != 0) fail(op, arg.c_str(), "sizes below 2^31", shown(value));
    }
    return dims;
  }
};

// ---- words, each an enumeration's names in its order -------------------------------------------

template <class E>
struct Words;

template <>
struct Words<Rounding> {
  static constexpr const char* names[] = {"floor", "ceil"};
  static constexpr const char* hint = "";
};
template <>
struct Words<Pass> {
  static constexpr const char* names[] = {"fprop", "dgrad", "wgrad"};
  static constexpr const char* hint = "";
};
template <>
struct Words<Precision> {
  static constexpr const char* names[] = {"fp32", "ffma", "tf32", "bf16"};
  static constexpr const char* hint = "";
};
template <>
struct Words<Storage> {
  static constexpr const char* names[] = {"float32", "bfloat16"};
  static constexpr const char* hint = "";
};
template <>
struct Words<AlphaMode> {
  static constexpr const char* names[] = {"sum", "mean"};
  static constexpr const char* hint =
      "alpha multiplies the sum of squares in the paper, their mean in some libraries";
};
template <>
struct Words<DropoutMode> {
  static constexpr const char* names[] = {"paper", "inverted"};
  static constexpr const char* hint = "";
};
template <>
struct Words<Activation> {
  static constexpr const char* names[] = {"relu", "tanh", "sigmoid", "abs",    "softplus", "square",
                                          "sqrt", "log",  "brelu",   "affine", "drelu"};
  static constexpr const char* hint = "";
};

template <class E>
struct Value<E, std::enable_if_t<std::is_enum_v<E>>> {
  static std::string type() { return "str"; }
  static E read(const char* op, const std::string& arg, py::handle value) {
    std::string known;
    int index = 0;
    constexpr int count = std::size(Words<E>::names);
    for (const char* name : Words<E>::names) {
      if (PyUnicode_Check(value.ptr()) != 0 &&
          PyUnicode_CompareWithASCIIString(value.ptr(), name) == 0) {
        return static_cast<E>(index);
      }
      known += std::string(index == 0 ? "" : index + 1 == count ? " or " : ", ") + '"' + name + '"';
      ++index;
    }
    std::string got = shown(value);
    if (PyUnicode_Check(value.ptr()) != 0) got.front() = got.back() = '"';
    fail(op, arg.c_str(), known, got, Words<E>::hint);
  }
};

}  // namespace convnet
