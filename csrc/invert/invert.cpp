// invert on the CPU: checks, memory and threads. The loops are in invert_loops.h.
#include <tuple>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#include "invert/invert_tensors.h"

#define LGANET_LOOPS "invert/invert_loops.h"
#include "common/each_isa.h"

namespace lganet {

namespace {

std::tuple<Tensor, Tensor> invert(const Tensor& field, const Tensor& goal, const Tensor& start,
                                  const std::vector<double>& step,
                                  const std::vector<double>& metric, double tolerance,
                                  double shrink, int64_t patience) {
  check_invert(field, goal, start, step, metric);
  Tensor flow = empty_in_format_of(start, sizes_of(start)), solved = empty_solved(goal);
  if (is_empty(flow)) return {flow, solved};
  switch_wide_float(field.scalar_type(), [&](auto zero) {
    using A = decltype(zero);
    const InvertCall<A> call(view_of<const A>(field), view_of<const A>(goal),
                             view_of<const A>(start), step, metric, tolerance, shrink, patience);
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
