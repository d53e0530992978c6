// The joint histogram of rows of voxels, and the gradient of what is found in it.
namespace lganet::LGANET_ISA {

typedef double Four __attribute__((vector_size(4 * sizeof(double))));

// A number's place among the bins: the first of the four whose cubic B-splines reach it, and their
// values or slopes there.
struct Place {
  int64_t first;
  double rest;
  bool inside;

  Place(double x, int64_t bins) : inside(x > 0 && x < 1) {
    const double at = (x < 0 ? 0 : x > 1 ? 1 : x) * double(bins - 3);
    first = at >= double(bins - 4) ? bins - 4 : at > 0 ? static_cast<int64_t>(at) : 0;
    rest = at - double(first);  // NaN for NaN
  }

  Four values() const {
    constexpr Four c0 = {1 / 6., 4 / 6., 1 / 6., 0}, c1 = {-.5, 0, .5, 0}, c2 = {.5, -1, .5, 0},
                   c3 = {-1 / 6., .5, -.5, 1 / 6.};
    return ((c3 * rest + c2) * rest + c1) * rest + c0;
  }

  // By x, which has none where it is clamped.
  Four slopes(int64_t bins) const {
    constexpr Four c1 = {-.5, 0, .5, 0}, c2 = {1, -2, 1, 0}, c3 = {-.5, 1.5, -1.5, .5};
    return ((c3 * rest + c2) * rest + c1) * (inside ? double(bins - 3) : 0.0);
  }
};

inline Four load_four(const double* from) {
  Four value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

inline void add_four(double* to, const Four& value) {
  const Four sum = load_four(to) + value;
  __builtin_memcpy(to, &sum, sizeof sum);
}

inline double sum_of(const Four& x) { return (x[0] + x[1]) + (x[2] + x[3]); }

// Adds rows begin .. end - 1 of one volume, counted along its second and third axis, to `joint`.
template <typename In, typename T>
void add_rows(const MiInput<In, T>& in, int64_t batch, int64_t channel, int64_t begin, int64_t end,
              double* joint) {
  const int64_t bins = in.bins;
  for (int64_t r = begin; r < end; ++r) {
    const In* a = row_of(in.a, batch, channel, r);
    const In* b = row_of(in.b, batch, channel, r);
    const T* weight = in.weight.data ? row_of(in.weight, batch, 0, r) : nullptr;
    for (int64_t d = 0; d < in.a.size[4]; ++d) {
      const Place p(static_cast<T>(a[d * in.a.stride[4]]), bins);
      const Place q(static_cast<T>(b[d * in.b.stride[4]]), bins);
      Four one = p.values();
      const Four other = q.values();
      if (weight) one *= double(weight[d * in.weight.stride[4]]);
      double* at = joint + p.first * bins + q.first;
      for (int i = 0; i < 4; ++i) add_four(at + i * bins, one[i] * other);
    }
  }
}

// The gradients of rows begin .. end - 1, from `slopes`, that by each entry of the joint histogram.
template <typename In, typename T>
void gradient_rows(const MiInput<In, T>& in, int64_t batch, int64_t channel, int64_t begin,
                   int64_t end, const double* slopes, double grad, const View<In>& grad_a,
                   const View<In>& grad_b) {
  const int64_t bins = in.bins;
  for (int64_t r = begin; r < end; ++r) {
    const In* a = row_of(in.a, batch, channel, r);
    const In* b = row_of(in.b, batch, channel, r);
    const T* weight = in.weight.data ? row_of(in.weight, batch, 0, r) : nullptr;
    In* to_a = grad_a.data ? row_of(grad_a, batch, channel, r) : nullptr;
    In* to_b = grad_b.data ? row_of(grad_b, batch, channel, r) : nullptr;
    for (int64_t d = 0; d < in.a.size[4]; ++d) {
      const Place p(static_cast<T>(a[d * in.a.stride[4]]), bins);
      const Place q(static_cast<T>(b[d * in.b.stride[4]]), bins);
      const Four one = p.values(), one_slope = p.slopes(bins);
      const double* at = slopes + p.first * bins + q.first;
      Four by_b{}, by_b_slope{};
      for (int i = 0; i < 4; ++i) {
        const Four row = load_four(at + i * bins);
        by_b += one_slope[i] * row;
        by_b_slope += one[i] * row;
      }
      const double by = weight ? grad * double(weight[d * in.weight.stride[4]]) : grad;
      if (to_a)
        to_a[d * grad_a.stride[4]] =
            p.inside ? static_cast<In>(T(by * sum_of(by_b * q.values()))) : In(T(0));
      if (to_b)
        to_b[d * grad_b.stride[4]] =
            q.inside ? static_cast<In>(T(by * sum_of(by_b_slope * q.slopes(bins)))) : In(T(0));
    }
  }
}

}  // namespace lganet::LGANET_ISA
