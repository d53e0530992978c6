// The loops of correlate over planes. Rows of features are copied, zero-padded, to scratch. Vectors
// run along the channels (channels_last_3d) or along the last axis (contiguous).
namespace lganet::LGANET_ISA {

constexpr int64_t kVectorBytes = LGANET_VECTOR_BYTES;
#include "common/lanes.inl"
#include "common/ring.inl"

// Lane i of the result is the sum of lanes Order::low(i) and Order::high(i) of u followed by v.
template <typename Order, typename T, int... I>
LGANET_HD Vec<T> add_lanes(const Vec<T>& u, const Vec<T>& v, std::integer_sequence<int, I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(u, v, Order::low(I)...) +
         __builtin_shufflevector(u, v, Order::high(I)...);
#else
  using Index = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;
  typedef Index Mask __attribute__((vector_size(kVectorBytes)));
  return __builtin_shuffle(u, v, Mask{Order::low(I)...}) +
         __builtin_shuffle(u, v, Mask{Order::high(I)...});
#endif
}

// Adds the two halves of every block of SIZE lanes; blocks of u first, then of v.
template <int SIZE>
struct Halves {
  static constexpr int low(int i) { return i / (SIZE / 2) * SIZE + i % (SIZE / 2); }
  static constexpr int high(int i) { return low(i) + SIZE / 2; }
};

// Adds the two halves of every 16 bytes, GROUP lanes of u, then GROUP of v: shuffles within 16
// bytes are faster.
template <int LANES, int PER_16, int GROUP>
struct Beside {
  static constexpr int low(int i) {
    const int place = i % PER_16;
    return i / PER_16 * PER_16 + place / (2 * GROUP) * GROUP + place % GROUP +
           place / GROUP % 2 * LANES;
  }
  static constexpr int high(int i) { return low(i) + PER_16 / 2; }
};

// x[m] = Order applied to x[2m] and x[2m + 1]; if there is only x[0], to x[0] twice.
template <typename Order, int N, typename T>
LGANET_HD void add_pairs(Vec<T>* x) {
  constexpr auto lanes = std::make_integer_sequence<int, int(kLanes<T>)>{};
  for (int m = 0; m < (N + 1) / 2; ++m)
    x[m] = add_lanes<Order, T>(x[2 * m], x[N > 1 ? 2 * m + 1 : 0], lanes);
}

template <int N, int SIZE, int PER_16, typename T>
LGANET_HD void add_halves(Vec<T>* x) {
  if constexpr (SIZE > PER_16) {
    add_pairs<Halves<SIZE>, N, T>(x);
    add_halves<(N + 1) / 2, SIZE / 2, PER_16, T>(x);
  }
}

// to[n] = factor times the sum of the lanes of x[n], n < N.
template <int N, typename T>
LGANET_HD void sum_lanes(T* to, Vec<T>* x, T factor) {
  constexpr int lanes = kLanes<T>, per_16 = 16 / sizeof(T);
  add_pairs<Beside<lanes, per_16, 1>, N, T>(x);
  if constexpr (per_16 == 4) add_pairs<Beside<lanes, per_16, 2>, N / 2, T>(x);
  add_halves<N / per_16, lanes, per_16, T>(x);
  constexpr int count = N < lanes ? 1 : N / lanes;
  for (int n = 0; n < count; ++n) x[n] *= factor;
  __builtin_memcpy(to, x, sizeof(T) * N);
}

// Products of a row with N shifted rows, summed over the channels.
template <int N, typename T>
void products(T* to, const RowLayout out, const T* x, const T* const* y, const RowLayout row,
              int64_t channels, int64_t depth, T factor) {
  const T* shifted[N];
  for (int n = 0; n < N; ++n) shifted[n] = y[n];
  if (row.channel == 1) {
    for (int64_t d = 0; d < depth; ++d) {
      Vec<T> sum[N] = {};
      for (int64_t at = d * row.voxel; at < d * row.voxel + channels; at += kLanes<T>) {
        const Vec<T> centre = load(x + at);
        for (int n = 0; n < N; ++n) sum[n] += centre * load(shifted[n] + at);
      }
      sum_lanes<N>(to + d * out.voxel, sum, factor);
    }
  } else {
    for (int64_t d = 0; d < depth; d += kLanes<T>) {
      Vec<T> sum[N] = {};
      for (int64_t at = d; at < d + channels * row.channel; at += row.channel) {
        const Vec<T> centre = load(x + at);
        for (int n = 0; n < N; ++n) sum[n] += centre * load(shifted[n] + at);
      }
      for (int n = 0; n < N; ++n) store(to + n * out.channel + d, sum[n] * factor);
    }
  }
}

// Planes first .. first + count - 1, of one volume, of the result.
template <typename In, typename T>
void correlate_planes(const View<const In>& x, const View<const In>& y, const View<In>& to,
                      const CorrelateSize& size, int64_t first, int64_t count, T* scratch,
                      const T** shifted) {
  const int64_t radius = size.radius, side = 2 * radius + 1;
  const int64_t b = first / x.size[2], h0 = first % x.size[2];
  const Ring<T> ring{scratch, size.features, side};
  T* const centre = scratch + (size.planes + 2 * radius) * side * size.features.length;
  T* const out = centre + size.features.length;
  const T factor = T(1) / x.size[1];
  for (int64_t w = -radius; w < radius; ++w) ring.enter(y, b, h0 - radius, count + 2 * radius, w);
  for (int64_t w = 0; w < x.size[3]; ++w) {
    ring.enter(y, b, h0 - radius, count + 2 * radius, w + radius);
    for (int64_t p = 0; p < count; ++p) {
      const T* at = centre + size.features.origin;
      if constexpr (std::is_same_v<In, T>) {
        if (stands_as(x, size.features)) at = x.at(b, 0) + (h0 + p) * x.stride[2] + w * x.stride[3];
      }
      if (at == centre + size.features.origin)
        read_row(centre + size.features.origin, size.features, x, b, h0 + p, w);
      int64_t o = 0;
      for (int64_t i = 0; i < side; ++i)
        for (int64_t j = -radius; j <= radius; ++j)
          for (int64_t k = -radius; k <= radius; ++k)
            shifted[o++] = ring.at(p + i, w + j) + k * size.features.voxel;
      for (; o < size.offsets_padded; ++o) shifted[o] = shifted[0];
      // From the last to the first: a part may write beyond its end, which is then overwritten.
      for (int64_t n = size.offsets_padded; n > 0;) {
        if (n % 8) {
          n -= 4;
          products<4>(out + n * size.sums.channel, size.sums, at, shifted + n, size.features,
                      x.size[1], x.size[4], factor);
        } else {
          n -= 8;
          products<8>(out + n * size.sums.channel, size.sums, at, shifted + n, size.features,
                      x.size[1], x.size[4], factor);
        }
      }
      write_row(to, b, h0 + p, w, out, size.sums);
    }
  }
}

// The axis of the numbers of a vector.
enum class Along : bool { channels, depth };

// to(p) = factor sum_o g[o](p) f(p + o), for N vectors of channels and P of voxels at a time.
// f, g: for each (i, j) of the offsets, pointers to the numbers for voxel 0 at k = -radius.
template <int N, int P, Along kAlong, typename T>
void gather(T* to, const T* const* f, const T* const* g, const RowLayout row,
            const RowLayout coefficients, int64_t side, int64_t k_step, int64_t depth, T factor) {
  constexpr int64_t lanes = kLanes<T>;
  constexpr bool kChannels = kAlong == Along::channels;
  const int64_t channel = kChannels ? lanes : row.channel;
  const int64_t voxel = kChannels ? row.voxel : lanes;
  const int64_t g_voxel = kChannels ? coefficients.voxel : lanes;
  const int64_t step = kChannels ? P : P * lanes;
  for (int64_t d = 0; d < depth; d += step) {
    Vec<T> sum[N][P] = {};
    const int64_t f_at = d * row.voxel, g_at = d * coefficients.voxel;
    for (int64_t ij = 0; ij < side * side; ++ij) {
      const T* from = f[ij] + f_at;
      const T* by = g[ij] + g_at;
      for (int64_t k = 0; k < side; ++k, from += row.voxel, by += k_step)
        for (int p = 0; p < P; ++p) {
          Vec<T> factor_here;
          if constexpr (kChannels)
            factor_here = Vec<T>{} + by[p * g_voxel];
          else
            factor_here = load(by + p * g_voxel);
          for (int n = 0; n < N; ++n)
            sum[n][p] += factor_here * load(from + p * voxel + n * channel);
        }
    }
    for (int p = 0; p < P; ++p)
      for (int n = 0; n < N; ++n) store(to + f_at + p * voxel + n * channel, sum[n][p] * factor);
  }
}

// Planes of a gradient. To x: `f` is y and the coefficient is g[o](p); to y: `f` is x and the
// coefficient is g[-o](p + o).
template <To kTo, typename In, typename T>
void correlate_gradient_planes(const View<const In>& g, const View<const In>& f, const View<In>& to,
                               const CorrelateSize& size, int64_t first, int64_t count, T* scratch,
                               const T** pointers) {
  const int64_t radius = size.radius, side = 2 * radius + 1, last = side * side * side - 1;
  const int64_t b = first / f.size[2], h0 = first % f.size[2], depth = f.size[4];
  const RowLayout &row = size.features, &by = size.offsets;
  const int64_t planes = size.planes + 2 * radius;
  const Ring<T> ring{scratch, row, side};
  T* const out = scratch + planes * side * row.length;
  const Ring<T> g_ring{out + row.length, by, side};
  const T** const from = pointers;
  const T** const coefficients = pointers + side * side;
  constexpr bool kMirrored = kTo == To::y;
  const int64_t reach = kMirrored ? radius : 0;  // of g
  const T factor = T(1) / f.size[1];
  for (int64_t w = -radius; w < radius; ++w) {
    ring.enter(f, b, h0 - radius, count + 2 * radius, w);
    if (kMirrored) g_ring.enter(g, b, h0 - radius, count + 2 * radius, w);
  }
  for (int64_t w = 0; w < f.size[3]; ++w) {
    ring.enter(f, b, h0 - radius, count + 2 * radius, w + radius);
    g_ring.enter(g, b, h0 - reach, count + 2 * reach, w + reach);
    for (int64_t p = 0; p < count; ++p) {
      for (int64_t i = 0, ij = 0; i < side; ++i)
        for (int64_t j = -radius; j <= radius; ++j, ++ij) {
          from[ij] = ring.at(p + i, w + j) - radius * row.voxel;
          coefficients[ij] = kMirrored ? g_ring.at(p + i, w + j) + (last - ij * side) * by.channel -
                                             radius * by.voxel
                                       : g_ring.at(p, w) + ij * side * by.channel;
        }
      const int64_t k_step = kMirrored ? by.voxel - by.channel : by.channel;
      const bool channels_inner = row.channel == 1;
      const int64_t vectors = channels_inner ? (f.size[1] + kLanes<T> - 1) / kLanes<T> : f.size[1];
      const int64_t vector = channels_inner ? kLanes<T> : row.channel;
      T* const voxels = out + row.origin;
      for (int64_t n = 0; n < vectors;) {
        const int64_t width = vectors - n >= 4 ? 4 : 1;
        if (channels_inner && width == 4)
          gather<4, 2, Along::channels>(voxels + n * vector, from, coefficients, row, by, side,
                                        k_step, depth, factor);
        else if (channels_inner)
          gather<1, 4, Along::channels>(voxels + n * vector, from, coefficients, row, by, side,
                                        k_step, depth, factor);
        else if (width == 4)
          gather<4, 2, Along::depth>(voxels + n * vector, from, coefficients, row, by, side, k_step,
                                     depth, factor);
        else
          gather<1, 2, Along::depth>(voxels + n * vector, from, coefficients, row, by, side, k_step,
                                     depth, factor);
        for (int64_t ij = 0; ij < side * side; ++ij) from[ij] += width * vector;
        n += width;
      }
      write_row(to, b, h0 + p, w, voxels, row);
    }
  }
}

}  // namespace lganet::LGANET_ISA
