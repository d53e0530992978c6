// The kernels of local_ncc.cuh; allocations are the caller's, as they are PyTorch's on a device.
#include "local_ncc/local_ncc.cuh"

#include <cmath>
#include <memory>

#include "host_view.h"

namespace lganet {

template <typename T>
using Working = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Memory of exactly `count` numbers, none of which is one.
template <typename T>
std::unique_ptr<T[]> filled(int64_t count) {
  std::unique_ptr<T[]> memory(new T[count]);
  std::fill_n(memory.get(), count, T(NAN));
  return memory;
}

// `weight` and the gradients may be None.
double local_ncc(py::object a, py::object b, py::object weight, int64_t window, py::object grad_a,
                 py::object grad_b) {
  double result = NAN;
  switch_float(a, [&](auto zero) {
    using In = decltype(zero);
    using T = Working<In>;
    const auto view = [](const py::object& x) { return x.is_none() ? View<T>{} : view_of<T>(x); };
    const View<const T> w = weight.is_none() ? View<const T>{} : view_of<const T>(weight);
    const device::NccCall<In, T> call{view_of<const In>(a), view_of<const In>(b), w,
                                      view(grad_a),         view(grad_b),         window};
    const device::NccNeeds<T> needs(call);
    const auto sums = filled<double>(needs.sums);
    const auto fields = filled<T>(needs.fields), scratch = filled<T>(needs.scratch);
    T scale = NAN, value = NAN;
    device::start_ncc(Stream{}, call, {sums.get(), fields.get(), scratch.get(), &scale}, &value);
    result = value;
  });
  return result;
}

void multiply(py::object from, py::object by, py::object to) {
  switch_float(to, [&](auto zero) {
    using In = decltype(zero);
    using T = Working<In>;
    device::start_multiply(Stream{}, data_of<const T>(from), data_of<const T>(by), data_of<In>(to),
                           from.attr("numel")().cast<int64_t>());
  });
}

}  // namespace lganet

PYBIND11_MODULE(host_local_ncc, m) {
  m.def("local_ncc", &lganet::local_ncc);
  m.def("multiply", &lganet::multiply);
  m.def("is_walked", &lganet::device::is_walked<float>);
}
