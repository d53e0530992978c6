// The arithmetic of convolve: vectors run along the last axis, over rows of scratch that hold one
// channel each, so that any number of channels fills them. Along the other two axes it is
// Winograd's F(2 x 2, 3 x 3): 16 products for 4 outputs instead of 36.
namespace lganet::LGANET_ISA {

#include "lanes.h"

// Accumulators that the registers hold beside what they are made from.
constexpr int kAccumulators = kVectorBytes == 64 ? 24 : 12;

// Row (voxel, channel) of length `depth` to (channel, voxel), one place on: what lies before and
// after is zero.
inline void transpose_in(const float* from, int64_t channels, int64_t depth, float* to,
                         int64_t stride) {
  for (int64_t c = 0; c < channels; ++c) {
    float* row = to + c * stride + 1;
#pragma GCC ivdep
    for (int64_t d = 0; d < depth; ++d) row[d] = from[d * channels + c];
  }
}

// The four sums of four numbers that F(2, 3) multiplies.
template <typename W>
LGANET_HD void sums_in(const W& a, const W& b, const W& c, const W& d, W* to) {
  to[0] = a - c;
  to[1] = b + c;
  to[2] = c - b;
  to[3] = b - d;
}

// 4 x 4 rows to the 16 rows that are multiplied. rows: [plane][row]; all of `length`.
inline void transform_in(const float* const* rows, int64_t length, float* to) {
  for (int64_t i = 0; i < length; i += kLanes<float>) {
    Vec<float> first[4][4], x[4];  // first: along planes done, [row][sum]
    for (int w = 0; w < 4; ++w)
      sums_in(load(rows[w] + i), load(rows[4 + w] + i), load(rows[8 + w] + i),
              load(rows[12 + w] + i), first[w]);
    for (int h = 0; h < 4; ++h) {
      sums_in(first[0][h], first[1][h], first[2][h], first[3][h], x);
      for (int w = 0; w < 4; ++w) store(to + (4 * h + w) * length + i, x[w]);
    }
  }
}

// Less 0, which, unlike 0 more, takes no instruction.
LGANET_HD Vec<float> broadcast(float x) { return x - Vec<float>{}; }

// V vectors of O sums over the 3 taps of every input channel, to O rows of V vectors.
template <int O, int V>
inline void convolve_tile(const float* row, int64_t stride, int64_t inputs, const float* weight,
                          float* out) {
  using W = Vec<float>;
  constexpr int64_t lanes = kLanes<float>;
  W acc[O][V] = {};
  for (int64_t c = 0; c < inputs; ++c, row += stride) {
#pragma GCC unroll 3
    for (int tap = 0; tap < 3; ++tap, weight += O) {
      W x[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) x[v] = load(row + tap + v * lanes);
#pragma GCC unroll 8
      for (int o = 0; o < O; ++o) {
        const W w = broadcast(weight[o]);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) acc[o][v] += w * x[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < O; ++o)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(out + (o * V + v) * lanes, acc[o][v]);
}

// As many vectors as are left, at most V, for each of the 16 rows.
template <int O, int V>
inline int64_t convolve_some(int64_t left, const float* rows, int64_t stride, int64_t inputs,
                             const float* weight, float* out) {
  if constexpr (V > 1) {
    if (left < V) return convolve_some<O, V - 1>(left, rows, stride, inputs, weight, out);
  }
  for (int i = 0; i < 16; ++i)
    convolve_tile<O, V>(rows + i * inputs * stride, stride, inputs, weight + i * inputs * 3 * O,
                        out + i * O * V * kLanes<float>);
  return V;
}

// 16 products to 2 x 2 outputs, in place of the first four; `length` numbers each.
inline void transform_out(float* x, int64_t length) {
  for (int64_t i = 0; i < length; i += kLanes<float>) {
    Vec<float> half[2][4];
    for (int w = 0; w < 4; ++w) {
      const auto at = [&](int h) { return load(x + (4 * h + w) * length + i); };
      half[0][w] = at(0) + at(1) + at(2);
      half[1][w] = at(1) - at(2) - at(3);
    }
    for (int h = 0; h < 2; ++h) {
      store(x + 2 * h * length + i, half[h][0] + half[h][1] + half[h][2]);
      store(x + (2 * h + 1) * length + i, half[h][1] - half[h][2] - half[h][3]);
    }
  }
}

// 2 x 2 rows of outputs, (voxel, channel), from 16 transformed rows of inputs, (channel, voxel).
// weight: for each block of O outputs, 16 x inputs x 3 taps x O. to[i]: null where outside.
template <int O>
inline void convolve_rows(const float* rows, int64_t stride, int64_t inputs, int64_t outputs,
                          int64_t depth, const float* weight, const float* bias, float* const* to) {
  constexpr int64_t lanes = kLanes<float>;
  constexpr int V = kAccumulators / O;
  alignas(64) float buffer[16 * kAccumulators * lanes];
  for (int64_t o = 0; o < outputs; o += O, weight += 48 * inputs * O) {
    const int64_t count = std::min<int64_t>(O, outputs - o);
    for (int64_t d = 0; d < depth;) {
      const int64_t left = (depth - d + lanes - 1) / lanes;
      const int64_t done =
          convolve_some<O, V>(left, rows + d, stride, inputs, weight, buffer) * lanes;
      transform_out(buffer, O * done);
      const int64_t end = std::min(done, depth - d);
      for (int i = 0; i < 4; ++i) {
        if (!to[i]) continue;
        const float* from = buffer + i * O * done;
        float* out = to[i] + d * outputs + o;
        for (int64_t k = 0; k < end; ++k)
          for (int64_t j = 0; j < count; ++j)
            out[k * outputs + j] = from[j * done + k] + bias[o + j];
      }
      d += done;
    }
  }
}

inline void convolve_any_rows(int64_t block, const float* rows, int64_t stride, int64_t inputs,
                              int64_t outputs, int64_t depth, const float* weight,
                              const float* bias, float* const* to) {
  if (block == 8)
    convolve_rows<8>(rows, stride, inputs, outputs, depth, weight, bias, to);
  else
    convolve_rows<4>(rows, stride, inputs, outputs, depth, weight, bias, to);
}

}  // namespace lganet::LGANET_ISA
