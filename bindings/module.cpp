// The Python module, compiled once for each backend: the functions of the schema, and what there is
// besides. convnet.ops is the public layer above it.
#include "schema.h"
#ifdef CONVNET_VGPU_BUILD
#include "vgpu/embedded.h"
#endif

#ifndef CONVNET_MODULE
#error "define CONVNET_MODULE as the module's name, for example _cpu"
#endif

namespace convnet {
namespace {

void bind_schema(py::module_& m) {
  for (const Function& function : schema().functions()) {
    m.def(function.name.c_str(), [&function](const py::args& values) { return function(values); });
  }
  m.def("infer", [](const std::string& op, const py::args& values) {
    return schema().find(op).infer(values);
  });
  m.def("schema", [] {
    py::list rows;
    for (const Function& function : schema().functions()) {
      py::list parameters;
      for (const Parameter& p : function.parameters) {
        parameters.append(
            py::make_tuple(p.name, p.role, p.type, p.optional, p.several, p.in_place));
      }
      rows.append(py::make_tuple(function.name, parameters, function.returns));
    }
    return rows;
  });
}

// Each module has a Recording of its own: it notes calls of its own operations only.
void bind_recording(py::module_& m) {
  py::class_<Recording>(m, "Recording", py::module_local())
      .def(py::init<>())
      .def("begin", &Recording::begin)
      .def("end", &Recording::end)
      .def("run", &Recording::run)
      .def_property_readonly("names", &Recording::names);
}

void bind_backend(py::module_& m) {
  m.def("start_backend", &start_backend);
  m.def("backend_name", &backend_name);
  m.def("device_count", &device_count);
  m.def("device_description", &device_description, py::arg("device") = 0);
  m.def("build_description", &build_description);
  m.def("pretend_implementation", &pretend_implementation, py::arg("name"));
  m.def("set_tile_choices", &set_tile_rows, py::arg("rows"));
  m.def("thread_count", &thread_count);
  m.def("set_thread_count", &set_thread_count, py::arg("threads"));
}

// What the virtual GPU alone can do: count what kernels do (convnet.counters).
void bind_counters([[maybe_unused]] py::module_& m) {
#ifdef CONVNET_VGPU_BUILD
  m.def("counters_start", &vgpu::counters_start);
  m.def("counters", [] {
    vgpu::counters_stop();
    return vgpu::counters_json();
  });
#endif
}

}  // namespace
}  // namespace convnet

PYBIND11_MODULE(CONVNET_MODULE, m) {
  using namespace convnet;
  m.doc() = "The operations of convnet on checked arrays; convnet.ops is the public layer above.";
  Py_AtExit(GilRelease::wait_for_all);
  bind_schema(m);
  bind_recording(m);
  bind_backend(m);
  bind_counters(m);
}
