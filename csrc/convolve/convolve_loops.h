// The arithmetic of convolve: Winograd's F(4, 3) along the first two axes and F(2, 3) along the
// last, 144 products for 4 x 4 x 2 outputs instead of 864 (Lavin and Gray, 2016). Vectors run along
// the channels, in the transforms and in the products.
namespace lganet::LGANET_ISA {

constexpr int64_t kVectorBytes = LGANET_VECTOR_BYTES;
#include "common/lanes.inl"

// The input transform of F(4, 3): 6 sums of 6 numbers, for the points 0, 1, -1, 2, -2 and infinity.
template <typename W>
LGANET_HD void six_in(const W& a, const W& b, const W& c, const W& d, const W& e, const W& f, W* to,
                      int64_t step) {
  const W even = e - 4.0f * c, odd = d - 4.0f * b, ec = e - c, db = d - b;
  to[0] = ec + 4.0f * (a - c);
  to[step] = even + odd;
  to[2 * step] = even - odd;
  to[3 * step] = ec + 2.0f * db;
  to[4 * step] = ec - 2.0f * db;
  to[5 * step] = (f - d) - 4.0f * db;
}

// The output transform of F(4, 3): 4 outputs from 6 products.
template <typename W>
LGANET_HD void four_out(const W& a, const W& b, const W& c, const W& d, const W& e, const W& f,
                        W* to, int64_t step) {
  const W bc = b + c, b_c = b - c, de = d + e, d_e = d - e;
  to[0] = a + bc + de;
  to[step] = b_c + 2.0f * d_e;
  to[2 * step] = bc + 4.0f * de;
  to[3 * step] = b_c + 8.0f * d_e + f;
}

// The input transform of 6 x 6 voxels along both axes, at offset `at` of their rows.
inline void transform_in_voxel(const float* const* rows, int64_t at, Vec<float>* to) {
  Vec<float> half[36];
#pragma GCC unroll 6
  for (int w = 0; w < 6; ++w) {
    const auto x = [&](int h) { return load(rows[6 * h + w] + at); };
    six_in(x(0), x(1), x(2), x(3), x(4), x(5), half + w, 6);
  }
#pragma GCC unroll 6
  for (int h = 0; h < 6; ++h) {
    const Vec<float>* x = half + 6 * h;
    six_in(x[0], x[1], x[2], x[3], x[4], x[5], to + 6 * h, 1);
  }
}

// The input transform of `count` tiles along the last axis, from tile `first` on: 144 sums, point x
// tile x channel. rows: 6 x 6 rows (voxel, channel) that begin one voxel before the volume; reads
// may go beyond their ends.
inline void transform_in(const float* const* rows, int64_t channels, int64_t first, int64_t count,
                         float* to, int64_t point, int64_t tile) {
  Vec<float> sums[4][36];
  for (int64_t c = 0; c < channels; c += kLanes<float>) {
    const auto read = [&](int64_t voxel) {
      transform_in_voxel(rows, voxel * channels + c, sums[voxel % 4]);
    };
    read(2 * first);
    read(2 * first + 1);
    for (int64_t n = first; n < first + count; ++n) {
      read(2 * n + 2);
      read(2 * n + 3);
      const Vec<float>*a = sums[2 * n % 4], *b = sums[(2 * n + 1) % 4];
      const Vec<float>*d = sums[(2 * n + 2) % 4], *e = sums[(2 * n + 3) % 4];
      float* out = to + (n - first) * tile + c;
      for (int i = 0; i < 36; ++i, out += 4 * point) {
        store(out, a[i] - d[i]);
        store(out + point, b[i] + d[i]);
        store(out + 2 * point, d[i] - b[i]);
        store(out + 3 * point, b[i] - e[i]);
      }
    }
  }
}

// x - 0 is compiled to no instruction; x + 0 is not, because of -0.
LGANET_HD Vec<float> broadcast(float x) { return x - Vec<float>{}; }

// Accumulators, in vectors, that fit into the registers together with the operands.
constexpr int kAccumulators = kVectorBytes == 64 ? 24 : 12;

// V vectors of outputs of `tiles` tiles, rounded up to a multiple of those done at once.
template <int V>
inline void multiply_block(const float* x, int64_t x_tile, int64_t inputs, int64_t tiles,
                           const float* weight, float* out, int64_t out_tile) {
  using W = Vec<float>;
  constexpr int64_t lanes = kLanes<float>;
  constexpr int R = kAccumulators / V;
  for (int64_t n = 0; n < tiles; n += R, x += R * x_tile, out += R * out_tile) {
    W acc[R][V] = {};
    const float* w = weight;
    for (int64_t c = 0; c < inputs; ++c, w += V * lanes) {
      W y[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) y[v] = load(w + v * lanes);
#pragma GCC unroll 24
      for (int r = 0; r < R; ++r) {
        const W s = broadcast(x[r * x_tile + c]);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) acc[r][v] += s * y[v];
      }
    }
#pragma GCC unroll 24
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) store(out + r * out_tile + v * lanes, acc[r][v]);
  }
}

// The next block of outputs takes 3 vectors, or 2 where 3 would leave a single one.
constexpr int64_t block_of(int64_t vectors) {
  return vectors == 2 || vectors == 4 ? 2 : vectors < 3 ? 1 : 3;
}

// One point: out[tile][output] = sum over c of x[tile][c] weight[c][output], in blocks of outputs.
inline void multiply(const float* x, int64_t x_tile, int64_t inputs, int64_t tiles,
                     const float* weight, int64_t vectors, float* out, int64_t out_tile) {
  constexpr int64_t lanes = kLanes<float>;
  while (vectors) {
    const int64_t block = block_of(vectors);
    if (block == 3)
      multiply_block<3>(x, x_tile, inputs, tiles, weight, out, out_tile);
    else if (block == 2)
      multiply_block<2>(x, x_tile, inputs, tiles, weight, out, out_tile);
    else
      multiply_block<1>(x, x_tile, inputs, tiles, weight, out, out_tile);
    vectors -= block;
    weight += block * inputs * lanes;
    out += block * lanes;
  }
}

// The output transform of `count` tiles from 144 products each: point x tile x output.
// rows: 4 x 4 rows (voxel, output) of `depth` voxels, null where outside the volume.
inline void transform_out(const float* x, int64_t point, int64_t tile, int64_t outputs,
                          int64_t first, int64_t count, int64_t depth, const float* bias, bool relu,
                          float* const* rows) {
  using W = Vec<float>;
  constexpr int64_t lanes = kLanes<float>;
  for (int64_t n = 0; n < count; ++n)
    for (int64_t o = 0; o < outputs; o += lanes) {
      W sums[2][36], half[24], out[16];
      const float* from = x + n * tile + o;
#pragma GCC unroll 4
      for (int i = 0; i < 36; ++i, from += 4 * point) {
        const W b = load(from + point), c = load(from + 2 * point);
        sums[0][i] = load(from) + b + c;
        sums[1][i] = b - c - load(from + 3 * point);
      }
      const W shift = load(bias + o);
      const int64_t left = std::min(lanes, outputs - o);
      for (int side = 0; side < 2; ++side) {
        const int64_t voxel = 2 * (first + n) + side;
        if (voxel == depth) break;
#pragma GCC unroll 6
        for (int w = 0; w < 6; ++w) {
          const W* y = sums[side] + w;
          four_out(y[0], y[6], y[12], y[18], y[24], y[30], half + w, 6);
        }
#pragma GCC unroll 4
        for (int h = 0; h < 4; ++h) {
          const W* y = half + 6 * h;
          four_out(y[0], y[1], y[2], y[3], y[4], y[5], out + 4 * h, 1);
        }
        for (int i = 0; i < 16; ++i) {
          if (!rows[i]) continue;
          W value = out[i] + shift;
          if (relu) value = value < 0.0f ? W{} : value;
          float* to = rows[i] + voxel * outputs + o;
          if (left == lanes)
            store(to, value);
          else
            std::memcpy(to, &value, left * sizeof(float));
        }
      }
    }
}

// The weight transform of F(4, 3) along one axis: 6 factors from 3 taps.
template <typename W>
LGANET_HD void six_of(const W& a, const W& b, const W& c, W* to, int64_t step) {
  const W outer = (a + c) / 6, inner = b / 6, high = a / 24 + c / 6, low = b / 12;
  to[0] = a / 4;
  to[step] = -outer - inner;
  to[2 * step] = inner - outer;
  to[3 * step] = high + low;
  to[4 * step] = high - low;
  to[5 * step] = c;
}

// The weight transform, 144 factors of every input for output o: to[point * .. + c * step].
inline void transform_weight(const View<const float>& weight, int64_t o, float* to, int64_t point,
                             int64_t step) {
  using W = Vec<double>;
  constexpr int64_t lanes = kLanes<double>;
  const int64_t* stride = weight.stride;
  for (int64_t c = 0; c < weight.size[1]; c += lanes, to += lanes * step) {
    W taps[27] = {}, one[54], two[108];
    const int64_t count = std::min(lanes, weight.size[1] - c);
    for (int64_t i = 0; i < 27; ++i) {
      const int64_t tap = i / 9 * stride[2] + i / 3 % 3 * stride[3] + i % 3 * stride[4];
      for (int64_t k = 0; k < count; ++k) taps[i][k] = weight.at(o, c + k)[tap];
    }
    for (int i = 0; i < 9; ++i) six_of(taps[i], taps[9 + i], taps[18 + i], one + i, 9);
    for (int i = 0; i < 18; ++i) {
      const W* x = one + i / 3 * 9 + i % 3;
      six_of(x[0], x[3], x[6], two + i / 3 * 18 + i % 3, 3);
    }
    for (int i = 0; i < 36; ++i) {
      const W *x = two + 3 * i, outer = (x[0] + x[2]) / 2, inner = x[1] / 2;
      const W sums[4] = {x[0], outer + inner, outer - inner, x[2]};
      for (int j = 0; j < 4; ++j)
        for (int64_t k = 0; k < count; ++k) to[(4 * i + j) * point + k * step] = float(sums[j][k]);
    }
  }
}

// transform_weight for the outputs from `begin` to `end`, in the blocks that `multiply` reads.
inline void pack(const View<const float>& weight, int64_t begin, int64_t end, float* to) {
  constexpr int64_t lanes = kLanes<float>;
  const int64_t inputs = weight.size[1], vectors = (weight.size[0] + lanes - 1) / lanes;
  for (int64_t start = 0, block; start < vectors; start += block) {
    block = block_of(vectors - start);
    const int64_t first = start * lanes, last = std::min(end, first + block * lanes);
    for (int64_t o = std::max(begin, first); o < last; ++o)
      transform_weight(weight, o, to + first * inputs + o - first, vectors * lanes * inputs,
                       block * lanes);
  }
}

// The transpose of four_out.
template <typename W>
LGANET_HD void six_from(const W& a, const W& b, const W& c, const W& d, W* to, int64_t step) {
  const W ac = a + c, bd = b + d, a4c = a + 4.0f * c, b4d = 2.0f * (b + 4.0f * d);
  to[0] = a;
  to[step] = ac + bd;
  to[2 * step] = ac - bd;
  to[3 * step] = a4c + b4d;
  to[4 * step] = a4c - b4d;
  to[5 * step] = d;
}

// The transpose of transform_out: the 144 sums of the gradient in `count` tiles.
// rows: 4 x 4 rows (voxel, output) of `depth` voxels, null where outside the volume.
inline void transform_gradient(const float* const* rows, int64_t outputs, int64_t first,
                               int64_t count, int64_t depth, float* to, int64_t point,
                               int64_t tile) {
  using W = Vec<float>;
  constexpr int64_t lanes = kLanes<float>;
  for (int64_t n = 0; n < count; ++n)
    for (int64_t o = 0; o < outputs; o += lanes) {
      W sums[2][36];
      const int64_t left = std::min(lanes, outputs - o);
      for (int side = 0; side < 2; ++side) {
        const int64_t voxel = 2 * (first + n) + side;
        W x[16] = {}, half[24];
        for (int i = 0; i < 16; ++i)
          if (rows[i] && voxel < depth)
            std::memcpy(x + i, rows[i] + voxel * outputs + o,
                        left == lanes ? sizeof(W) : left * sizeof(float));
#pragma GCC unroll 4
        for (int w = 0; w < 4; ++w) six_from(x[w], x[4 + w], x[8 + w], x[12 + w], half + w, 4);
#pragma GCC unroll 6
        for (int h = 0; h < 6; ++h) {
          const W* y = half + 4 * h;
          six_from(y[0], y[1], y[2], y[3], sums[side] + 6 * h, 1);
        }
      }
      float* out = to + n * tile + o;
      for (int i = 0; i < 36; ++i, out += 4 * point) {
        store(out, sums[0][i]);
        store(out + point, sums[0][i] + sums[1][i]);
        store(out + 2 * point, sums[0][i] - sums[1][i]);
        store(out + 3 * point, -sums[1][i]);
      }
    }
}

// V vectors of outputs, for all inputs, rounded up to a multiple of those done at once.
template <int V>
inline void accumulate_block(const float* x, int64_t x_tile, int64_t inputs, int64_t tiles,
                             const float* grad, float* to, int64_t padded) {
  using W = Vec<float>;
  constexpr int64_t lanes = kLanes<float>;
  constexpr int R = kAccumulators / V;
  for (int64_t c = 0; c < inputs; c += R) {
    W acc[R][V];
#pragma GCC unroll 24
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) acc[r][v] = load(to + (c + r) * padded + v * lanes);
    for (int64_t n = 0; n < tiles; ++n) {
      W y[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) y[v] = load(grad + n * padded + v * lanes);
#pragma GCC unroll 24
      for (int r = 0; r < R; ++r) {
        const W s = broadcast(x[n * x_tile + c + r]);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) acc[r][v] += s * y[v];
      }
    }
#pragma GCC unroll 24
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) store(to + (c + r) * padded + v * lanes, acc[r][v]);
  }
}

// One point: to[c][output] += sum over tiles of x[tile][c] grad[tile][output].
inline void accumulate(const float* x, int64_t x_tile, int64_t inputs, int64_t tiles,
                       const float* grad, int64_t vectors, float* to) {
  constexpr int64_t lanes = kLanes<float>;
  const int64_t padded = vectors * lanes;
  while (vectors) {
    const int64_t block = block_of(vectors);
    if (block == 3)
      accumulate_block<3>(x, x_tile, inputs, tiles, grad, to, padded);
    else if (block == 2)
      accumulate_block<2>(x, x_tile, inputs, tiles, grad, to, padded);
    else
      accumulate_block<1>(x, x_tile, inputs, tiles, grad, to, padded);
    vectors -= block;
    grad += block * lanes;
    to += block * lanes;
  }
}

// The transpose of six_of.
template <typename W>
LGANET_HD void three_of(const W* x, int64_t step, W* to, int64_t to_step) {
  const W outer = (x[step] + x[2 * step]) * (-1.0f / 6), high = (x[3 * step] + x[4 * step]) / 24.0f;
  to[0] = x[0] / 4.0f + outer + high;
  to[to_step] = (x[2 * step] - x[step]) / 6.0f + (x[3 * step] - x[4 * step]) / 12.0f;
  to[2 * to_step] = outer + 4.0f * high + x[5 * step];
}

// The transpose of transform_weight for the inputs from `begin` to `end`: point x input x output to
// 27 taps of every output and input.
inline void unpack(const float* from, int64_t point, int64_t padded, int64_t begin, int64_t end,
                   const View<float>& weight) {
  using W = Vec<float>;
  constexpr int64_t lanes = kLanes<float>;
  for (int64_t c = begin; c < end; ++c)
    for (int64_t o = 0; o < weight.size[0]; o += lanes) {
      W two[108], one[54], taps[27];
      for (int i = 0; i < 36; ++i) {
        const auto x = [&](int j) { return load(from + (4 * i + j) * point + c * padded + o); };
        const W b = x(1), d = x(2);
        two[3 * i] = x(0) + (b + d) / 2.0f;
        two[3 * i + 1] = (b - d) / 2.0f;
        two[3 * i + 2] = (b + d) / 2.0f + x(3);
      }
      for (int i = 0; i < 18; ++i)
        three_of(two + i / 3 * 18 + i % 3, 3, one + i / 3 * 9 + i % 3, 3);
      for (int i = 0; i < 9; ++i) three_of(one + i, 9, taps + i, 9);
      const int64_t left = std::min(lanes, weight.size[0] - o);
      for (int i = 0; i < 27; ++i)
        for (int64_t k = 0; k < left; ++k) weight.at(o + k, c)[i] = taps[i][k];
    }
}

}  // namespace lganet::LGANET_ISA
