// Local normalised cross-correlation on the GPU: the two jobs that sum over boxes of voxels, one
// for the value and one for the gradient.
#pragma once

#include "common/launch.cuh"

namespace lganet::device {

#include "local_ncc/local_ncc_voxel.inl"

constexpr int kLanes = 32;
constexpr int kThreads = 256;
constexpr int kPlanes = 4;  // of boxes that a thread joins at a time

// A voxel of a (B, C, H, W, D) volume.
struct Voxel {
  int b, c, h, w, d;
};

template <typename T>
LGANET_HD int64_t offset_of(const View<T>& x, const Voxel& v) {
  return v.b * x.stride[0] + v.c * x.stride[1] + v.h * x.stride[2] + v.w * x.stride[3] +
         v.d * x.stride[4];
}

template <typename T>
LGANET_HD T& at(const View<T>& x, const Voxel& v) {
  return x.data[offset_of(x, v)];
}

// In an array without gaps.
LGANET_HD int64_t place_of(const int64_t (&size)[5], const Voxel& v) {
  return (((v.b * size[1] + v.c) * size[2] + v.h) * size[3] + v.w) * size[4] + v.d;
}

LGANET_HD int64_t count_of(const int64_t (&size)[5]) {
  return size[0] * size[1] * size[2] * size[3] * size[4];
}

// A struct stored as separate numbers, `stride` apart.
template <typename Box, typename T>
LGANET_HD Box gather(const T* from, int64_t stride) {
  constexpr int kCount = sizeof(Box) / sizeof(T);
  T parts[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) parts[i] = from[i * stride];
  Box box;
  __builtin_memcpy(&box, parts, sizeof box);
  return box;
}

template <typename Box, typename T>
LGANET_HD void scatter(T* to, int64_t stride, const Box& box) {
  constexpr int kCount = sizeof(Box) / sizeof(T);
  T parts[kCount];
  __builtin_memcpy(parts, &box, sizeof box);
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i * stride] = parts[i];
}

// The terms of the gradient to an image that are summed over boxes, and these sums; see
// derivative().
template <typename T>
struct Fields {
  T across, along, rest;

  LGANET_HD void add(const Fields& other) {
    across += other.across;
    along += other.along;
    rest += other.rest;
  }
  LGANET_HD Fields none() const { return {}; }
  LGANET_HD Fields whole(T) const { return *this; }
};

// The job for the value: from two images to the weighted sum of their correlation, and to the
// fields of the gradient to b (3) or to both (5).
template <typename In, typename T>
struct ValueJob {
  using Number = T;
  using Element = Sample<T>;
  using Box = Moments<T>;
  using Run = Join<T>;
  static constexpr int kStarts = 2, kSums = 2;

  View<const In> a, b;
  View<const T> weight;  // no data: all ones
  T* fields;             // without gaps, one after the other
  int count;             // of fields: 0, 3 or 5
  T epsilon, two_over_count;
  double* sums;  // of each block: weighted correlation, weight

  LGANET_HD const int64_t (&size() const)[5] { return a.size; }

  // The offsets of a voxel, and a read some steps further along its column.
  LGANET_HD void begin(int64_t (&start)[2], const Voxel& v) const {
    start[0] = offset_of(a, v);
    start[1] = offset_of(b, v);
  }
  LGANET_HD Sample<T> read(const int64_t (&start)[2], int h, int w) const {
    return {static_cast<T>(a.data[start[0] + h * a.stride[2] + w * a.stride[3]]),
            static_cast<T>(b.data[start[1] + h * b.stride[2] + w * b.stride[3]])};
  }

  // The other data of a thread, and its sums.
  struct State {
    T weight[kPlanes];
    T sums[2] = {};
  };

  LGANET_HD void fetch(State& state, int i, const Voxel& v) const {
    state.weight[i] = weight.data ? at(weight, {v.b, 0, v.h, v.w, v.d}) : T(1);
  }

  LGANET_HD void finish(State& state, int i, const Voxel& v, const Box& m) const {
    const Agreement<T> agreement(m, epsilon);
    const T w = state.weight[i];
    state.sums[0] += w * agreement.value();
    state.sums[1] += w;
    if (count == 0) return;
    const int64_t total = count_of(a.size);
    T* to = fields + place_of(a.size, v);
    const T across = w * two_over_count * agreement.slope;
    T along, rest;
    derivative(across, agreement.slope, m.a, m.aa, m.b, along, rest);
    to[0] = across;
    to[total] = along;
    to[2 * total] = rest;
    if (count == 3) return;
    derivative(across, agreement.slope, m.b, m.bb, m.a, along, rest);
    to[3 * total] = along;
    to[4 * total] = rest;
  }
};

// The job for the gradient to image y, from the fields.
template <typename In, typename T>
struct GradientJob {
  using Number = T;
  using Element = Fields<T>;
  using Box = Fields<T>;
  using Run = Fields<T>;
  static constexpr int kStarts = 1, kSums = 0;

  const T* fields[3];
  View<const In> x, y;
  View<T> grad;
  const T* scale;  // one over the sum of all weights

  LGANET_HD const int64_t (&size() const)[5] { return x.size; }

  LGANET_HD void begin(int64_t (&start)[1], const Voxel& v) const {
    start[0] = place_of(x.size, v);
  }
  LGANET_HD Fields<T> read(const int64_t (&start)[1], int h, int w) const {
    const int64_t at = start[0] + (h * x.size[3] + w) * x.size[4];
    return {fields[0][at], fields[1][at], fields[2][at]};
  }

  struct State {
    T x[kPlanes], y[kPlanes], scale;
  };

  LGANET_HD void fetch(State& state, int i, const Voxel& v) const {
    state.x[i] = static_cast<T>(at(x, v));
    state.y[i] = static_cast<T>(at(y, v));
    state.scale = *scale;
  }

  LGANET_HD void finish(State& state, int i, const Voxel& v, const Box& sum) const {
    const T value = state.x[i] * sum.across + state.y[i] * sum.along + sum.rest;
    at(grad, v) = value * state.scale;
  }
};

// Adds the numbers of a block's threads in a fixed order; `to` is shared memory.
template <int COUNT, typename T>
__device__ void block_sums(double* out, double (*to)[kThreads], const T (&mine)[COUNT]) {
  const int thread = threadIdx.x;
  for (int i = 0; i < COUNT; ++i) to[i][thread] = mine[i];
  for (int step = kThreads / 2; step > 0; step /= 2) {
    __syncthreads();
    if (thread < step)
      for (int i = 0; i < COUNT; ++i) to[i][thread] += to[i][thread + step];
  }
  if (thread == 0)
    for (int i = 0; i < COUNT; ++i) out[i] = to[i][0];
}

}  // namespace lganet::device
