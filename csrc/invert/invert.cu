// Invert on a CUDA device: memory and types. The kernel is in invert.cuh.
#include "invert/invert.cuh"

#include <tuple>

#include "common/cuda_tensors.h"
#include "invert/invert_tensors.h"

namespace lganet::cuda {

namespace {

std::tuple<Tensor, Tensor> invert(const Tensor& field, const Tensor& goal, const Tensor& start,
                                  const std::vector<double>& step,
                                  const std::vector<double>& metric, double tolerance,
                                  double shrink, int64_t patience) {
  check_invert(field, goal, start, step, metric);
  const OnDeviceOf stream(field);
  Tensor flow = empty_in_format_of(start, sizes_of(start)), solved = empty_solved(goal);
  if (is_empty(flow)) return {flow, solved};
  switch_wide_float(field.scalar_type(), [&](auto zero) {
    using A = decltype(zero);
    const InvertCall<A> call(view_of<const A>(field), view_of<const A>(goal),
                             view_of<const A>(start), step, metric, tolerance, shrink, patience);
    start_invert<A>(stream, call, view_of<A>(flow), reinterpret_cast<bool*>(solved.data_ptr()),
                    Index::fitting);
  });
  return {flow, solved};
}

}  // namespace

}  // namespace lganet::cuda

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CUDA, m) {
  m.impl("invert", TORCH_BOX(&lganet::cuda::invert));
}
