// The schema: a row for each function of the module, from which come its entry in Python, the
// checks of its arguments, the stubs (stubs.py) and what convnet.ops knows of it.
//
// A row is a name, the names of the arguments, and a C++ lambda whose parameters say the rest:
// - In, Out, Update: an array that is read, written, or both; None leaves a MaybeIn or MaybeOut out.
//   Of Real: activations and their gradients, float32 or bfloat16, in one call all of one type
// - State, NotedState: the state of the step, or None
// - Int, Natural, double, bool, enumerations, Pair, std::optional, std::vector: values (values.h)
// - a struct with Parts: several arguments that go together, such as a window (arguments.h)
//
// - Scratch: the workspace, always last, whose size follows from the others
//
// An output named "y=x" may lie exactly where x does. Every operation also takes a stream.
#pragma once

#include <pybind11/stl.h>

#include <array>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <unordered_map>

#include "call.h"

namespace convnet {

// A choice of tiles, for benchmarks: (pass, precision, (m, n, k, products), tile, splits,
// on_hopper).
using TileRow =
    std::tuple<std::string, std::string, std::array<Int, 4>, std::string, int, std::string>;

using Bits = py::array_t<std::uint32_t>;  // random ones: [..., 4]

struct Parameter {
  std::string name, role, type;  // in, out, update, value or scratch; of elements, or Python's
  bool optional = false, several = false;
  std::string in_place = {};  // the input whose memory it may have
};

// Arguments on their way in.
struct Reader {
  const char* op;
  Call* call;  // of an operation
  const std::vector<Parameter>& parameters;
  const py::args& values;
  int next = 0;
};

// How arguments of a C++ type are described and read. `Names` gives the names in their order.
template <class T>
struct ValueArgument {
  static void describe(std::istream& names, std::vector<Parameter>& parameters) {
    Parameter parameter{"", "value", Value<T>::type()};
    names >> parameter.name;
    parameters.push_back(parameter);
  }
  static T read(Reader& reader) {
    const int place = reader.next++;
    return Value<T>::read(reader.op, reader.parameters[place].name, reader.values[place]);
  }
};

template <class T, class = void>
struct Argument : ValueArgument<T> {};
template <>
struct Argument<Dims> : ValueArgument<Dims> {};

template <class T, Role role, bool optional>
struct Argument<Array<T, role, optional>> {
  static void describe(std::istream& names, std::vector<Parameter>& parameters) {
    const char* roles[] = {"in", "out", "update", "in"};
    Parameter parameter{"", roles[static_cast<int>(role)], element<std::remove_const_t<T>>().name,
                        optional};
    names >> parameter.name;
    const auto equals = parameter.name.find('=');
    if (equals != std::string::npos) {
      parameter.in_place = parameter.name.substr(equals + 1);
      parameter.name.resize(equals);
    }
    parameters.push_back(parameter);
  }
  static Array<T, role, optional> read(Reader& reader) {
    const int place = reader.next++;
    return read(reader, place, reader.parameters[place].name, reader.values[place]);
  }
  static Array<T, role, optional> read(Reader& reader, int place, const std::string& name,
                                       py::handle value) {
    Array<T, role, optional> array;
    array.name = name;
    array.place = place;
    array.element = element<std::remove_const_t<T>>();
    array.real = std::is_same_v<std::remove_const_t<T>, Real>;
    const bool in_place = !reader.parameters[place].in_place.empty();
    reader.call->read(array, value, role, optional, in_place);
    if constexpr (std::is_same_v<std::remove_const_t<T>, StepState>) {
      reader.call->expect(array, {kStateWords});
    }
    return array;
  }
};

template <>
struct Argument<Scratch> {
  static void describe(std::istream& names, std::vector<Parameter>& parameters) {
    parameters.push_back({"", "scratch", element<std::uint8_t>().name, true});
    names >> parameters.back().name;
  }
  static Scratch read(Reader& reader) {  // not there while inferring
    const bool runs = reader.call->runs();
    return {reader.call, runs ? py::handle(reader.values[reader.next++]) : py::handle()};
  }
};

template <class T>
struct Argument<std::vector<T>> {
  static void describe(std::istream& names, std::vector<Parameter>& parameters) {
    Argument<T>::describe(names, parameters);
    parameters.back().several = true;
  }
  static std::vector<T> read(Reader& reader) {
    const int place = reader.next++;
    const std::string& name = reader.parameters[place].name;
    const py::handle values = reader.values[place];
    if (!py::isinstance<py::list>(values)) fail(reader.op, name.c_str(), "a list", shown(values));
    std::vector<T> all;
    for (const auto value : values) {
      if constexpr (std::is_base_of_v<Tensor, T>) {
        const std::string at = name + "[" + std::to_string(all.size()) + "]";
        all.push_back(Argument<T>::read(reader, place, at, value));
      } else {
        all.push_back(Value<T>::read(reader.op, name, value));
      }
    }
    return all;
  }
};

template <class... P>
struct Argument<std::tuple<P...>> {
  static void describe(std::istream& names, std::vector<Parameter>& parameters) {
    (Argument<P>::describe(names, parameters), ...);
  }
  static std::tuple<P...> read(Reader& reader) {
    return std::tuple<P...>{Argument<P>::read(reader)...};  // braces: from left to right
  }
};

template <class T>
struct Argument<T, std::void_t<typename T::Parts>> {
  static constexpr auto describe = &Argument<typename T::Parts>::describe;
  static T read(Reader& reader) {
    return std::apply([](const auto&... parts) { return T{parts...}; },
                      Argument<typename T::Parts>::read(reader));
  }
};

// What a function of the module returns, as Python's types.
template <class T>
std::string returned() {
  if constexpr (std::is_same_v<T, Dims>)
    return "tuple[int, ...]";
  else if constexpr (std::is_same_v<T, std::vector<std::string>>)
    return "list[str]";
  else if constexpr (std::is_same_v<T, std::string>)
    return "str";
  else if constexpr (std::is_same_v<T, Bits>)
    return "np.ndarray";
  else if constexpr (std::is_same_v<T, TileRow>)
    return "tuple[str, str, list[int], str, int, str]";
  else
    return Value<T>::type();
}

struct Function {
  std::string name;
  std::vector<Parameter> parameters = {};
  std::string returns = {};  // empty for an operation
  std::function<py::object(Reader&)> body = {};
  bool peers = false;

  bool is_operation() const { return returns.empty(); }
  bool has_scratch() const { return !parameters.empty() && parameters.back().role == "scratch"; }
  py::object operator()(const py::args& values) const;  // from Python
  py::tuple infer(const py::args& values) const;        // of an operation
};

class Schema {
 public:
  // An operation: body(Call&, arguments...), which checks shapes and ends in call.run(...).
  template <class F>
  void op(const char* name, const char* arguments, F body) {
    add(name, arguments, body, &F::operator());
  }
  // An operation whose arrays may lie on several devices.
  template <class F>
  void peer_op(const char* name, const char* arguments, F body) {
    add(name, arguments, body, &F::operator()).peers = true;
  }
  // A question about shapes or the backend: body(const char* op, arguments...) returns the answer.
  template <class F>
  void query(const char* name, const char* arguments, F body) {
    add(name, arguments, body, &F::operator());
  }

  const std::vector<Function>& functions() const { return functions_; }
  const Function& find(const std::string& operation) const;

 private:
  template <class F, class... A>
  Function& add(const char* name, const char* arguments, F body, void (F::*)(Call&, A...) const) {
    auto& function = describe<A...>(name, arguments);
    function.body = [body](Reader& reader) {
      std::apply([&](A&&... values) { body(*reader.call, std::move(values)...); },
                 Argument<std::tuple<A...>>::read(reader));
      return py::none();
    };
    return function;
  }
  template <class R, class F, class... A>
  Function& add(const char* name, const char* arguments, F body,
                R (F::*)(const char*, A...) const) {
    auto& function = describe<A...>(name, arguments);
    function.returns = returned<R>();
    function.body = [body](Reader& reader) -> py::object {
      R answer = std::apply([&](A&&... values) { return body(reader.op, std::move(values)...); },
                            Argument<std::tuple<A...>>::read(reader));
      if constexpr (std::is_same_v<R, Dims>) {
        return py::tuple(py::cast(answer));
      } else if constexpr (std::is_base_of_v<py::object, R>) {
        return std::move(answer);
      } else {
        return py::cast(answer);
      }
    };
    return function;
  }
  template <class... A>
  Function& describe(const char* name, const char* arguments) {
    Function function{name};
    std::istringstream names(arguments);
    Argument<std::tuple<A...>>::describe(names, function.parameters);
    std::string more;
    if (!names || names >> more) throw std::logic_error(std::string(name) + ": names of arguments");
    places_[name] = functions_.size();
    functions_.push_back(function);
    return functions_.back();
  }

  std::vector<Function> functions_;
  std::unordered_map<std::string, std::size_t> places_;
};

// The whole schema.
const Schema& schema();

// Its rows: operations/ and queries.cpp.
void add_conv(Schema& schema);
void add_local(Schema& schema);
void add_dense(Schema& schema);
void add_pool(Schema& schema);
void add_blur(Schema& schema);
void add_lrn(Schema& schema);
void add_elementwise(Schema& schema);
void add_conversions(Schema& schema);
void add_ends(Schema& schema);
void add_peers(Schema& schema);
void add_queries(Schema& schema);

// From now on products are cut so; without rows, as the backend's own table says.
void set_tile_rows(const std::optional<std::vector<TileRow>>& rows);

}  // namespace convnet
