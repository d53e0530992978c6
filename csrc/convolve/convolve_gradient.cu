// The convolution's gradients to its weights and bias on a CUDA device: memory and types. The
// kernels are in convolve_gradient.cuh.
#include "common/cuda_tensors.h"

#include "convolve/convolve_gradient.cuh"

#include <optional>
#include <tuple>

namespace lganet {

namespace cuda {

namespace {

using namespace weight_gradient;

Limits limits_of_device() {
  const auto attribute = [](cudaDeviceAttr which) {
    int device = 0, value = 0;
    check_cuda(cudaGetDevice(&device));
    check_cuda(cudaDeviceGetAttribute(&value, which, device));
    return int64_t(value);
  };
  return {attribute(cudaDevAttrMultiProcessorCount),
          attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor),
          attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)};
}

// Checks for a channels-last tensor of the gradient's type, device and size, with any channels.
void check_map(const Tensor& x, const Tensor& grad, const char* name) {
  STD_TORCH_CHECK(x.is_cuda() && x.get_device_index() == grad.get_device_index(), name,
                  " must be on the gradient's CUDA device");
  STD_TORCH_CHECK(x.scalar_type() == grad.scalar_type(), name, " must have the gradient's type");
  STD_TORCH_CHECK(x.dim() == 5 && x.size(1) > 0, name, " must be (B, C, H, W, D) with channels");
  for (int axis : {0, 2, 3, 4})
    STD_TORCH_CHECK(x.size(axis) == grad.size(axis), name, " must have the gradient's size");
  STD_TORCH_CHECK(is_empty(x) || pitch_of(view_of<const char>(x)) > 0, name,
                  " must be channels_last_3d, or a slice of channels of such a tensor");
}

Sizes checked_sizes(const std::vector<Tensor>& maps, const Tensor& grad,
                    const std::optional<Tensor>& norm, const std::optional<Tensor>& mask,
                    bool exact) {
  STD_TORCH_CHECK(!maps.empty() && maps.size() <= 3, "expected one to three maps, got ",
                  maps.size());
  check_map(grad, grad, "the gradient");
  Sizes sizes{0,
              grad.size(1),
              {grad.size(0), grad.size(2), grad.size(3), grad.size(4)},
              int64_t(grad.element_size()),
              exact,
              mask.has_value()};
  for (const Tensor& x : maps) {
    check_map(x, grad, "a map");
    sizes.inputs += x.size(1);
  }
  STD_TORCH_CHECK(grad.numel() / sizes.outputs < INT32_MAX, "too many voxels");
  STD_TORCH_CHECK(!exact || grad.scalar_type() == ScalarType::Float, "only float32 can be exact");
  if (mask) {
    check_map(*mask, grad, "the mask");
    STD_TORCH_CHECK(mask->size(1) == sizes.outputs, "the mask must have the gradient's channels");
  }
  if (norm)
    STD_TORCH_CHECK(norm->is_cuda() && norm->get_device_index() == grad.get_device_index() &&
                        norm->scalar_type() == ScalarType::Float && norm->is_contiguous() &&
                        sizes_of(*norm) == std::vector<int64_t>({2, sizes.size[0], sizes.inputs}),
                    "the moments must be contiguous float32 of (2, B, inputs) beside the gradient");
  return sizes;
}

template <typename T>
Maps<T> join(const std::vector<Tensor>& tensors) {
  std::vector<View<const T>> views;
  for (const Tensor& x : tensors) views.push_back(view_of<const T>(x));
  return Maps<T>(views);
}

float* floats_of(const Tensor& x) { return reinterpret_cast<float*>(x.data_ptr()); }

std::tuple<Tensor, Tensor> convolve_maps_weight_gradient(std::vector<Tensor> maps, Tensor grad,
                                                         std::optional<Tensor> norm, double slope,
                                                         std::optional<Tensor> mask, bool exact,
                                                         int64_t config) {
  const Sizes sizes = checked_sizes(maps, grad, norm, mask, exact);
  const OnDeviceOf stream(grad);
  Tensor weight = empty_beside(grad, {sizes.outputs, sizes.inputs, 3, 3, 3}, ScalarType::Float);
  Tensor bias = empty_beside(grad, {sizes.outputs}, ScalarType::Float);
  if (is_empty(grad)) return {torch::stable::zero_(weight), torch::stable::zero_(bias)};
  const Limits limits = limits_of_device();
  if (config == 0) {
    const std::vector<int64_t> best = ranked(sizes, limits);
    STD_TORCH_CHECK(!best.empty(), "no configuration fits into this device's shared memory");
    config = best.front();
  }
  STD_TORCH_CHECK(is_config(config, sizes), "no such configuration: ", config);
  const Plan plan(sizes, int(config), limits);
  STD_TORCH_CHECK(plan.voxels_d, "configuration ", config, " needs more shared memory");
  const Tensor sums = empty_beside(grad, {plan.blocks * plan.entries()}, ScalarType::Float);
  const Norm by{norm ? floats_of(*norm) : nullptr, float(slope)};
  const Results results{floats_of(weight), floats_of(bias), floats_of(sums)};
  const std::vector<Tensor> masks = mask ? std::vector<Tensor>{*mask} : std::vector<Tensor>{};
  const auto run = [&](auto zero, auto is_exact) {
    using T = decltype(zero);
    start<T, is_exact.value>(stream, sizes, plan, join<T>(maps), join<T>({grad}), join<T>(masks),
                             by, results);
  };
  if (exact)
    run(float{}, std::bool_constant<kExact>{});
  else if (grad.scalar_type() == ScalarType::Float)
    run(float{}, std::bool_constant<kRounded>{});
  else if (grad.scalar_type() == ScalarType::Half)
    run(Half{}, std::bool_constant<kRounded>{});
  else if (grad.scalar_type() == ScalarType::BFloat16)
    run(BFloat16{}, std::bool_constant<kRounded>{});
  else
    STD_TORCH_CHECK(false, "expected float32, float16 or bfloat16");
  return {weight, bias};
}

}  // namespace

}  // namespace cuda

}  // namespace lganet

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CUDA, m) {
  m.impl("convolve_maps_weight_gradient", TORCH_BOX(&lganet::cuda::convolve_maps_weight_gradient));
}
