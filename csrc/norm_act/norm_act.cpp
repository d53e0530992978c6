// norm_act on the CPU, in two passes: one for the sums and one for the values.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <vector>

#include "common/scratch.h"
#include "common/tensors.h"

#define LGANET_LOOPS "norm_act/norm_act_loops.h"
#include "common/each_isa.h"

namespace lganet {
namespace {

constexpr double kEps = 1e-5;
constexpr int64_t kChunk = 1 << 15;  // numbers per task of a thread

// A dense tensor as `volumes` runs of voxels with `channels` numbers each: (B, C, H, W, D) in
// channels_last_3d is B runs, contiguous it is B C runs of one channel.
struct Runs {
  int64_t volumes, channels, voxels;
  int64_t period;  // the least whole number of voxels that fills some vectors
  int64_t chunk;   // voxels, a multiple of whole periods
  int64_t chunks;  // of a volume

  explicit Runs(const Tensor& x) {
    STD_TORCH_CHECK(x.dim() == 5, "expected a (B, C, H, W, D) tensor, got ", x.dim(), " axes");
    voxels = x.size(2) * x.size(3) * x.size(4);
    const bool inner = is_channels_last(x);
    channels = inner ? x.size(1) : 1;
    volumes = inner ? x.size(0) : x.size(0) * x.size(1);
    int64_t step = inner ? x.size(1) : 1;
    for (int axis = 4; axis > 1; --axis) {
      STD_TORCH_CHECK(x.size(axis) == 1 || x.stride(axis) == step, "expected a dense tensor");
      step *= x.size(axis);
    }
    int64_t repeat = 1;
    while (repeat * channels < 64) repeat *= 2;
    period = repeat * channels;
    chunk = std::max<int64_t>(1, kChunk / period) * repeat;
    chunks = voxels == 0 ? 0 : (voxels + chunk - 1) / chunk;
  }

  // Splits a run into rows of whole periods, and a last row with the remaining voxels.
  template <typename F>
  void rows(int64_t volume, int64_t index, F&& body) const {
    const int64_t first = index * chunk, count = std::min(chunk, voxels - first);
    const int64_t whole = count * channels / period, place = (volume * voxels + first) * channels;
    if (whole) body(place, period, whole);
    const int64_t rest = count * channels - whole * period;
    if (rest) body(place + whole * period, rest, int64_t(1));
  }
};

// Sums for every volume and channel, 2 x volumes x channels, from body(place, period, rows,
// scratch, first, second), which adds to two rows of `period` doubles. The order does not depend on
// threads.
template <typename T, typename F>
std::vector<double> sums_of(const Runs& runs, F&& body) {
  const int64_t width = 2 * runs.channels, jobs = runs.volumes * runs.chunks;
  std::vector<double> parts(jobs * width), total(runs.volumes * width);
  torch::stable::parallel_for(0, jobs, 1, [&](int64_t begin, int64_t end) {
    const Scratch<T> scratch(2 * runs.period);
    std::vector<double> rows(2 * runs.period);
    for (int64_t job = begin; job < end; ++job) {
      std::fill(rows.begin(), rows.end(), 0.0);
      runs.rows(job / runs.chunks, job % runs.chunks,
                [&](int64_t place, int64_t period, int64_t count) {
                  body(job / runs.chunks, place, period, count, scratch.get(), rows.data(),
                       rows.data() + runs.period);
                });
      for (int64_t j = 0; j < runs.period; ++j) {
        parts[job * width + j % runs.channels] += rows[j];
        parts[job * width + runs.channels + j % runs.channels] += rows[runs.period + j];
      }
    }
  });
  for (int64_t job = 0; job < jobs; ++job)
    for (int64_t c = 0; c < width; ++c)
      total[job / runs.chunks * width + c] += parts[job * width + c];
  return total;
}

// body(volume, place, period, rows) for every run of rows, in parallel.
template <typename F>
void for_rows(const Runs& runs, F&& body) {
  torch::stable::parallel_for(0, runs.volumes * runs.chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; ++job)
      runs.rows(job / runs.chunks, job % runs.chunks,
                [&](int64_t place, int64_t period, int64_t count) {
                  body(job / runs.chunks, place, period, count);
                });
  });
}

// One value per volume and channel, repeated to fill rows of a period.
template <typename T, typename F>
std::vector<T> repeated(const Runs& runs, F&& value) {
  std::vector<T> out(runs.volumes * runs.period);
  for (int64_t v = 0; v < runs.volumes; ++v)
    for (int64_t j = 0; j < runs.period; ++j)
      out[v * runs.period + j] = T(value(v, j % runs.channels));
  return out;
}

// Writes act((x - mean) / sqrt(var + eps)) to `out` and 1 / sqrt(var + eps) to `scale`.
void normalise(const Tensor& x, double slope, Tensor& out, Tensor& scale) {
  if (x.numel() == 0) return;  // its strides may be arbitrary
  const Runs runs(x);
  const int64_t channels = runs.channels, period = runs.period;
  switch_float(x.scalar_type(), [&](auto zero) {
    using In = decltype(zero);
    using T = Working<In>;
    const In* from = reinterpret_cast<const In*>(x.data_ptr());
    In* to = reinterpret_cast<In*>(out.data_ptr());
    T* scales = reinterpret_cast<T*>(scale.data_ptr());
    // The first voxel is subtracted as an estimate of the mean, so that the squares do not cancel.
    const auto shift = repeated<T>(
        runs, [&](int64_t v, int64_t c) { return T(from[v * runs.voxels * channels + c]); });
    const auto sums_by = [&](const auto& from_shift) {
      using S = typename std::decay_t<decltype(from_shift)>::value_type;
      return sums_of<S>(runs, [&](int64_t v, int64_t place, int64_t length, int64_t rows,
                                  S* scratch, double* sum, double* square) {
        LGANET_BEST(norm_sums, from + place, from_shift.data() + v * period, length, rows, scratch,
                    sum, square);
      });
    };
    auto sums = sums_by(shift);
    const auto finite = [](double sum) { return std::isfinite(sum); };
    // float32 may overflow where float64 does not
    if (!std::all_of(sums.begin(), sums.end(), finite))
      sums = sums_by(std::vector<double>(shift.begin(), shift.end()));
    const double count = double(runs.voxels);
    const auto mean = repeated<T>(runs, [&](int64_t v, int64_t c) {
      return double(shift[v * period + c]) + sums[2 * v * channels + c] / count;
    });
    const auto factor = repeated<T>(runs, [&](int64_t v, int64_t c) {
      const double m = sums[2 * v * channels + c] / count;
      const double var = sums[(2 * v + 1) * channels + c] / count - m * m;
      return 1 / std::sqrt(std::max(var, 0.0) + kEps);
    });
    for (int64_t v = 0; v < runs.volumes; ++v)
      std::memcpy(scales + v * channels, factor.data() + v * period, channels * sizeof(T));
    for_rows(runs, [&](int64_t v, int64_t place, int64_t length, int64_t rows) {
      LGANET_BEST(norm_apply, from + place, to + place, mean.data() + v * period,
                  factor.data() + v * period, T(slope), length, rows);
    });
  });
}

Tensor scale_for(const Tensor& x) {
  return empty_beside(x, {x.size(0), x.size(1)}, working_type(x));
}

std::tuple<Tensor, Tensor> norm_act(Tensor x, double slope) {
  Tensor out = empty_in_format_of(x, sizes_of(x));
  Tensor scale = scale_for(x);
  normalise(x, slope, out, scale);
  return {out, scale};
}

void norm_act_(Tensor x, double slope) {
  Tensor scale = scale_for(x);
  normalise(x, slope, x, scale);
}

Tensor norm_act_backward(Tensor grad, Tensor out, Tensor scale, double slope) {
  Tensor to = empty_in_format_of(out, sizes_of(out));
  if (out.numel() == 0) return to;
  const Runs runs(out);
  STD_TORCH_CHECK(slope != 0, "slope must not be 0: the activation would not be invertible");
  STD_TORCH_CHECK(is_channels_last(grad) == is_channels_last(out) && grad.numel() == out.numel(),
                  "grad must have the memory format of the result");
  Runs{grad};
  const int64_t channels = runs.channels, period = runs.period;
  switch_float(out.scalar_type(), [&](auto zero) {
    using In = decltype(zero);
    using T = Working<In>;
    const In* g = reinterpret_cast<const In*>(grad.data_ptr());
    const In* y = reinterpret_cast<const In*>(out.data_ptr());
    In* result = reinterpret_cast<In*>(to.data_ptr());
    const T* scales = reinterpret_cast<const T*>(scale.data_ptr());
    const auto sums = sums_of<T>(runs, [&](int64_t, int64_t place, int64_t length, int64_t rows,
                                           T* scratch, double* sum, double* product) {
      LGANET_BEST(norm_gradient_sums, g + place, y + place, T(slope), length, rows, scratch, sum,
                  product);
    });
    const double count = double(runs.voxels);
    const auto mean =
        repeated<T>(runs, [&](int64_t v, int64_t c) { return sums[2 * v * channels + c] / count; });
    const auto product = repeated<T>(
        runs, [&](int64_t v, int64_t c) { return sums[(2 * v + 1) * channels + c] / count; });
    const auto factor =
        repeated<T>(runs, [&](int64_t v, int64_t c) { return scales[v * channels + c]; });
    for_rows(runs, [&](int64_t v, int64_t place, int64_t length, int64_t rows) {
      const int64_t of = v * period;
      LGANET_BEST(norm_gradient, g + place, y + place, result + place, mean.data() + of,
                  product.data() + of, factor.data() + of, T(slope), length, rows);
    });
  });
  return to;
}

}  // namespace
}  // namespace lganet

STABLE_TORCH_LIBRARY_FRAGMENT(lganet_fast, m) {
  m.def("norm_act(Tensor x, float slope) -> (Tensor, Tensor)");
  m.def("norm_act_(Tensor(a!) x, float slope) -> ()");
  m.def("norm_act_backward(Tensor grad, Tensor out, Tensor scale, float slope) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CPU, m) {
  m.impl("norm_act", TORCH_BOX(&lganet::norm_act));
  m.impl("norm_act_", TORCH_BOX(&lganet::norm_act_));
  m.impl("norm_act_backward", TORCH_BOX(&lganet::norm_act_backward));
}
