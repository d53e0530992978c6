// gradient_loss on the CPU: a float64 sum per plane, so that the result does not depend on threads.
#include "common/rows.h"
#include "common/runs.h"

#define LGANET_LOOPS "gradient_loss/gradient_loss_loops.h"
#include "common/each_isa.h"

namespace lganet {

namespace {

// The weight of a squared difference along each axis; 0 on an axis of one voxel.
struct Weights {
  double axis[3];

  explicit Weights(const Tensor& flow) {
    for (int a = 0; a < 3; ++a) {
      const int64_t n = flow.size(2 + a);
      axis[a] = n > 1 ? double(n) / (3.0 * double(n - 1) * double(flow.numel())) : 0.0;
    }
  }
};

int64_t lines_per_task(const Tensor& x) { return parts_per_task(x.size(3) * x.size(4)); }

Tensor gradient_loss(const Tensor& flow) {
  Tensor value = empty_beside(flow, {}, flow.scalar_type());
  switch_wide_float(flow.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const MemoryFormat format = format_of(flow);
    const auto x = rows_of<const T>(flow, format);
    const Weights weights(flow);
    const int64_t lines = x.planes * x.height;
    std::vector<double> sums(lines);
    if (flow.numel() > 0)
      torch::stable::parallel_for(0, lines, lines_per_task(flow), [&](int64_t begin, int64_t end) {
        LGANET_BEST(gradient_loss_sums, x, weights.axis, sums.data(), begin, end);
      });
    double sum = 0;
    for (double part : sums) sum += part;
    *reinterpret_cast<T*>(value.data_ptr()) = static_cast<T>(sum);
  });
  return value;
}

Tensor gradient_loss_backward(const Tensor& grad, const Tensor& flow) {
  Tensor result = empty_in_format_of(flow, sizes_of(flow));
  STD_TORCH_CHECK(grad.numel() == 1 && grad.scalar_type() == flow.scalar_type(),
                  "grad must be one number of the flow's type");
  if (flow.numel() == 0) return result;
  switch_wide_float(flow.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const MemoryFormat format = format_of(flow);
    const auto x = rows_of<const T>(flow, format);
    const auto to = rows_of<T>(result, format);
    const Weights weights(flow);
    const double scale = *reinterpret_cast<const T*>(grad.data_ptr());
    torch::stable::parallel_for(
        0, x.planes * x.height, lines_per_task(flow), [&](int64_t begin, int64_t end) {
          LGANET_BEST(gradient_loss_slopes, x, to, weights.axis, scale, begin, end);
        });
  });
  return result;
}

}  // namespace
}  // namespace lganet

STABLE_TORCH_LIBRARY_FRAGMENT(lganet_fast, m) {
  m.def("gradient_loss(Tensor flow) -> Tensor");
  m.def("gradient_loss_backward(Tensor grad, Tensor flow) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CPU, m) {
  m.impl("gradient_loss", TORCH_BOX(&lganet::gradient_loss));
  m.impl("gradient_loss_backward", TORCH_BOX(&lganet::gradient_loss_backward));
}
