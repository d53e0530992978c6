// The kernels of integrate.cuh; allocations are the caller's, as they are PyTorch's on a device.
#include "integrate/integrate.cuh"

#include "host_view.h"

namespace lganet {

// All steps in one launch; returns whether they fit into one.
bool integrate(py::object velocity, py::object result, py::object spare, double scale, int steps) {
  bool done = false;
  switch_wide_float(velocity, [&](auto zero) {
    using A = decltype(zero);
    done = in_one_launch(view_of<const A>(velocity));
    if (done)
      start_integrate<A>(Stream{}, view_of<const A>(velocity), view_of<A>(result),
                         data_of<A>(spare), A(scale), steps);
  });
  return done;
}

void square(py::object from, py::object to, double scale, bool wide_index) {
  switch_wide_float(from, [&](auto zero) {
    using A = decltype(zero);
    start_square<A>(Stream{},
                    {view_of<const A>(from), A(scale), wide_index ? Index::wide : Index::fitting},
                    view_of<A>(to));
  });
}

// `to` and `fixed` have zeros; `fixed` is None, or the sums are in it until the end.
void square_backward(py::object at, py::object grad, py::object to, py::object fixed, double scale,
                     bool wide_index) {
  switch_wide_float(at, [&](auto zero) {
    using A = decltype(zero);
    WarpGradients<A> result{};
    result.image = result.flow = view_of<A>(to);
    result.fixed = fixed.is_none() ? nullptr : data_of<Fixed>(fixed);
    start_square_backward<A>(
        Stream{}, {view_of<const A>(at), A(scale), wide_index ? Index::wide : Index::fitting},
        view_of<const A>(grad), result);
  });
}

}  // namespace lganet

PYBIND11_MODULE(host_integrate, m) {
  m.def("integrate", &lganet::integrate);
  m.def("square", &lganet::square);
  m.def("square_backward", &lganet::square_backward);
}
