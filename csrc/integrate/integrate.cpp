// integrate on the CPU: memory, threads and the order of the steps; see integrate_loops.h.
//
// A field takes 4 numbers per voxel. The backward needs two gradients of that size and the fields
// that it keeps.
#include <cmath>
#include <utility>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#include "common/runs.h"
#include "integrate/integrate_call.h"
#include "integrate/squarings.h"
#include "warp/warp_call.h"

namespace lganet {

// A field: three components and a zero at every voxel of (batch, height, width, depth).
template <typename A>
struct Field {
  A* data;
  int64_t batch, height, width, depth;

  LGANET_HD int64_t rows() const { return batch * height * width; }
};

}  // namespace lganet

// Every function that takes or returns a wide vector is inlined, so no calling convention matters.
#pragma GCC diagnostic ignored "-Wpsabi"

#define LGANET_LOOPS "integrate/integrate_loops.h"
#include "common/each_isa.h"

namespace lganet {

namespace {

constexpr int64_t kBehind = 8;  // voxels beyond a field's end that a full register may read

template <typename A>
class Integration {
 public:
  explicit Integration(const Tensor& velocity)
      : like_(velocity),
        size_{nullptr, velocity.size(0), velocity.size(2), velocity.size(3), velocity.size(4)} {}

  // An uninitialised field; reuses a released one if there is one.
  Tensor take() {
    if (!free_.empty()) {
      const Tensor result = free_.back();
      free_.pop_back();
      return result;
    }
    const int64_t numbers = 4 * (size_.rows() * size_.depth + kBehind);
    const Tensor result = empty_beside(like_, {numbers}, like_.scalar_type());
    for (int64_t i = numbers - 4 * kBehind; i < numbers; ++i) data(result)[i] = 0;
    return result;
  }

  void give(const Tensor& field) { free_.push_back(field); }

  Tensor together(const Tensor& apart, A scale) {
    const Tensor result = take();
    const auto from = view_of<const A>(apart);
    over_rows([&](int64_t begin, int64_t end) {
      LGANET_BEST(gather_components, from, field(result), scale, begin, end);
    });
    return result;
  }

  Tensor apart(const Tensor& together, A scale) const {
    Tensor result = empty_in_format_of(like_, sizes_of(like_));
    const auto to = view_of<A>(result);
    over_rows([&](int64_t begin, int64_t end) {
      LGANET_BEST(spread_components, field(together), to, scale, begin, end);
    });
    return result;
  }

  // The next field.
  Tensor squared(const Tensor& from) {
    const Tensor to = take();
    over_rows([&](int64_t begin, int64_t end) {
      LGANET_BEST(square, field(from), field(to), begin, end);
    });
    return to;
  }

  // Releases `grad`.
  Tensor step_back(const Tensor& at, const Tensor& grad) {
    const Tensor to = take();
    std::vector<Reach> reach(size_.rows());
    over_rows([&](int64_t begin, int64_t end) {
      LGANET_BEST(reach_of_rows, field(at), reach.data(), begin, end);
    });
    const int64_t planes = size_.height;
    const int64_t grain = parts_per_task(size_.width * size_.depth);
    torch::stable::parallel_for(0, size_.batch * planes, grain, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin / planes; b * planes < end; ++b) {
        const Own own{b, std::max<int64_t>(begin - b * planes, 0),
                      std::min(end - b * planes, planes) - 1};
        LGANET_BEST(square_backward, field(at), field(grad), field(to), reach.data(), own);
      }
    });
    give(grad);
    return to;
  }

 private:
  static A* data(const Tensor& x) { return reinterpret_cast<A*>(x.data_ptr()); }

  Field<A> field(const Tensor& x) const {
    Field<A> result = size_;
    result.data = data(x);
    return result;
  }

  template <typename F>
  void over_rows(const F& body) const {
    const int64_t grain = parts_per_task(size_.depth);
    torch::stable::parallel_for(0, size_.rows(), grain, body);
  }

  Tensor like_;
  std::vector<Tensor> free_;
  Field<A> size_;
};

Tensor integrate(Tensor velocity, int64_t steps) {
  check_integrate(velocity, steps);
  if (velocity.numel() == 0) return empty_in_format_of(velocity, sizes_of(velocity));
  Tensor result;
  switch_wide_float(velocity.scalar_type(), [&](auto zero) {
    using A = decltype(zero);
    Integration<A> run(velocity);
    const A scale = A(std::ldexp(1.0, -int(steps)));
    result = run.apart(squared(run, run.together(velocity, scale), steps), 1);
  });
  return result;
}

Tensor integrate_backward(Tensor grad, Tensor velocity, int64_t steps, bool /*deterministic*/) {
  check_integrate(velocity, steps);
  if (velocity.numel() == 0) return empty_in_format_of(velocity, sizes_of(velocity));
  Tensor result;
  switch_wide_float(velocity.scalar_type(), [&](auto zero) {
    using A = decltype(zero);
    Integration<A> run(velocity);
    const A scale = A(std::ldexp(1.0, -int(steps)));
    const Tensor start = run.together(velocity, scale);
    result = run.apart(reverse(run, start, steps, run.together(grad, 1)), scale);
  });
  return result;
}

}  // namespace

}  // namespace lganet

STABLE_TORCH_LIBRARY_FRAGMENT(lganet_fast, m) {
  m.def("integrate(Tensor velocity, int steps) -> Tensor");
  m.def(
      "integrate_backward(Tensor grad, Tensor velocity, int steps, bool deterministic=False) "
      "-> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CPU, m) {
  m.impl("integrate", TORCH_BOX(&lganet::integrate));
  m.impl("integrate_backward", TORCH_BOX(&lganet::integrate_backward));
}
