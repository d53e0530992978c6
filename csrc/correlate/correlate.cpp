// correlate on the CPU: each result is written once, without atomics or scatters.
#include <algorithm>
#include <cstring>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/row_layout.h"
#include "common/runs.h"
#include "common/tensors.h"

namespace lganet {

enum class To : bool { x, y };  // whose gradient

struct CorrelateSize {
  int64_t radius, planes, offsets_padded;
  RowLayout features, offsets;
  RowLayout sums;  // of the result: like `offsets`, but without gaps between voxels

  CorrelateSize(MemoryFormat format, int64_t channels, int64_t depth, int64_t radius)
      : radius(radius),
        offsets_padded(round_up(count(), 4)),
        features(format, channels, depth, radius),
        offsets(format, offsets_padded, depth, radius),
        sums(offsets) {
    if (format == MemoryFormat::ChannelsLast3d) sums.voxel = count();
    // Planes done together share the rows around them, if these fit into a core's cache.
    for (planes = 4; planes > 1 && (planes + 2 * radius) * side() * features.length > (1 << 16);)
      planes /= 2;
  }

  int64_t side() const { return 2 * radius + 1; }
  int64_t count() const { return side() * side() * side(); }
  int64_t scratch() const {
    return ((planes + 2 * radius) * side() + 1) * (features.length + offsets.length);
  }
};

}  // namespace lganet

#define LGANET_LOOPS "correlate/correlate_loops.h"
#include "common/each_isa.h"

namespace lganet {
namespace {

void check(const Tensor& x, const Tensor& y, int64_t radius) {
  STD_TORCH_CHECK(x.dim() == 5 && y.dim() == 5, "x and y must have shape (B, C, H, W, D)");
  STD_TORCH_CHECK(x.scalar_type() == y.scalar_type(), "x and y must be of one type");
  STD_TORCH_CHECK(radius > 0, "radius must be at least 1, got ", radius);
  for (int axis = 0; axis < 5; ++axis)
    STD_TORCH_CHECK(x.size(axis) == y.size(axis), "x and y must have one shape");
}

// Calls body(first, count, scratch, pointers) for runs of planes, in parallel.
template <typename T, typename F>
void over_runs(const Tensor& x, const CorrelateSize& size, F&& body) {
  const int64_t height = x.size(2);
  const int64_t work = x.size(3) * x.size(4) * x.size(1) * size.count();
  torch::stable::parallel_for(
      0, x.size(0) * height, 1 + (1 << 17) / work, [&](int64_t begin, int64_t end) {
        const Scratch<T> scratch(size.scratch());
        std::vector<const T*> pointers(2 * size.offsets_padded);
        for_runs(begin, end, height, size.planes, [&](int64_t first, int64_t count) {
          body(first, count, scratch.get(), pointers.data());
        });
      });
}

Tensor correlate(const Tensor& x, const Tensor& y, int64_t radius) {
  check(x, y, radius);
  const CorrelateSize size(format_of(x), x.size(1), x.size(4), radius);
  Tensor out = empty_in_format_of(x, {x.size(0), size.count(), x.size(2), x.size(3), x.size(4)});
  if (out.numel() == 0) return out;
  if (x.numel() == 0) return torch::stable::fill_(out, std::numeric_limits<double>::quiet_NaN());
  switch_float(x.scalar_type(), [&](auto zero) {
    using In = decltype(zero);
    using T = Working<In>;
    const auto vx = view_of<const In>(x), vy = view_of<const In>(y);
    const auto to = view_of<In>(out);
    over_runs<T>(x, size, [&](int64_t first, int64_t count, T* scratch, const T** pointers) {
      LGANET_BEST(correlate_planes, vx, vy, to, size, first, count, scratch, pointers);
    });
  });
  return out;
}

// The gradient to `self`, which is x or y, from that to the result and the other map.
template <To kTo>
Tensor gradient(const Tensor& grad, const Tensor& other, const Tensor& self, int64_t radius) {
  const CorrelateSize size(format_of(self), self.size(1), self.size(4), radius);
  Tensor out = gradient_like(self, true);
  if (out.numel() == 0) return out;
  switch_float(self.scalar_type(), [&](auto zero) {
    using In = decltype(zero);
    using T = Working<In>;
    const auto g = view_of<const In>(grad), f = view_of<const In>(other);
    const auto to = view_of<In>(out);
    over_runs<T>(self, size, [&](int64_t first, int64_t count, T* scratch, const T** pointers) {
      LGANET_BEST(template correlate_gradient_planes<kTo>, g, f, to, size, first, count, scratch,
                  pointers);
    });
  });
  return out;
}

std::tuple<Tensor, Tensor> correlate_backward(const Tensor& grad, const Tensor& x, const Tensor& y,
                                              int64_t radius, bool need_x, bool need_y) {
  check(x, y, radius);
  STD_TORCH_CHECK(grad.dim() == 5 && grad.scalar_type() == x.scalar_type(),
                  "grad must have the result's shape and type");
  const int64_t side = 2 * radius + 1;
  for (int axis = 0; axis < 5; ++axis)
    STD_TORCH_CHECK(grad.size(axis) == (axis == 1 ? side * side * side : x.size(axis)),
                    "grad must have the result's shape");
  return {need_x ? gradient<To::x>(grad, y, x, radius) : gradient_like(x, false),
          need_y ? gradient<To::y>(grad, x, y, radius) : gradient_like(x, false)};
}

}  // namespace
}  // namespace lganet

STABLE_TORCH_LIBRARY_FRAGMENT(lganet_fast, m) {
  m.def("correlate(Tensor x, Tensor y, int radius) -> Tensor");
  m.def(
      "correlate_backward(Tensor grad, Tensor x, Tensor y, int radius, bool need_x, bool need_y) "
      "-> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CPU, m) {
  m.impl("correlate", TORCH_BOX(&lganet::correlate));
  m.impl("correlate_backward", TORCH_BOX(&lganet::correlate_backward));
}
