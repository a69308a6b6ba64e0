#include "schema.h"

namespace convnet {
namespace {

void check_count(const Function& function, std::size_t count, const py::args& values) {
  if (values.size() == count) return;
  std::string names;
  for (const Parameter& parameter : function.parameters) names += parameter.name + ", ";
  throw py::type_error(function.name + "(" + names + "...) takes " + std::to_string(count) +
                       " arguments, got " + std::to_string(values.size()));
}

// NumPy's type of an output, which is found once: parsing its name takes longer than a small call.
py::handle dtype_of(const char* name) {
  static auto* const known = new std::unordered_map<std::string, py::object>;
  py::object& type = (*known)[name];
  if (!type && std::string(name) == element<Bfloat16>().name) {
    type = py::dtype::from_args(py::module_::import("ml_dtypes").attr("bfloat16"));
  }
  if (!type) type = py::dtype(name);
  return type;
}

}  // namespace

py::object Function::operator()(const py::args& values) const {
  const std::size_t own = parameters.size();
  Call call(name.c_str(), Call::Mode::kRun, peers);
  Reader reader{name.c_str(), &call, parameters, values};
  check_count(*this, is_operation() ? own + 1 : own, values);
  if (is_operation()) call.on(Value<std::uintptr_t>::read(name.c_str(), "stream", values[own]));
  return body(reader);
}

py::tuple Function::infer(const py::args& values) const {
  Call call(name.c_str(), Call::Mode::kInfer, peers);
  Reader reader{name.c_str(), &call, parameters, values};
  check_count(*this, parameters.size() - (has_scratch() ? 1 : 0), values);
  body(reader);
  py::list outputs;
  for (const Call::Output& output : call.outputs()) {
    py::tuple shape(output.dims.size());
    for (std::size_t i = 0; i < output.dims.size(); ++i) shape[i] = output.dims[i];
    outputs.append(py::make_tuple(output.place, shape, dtype_of(output.type)));
  }
  return py::make_tuple(outputs, call.scratch());
}

const Function& Schema::find(const std::string& operation) const {
  const auto found = places_.find(operation);
  if (found != places_.end() && functions_[found->second].is_operation()) {
    return functions_[found->second];
  }
  fail("infer", "op", "the name of an operation", "\"" + operation + "\"");
}

const Schema& schema() {
  static const Schema* const all = [] {
    auto* made = new Schema;  // never deleted: it is used until the process ends
    for (const auto add : {add_conv, add_local, add_dense, add_pool, add_blur, add_lrn,
                           add_elementwise, add_conversions, add_ends, add_peers, add_queries}) {
      add(*made);
    }
    return made;
  }();
  return *all;
}

}  // namespace convnet
