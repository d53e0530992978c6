// The kernels of warp.cuh; allocations are the caller's, as they are PyTorch's on a device.
#include "warp/warp.cuh"

#include "host_view.h"

namespace lganet {

template <typename T>
using Working = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename T>
DeviceWarp<T, Working<T>> call_of(const py::object& image, const py::object& flow, WarpMode mode,
                                  bool wide_index) {
  return {view_of<const T>(image), view_of<const Working<T>>(flow), mode, 1,
          wide_index ? Index::wide : Index::fitting};
}

WarpMode mode_of(bool nearest, bool border, bool add_flow) {
  return {nearest ? Sampling::nearest : Sampling::linear, border ? Padding::border : Padding::zeros,
          add_flow ? Plus::flow : Plus::nothing};
}

void warp(py::object image, py::object flow, py::object out, bool nearest, bool border,
          bool add_flow, bool wide_index) {
  const WarpMode mode = mode_of(nearest, border, add_flow);
  switch_float(image, [&](auto zero) {
    using T = decltype(zero);
    start_warp(Stream{}, call_of<T>(image, flow, mode, wide_index), view_of<T>(out));
  });
}

// `sums` and `fixed` have zeros: one of the two is None. What is None in `for_*` is not asked for.
void warp_backward(py::object grad, py::object image, py::object flow, py::object sums,
                   py::object fixed, py::object for_image, py::object for_flow, bool nearest,
                   bool border, bool add_flow, bool wide_index) {
  const WarpMode mode = mode_of(nearest, border, add_flow);
  switch_float(image, [&](auto zero) {
    using T = decltype(zero);
    using A = Working<T>;
    WarpGradients<A> result{};
    result.needed = {.image = !for_image.is_none(), .flow = !for_flow.is_none()};
    if (result.needed.image) {
      result.image = like<A>(view_of<T>(for_image));
      result.image.data = sums.is_none() ? nullptr : data_of<A>(sums);
      result.fixed = fixed.is_none() ? nullptr : data_of<Fixed>(fixed);
    }
    if (result.needed.flow) result.flow = view_of<A>(for_flow);
    const View<const T> from = view_of<const T>(grad);
    start_warp_backward(Stream{}, call_of<T>(image, flow, mode, wide_index), from, result);
    if (result.needed.image)
      start_finish(Stream{}, result, from.size[0] * from.voxels(), data_of<T>(for_image),
                   Finish::write);
  });
}

}  // namespace lganet

PYBIND11_MODULE(host_warp, m) {
  m.def("warp", &lganet::warp);
  m.def("warp_backward", &lganet::warp_backward);
}
