// Warp on a CUDA device: memory and types. The kernels are in warp.cuh.
#include "warp/warp.cuh"

#include "common/cuda_tensors.h"
#include "warp/warp_call.h"

namespace lganet {

// What integrate.cu starts too, so that it is compiled once.
#define LGANET_COMPILED(A)                                                                 \
  template void start_warp(Stream, const DeviceWarp<A, A>&, const View<A>&);               \
  template void start_warp_backward(Stream, const DeviceWarp<A, A>&, const View<const A>&, \
                                    const WarpGradients<A>&);                              \
  template void start_finish(Stream, const WarpGradients<A>&, int64_t, A*, bool);
LGANET_COMPILED(float)
LGANET_COMPILED(double)
#undef LGANET_COMPILED

namespace cuda {

namespace {

template <typename T>
DeviceWarp<T, Working<T>> call_of(const Tensor& image, const Tensor& flow, bool nearest,
                                  bool border, bool add_flow) {
  return {view_of<const T>(image),
          view_of<const Working<T>>(flow),
          nearest,
          border,
          add_flow,
          1,
          false};
}

}  // namespace

Tensor warp_image(const Tensor& image, const Tensor& flow, bool nearest, bool border,
                  bool add_flow) {
  check_warp(image, flow);
  const OnDeviceOf stream(image);
  Tensor result = empty_in_format_of(
      image, {flow.size(0), image.size(1), flow.size(2), flow.size(3), flow.size(4)});
  if (is_empty(result)) return result;
  if (is_empty(image)) return torch::stable::zero_(result);
  switch_float(image.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    start_warp<T>(stream, call_of<T>(image, flow, nearest, border, add_flow), view_of<T>(result));
  });
  return result;
}

std::tuple<Tensor, Tensor> warp_image_backward(const Tensor& grad, const Tensor& image,
                                               const Tensor& flow, bool nearest, bool border,
                                               bool add_flow, bool need_image, bool need_flow,
                                               bool deterministic) {
  check_warp(image, flow);
  const OnDeviceOf stream(image);
  Tensor for_image = need_image ? empty_in_format_of(image, sizes_of(image))
                                : empty_beside(image, {0}, image.scalar_type());
  Tensor for_flow = need_flow ? empty_in_format_of(flow, sizes_of(flow))
                              : empty_beside(flow, {0}, flow.scalar_type());
  if (is_empty(grad) || is_empty(image))
    return {torch::stable::zero_(for_image), torch::stable::zero_(for_flow)};
  if (nearest) torch::stable::zero_(for_flow);
  switch_float(image.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using A = Working<T>;
    WarpGradients<A> result{};
    result.need_image = need_image;
    result.need_flow = need_flow && !nearest;
    if (!result.need_image && !result.need_flow) return;
    if (result.need_flow) result.flow = view_of<A>(for_flow);
    Tensor sums = for_image;
    if (need_image) {
      if (deterministic)
        sums = empty_beside(image, {image.numel() + 1}, ScalarType::Long);
      else if (sizeof(T) != sizeof(A))
        sums = empty_in_format_of(image, sizes_of(image), flow.scalar_type());
      torch::stable::zero_(sums);
      result.image = like<A>(view_of<T>(for_image));
      if (deterministic)
        result.fixed = reinterpret_cast<Fixed*>(sums.data_ptr());
      else
        result.image.data = reinterpret_cast<A*>(sums.data_ptr());
    }
    const auto from = view_of<const T>(grad);
    start_warp_backward<T>(stream, call_of<T>(image, flow, nearest, border, add_flow), from,
                           result);
    if (need_image && sums.data_ptr() != for_image.data_ptr())
      start_finish(stream, result, from.size[0] * from.voxels(), view_of<T>(for_image).data, false);
  });
  return {for_image, for_flow};
}

namespace {

Tensor warp(Tensor image, Tensor flow, bool nearest, bool border) {
  return warp_image(image, flow, nearest, border, false);
}

std::tuple<Tensor, Tensor> warp_backward(Tensor grad, Tensor image, Tensor flow, bool nearest,
                                         bool border, bool need_image, bool need_flow,
                                         bool deterministic) {
  return warp_image_backward(grad, image, flow, nearest, border, false, need_image, need_flow,
                             deterministic);
}

}  // namespace

}  // namespace cuda

}  // namespace lganet

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CUDA, m) {
  m.impl("warp", TORCH_BOX(&lganet::cuda::warp));
  m.impl("warp_backward", TORCH_BOX(&lganet::cuda::warp_backward));
}
