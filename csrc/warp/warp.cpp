// warp on the CPU: checks, memory and threads. The loops are in warp_loops.h.
#include <algorithm>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#include "common/runs.h"
#include "warp/warp_call.h"

#define LGANET_LOOPS "warp/warp_loops.h"
#include "common/each_isa.h"

namespace lganet {

namespace {

// The least rows along the last axis for a thread.
int64_t rows_per_task(const Tensor& x) { return parts_per_task(x.size(4)); }

template <typename T>
WarpCall<T, Working<T>> call_of(const Tensor& image, const Tensor& flow, WarpMode mode) {
  return {view_of<const T>(image), view_of<const Working<T>>(flow), mode};
}

template <typename T>
void image_gradient(const WarpCall<T, Working<T>>& call, const Tensor& grad, Tensor& result) {
  using A = Working<T>;
  constexpr bool kWide = sizeof(T) == sizeof(A);
  Tensor wide = kWide ? result : empty_in_format_of(result, sizes_of(result), ScalarType::Float);
  const auto out = view_of<A>(wide);
  const auto from = view_of<const T>(grad);
  const int64_t rows = from.size[0] * from.size[2] * from.size[3];
  std::vector<Reach> reach(rows);
  torch::stable::parallel_for(0, rows, rows_per_task(grad), [&](int64_t begin, int64_t end) {
    LGANET_BEST(reach_rows, call, reach.data(), begin, end);
  });
  const int64_t planes = out.size[0] * out.size[2];
  const int64_t grain = std::max<int64_t>(1, rows_per_task(grad) / from.size[3]);
  torch::stable::parallel_for(0, planes, grain, [&](int64_t begin, int64_t end) {
    LGANET_BEST(image_gradient_planes, call, from, out, reach.data(), begin, end);
  });
  if constexpr (!kWide) {
    T* to = view_of<T>(result).data;
    torch::stable::parallel_for(0, wide.numel(), kVoxelsPerTask, [&](int64_t begin, int64_t end) {
      LGANET_BEST(round_all, out.data, to, begin, end);
    });
  }
}

template <typename T>
void flow_gradient(const WarpCall<T, Working<T>>& call, const Tensor& grad, Tensor& result) {
  const auto out = view_of<Working<T>>(result);
  const auto from = view_of<const T>(grad);
  const int64_t rows = out.size[0] * out.size[2] * out.size[3];
  torch::stable::parallel_for(0, rows, rows_per_task(grad), [&](int64_t begin, int64_t end) {
    LGANET_BEST(flow_gradient_rows, call, from, out, begin, end);
  });
}

}  // namespace

Tensor warp_image(const Tensor& image, const Tensor& flow, WarpMode mode) {
  check_warp(image, flow);
  Tensor result = empty_result(image, flow);
  if (is_empty(result)) return result;
  if (is_empty(image)) return torch::stable::zero_(result);
  switch_float(image.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const auto call = call_of<T>(image, flow, mode);
    const auto out = view_of<T>(result);
    const int64_t rows = out.size[0] * out.size[2] * out.size[3];
    torch::stable::parallel_for(0, rows, rows_per_task(result), [&](int64_t begin, int64_t end) {
      LGANET_BEST(warp_rows, call, out, begin, end);
    });
  });
  return result;
}

std::tuple<Tensor, Tensor> warp_image_backward(const Tensor& grad, const Tensor& image,
                                               const Tensor& flow, WarpMode mode, Needed needed) {
  check_warp(image, flow);
  Tensor for_image = gradient_like(image, needed.image);
  Tensor for_flow = gradient_like(flow, needed.flow);
  if (is_empty(grad) || is_empty(image))
    return {torch::stable::zero_(for_image), torch::stable::zero_(for_flow)};
  switch_float(image.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const auto call = call_of<T>(image, flow, mode);
    if (needed.image) image_gradient<T>(call, grad, for_image);
    if (!needed.flow) return;
    if (mode.sampling == Sampling::nearest)
      torch::stable::zero_(for_flow);
    else
      flow_gradient<T>(call, grad, for_flow);
  });
  return {for_image, for_flow};
}

namespace {

Tensor warp(Tensor image, Tensor flow, bool nearest, bool border) {
  return warp_image(image, flow, warp_mode(nearest, border));
}

std::tuple<Tensor, Tensor> warp_backward(Tensor grad, Tensor image, Tensor flow, bool nearest,
                                         bool border, bool need_image, bool need_flow,
                                         bool /*deterministic*/) {
  return warp_image_backward(grad, image, flow, warp_mode(nearest, border),
                             {.image = need_image, .flow = need_flow});
}

}  // namespace

}  // namespace lganet

STABLE_TORCH_LIBRARY_FRAGMENT(lganet_fast, m) {
  m.def("warp(Tensor image, Tensor flow, bool nearest, bool border) -> Tensor");
  m.def(
      "warp_backward(Tensor grad, Tensor image, Tensor flow, bool nearest, bool border, "
      "bool need_image, bool need_flow, bool deterministic=False) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CPU, m) {
  m.impl("warp", TORCH_BOX(&lganet::warp));
  m.impl("warp_backward", TORCH_BOX(&lganet::warp_backward));
}
