// The passes of norm_act over a run of rows. A row has `period` numbers, a whole number of voxels
// of one volume, so number j of every row has the same channel; there is one sum per number.
namespace lganet::LGANET_ISA {

template <typename T>
LGANET_HD T activation(T x, T slope) {
  return x > T(0) ? x : x * slope;
}

// Adds number j of each row minus shift[j] to sums[j], and its square to squares[j].
// Short runs of rows are first summed in T: as accurate as double, and twice as fast.
template <typename In, typename T>
void norm_sums(const In* x, const T* shift, int64_t period, int64_t rows, T* scratch, double* sums,
               double* squares) {
  T *sum = scratch, *square = scratch + period;
  for (int64_t start = 0; start < rows; start += 64) {
    for (int64_t j = 0; j < 2 * period; ++j) scratch[j] = 0;
    for (int64_t row = start; row < std::min(rows, start + 64); ++row) {
      const In* from = x + row * period;
#pragma GCC ivdep
      for (int64_t j = 0; j < period; ++j) {
        const T value = T(from[j]) - shift[j];
        sum[j] += value;
        square[j] += value * value;
      }
    }
    for (int64_t j = 0; j < period; ++j) {
      sums[j] += sum[j];
      squares[j] += square[j];
    }
  }
}

// to = activation((x - mean) * scale); to may be x.
template <typename In, typename T>
void norm_apply(const In* x, In* to, const T* mean, const T* scale, T slope, int64_t period,
                int64_t rows) {
  for (int64_t row = 0; row < rows; ++row) {
    const In* from = x + row * period;
    In* out = to + row * period;
#pragma GCC ivdep
    for (int64_t j = 0; j < period; ++j)
      out[j] = In(activation((T(from[j]) - mean[j]) * scale[j], slope));
  }
}

// The gradient to the normalised value, and that value, from the activated value.
template <typename T>
LGANET_HD void undo(T grad, T out, T slope, T inverse, T& g, T& normed) {
  g = out > T(0) ? grad : grad * slope;
  normed = out > T(0) ? out : out * inverse;
}

// Adds the gradients to the normalised values to sums[j], and their products with the values to
// products[j].
template <typename In, typename T>
void norm_gradient_sums(const In* grad, const In* out, T slope, int64_t period, int64_t rows,
                        T* scratch, double* sums, double* products) {
  const T inverse = T(1) / slope;
  T *sum = scratch, *product = scratch + period;
  for (int64_t start = 0; start < rows; start += 64) {
    for (int64_t j = 0; j < 2 * period; ++j) scratch[j] = 0;
    for (int64_t row = start; row < std::min(rows, start + 64); ++row) {
      const int64_t place = row * period;
#pragma GCC ivdep
      for (int64_t j = 0; j < period; ++j) {
        T g, normed;
        undo(T(grad[place + j]), T(out[place + j]), slope, inverse, g, normed);
        sum[j] += g;
        product[j] += g * normed;
      }
    }
    for (int64_t j = 0; j < period; ++j) {
      sums[j] += sum[j];
      products[j] += product[j];
    }
  }
}

// to = scale * (g - mean(g) - normed * mean(g normed)).
template <typename In, typename T>
void norm_gradient(const In* grad, const In* out, In* to, const T* mean, const T* product,
                   const T* scale, T slope, int64_t period, int64_t rows) {
  const T inverse = T(1) / slope;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t place = row * period;
#pragma GCC ivdep
    for (int64_t j = 0; j < period; ++j) {
      T g, normed;
      undo(T(grad[place + j]), T(out[place + j]), slope, inverse, g, normed);
      to[place + j] = In(scale[j] * (g - mean[j] - normed * product[j]));
    }
  }
}

}  // namespace lganet::LGANET_ISA
