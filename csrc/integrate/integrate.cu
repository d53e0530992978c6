// Integrate on a CUDA device: memory and the order of the steps. The kernels are in integrate.cuh.
//
// The forward needs two fields of 3 numbers per voxel, one of which is the result. The backward
// needs two gradients of that size and the fields that it keeps.
#include <cmath>

#include "common/cuda_tensors.h"
#include "integrate/integrate.cuh"
#include "integrate/integrate_call.h"
#include "integrate/squarings.h"
#include "warp/warp_call.h"

namespace lganet {

// compiled in warp.cu
#define LGANET_COMPILED(A)                                                                        \
  extern template void start_warp(Stream, const DeviceWarp<A, A>&, const View<A>&);               \
  extern template void start_warp_backward(Stream, const DeviceWarp<A, A>&, const View<const A>&, \
                                           const WarpGradients<A>&);                              \
  extern template void start_finish(Stream, const WarpGradients<A>&, int64_t, A*, Finish);
LGANET_COMPILED(float)
LGANET_COMPILED(double)
#undef LGANET_COMPILED

namespace cuda {

namespace {

template <typename A>
class Integration {
 public:
  Integration(const Tensor& velocity, int64_t steps, Stream stream, Summation summation)
      : velocity_(velocity),
        scale_(A(std::ldexp(1.0, -int(steps)))),
        stream_(stream),
        summation_(summation) {}

  Tensor take() const { return empty_in_format_of(velocity_, sizes_of(velocity_)); }
  void give(const Tensor&) const {}  // freed by PyTorch when the last reference is gone

  Tensor squared(const Tensor& from) const {
    const Tensor to = take();
    start_square<A>(stream_, field(from), view_of<A>(to));
    return to;
  }

  Tensor step_back(const Tensor& at, const Tensor& grad) const {
    Tensor to = take();
    WarpGradients<A> result{};
    result.image = result.flow = view_of<A>(to);
    Tensor sums = to;
    if (summation_ == Summation::repeatable) {
      sums = empty_beside(to, {to.numel() + 1}, ScalarType::Long);
      result.fixed = reinterpret_cast<Fixed*>(sums.data_ptr());
    }
    torch::stable::zero_(sums);
    start_square_backward<A>(stream_, field(at), view_of<const A>(grad), result);
    return to;
  }

  Tensor forward(int64_t steps) const {
    const auto velocity = view_of<const A>(velocity_);
    if (!in_one_launch(velocity)) return lganet::squared(*this, velocity_, steps);
    const Tensor result = take(), spare = take();
    start_integrate<A>(stream_, velocity, view_of<A>(result), view_of<A>(spare).data, scale_,
                       int(steps));
    return result;
  }

 private:
  DeviceField<A> field(const Tensor& x) const {
    return {view_of<const A>(x), x.data_ptr() == velocity_.data_ptr() ? scale_ : A(1),
            Index::fitting};
  }

  Tensor velocity_;
  A scale_;
  Stream stream_;
  Summation summation_;
};

Tensor copied_in_format_of(const Tensor& like, const Tensor& x) {
  Tensor result = empty_in_format_of(like, sizes_of(x));
  torch::stable::copy_(result, x);
  return result;
}

Tensor integrate(Tensor velocity, int64_t steps) {
  check_integrate(velocity, steps);
  if (is_empty(velocity) || steps == 0) return copied_in_format_of(velocity, velocity);
  const OnDeviceOf stream(velocity);
  Tensor result = velocity;
  switch_wide_float(velocity.scalar_type(), [&](auto zero) {
    result = Integration<decltype(zero)>(velocity, steps, stream, Summation::fast).forward(steps);
  });
  return result;
}

Tensor integrate_backward(Tensor grad, Tensor velocity, int64_t steps, bool deterministic) {
  check_integrate(velocity, steps);
  if (is_empty(velocity) || steps == 0) return copied_in_format_of(velocity, grad);
  const OnDeviceOf stream(velocity);
  Tensor result = velocity;
  switch_wide_float(velocity.scalar_type(), [&](auto zero) {
    const Integration<decltype(zero)> run(velocity, steps, stream, summation(deterministic));
    result = reverse(run, velocity, steps, grad);
  });
  return result;
}

}  // namespace

}  // namespace cuda

}  // namespace lganet

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CUDA, m) {
  m.impl("integrate", TORCH_BOX(&lganet::cuda::integrate));
  m.impl("integrate_backward", TORCH_BOX(&lganet::cuda::integrate_backward));
}
