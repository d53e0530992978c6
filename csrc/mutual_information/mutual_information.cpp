// Mutual information on the CPU: joint histograms of parts of each volume, added up in one order,
// so that nothing depends on the threads; a second pass over the voxels is the gradient. Besides
// the results there is memory for the histograms alone.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "common/runs.h"
#include "common/tensors.h"

namespace lganet {

constexpr int64_t kMostParts = 64;  // of a volume, each with a histogram

template <typename In, typename T>
struct MiInput {
  View<const In> a, b;
  View<const T> weight;  // no data: all ones
  int64_t bins;

  int64_t rows() const { return a.size[2] * a.size[3]; }
};

template <typename T>
LGANET_HD T* row_of(const View<T>& x, int64_t batch, int64_t channel, int64_t row) {
  return x.at(batch, channel) + row / x.size[3] * x.stride[2] + row % x.size[3] * x.stride[3];
}

}  // namespace lganet

#define LGANET_LOOPS "mutual_information/mutual_information_loops.h"
#include "common/each_isa.h"

namespace lganet {
namespace {

void check_mi(const Tensor& a, const Tensor& b, const std::optional<Tensor>& weight, int64_t bins) {
  STD_TORCH_CHECK(a.dim() == 5 && b.dim() == 5, "a and b must have shape (B, C, H, W, D)");
  STD_TORCH_CHECK(a.scalar_type() == b.scalar_type(), "a and b must be of one type");
  STD_TORCH_CHECK(bins >= 4, "bins must be at least 4, got ", bins);
  for (int axis = 0; axis < 5; ++axis)
    STD_TORCH_CHECK(a.size(axis) == b.size(axis), "a and b must have one shape");
  if (!weight) return;
  STD_TORCH_CHECK(weight->dim() == 5 && weight->size(1) == 1,
                  "weight must have shape (B, 1, H, W, D)");
  STD_TORCH_CHECK(weight->scalar_type() == working_type(a), "weight must have the result's type");
  for (int axis : {0, 2, 3, 4})
    STD_TORCH_CHECK(weight->size(axis) == a.size(axis), "weight must have the images' size");
}

template <typename In, typename T>
MiInput<In, T> input_of(const Tensor& a, const Tensor& b, const std::optional<Tensor>& weight,
                        int64_t bins) {
  return {view_of<const In>(a), view_of<const In>(b),
          weight ? view_of<const T>(*weight) : View<const T>{}, bins};
}

// Rows of a part; how many depends on the volume alone.
template <typename In, typename T>
int64_t rows_per_part(const MiInput<In, T>& in) {
  return std::max(parts_per_task(in.a.size[4]), (in.rows() + kMostParts - 1) / kMostParts);
}

// The joint histogram of one volume.
template <typename In, typename T>
void joint_of(const MiInput<In, T>& in, int64_t batch, int64_t channel, double* joint) {
  const int64_t size = in.bins * in.bins, step = rows_per_part(in), rows = in.rows();
  std::vector<double> parts((rows + step - 1) / step * size);
  const int64_t count = parts.size() / size;
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      LGANET_BEST(add_rows, in, batch, channel, part * step, std::min(rows, (part + 1) * step),
                  parts.data() + part * size);
  });
  std::fill(joint, joint + size, 0.0);
  for (int64_t part = 0; part < count; ++part)
    for (int64_t i = 0; i < size; ++i) joint[i] += parts[part * size + i];
}

// log(p), and that of the smallest number at 0: as the reference computes it.
double log_of(double p, double least) { return std::log(p < least ? least : p); }

// p log p and its slope.
double p_log_p(double p, double least) { return p * log_of(p, least); }
double slope_of(double p, double least) { return log_of(p, least) + (p < least ? 0.0 : 1.0); }

// The value, to be added up over volumes, of a joint histogram divided by the sum of all weights.
// The histogram becomes the value's slope by each of its entries.
double value_of(double* joint, int64_t bins, double least) {
  std::vector<double> a(bins), b(bins);
  double total = 0, value = 0;
  for (int64_t i = 0; i < bins; ++i)
    for (int64_t j = 0; j < bins; ++j) {
      const double p = joint[i * bins + j];
      a[i] += p;
      b[j] += p;
      total += p;
      value += p_log_p(p, least);
    }
  for (int64_t i = 0; i < bins; ++i) value -= p_log_p(a[i], least) + p_log_p(b[i], least);
  value += p_log_p(total, least);
  const double whole = slope_of(total, least);
  for (int64_t i = 0; i < bins; ++i) {
    const double row = whole - slope_of(a[i], least);
    for (int64_t j = 0; j < bins; ++j) {
      double& p = joint[i * bins + j];
      p = slope_of(p, least) - slope_of(b[j], least) + row;
    }
  }
  return value;
}

template <typename In, typename T>
double total_weight(const MiInput<In, T>& in) {
  const auto& size = in.a.size;
  if (!in.weight.data) return double(size[0] * size[1]) * double(in.a.voxels());
  const int64_t rows = in.rows();
  std::vector<double> sums(size[0] * rows);
  torch::stable::parallel_for(0, sums.size(), parts_per_task(size[4]),
                              [&](int64_t begin, int64_t end) {
                                for (int64_t i = begin; i < end; ++i) {
                                  const T* weight = row_of(in.weight, i / rows, 0, i % rows);
                                  for (int64_t d = 0; d < size[4]; ++d)
                                    sums[i] += weight[d * in.weight.stride[4]];
                                }
                              });
  double total = 0;
  for (double sum : sums) total += sum;
  return total * double(size[1]);
}

std::tuple<Tensor, Tensor> mutual_information(const Tensor& a, const Tensor& b,
                                              const std::optional<Tensor>& weight, int64_t bins) {
  check_mi(a, b, weight, bins);
  Tensor value = empty_beside(a, {}, working_type(a));
  Tensor slopes = empty_beside(a, {a.size(0), a.size(1), bins, bins}, ScalarType::Double);
  double* table = reinterpret_cast<double*>(slopes.data_ptr());
  switch_float(a.scalar_type(), [&](auto zero) {
    using In = decltype(zero);
    using T = Working<In>;
    const auto in = input_of<In, T>(a, b, weight, bins);
    const double least = std::numeric_limits<double>::min();
    double sum = a.numel() == 0 ? std::numeric_limits<double>::quiet_NaN() : 0.0;
    const double total = total_weight(in);
    const int64_t volumes = a.numel() == 0 ? 0 : a.size(0) * a.size(1), size = bins * bins;
    for (int64_t v = 0; v < volumes; ++v) {
      double* joint = table + v * size;
      joint_of(in, v / a.size(1), v % a.size(1), joint);
      for (int64_t i = 0; i < size; ++i) joint[i] /= total;
      sum += value_of(joint, bins, least);
      for (int64_t i = 0; i < size; ++i) joint[i] /= total;
    }
    *reinterpret_cast<T*>(value.data_ptr()) = static_cast<T>(sum);
  });
  return {value, slopes};
}

std::tuple<Tensor, Tensor> mutual_information_backward(const Tensor& grad, const Tensor& a,
                                                       const Tensor& b,
                                                       const std::optional<Tensor>& weight,
                                                       const Tensor& slopes, bool need_a,
                                                       bool need_b) {
  STD_TORCH_CHECK(slopes.dim() == 4 && slopes.scalar_type() == ScalarType::Double,
                  "slopes must have shape (B, C, bins, bins), float64");
  const int64_t bins = slopes.size(3);
  check_mi(a, b, weight, bins);
  STD_TORCH_CHECK(slopes.size(0) == a.size(0) && slopes.size(1) == a.size(1) &&
                      slopes.size(2) == bins && slopes.is_contiguous(),
                  "slopes must be those of the images");
  STD_TORCH_CHECK(grad.numel() == 1 && grad.scalar_type() == working_type(a),
                  "grad must be one number of the result's type");
  Tensor grad_a = gradient_like(a, need_a), grad_b = gradient_like(b, need_b);
  if (a.numel() == 0) return {grad_a, grad_b};
  const double* table = reinterpret_cast<const double*>(slopes.data_ptr());
  switch_float(a.scalar_type(), [&](auto zero) {
    using In = decltype(zero);
    using T = Working<In>;
    const auto in = input_of<In, T>(a, b, weight, bins);
    const View<In> to_a = need_a ? view_of<In>(grad_a) : View<In>{};
    const View<In> to_b = need_b ? view_of<In>(grad_b) : View<In>{};
    const double by = *reinterpret_cast<const T*>(grad.data_ptr());
    const int64_t rows = in.rows(), channels = a.size(1);
    torch::stable::parallel_for(
        0, a.size(0) * channels * rows, parts_per_task(a.size(4)), [&](int64_t begin, int64_t end) {
          for_runs(begin, end, rows, rows, [&](int64_t first, int64_t count) {
            const int64_t v = first / rows, r = first % rows;
            LGANET_BEST(gradient_rows, in, v / channels, v % channels, r, r + count,
                        table + v * bins * bins, by, to_a, to_b);
          });
        });
  });
  return {grad_a, grad_b};
}

}  // namespace
}  // namespace lganet

STABLE_TORCH_LIBRARY_FRAGMENT(lganet_fast, m) {
  m.def("mutual_information(Tensor a, Tensor b, Tensor? weight, int bins) -> (Tensor, Tensor)");
  m.def(
      "mutual_information_backward(Tensor grad, Tensor a, Tensor b, Tensor? weight, Tensor slopes, "
      "bool need_a, bool need_b) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CPU, m) {
  m.impl("mutual_information", TORCH_BOX(&lganet::mutual_information));
  m.impl("mutual_information_backward", TORCH_BOX(&lganet::mutual_information_backward));
}
