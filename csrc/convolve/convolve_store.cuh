// From the products of a tile of the 3^3 convolution to its result.
#pragma once

#include "convolve/convolve_tile.cuh"

namespace lganet {

// The value that is subtracted before an output's moments are summed, to avoid cancellation where
// the output varies little: the bias, or 0 if the ReLU sets it to 0.
LGANET_HD float centre_of(float bias, bool relu) { return relu && bias < 0 ? 0.0f : bias; }

// Reads or writes N adjacent numbers; wide: in the largest pieces that fit.
template <typename T, int N>
__device__ __forceinline__ void read_row(const T* from, bool wide, int count, float (&to)[N]) {
  constexpr int kBytes = N * sizeof(T), kPiece = kBytes % 16 == 0 ? 16 : kBytes % 8 == 0 ? 8 : 4;
  if (wide && count >= N) {
    uint32_t words[kBytes / 4];
#pragma unroll
    for (int i = 0; i < kBytes / kPiece; ++i)
      memcpy(words + i * kPiece / 4,
             __builtin_assume_aligned(reinterpret_cast<const char*>(from) + i * kPiece, kPiece),
             kPiece);
    unpack<T>(words, to);
    return;
  }
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = i < count ? float(from[i]) : 0.0f;
}

template <typename T, int N>
__device__ __forceinline__ void write_row(T* to, bool wide, int count, const float (&from)[N]) {
  constexpr int kBytes = N * sizeof(T), kPiece = kBytes % 16 == 0 ? 16 : kBytes % 8 == 0 ? 8 : 4;
  if (wide && count >= N) {
    uint32_t words[kBytes / 4];
    pack<T>(from, words);
#pragma unroll
    for (int i = 0; i < kBytes / kPiece; ++i)
      memcpy(__builtin_assume_aligned(reinterpret_cast<char*>(to) + i * kPiece, kPiece),
             words + i * kPiece / 4, kPiece);
    return;
  }
#pragma unroll
  for (int i = 0; i < N; ++i)
    if (i < count) to[i] = T(from[i]);
}

// Adds the three taps along d (row r of the result is row r - 1 of the first, r of the second and
// r + 1 of the third), applies the steps after the convolution and writes the result. Column 2p + e
// of the n-th tile of a tap is output kOwn p + 2n + e of the block, so that a lane has adjacent
// outputs, of rows lane / 4 + 8g.
template <typename K>
__device__ __forceinline__ void store(const ConvolveCall<typename K::T>& call,
                                      const ConvolveCut& cut, const Place& at, int unit,
                                      float (&sums)[K::kLines][2][K::kTiles][4]) {
  using T = typename K::T;
  constexpr int N = K::kOwn, kTaps = K::kTaps;
  const int lane = threadIdx.x % 32, q = lane / 4;
  const int segment = unit % cut.segments, h = at.h + unit / cut.segments * K::kLines;
  const int first = blockIdx.y * K::kind.columns + lane % 4 * N, count = call.outputs - first;
  const int64_t start = at.first_voxel(call.size);
  const auto from_start = [&](auto channels) {
    if (channels.data) channels.data += start * channels.pitch + first;
    return channels;
  };
  const Channels<const T> add = from_start(call.add), times = from_start(call.times);
  const Channels<T> out = from_start(call.out);
  // volatile: read each time, to save registers
  const volatile float* bias =
      reinterpret_cast<const volatile float*>(dynamic_shared() + cut.bias) + lane % 4 * N;
  float total[N], square[N];
#pragma unroll
  for (int i = 0; i < N; ++i) total[i] = square[i] = 0;
#pragma unroll
  for (int g = 0; g < 4; ++g) {
    const int row = g * 8 + q, place = segment * kNewRows + row;
    const int line = int(uint64_t(uint32_t(place)) * cut.per_line >> 32);
    const int along = place - line * cut.tile.line(), d = at.d + along - 1, w = at.w + line;
    const bool here = row >= 1 && row <= kNewRows && line < cut.tile.w && along >= 1 &&
                      along <= cut.tile.d && w < call.size[1] && d < call.size[2] && count > 0;
#pragma unroll
    for (int l = 0; l < K::kLines; ++l) {
      float y[N];
      __syncwarp();
#pragma unroll
      for (int n = 0; n < kTaps; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const auto product = [&](int tap, int group) -> float {
            return sums[l][group / 2][tap * kTaps + n][group % 2 * 2 + e];
          };
          // each lane passes on the row that the other one needs
          const float below = q == 7 && g > 0 ? product(0, g > 0 ? g - 1 : 0) : product(0, g);
          const float above = q == 0 && g < 3 ? product(2, g < 3 ? g + 1 : 3) : product(2, g);
          y[2 * n + e] = product(1, g) + __shfl_sync(~0u, below, (lane + 28) % 32) +
                         __shfl_sync(~0u, above, (lane + 4) % 32);
        }
      if (!here || h + l >= call.size[0]) continue;
      const int64_t voxel = ((h + l) * call.size[1] + w) * call.size[2] + d;
      float with[N];
#pragma unroll
      for (int i = 0; i < N; ++i) {
        y[i] += bias[i];
        if (call.relu) y[i] = y[i] < 0 ? 0.0f : y[i];
      }
      if (add.data) {
        read_row(add.data + voxel * add.pitch, call.wide, count, with);
#pragma unroll
        for (int i = 0; i < N; ++i) y[i] += with[i];
      }
      if (times.data) {
        read_row(times.data + voxel * times.pitch, call.wide, count, with);
#pragma unroll
        for (int i = 0; i < N; ++i) y[i] *= with[i];
      }
      write_row(out.data + voxel * out.pitch, call.wide, count, y);
      if (!call.sums) continue;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float about = float(T(y[i])) - centre_of(bias[i], call.relu);
        total[i] += about;
        square[i] += about * about;
      }
    }
  }
  if (!call.sums) return;
  float* to = reinterpret_cast<float*>(dynamic_shared() + cut.sums) +
              threadIdx.x / 32 * 2 * K::kind.columns;
#pragma unroll
  for (int i = 0; i < N; ++i) {
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
      total[i] += __shfl_xor_sync(~0u, total[i], step);
      square[i] += __shfl_xor_sync(~0u, square[i], step);
    }
    if (lane < 4) {
      to[lane * N + i] += total[i];
      to[K::kind.columns + lane * N + i] += square[i];
    }
  }
}

// Adds the sums of a block's warps, in order.
template <typename K>
__device__ __forceinline__ void store_sums(const ConvolveCall<typename K::T>& call,
                                           const ConvolveCut& cut) {
  constexpr int kBoth = 2 * K::kind.columns;
  __syncthreads();
  const float* from = reinterpret_cast<const float*>(dynamic_shared() + cut.sums);
  for (int i = threadIdx.x; i < kBoth; i += blockDim.x) {
    float sum = 0;
    for (int warp = 0; warp < int(blockDim.x) / 32; ++warp) sum += from[warp * kBoth + i];
    call.sums[((int64_t(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x) * kBoth +
              i] = sum;
  }
}

// Mean and 1 / sqrt(variance + 1e-5) of each output from the sums of all blocks: one warp per
// output, which adds in type A in a fixed order.
template <typename A>
__global__ void finish_moments(const float* sums, const float* bias, float* moments, bool relu,
                               int outputs, int columns, int blocks, int64_t voxels,
                               int64_t count) {
  const int64_t n = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (n >= count) return;
  const int output = int(n % outputs), lane = threadIdx.x % 32;
  const int64_t of_columns = (outputs + columns - 1) / columns;
  const float* from = sums + (n / outputs * of_columns + output / columns) * blocks * 2 * columns +
                      output % columns;
  A total = 0, square = 0;
  for (int i = lane; i < blocks; i += 32) {
    total += from[i * 2 * int64_t(columns)];
    square += from[i * 2 * int64_t(columns) + columns];
  }
  for (int step = 1; step < 32; step *= 2) {
    total += __shfl_xor_sync(~0u, total, step);
    square += __shfl_xor_sync(~0u, square, step);
  }
  if (lane) return;
  const A mean = total / A(voxels), variance = square / A(voxels) - mean * mean;
  moments[n] = float(mean + A(centre_of(bias[output], relu)));
  moments[count + n] = float(1 / sqrt((variance > 0 ? variance : A(0)) + A(1e-5)));
}

}  // namespace lganet
