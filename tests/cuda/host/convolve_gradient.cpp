// The kernels of convolve_gradient.cuh; allocations are the caller's, as they are PyTorch's on a
// device.
#include "convolve/convolve_gradient.cuh"

#include <cmath>
#include <memory>

#include "host_view.h"

namespace lganet::weight_gradient {

Sizes sizes_of(const std::vector<py::object>& maps, const py::object& grad, bool exact,
               bool masked) {
  const auto size = py::list(grad.attr("shape")).cast<std::vector<int64_t>>();
  Sizes sizes{0,
              size[1],
              {size[0], size[2], size[3], size[4]},
              grad.attr("element_size")().cast<int64_t>(),
              exact,
              masked};
  for (const py::object& map : maps) sizes.inputs += map.attr("size")(1).cast<int64_t>();
  return sizes;
}

// `norm` and `mask` may be None. `device`: multiprocessors, bytes of shared memory of one, of a
// block. Returns the blocks of voxels, and the voxels of a box along the last axis.
std::tuple<int64_t, int64_t> gradient(const std::vector<py::object>& maps, const py::object& grad,
                                      const py::object& norm, float slope, const py::object& mask,
                                      bool exact, int config, const std::vector<int64_t>& device,
                                      const py::object& weight, const py::object& bias) {
  const Sizes sizes = sizes_of(maps, grad, exact, !mask.is_none());
  const Plan plan(sizes, config, {device[0], device[1], device[2]});
  if (!plan.voxels_d) return {0, 0};
  const std::unique_ptr<float[]> sums(new float[plan.blocks * plan.entries()]);
  std::fill_n(sums.get(), plan.blocks * plan.entries(), NAN);
  switch_float(grad, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (!std::is_same_v<T, double>) {
      const auto joined = [](const std::vector<py::object>& tensors) {
        std::vector<View<const T>> views;
        for (const py::object& x : tensors)
          if (!x.is_none()) views.push_back(view_of<const T>(x));
        return Maps<T>(views);
      };
      const Norm by{norm.is_none() ? nullptr : data_of<const float>(norm), slope};
      const auto run = [&](auto is_exact) {
        start<T, is_exact.value>(Stream{}, sizes, plan, joined(maps), joined({grad}),
                                 joined({mask}), by,
                                 {data_of<float>(weight), data_of<float>(bias), sums.get()});
      };
      if constexpr (std::is_same_v<T, float>)
        if (exact) return run(std::true_type{});
      run(std::false_type{});
    }
  });
  return {plan.blocks, plan.voxels_d};
}

}  // namespace lganet::weight_gradient

PYBIND11_MODULE(host_convolve_gradient, m) {
  using namespace lganet::weight_gradient;
  m.def("gradient", &gradient);
  m.def("pitch", [](const pybind11::object& x) { return pitch_of(lganet::view_of<float>(x)); });
  m.def("ranked", [](int64_t inputs, int64_t outputs, const std::vector<int64_t>& size,
                     int64_t number_bytes, bool exact, const std::vector<int64_t>& device) {
    return ranked(
        {inputs, outputs, {size[0], size[1], size[2], size[3]}, number_bytes, exact, false},
        {device[0], device[1], device[2]});
  });
}
