// The kernel of invert.cuh; allocations are the caller's, as they are PyTorch's on a device.
#include "invert/invert.cuh"

#include "host_view.h"

namespace lganet {

void invert(py::object field, py::object goal, py::object start, py::object out, py::object solved,
            std::vector<double> step, std::vector<double> metric, double tolerance, double shrink,
            int64_t patience, bool wide_index) {
  switch_wide_float(field, [&](auto zero) {
    using A = decltype(zero);
    const InvertCall<A> call(view_of<const A>(field), view_of<const A>(goal),
                             view_of<const A>(start), step, metric, tolerance, shrink, patience);
    start_invert<A>(Stream{}, call, view_of<A>(out), data_of<bool>(solved),
                    wide_index ? Index::wide : Index::fitting);
  });
}

}  // namespace lganet

PYBIND11_MODULE(host_invert, m) { m.def("invert", &lganet::invert); }
