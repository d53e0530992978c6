// Invert: where a displacement field takes to given points. The loops are in invert_loops.h.
#include <algorithm>
#include <tuple>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#include "tensors.h"

namespace lganet {

template <typename A>
struct InvertCall {
  View<const A> field, goal, start;
  A step[9], metric[9];
  A tolerance, shrink;
  int64_t patience;
};

}  // namespace lganet

#define LGANET_LOOPS "invert_loops.h"
#include "each_isa.h"

namespace lganet {

namespace {

std::tuple<Tensor, Tensor> invert(const Tensor& field, const Tensor& goal, const Tensor& start,
                                  const std::vector<double>& step,
                                  const std::vector<double>& metric, double tolerance,
                                  double shrink, int64_t patience) {
  STD_TORCH_CHECK(step.size() == 9 && metric.size() == 9, "step and metric must hold 9 numbers");
  for (const Tensor* x : {&field, &goal, &start})
    STD_TORCH_CHECK(x->dim() == 5 && x->size(1) == 3 && x->size(0) == field.size(0) &&
                        x->scalar_type() == field.scalar_type(),
                    "field, goal and start must be (B, 3, ...) of one type");
  for (int axis = 2; axis < 5; ++axis)
    STD_TORCH_CHECK(goal.size(axis) == start.size(axis), "goal and start must have one shape");
  Tensor flow = empty_in_format_of(start, sizes_of(start));
  Tensor solved = empty_beside(goal, {goal.size(0), goal.size(2), goal.size(3), goal.size(4)},
                               ScalarType::Bool);
  if (is_empty(flow)) return {flow, solved};
  switch_wide_float(field.scalar_type(), [&](auto zero) {
    using A = decltype(zero);
    InvertCall<A> call{view_of<const A>(field), view_of<const A>(goal), view_of<const A>(start)};
    call.tolerance = A(tolerance);
    call.shrink = A(shrink);
    call.patience = patience;
    std::copy(step.begin(), step.end(), call.step);
    std::copy(metric.begin(), metric.end(), call.metric);
    const auto out = view_of<A>(flow);
    bool* done = reinterpret_cast<bool*>(solved.data_ptr());
    const int64_t rows = out.size[0] * out.size[2] * out.size[3];
    torch::stable::parallel_for(0, rows, 1 + 2048 / out.size[4], [&](int64_t begin, int64_t end) {
      LGANET_BEST(invert_rows, call, out, done, begin, end);
    });
  });
  return {flow, solved};
}

}  // namespace
}  // namespace lganet

STABLE_TORCH_LIBRARY_FRAGMENT(lganet_fast, m) {
  m.def(
      "invert(Tensor field, Tensor goal, Tensor start, float[] step, float[] metric, "
      "float tolerance, float shrink, int patience) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CPU, m) { m.impl("invert", TORCH_BOX(&lganet::invert)); }
