// Local normalised cross-correlation on a CUDA device: memory and types. The kernels are in
// local_ncc.cuh.
#include "local_ncc/local_ncc_call.h"
// first: the kernels need its types
#include <limits>
#include <tuple>

#include "common/cuda_tensors.h"
#include "local_ncc/local_ncc.cuh"

namespace lganet {

namespace cuda {

namespace {

template <typename T>
T* data_of(const Tensor& x) {
  return reinterpret_cast<T*>(x.data_ptr());
}

Tensor memory_like(const Tensor& x, int64_t count, ScalarType type) {
  return empty_beside(x, {count}, type);
}

std::tuple<Tensor, Tensor, Tensor> local_ncc(const Tensor& a, const Tensor& b,
                                             const std::optional<Tensor>& weight, int64_t window,
                                             bool need_a, bool need_b) {
  check_ncc(a, b, weight, window);
  const OnDeviceOf stream(a);
  const ScalarType type = working_type(a);
  Tensor value = empty_beside(a, {}, type);
  Tensor grad_a = gradient_like(a, type, need_a), grad_b = gradient_like(b, type, need_b);
  if (is_empty(a)) {
    torch::stable::fill_(value, std::numeric_limits<double>::quiet_NaN());
    return {value, grad_a, grad_b};
  }
  switch_float(a.scalar_type(), [&](auto zero) {
    using In = decltype(zero);
    using T = Working<In>;
    const auto view = [](const Tensor& x, bool needed) {
      return needed ? view_of<T>(x) : View<T>{};
    };
    const device::NccCall<In, T> call{view_of<const In>(a),
                                      view_of<const In>(b),
                                      weight ? view_of<const T>(*weight) : View<const T>{},
                                      view(grad_a, need_a),
                                      view(grad_b, need_b),
                                      window};
    const device::NccNeeds<T> needs(call);
    const Tensor sums = memory_like(a, needs.sums, ScalarType::Double);
    const Tensor fields = memory_like(a, needs.fields, type);
    const Tensor scratch = memory_like(a, needs.scratch, type);
    const Tensor scale = memory_like(a, 1, type);
    device::start_ncc<In, T>(
        stream, call,
        {data_of<double>(sums), data_of<T>(fields), data_of<T>(scratch), data_of<T>(scale)},
        data_of<T>(value));
  });
  return {value, grad_a, grad_b};
}

// `unit` in the image's type, times `grad`.
Tensor scaled(const Tensor& grad, const Tensor& x, const Tensor& unit, Stream stream) {
  STD_TORCH_CHECK(grad.scalar_type() == unit.scalar_type() && unit.scalar_type() == working_type(x),
                  "gradients must be in the result's type");
  STD_TORCH_CHECK(grad.get_device_index() == unit.get_device_index(),
                  "gradients must be on one device");
  Tensor out = gradient_like(unit, x.scalar_type(), unit.dim() == 5);
  switch_float(x.scalar_type(), [&](auto zero) {
    using In = decltype(zero);
    using T = Working<In>;
    device::start_multiply<In, T>(stream, data_of<T>(unit), data_of<T>(grad), data_of<In>(out),
                                  unit.numel());
  });
  return out;
}

// a and b are arguments so that a second derivative raises an error.
std::tuple<Tensor, Tensor> local_ncc_backward(const Tensor& grad, const Tensor& a, const Tensor& b,
                                              const Tensor& unit_a, const Tensor& unit_b) {
  const OnDeviceOf stream(unit_a);
  return {scaled(grad, a, unit_a, stream), scaled(grad, b, unit_b, stream)};
}

}  // namespace

}  // namespace cuda

}  // namespace lganet

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CUDA, m) {
  m.impl("local_ncc", TORCH_BOX(&lganet::cuda::local_ncc));
  m.impl("local_ncc_backward", TORCH_BOX(&lganet::cuda::local_ncc_backward));
}
