// Local normalised cross-correlation on the CPU: a loop along the first axis that keeps a few rows
// of temporaries, and for the gradient a few planes. The result is one number, so the gradient is
// linear in one number: it is computed in the same loop as the value, and the backward only scales
// it.
//
// Rows do not depend on how the loop is divided, so results do not depend on the threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>
#include <vector>

#include "common/runs.h"
#include "common/scratch.h"
#include "local_ncc/local_ncc_call.h"

namespace lganet {

constexpr int64_t kPlanes = 4;  // done together, so that the rows around them are read once

template <typename In, typename T>
struct NccInput {
  View<const In> a, b;
  View<const T> weight;  // no data: all ones
};

template <typename T>
struct NccSize {
  int64_t window;
  int64_t line;    // length of a row of scratch
  int64_t lead;    // zeros before and after a row
  int64_t padded;  // length of a row with both
  int64_t slots;   // planes whose fields are kept
  T epsilon;
  T scale;  // of the gradient, per unit of weight

  NccSize(int64_t window, int64_t depth)
      : window(window),
        line(round_up(depth)),
        lead(round_up(window / 2)),
        padded(line + 2 * lead),
        slots(0),
        epsilon(T(1e-5) / (T(window) * window * window) / (T(window) * window * window)),
        scale(0) {}

  int64_t scratch(int64_t fields) const {
    const int64_t rows = (kPlanes + window) * 2 + kPlanes * window * (5 + fields) + 1;
    return rows * line + (5 + fields) * padded;
  }
};

}  // namespace lganet

#define LGANET_LOOPS "local_ncc/local_ncc_loops.h"
#include "common/each_isa.h"

namespace lganet {
namespace {

template <typename In, typename T>
NccInput<In, T> input_of(const Tensor& a, const Tensor& b, const std::optional<Tensor>& weight) {
  return {view_of<const In>(a), view_of<const In>(b),
          weight ? view_of<const T>(*weight) : View<const T>{}};
}

// The divisor of the weighted sum: the sum of weights over all voxels and channels.
template <typename In, typename T>
double total_weight(const NccInput<In, T>& in) {
  const auto& size = in.a.size;
  const int64_t channels = size[1], height = size[2], width = size[3], depth = size[4];
  if (!in.weight.data) return double(size[0] * channels) * in.a.voxels();
  std::vector<double> sums(size[0] * height);
  torch::stable::parallel_for(0, sums.size(), kPlanes, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const T* plane = in.weight.at(p / height, 0) + p % height * in.weight.stride[2];
      for (int64_t w = 0; w < width; ++w)
        for (int64_t d = 0; d < depth; ++d)
          sums[p] += plane[w * in.weight.stride[3] + d * in.weight.stride[4]];
    }
  });
  double total = 0;
  for (double sum : sums) total += sum;
  return total * channels;
}

// The weighted mean; with FIELDS > 0 also its gradient to b, with FIELDS = 5 also that to a.
template <int FIELDS, typename In, typename T>
double sweep(const NccInput<In, T>& in, int64_t window, const View<T>& grad_a,
             const View<T>& grad_b) {
  NccSize<T> size(window, in.a.size[4]);
  const int64_t height = in.a.size[2], width = in.a.size[3], reach = window / 2;
  const int64_t planes = in.a.size[0] * in.a.size[1] * height;
  const double total = total_weight(in);
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t block = FIELDS ? std::max<int64_t>(16, 2 * kPlanes * threads) : planes;
  size.slots = std::min(planes, block + 2 * reach);
  size.scale = static_cast<T>(2 / (double(window) * window * window * total));
  const Scratch<T> slots(size.slots * width * FIELDS * size.line);
  std::vector<double> sums(planes);
  for (int64_t done = 0, written = 0; done < planes;) {
    const int64_t end = std::min(planes, done + block);
    torch::stable::parallel_for(done, end, 1, [&](int64_t chunk_begin, int64_t chunk_end) {
      const Scratch<T> scratch(size.scratch(FIELDS));
      for_runs(chunk_begin, chunk_end, height, kPlanes, [&](int64_t first, int64_t count) {
        LGANET_BEST(template ncc_planes<FIELDS>, in, size, first, count, scratch.get(), sums.data(),
                    slots.get());
      });
    });
    done = end;
    if constexpr (FIELDS > 0) {
      const int64_t ready = done % height ? std::max(done / height * height, done - reach) : done;
      torch::stable::parallel_for(written, ready, 1, [&](int64_t chunk_begin, int64_t chunk_end) {
        const Scratch<T> scratch(4 * size.line);
        for_runs(chunk_begin, chunk_end, height, kPlanes, [&](int64_t first, int64_t count) {
          LGANET_BEST(template ncc_gradient_planes<FIELDS>, in, size, first, count, scratch.get(),
                      slots.get(), grad_a, grad_b);
        });
      });
      written = std::max(written, ready);
    }
  }
  double sum = 0;
  for (double part : sums) sum += part;
  return sum / total;
}

// A tensor in another type, in its memory format.
Tensor converted(const Tensor& x, ScalarType type) {
  if (x.dim() != 5) return empty_beside(x, {0}, type);
  Tensor out = empty_in_format_of(x, sizes_of(x), type);
  switch_float(x.scalar_type(), [&](auto from_zero) {
    switch_wide_float(type, [&](auto to_zero) {
      const auto from = view_of<const decltype(from_zero)>(x);
      const auto to = view_of<decltype(to_zero)>(out);
      const auto& n = from.size;
      for (int64_t i = 0; i < x.numel(); ++i) {
        const int64_t d = i % n[4], w = i / n[4] % n[3], h = i / (n[4] * n[3]) % n[2];
        const int64_t c = i / from.voxels() % n[1], b = i / (from.voxels() * n[1]);
        const auto place = [&](const auto& v) {
          return v.at(b, c) + h * v.stride[2] + w * v.stride[3] + d * v.stride[4];
        };
        *place(to) = static_cast<decltype(to_zero)>(*place(from));
      }
    });
  });
  return out;
}

using Results = std::tuple<Tensor, Tensor, Tensor>;

Results local_ncc(const Tensor& a, const Tensor& b, const std::optional<Tensor>& weight,
                  int64_t window, bool need_a, bool need_b);

// The same in float64, for when float32 overflows.
Results local_ncc_widely(const Tensor& a, const Tensor& b, const std::optional<Tensor>& weight,
                         int64_t window, bool need_a, bool need_b) {
  constexpr auto kWide = ScalarType::Double, kOwn = ScalarType::Float;
  const auto wide_weight = weight ? std::optional(converted(*weight, kWide)) : std::nullopt;
  const auto [value, grad_a, grad_b] =
      local_ncc(converted(a, kWide), converted(b, kWide), wide_weight, window, need_a, need_b);
  Tensor narrow = empty_beside(a, {}, kOwn);
  *reinterpret_cast<float*>(narrow.data_ptr()) =
      static_cast<float>(*reinterpret_cast<const double*>(value.data_ptr()));
  return {narrow, converted(grad_a, kOwn), converted(grad_b, kOwn)};
}

Results local_ncc(const Tensor& a, const Tensor& b, const std::optional<Tensor>& weight,
                  int64_t window, bool need_a, bool need_b) {
  check_ncc(a, b, weight, window);
  const ScalarType type = working_type(a);
  Tensor value = empty_beside(a, {}, type);
  Tensor grad_a = gradient_like(a, type, need_a), grad_b = gradient_like(b, type, need_b);
  bool overflows = false;
  switch_float(a.scalar_type(), [&](auto zero) {
    using In = decltype(zero);
    using T = Working<In>;
    const auto view = [](const Tensor& x, bool needed) {
      return needed ? view_of<T>(x) : View<T>{};
    };
    const View<T> to_a = view(grad_a, need_a), to_b = view(grad_b, need_b);
    double mean = 0;
    if (a.numel() == 0)
      mean = std::numeric_limits<double>::quiet_NaN();
    else if (need_a && need_b)
      mean = sweep<5>(input_of<In, T>(a, b, weight), window, to_a, to_b);
    else if (need_b)
      mean = sweep<3>(input_of<In, T>(a, b, weight), window, to_a, to_b);
    else if (need_a)
      mean = sweep<3>(input_of<In, T>(b, a, weight), window, to_b, to_a);
    else
      mean = sweep<0>(input_of<In, T>(a, b, weight), window, to_a, to_b);
    *reinterpret_cast<T*>(value.data_ptr()) = static_cast<T>(mean);
    overflows = sizeof(T) == sizeof(float) && a.numel() > 0 && !std::isfinite(mean);
  });
  if (overflows) return local_ncc_widely(a, b, weight, window, need_a, need_b);
  return {value, grad_a, grad_b};
}

// `unit` in the image's type, times `grad`.
Tensor scaled(const Tensor& grad, const Tensor& x, const Tensor& unit) {
  const bool needed = unit.dim() == 5;
  Tensor out = gradient_like(unit, x.scalar_type(), needed);
  switch_float(x.scalar_type(), [&](auto zero) {
    using In = decltype(zero);
    using T = Working<In>;
    STD_TORCH_CHECK(
        grad.scalar_type() == unit.scalar_type() && unit.scalar_type() == working_type(x),
        "gradients must be in the result's type");
    const T by = *reinterpret_cast<const T*>(grad.data_ptr());
    const T* from = reinterpret_cast<const T*>(unit.data_ptr());
    In* to = reinterpret_cast<In*>(out.data_ptr());
    torch::stable::parallel_for(0, unit.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
      LGANET_BEST(scale, to + begin, from + begin, end - begin, by);
    });
  });
  return out;
}

// a and b are arguments so that a second derivative raises an error.
std::tuple<Tensor, Tensor> local_ncc_backward(const Tensor& grad, const Tensor& a, const Tensor& b,
                                              const Tensor& unit_a, const Tensor& unit_b) {
  return {scaled(grad, a, unit_a), scaled(grad, b, unit_b)};
}

}  // namespace
}  // namespace lganet

STABLE_TORCH_LIBRARY_FRAGMENT(lganet_fast, m) {
  m.def(
      "local_ncc(Tensor a, Tensor b, Tensor? weight, int window, bool need_a, bool need_b) -> "
      "(Tensor, Tensor, Tensor)");
  m.def(
      "local_ncc_backward(Tensor grad, Tensor a, Tensor b, Tensor unit_a, Tensor unit_b) -> "
      "(Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CPU, m) {
  m.impl("local_ncc", TORCH_BOX(&lganet::local_ncc));
  m.impl("local_ncc_backward", TORCH_BOX(&lganet::local_ncc_backward));
}
