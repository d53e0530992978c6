// resize on the CPU: each row from up to four rows of the input; a row of the gradient gathers from
// all rows that read it.
#include <algorithm>
#include <limits>

#include "common/rows.h"
#include "common/runs.h"
#include "common/scratch.h"

namespace lganet {

// For each sample of an axis, the voxel below it and the weight of the one above.
template <typename A>
struct Taps {
  std::vector<int32_t> low;
  std::vector<A> high_weight;
  std::vector<int64_t> first;  // for each voxel, the first sample at or above it

  Taps(int64_t size, int64_t samples)
      : low(samples), high_weight(samples), first(size + 1, samples) {
    for (int64_t n = samples - 1; n >= 0; --n) {
      const double at = samples > 1 ? double(n) * double(size - 1) / double(samples - 1) : 0.0;
      low[n] = int32_t(std::min<double>(at, double(size - 1)));
      high_weight[n] = low[n] + 1 < size ? A(at - low[n]) : A(0);
      first[low[n]] = n;
    }
    for (int64_t voxel = size - 1; voxel >= 0; --voxel)
      first[voxel] = std::min(first[voxel], first[voxel + 1]);
  }

  // The samples that read a voxel, and its weight in each.
  int64_t begin(int64_t voxel) const { return first[std::max<int64_t>(0, voxel - 1)]; }
  int64_t end(int64_t voxel) const { return first[voxel + 1]; }
  A weight(int64_t sample, int64_t voxel) const {
    return low[sample] == voxel ? 1 - high_weight[sample] : high_weight[sample];
  }
};

}  // namespace lganet

#define LGANET_LOOPS "resize/resize_loops.h"
#include "common/each_isa.h"

namespace lganet {

namespace {

Tensor resize(const Tensor& x, int64_t height, int64_t width, int64_t depth) {
  Tensor result = empty_in_format_of(x, {x.size(0), x.size(1), height, width, depth});
  if (result.numel() == 0) return result;
  switch_float(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using A = Working<T>;
    const MemoryFormat format = format_of(x);
    const auto from = rows_of<const T>(x, format);
    const auto to = rows_of<T>(result, format);
    const Taps<A> taps[3] = {{x.size(2), height}, {x.size(3), width}, {x.size(4), depth}};
    torch::stable::parallel_for(0, to.count(), parts_per_task(to.length()),
                                [&](int64_t begin, int64_t end) {
                                  const Scratch<A> row(from.length() + from.inner);
                                  LGANET_BEST(resize_rows, from, to, taps, row.get(), begin, end);
                                });
  });
  return result;
}

Tensor resize_backward(const Tensor& grad, int64_t height, int64_t width, int64_t depth) {
  Tensor result = empty_in_format_of(grad, {grad.size(0), grad.size(1), height, width, depth});
  if (result.numel() == 0) return result;
  if (grad.numel() == 0) return torch::stable::zero_(result);
  switch_float(grad.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using A = Working<T>;
    const MemoryFormat format = format_of(grad);
    const auto from = rows_of<const T>(grad, format);
    const auto to = rows_of<T>(result, format);
    const Taps<A> taps[3] = {{height, grad.size(2)}, {width, grad.size(3)}, {depth, grad.size(4)}};
    torch::stable::parallel_for(
        0, to.count(), parts_per_task(4 * from.length()), [&](int64_t begin, int64_t end) {
          const Scratch<A> row(from.length()), sums(to.length() + to.inner);
          LGANET_BEST(resize_rows_backward, from, to, taps, row.get(), sums.get(), begin, end);
        });
  });
  return result;
}

}  // namespace
}  // namespace lganet

STABLE_TORCH_LIBRARY_FRAGMENT(lganet_fast, m) {
  m.def("resize(Tensor x, int height, int width, int depth) -> Tensor");
  m.def("resize_backward(Tensor grad, int height, int width, int depth) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CPU, m) {
  m.impl("resize", TORCH_BOX(&lganet::resize));
  m.impl("resize_backward", TORCH_BOX(&lganet::resize_backward));
}
