// Linear interpolation between rows and within them, and its transpose.
namespace lganet::LGANET_ISA {

template <typename T, typename A>
void add_row(A* __restrict to, const T* from, A factor, int64_t count) {
  for (int64_t k = 0; k < count; ++k) to[k] += factor * static_cast<A>(from[k]);
}

// row, scratch: working memory for a row of the input and of the result.
template <typename T, typename A>
void resize_rows(const Rows<const T>& x, const Rows<T>& out, const Taps<A> (&taps)[3], A* row,
                 int64_t begin, int64_t end) {
  const int64_t inner = x.inner, length = x.length();
  const int32_t* low = taps[2].low.data();
  const A* high_weight = taps[2].high_weight.data();
  for (int64_t line = begin; line < end; ++line) {
    const int64_t plane = line / (out.height * out.width);
    const int64_t i = line / out.width % out.height, j = line % out.width;
    const A h = taps[0].high_weight[i], w = taps[1].high_weight[j];
    const int64_t hi = taps[0].low[i], wj = taps[1].low[j];
    for (int64_t k = 0; k < length + inner; ++k) row[k] = 0;
    add_row(row, x.row(plane, hi, wj), (1 - h) * (1 - w), length);
    if (w != 0) add_row(row, x.row(plane, hi, wj + 1), (1 - h) * w, length);
    if (h != 0) add_row(row, x.row(plane, hi + 1, wj), h * (1 - w), length);
    if (h != 0 && w != 0) add_row(row, x.row(plane, hi + 1, wj + 1), h * w, length);
    T* to = out.row(plane, i, j);
    if (inner == 1) {
      for (int64_t k = 0; k < out.depth; ++k) {
        const A first = row[low[k]], second = row[low[k] + 1];
        to[k] = static_cast<T>(first + high_weight[k] * (second - first));
      }
    } else {
      for (int64_t k = 0; k < out.depth; ++k) {
        const A* from = row + low[k] * inner;
        const A f = high_weight[k];
        for (int64_t c = 0; c < inner; ++c)
          to[k * inner + c] = static_cast<T>(from[c] + f * (from[inner + c] - from[c]));
      }
    }
  }
}

// The transpose: each row of `out`, which has the input's size, gathers from the rows that read it.
template <typename T, typename A>
void resize_rows_backward(const Rows<const T>& grad, const Rows<T>& out, const Taps<A> (&taps)[3],
                          A* row, A* result, int64_t begin, int64_t end) {
  const int64_t inner = grad.inner, length = grad.length();
  for (int64_t line = begin; line < end; ++line) {
    const int64_t plane = line / (out.height * out.width);
    const int64_t i = line / out.width % out.height, j = line % out.width;
    for (int64_t k = 0; k < length; ++k) row[k] = 0;
    for (int64_t p = taps[0].begin(i); p < taps[0].end(i); ++p) {
      for (int64_t q = taps[1].begin(j); q < taps[1].end(j); ++q) {
        const A factor = taps[0].weight(p, i) * taps[1].weight(q, j);
        if (factor != 0) add_row(row, grad.row(plane, p, q), factor, length);
      }
    }
    for (int64_t k = 0; k < out.length() + inner; ++k) result[k] = 0;
    for (int64_t k = 0; k < grad.depth; ++k) {
      A* to = result + taps[2].low[k] * inner;
      const A f = taps[2].high_weight[k];
      for (int64_t c = 0; c < inner; ++c) {
        const A value = row[k * inner + c];
        to[c] += (1 - f) * value;
        to[inner + c] += f * value;
      }
    }
    T* to = out.row(plane, i, j);
    for (int64_t k = 0; k < out.length(); ++k) to[k] = static_cast<T>(result[k]);
  }
}

}  // namespace lganet::LGANET_ISA
