// The arithmetic of convolve: vectors run along the last axis, over rows of scratch that hold one
// channel each, so that any number of channels fills them.
namespace lganet::LGANET_ISA {

#include "lanes.h"

// Accumulators that the registers hold beside what they are made from.
constexpr int kAccumulators = kVectorBytes == 64 ? 24 : 12;

// Row (voxel, channel) of length `depth` to (channel, voxel), with a zero before and after.
inline void transpose_in(const float* from, int64_t channels, int64_t depth, float* to,
                         int64_t stride) {
  for (int64_t c = 0; c < channels; ++c) {
    float* row = to + c * stride + 1;
#pragma GCC ivdep
    for (int64_t d = 0; d < depth; ++d) row[d] = from[d * channels + c];
  }
}

// Less 0, which, unlike 0 more, takes no instruction.
LGANET_HD Vec<float> broadcast(float x) { return x - Vec<float>{}; }

// V vectors of O outputs: bias + the 27 taps of every input channel. rows: 9 of them, at the voxel
// before the first; out: O rows of V vectors.
template <int O, int V>
inline void convolve_tile(const float* const* rows, int64_t first, int64_t stride, int64_t inputs,
                          const float* weight, const float* bias, float* out) {
  using W = Vec<float>;
  constexpr int64_t lanes = kLanes<float>;
  W acc[O][V];
#pragma GCC unroll 8
  for (int o = 0; o < O; ++o)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) acc[o][v] = broadcast(bias[o]);
  for (int r = 0; r < 9; ++r) {
    const float* row = rows[r] + first;
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
  }
#pragma GCC unroll 8
  for (int o = 0; o < O; ++o)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(out + (o * V + v) * lanes, acc[o][v]);
}

// As many vectors as are left, at most V.
template <int O, int V>
inline int64_t convolve_some(int64_t left, const float* const* rows, int64_t first, int64_t stride,
                             int64_t inputs, const float* weight, const float* bias, float* out) {
  if constexpr (V > 1) {
    if (left < V)
      return convolve_some<O, V - 1>(left, rows, first, stride, inputs, weight, bias, out);
  }
  convolve_tile<O, V>(rows, first, stride, inputs, weight, bias, out);
  return V;
}

// A whole row of outputs, (voxel, channel), from 9 rows of inputs, (channel, voxel).
// weight: for each block of O outputs, 9 rows x inputs x 3 taps x O.
template <int O>
inline void convolve_row(const float* const* rows, int64_t stride, int64_t inputs, int64_t outputs,
                         int64_t depth, const float* weight, const float* bias, float* to) {
  constexpr int64_t lanes = kLanes<float>;
  constexpr int V = kAccumulators / O;
  alignas(64) float buffer[kAccumulators * lanes];
  for (int64_t o = 0; o < outputs; o += O, weight += 27 * inputs * O) {
    const int64_t count = std::min<int64_t>(O, outputs - o);
    for (int64_t d = 0; d < depth;) {
      const int64_t left = (depth - d + lanes - 1) / lanes;
      const int64_t done =
          convolve_some<O, V>(left, rows, d, stride, inputs, weight, bias + o, buffer) * lanes;
      const int64_t end = std::min(done, depth - d);
      for (int64_t i = 0; i < end; ++i)
        for (int64_t j = 0; j < count; ++j) to[(d + i) * outputs + o + j] = buffer[j * done + i];
      d += done;
    }
  }
}

inline void convolve_any_row(int64_t block, const float* const* rows, int64_t stride,
                             int64_t inputs, int64_t outputs, int64_t depth, const float* weight,
                             const float* bias, float* to) {
  if (block == 8)
    convolve_row<8>(rows, stride, inputs, outputs, depth, weight, bias, to);
  else
    convolve_row<4>(rows, stride, inputs, outputs, depth, weight, bias, to);
}

}  // namespace lganet::LGANET_ISA
