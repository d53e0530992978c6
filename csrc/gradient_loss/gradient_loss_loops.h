// Squared forward differences of rows, and their gradient.
namespace lganet::LGANET_ISA {

constexpr int64_t kVectorBytes = LGANET_VECTOR_BYTES;
#include "common/lanes.inl"

template <typename T>
double squared_distance(const T* a, const T* b, int64_t count) {
  Vec<T> sum = {};
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) {
    const Vec<T> difference = load(a + i) - load(b + i);
    sum += difference * difference;
  }
  double total = 0;
  for (int l = 0; l < kLanes<T>; ++l) total += sum[l];
  for (; i < count; ++i) total += double(a[i] - b[i]) * double(a[i] - b[i]);
  return total;
}

// sums[i]: the sum over plane i along H, for planes `begin` to `end` counted over all volumes.
template <typename T>
void gradient_loss_sums(const Rows<const T>& x, const double (&weight)[3], double* sums,
                        int64_t begin, int64_t end) {
  const int64_t length = x.length(), inner = x.inner;
  for (int64_t line = begin; line < end; ++line) {
    const int64_t plane = line / x.height, i = line % x.height;
    double sum[3] = {};
    for (int64_t j = 0; j < x.width; ++j) {
      const T* row = x.row(plane, i, j);
      if (i + 1 < x.height) sum[0] += squared_distance(x.row(plane, i + 1, j), row, length);
      if (j + 1 < x.width) sum[1] += squared_distance(row + length, row, length);
      sum[2] += squared_distance(row + inner, row, length - inner);
    }
    sums[line] = weight[0] * sum[0] + weight[1] * sum[1] + weight[2] * sum[2];
  }
}

template <typename T>
void add_difference(T* __restrict to, const T* a, const T* b, T factor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] += factor * (a[i] - b[i]);
}

template <typename T>
void gradient_loss_slopes(const Rows<const T>& x, const Rows<T>& to, const double (&weight)[3],
                          double scale, int64_t begin, int64_t end) {
  const int64_t length = x.length(), inner = x.inner;
  const T factor[3] = {T(2 * scale * weight[0]), T(2 * scale * weight[1]),
                       T(2 * scale * weight[2])};
  for (int64_t line = begin; line < end; ++line) {
    const int64_t plane = line / x.height, i = line % x.height;
    for (int64_t j = 0; j < x.width; ++j) {
      const T* row = x.row(plane, i, j);
      T* out = to.row(plane, i, j);
      for (int64_t k = 0; k < length; ++k) out[k] = 0;
      if (i > 0) add_difference(out, row, x.row(plane, i - 1, j), factor[0], length);
      if (i + 1 < x.height) add_difference(out, row, x.row(plane, i + 1, j), factor[0], length);
      if (j > 0) add_difference(out, row, row - length, factor[1], length);
      if (j + 1 < x.width) add_difference(out, row, row + length, factor[1], length);
      add_difference(out + inner, row + inner, row, factor[2], length - inner);
      add_difference(out, row, row + inner, factor[2], length - inner);
    }
  }
}

}  // namespace lganet::LGANET_ISA
