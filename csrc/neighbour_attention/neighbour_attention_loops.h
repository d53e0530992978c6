// The loops of neighbour_attention over planes. Rows of maps are copied, zero-padded, to scratch,
// channel after channel, so that vectors run along the last axis.
namespace lganet::LGANET_ISA {

constexpr int64_t kVectorBytes = LGANET_VECTOR_BYTES;
#include "common/lanes.inl"
#include "common/ring.inl"

template <typename T>
LGANET_HD Vec<T> filled(T x) {
  return Vec<T>{} + x;
}

// exp(x) for x <= 0, apart from rounding; below the type's range the result is nearly 0.
template <typename T>
LGANET_HD Vec<T> exp_of_negative(Vec<T> x) {
  using Index = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;
  typedef Index Bits __attribute__((vector_size(kVectorBytes)));
  constexpr bool wide = sizeof(T) == 8;
  constexpr T least = wide ? T(-708) : T(-87), rounder = wide ? T(0x1.8p52) : T(0x1.8p23);
  constexpr T high = wide ? T(0x1.62e42fefa38p-1) : T(0x1.62e4p-1);
  constexpr T low = wide ? T(0x1.ef35793c7673p-45) : T(0x1.7f7d1cf79abcap-20);
  constexpr int mantissa = wide ? 52 : 23, bias = wide ? 1023 : 127, degree = wide ? 13 : 7;
  x = x < filled(least) ? filled(least) : x;
  x = x > filled(T(1)) ? filled(T(1)) : x;
  const Vec<T> rounded = x * T(1.4426950408889634) + rounder;  // its last bits hold the exponent
  const Vec<T> whole = rounded - rounder;
  const Vec<T> rest = (x - whole * high) - whole * low;
  Vec<T> sum = filled(T(1));
  for (int n = degree; n > 0; --n) sum = sum * rest * (T(1) / n) + T(1);
  Bits bits;
  __builtin_memcpy(&bits, &rounded, sizeof bits);
  bits = (bits + bias) << mantissa;
  Vec<T> power;
  __builtin_memcpy(&power, &bits, sizeof power);
  return sum * power;
}

// The rows of a head; each points to voxel 0 of its first channel.
template <typename T>
struct Query {
  const T *q, *most, *inverse, *grad, *out;
};

// The number of channels of a head, and their stride in a row.
template <typename T>
struct HeadOf {
  int64_t width, channel;
  T scale;
  const T* bias;

  LGANET_HD Vec<T> logit(const T* q, const T* k, int64_t offset) const {
    Vec<T> sum = {};
    for (int64_t c = 0; c < width; ++c) sum += load(q + c * channel) * load(k + c * channel);
    return sum * scale + bias[offset];
  }
};

// One row of a head: the mean offset and the norm of its weights.
template <typename T>
void attend_row(const HeadOf<T>& head, const T* q, const T* const* k, int64_t depth, T* out,
                T* most_out, T* inverse_out) {
  for (int64_t d = 0; d < depth; d += kLanes<T>) {
    Vec<T> logit[kNeighbours];
    for (int ij = 0, o = 0; ij < 9; ++ij)
      for (int step = -1; step <= 1; ++step, ++o) logit[o] = head.logit(q + d, k[ij] + d + step, o);
    Vec<T> most = logit[0];
    for (int o = 1; o < kNeighbours; ++o) most = logit[o] > most ? logit[o] : most;
    Vec<T> total = {}, height = {}, width = {}, depths = {};
    for (int i = 0, o = 0; i < 3; ++i) {
      Vec<T> plane = {};
      for (int j = 0; j < 3; ++j, o += 3) {
        const Vec<T> before = exp_of_negative<T>(logit[o] - most);
        const Vec<T> here = exp_of_negative<T>(logit[o + 1] - most);
        const Vec<T> after = exp_of_negative<T>(logit[o + 2] - most);
        const Vec<T> line = before + here + after;
        depths += after - before;
        width += line * T(j - 1);
        plane += line;
      }
      height += plane * T(i - 1);
      total += plane;
    }
    const Vec<T> inverse = T(1) / total;
    store(out + d, height * inverse);
    store(out + head.channel + d, width * inverse);
    store(out + 2 * head.channel + d, depths * inverse);
    store(most_out + d, most);
    store(inverse_out + d, inverse);
  }
}

// The gradient to a logit: weight times (grad . (offset - mean offset)).
template <typename T>
LGANET_HD Vec<T> logit_gradient(const HeadOf<T>& head, const Query<T>& at, int64_t d, const T* k,
                                int o) {
  const Vec<T> logit = head.logit(at.q + d, k, o);
  const int64_t step[3] = {o / 9 - 1, o / 3 % 3 - 1, o % 3 - 1};
  Vec<T> slope = {};
  for (int axis = 0; axis < 3; ++axis)
    slope += load(at.grad + axis * head.channel + d) *
             (T(step[axis]) - load(at.out + axis * head.channel + d));
  return exp_of_negative<T>(logit - load(at.most + d)) * load(at.inverse + d) * slope;
}

// A row of the gradient to q, of one head; adds those to the logits to `sums`, by offset and lane.
template <typename T>
void gradient_to_query(const HeadOf<T>& head, const Query<T>& at, const T* const* k, int64_t depth,
                       T* to, T* sums) {
  for (int64_t d = 0; d < depth; d += kLanes<T>) {
    Vec<T> slope[kNeighbours];
    for (int ij = 0, o = 0; ij < 9; ++ij)
      for (int step = -1; step <= 1; ++step, ++o) {
        slope[o] = logit_gradient(head, at, d, k[ij] + d + step, o);
        T* const own = sums + o * kLanes<T>;
        store(own, load(own) + slope[o]);
      }
    for (int64_t c = 0; c < head.width; ++c) {
      Vec<T> sum = {};
      for (int ij = 0, o = 0; ij < 9; ++ij)
        for (int step = -1; step <= 1; ++step, ++o)
          sum += slope[o] * load(k[ij] + c * head.channel + d + step);
      store(to + c * head.channel + d, sum * head.scale);
    }
  }
}

// A row of the gradient to k, of one head: voxel p is neighbour o of voxel p - o, so the nine rows
// of the queries are read from the last to the first.
template <typename T>
void gradient_to_key(const HeadOf<T>& head, const Query<T>* at, const T* k, int64_t depth, T* to) {
  for (int64_t d = 0; d < depth; d += kLanes<T>) {
    Vec<T> slope[kNeighbours];
    for (int ij = 0, o = 0; ij < 9; ++ij)
      for (int step = -1; step <= 1; ++step, ++o)
        slope[o] = logit_gradient(head, at[8 - ij], d - step, k + d, o);
    for (int64_t c = 0; c < head.width; ++c) {
      Vec<T> sum = {};
      for (int ij = 0, o = 0; ij < 9; ++ij)
        for (int step = -1; step <= 1; ++step, ++o)
          sum += slope[o] * load(at[8 - ij].q + c * head.channel + d - step);
      store(to + c * head.channel + d, sum * head.scale);
    }
  }
}

// Voxel 0 of the first channel of the nine rows around (p, w), of a ring that begins at plane -1.
template <typename T>
void rows_around(const Ring<T>& ring, int64_t p, int64_t w, const T** rows) {
  for (int ij = 0; ij < 9; ++ij) rows[ij] = ring.at(p + ij / 3, w + ij % 3 - 1);
}

// Planes first .. first + count - 1, of one volume, of the mean offsets and of the norms.
template <typename In, typename T>
void attend_planes(const View<const In>& q, const View<const In>& k, const T* bias, T scale,
                   const View<T>& out, const View<T>& norms, const NeighbourSize& size,
                   int64_t first, int64_t count, T* scratch) {
  const int64_t b = first / q.size[2], h0 = first % q.size[2];
  const Ring<T> ring{scratch, size.features, 3};
  T* const centre = scratch + size.ring(size.features) + size.features.origin;
  T* const to = centre + size.features.length;
  T* const to_norms = to + size.triples.length;
  ring.enter(k, b, h0 - 1, count + 2, -1);
  ring.enter(k, b, h0 - 1, count + 2, 0);
  for (int64_t w = 0; w < q.size[3]; ++w) {
    ring.enter(k, b, h0 - 1, count + 2, w + 1);
    for (int64_t p = 0; p < count; ++p) {
      read_row(centre, size.features, q, b, h0 + p, w);
      const T* rows[9];
      rows_around(ring, p, w, rows);
      for (int64_t a = 0; a < size.heads; ++a) {
        const int64_t step = size.features.channel;
        const HeadOf<T> head{size.width, step, scale, bias + a * kNeighbours};
        attend_row(head, centre + a * size.width * step, rows, q.size[4], to + 3 * a * step,
                   to_norms + 2 * a * step, to_norms + (2 * a + 1) * step);
        for (const T*& row : rows) row += size.width * step;
      }
      write_row(out, b, h0 + p, w, to, size.triples);
      write_row(norms, b, h0 + p, w, to_norms, size.pairs);
    }
  }
}

// A head's part of the rows of all maps of the queries.
template <typename T>
Query<T> query_of(const NeighbourSize& size, int64_t a, const T* q, const T* norms, const T* grad,
                  const T* out) {
  const int64_t step = size.features.channel;
  return {q + a * size.width * step, norms + 2 * a * step, norms + (2 * a + 1) * step,
          grad + 3 * a * step, out + 3 * a * step};
}

// Planes of the gradient to q; the gradient to the bias goes to `sums`, plane after plane.
template <typename In, typename T>
void query_gradient_planes(const View<const T>& grad, const View<const In>& q,
                           const View<const In>& k, const T* bias, T scale,
                           const View<const T>& out, const View<const T>& norms, const View<In>& to,
                           double* sums, const NeighbourSize& size, int64_t first, int64_t count,
                           T* scratch) {
  const int64_t b = first / q.size[2], h0 = first % q.size[2];
  const int64_t lanes = kLanes<T>, step = size.features.channel;
  const Ring<T> ring{scratch, size.features, 3};
  T* const centre = scratch + size.ring(size.features) + size.features.origin;
  T* const result = centre + size.features.length;
  T* const row_norms = result + size.features.length;
  T* const row_grad = row_norms + size.pairs.length;
  T* const row_out = row_grad + size.triples.length;
  T* const added = row_out + size.triples.length - size.features.origin;
  const int64_t numbers = size.heads * kNeighbours;
  std::memset(added, 0, sizeof(T) * count * numbers * lanes);
  ring.enter(k, b, h0 - 1, count + 2, -1);
  ring.enter(k, b, h0 - 1, count + 2, 0);
  for (int64_t w = 0; w < q.size[3]; ++w) {
    ring.enter(k, b, h0 - 1, count + 2, w + 1);
    for (int64_t p = 0; p < count; ++p) {
      read_row(centre, size.features, q, b, h0 + p, w);
      read_row(row_norms, size.pairs, norms, b, h0 + p, w);
      read_row(row_grad, size.triples, grad, b, h0 + p, w);
      read_row(row_out, size.triples, out, b, h0 + p, w);
      const T* rows[9];
      rows_around(ring, p, w, rows);
      for (int64_t a = 0; a < size.heads; ++a) {
        const HeadOf<T> head{size.width, step, scale, bias + a * kNeighbours};
        gradient_to_query(head, query_of(size, a, centre, row_norms, row_grad, row_out), rows,
                          q.size[4], result + a * size.width * step,
                          added + (p * numbers + a * kNeighbours) * lanes);
        for (const T*& row : rows) row += size.width * step;
      }
      write_row(to, b, h0 + p, w, result, size.features);
    }
  }
  for (int64_t n = 0; n < count * numbers; ++n) {
    sums[n] = 0;
    for (int64_t lane = 0; lane < lanes; ++lane) sums[n] += added[n * lanes + lane];
  }
}

// Planes of the gradient to k.
template <typename In, typename T>
void key_gradient_planes(const View<const T>& grad, const View<const In>& q,
                         const View<const In>& k, const T* bias, T scale, const View<const T>& out,
                         const View<const T>& norms, const View<In>& to, const NeighbourSize& size,
                         int64_t first, int64_t count, T* scratch) {
  const int64_t b = first / q.size[2], h0 = first % q.size[2], step = size.features.channel;
  const Ring<T> ring{scratch, size.features, 3};
  const Ring<T> of_norms{ring.data + size.ring(size.features), size.pairs, 3};
  const Ring<T> of_grad{of_norms.data + size.ring(size.pairs), size.triples, 3};
  const Ring<T> of_out{of_grad.data + size.ring(size.triples), size.triples, 3};
  T* const centre = of_out.data + size.ring(size.triples) + size.features.origin;
  T* const result = centre + size.features.length;
  const auto enter = [&](int64_t w) {
    ring.enter(q, b, h0 - 1, count + 2, w);
    of_norms.enter(norms, b, h0 - 1, count + 2, w);
    of_grad.enter(grad, b, h0 - 1, count + 2, w);
    of_out.enter(out, b, h0 - 1, count + 2, w);
  };
  enter(-1);
  enter(0);
  for (int64_t w = 0; w < q.size[3]; ++w) {
    enter(w + 1);
    for (int64_t p = 0; p < count; ++p) {
      read_row(centre, size.features, k, b, h0 + p, w);
      const T *rows[9], *rows_norms[9], *rows_grad[9], *rows_out[9];
      rows_around(ring, p, w, rows);
      rows_around(of_norms, p, w, rows_norms);
      rows_around(of_grad, p, w, rows_grad);
      rows_around(of_out, p, w, rows_out);
      for (int64_t a = 0; a < size.heads; ++a) {
        const HeadOf<T> head{size.width, step, scale, bias + a * kNeighbours};
        Query<T> at[9];
        for (int ij = 0; ij < 9; ++ij)
          at[ij] = query_of(size, a, rows[ij], rows_norms[ij], rows_grad[ij], rows_out[ij]);
        gradient_to_key(head, at, centre + a * size.width * step, q.size[4],
                        result + a * size.width * step);
      }
      write_row(to, b, h0 + p, w, result, size.features);
    }
  }
}

}  // namespace lganet::LGANET_ISA
