// Warp on a CUDA device: memory and types. The kernels are in warp.cuh.
#include "warp/warp.cuh"

#include "common/cuda_tensors.h"
#include "warp/warp_call.h"

namespace lganet {

// Kernels that integrate.cu also launches, compiled only here.
#define LGANET_COMPILED(A)                                                                 \
  template void start_warp(Stream, const DeviceWarp<A, A>&, const View<A>&);               \
  template void start_warp_backward(Stream, const DeviceWarp<A, A>&, const View<const A>&, \
                                    const WarpGradients<A>&);                              \
  template void start_finish(Stream, const WarpGradients<A>&, int64_t, A*, Finish);
LGANET_COMPILED(float)
LGANET_COMPILED(double)
#undef LGANET_COMPILED

namespace cuda {

namespace {

template <typename T>
DeviceWarp<T, Working<T>> call_of(const Tensor& image, const Tensor& flow, WarpMode mode) {
  return {view_of<const T>(image), view_of<const Working<T>>(flow), mode, 1, Index::fitting};
}

}  // namespace

Tensor warp_image(const Tensor& image, const Tensor& flow, WarpMode mode) {
  check_warp(image, flow);
  const OnDeviceOf stream(image);
  Tensor result = empty_result(image, flow);
  if (is_empty(result)) return result;
  if (is_empty(image)) return torch::stable::zero_(result);
  switch_float(image.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    start_warp<T>(stream, call_of<T>(image, flow, mode), view_of<T>(result));
  });
  return result;
}

std::tuple<Tensor, Tensor> warp_image_backward(const Tensor& grad, const Tensor& image,
                                               const Tensor& flow, WarpMode mode, Needed needed,
                                               Summation summation) {
  check_warp(image, flow);
  const OnDeviceOf stream(image);
  Tensor for_image = gradient_like(image, needed.image);
  Tensor for_flow = gradient_like(flow, needed.flow);
  if (is_empty(grad) || is_empty(image))
    return {torch::stable::zero_(for_image), torch::stable::zero_(for_flow)};
  if (mode.sampling == Sampling::nearest) {
    torch::stable::zero_(for_flow);
    needed.flow = false;
  }
  if (!needed.image && !needed.flow) return {for_image, for_flow};
  switch_float(image.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using A = Working<T>;
    WarpGradients<A> result{};
    result.needed = needed;
    if (needed.flow) result.flow = view_of<A>(for_flow);
    Tensor sums = for_image;
    if (needed.image) {
      const bool repeatable = summation == Summation::repeatable;
      if (repeatable)
        sums = empty_beside(image, {image.numel() + 1}, ScalarType::Long);
      else if (sizeof(T) != sizeof(A))
        sums = empty_in_format_of(image, sizes_of(image), flow.scalar_type());
      torch::stable::zero_(sums);
      result.image = like<A>(view_of<T>(for_image));
      if (repeatable)
        result.fixed = reinterpret_cast<Fixed*>(sums.data_ptr());
      else
        result.image.data = reinterpret_cast<A*>(sums.data_ptr());
    }
    const auto from = view_of<const T>(grad);
    start_warp_backward<T>(stream, call_of<T>(image, flow, mode), from, result);
    if (needed.image && sums.data_ptr() != for_image.data_ptr())
      start_finish(stream, result, from.size[0] * from.voxels(), view_of<T>(for_image).data,
                   Finish::write);
  });
  return {for_image, for_flow};
}

namespace {

Tensor warp(Tensor image, Tensor flow, bool nearest, bool border) {
  return cuda::warp_image(image, flow, warp_mode(nearest, border));
}

std::tuple<Tensor, Tensor> warp_backward(Tensor grad, Tensor image, Tensor flow, bool nearest,
                                         bool border, bool need_image, bool need_flow,
                                         bool deterministic) {
  return cuda::warp_image_backward(grad, image, flow, warp_mode(nearest, border),
                                   {.image = need_image, .flow = need_flow},
                                   summation(deterministic));
}

}  // namespace

}  // namespace cuda

}  // namespace lganet

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CUDA, m) {
  m.impl("warp", TORCH_BOX(&lganet::cuda::warp));
  m.impl("warp_backward", TORCH_BOX(&lganet::cuda::warp_backward));
}
