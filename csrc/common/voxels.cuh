// The voxel of a thread, and its place in an array. I is the type of an index: int32_t if that can
// index every number of every array, else int64_t.
#pragma once

#include "common/launch.cuh"

namespace lganet {

// Division of 0 <= n < 2^31 by a number known before the launch, by a multiplication and a shift.
template <typename I>
struct Divisor {
  uint32_t by, multiplier, shift;

  explicit Divisor(int64_t divisor) : by(uint32_t(divisor)), shift(0) {
    while ((int64_t(1) << shift) < divisor) ++shift;
    multiplier = uint32_t((((uint64_t(1) << shift) - by) << 32) / by + 1);
  }
  LGANET_HD I divide(I n) const {
    return I((uint32_t((uint64_t(uint32_t(n)) * multiplier) >> 32) + uint32_t(n)) >> shift);
  }
};

template <>
struct Divisor<int64_t> {
  int64_t by;

  explicit Divisor(int64_t divisor) : by(divisor) {}
  LGANET_HD int64_t divide(int64_t n) const { return n / by; }
};

template <typename I>
struct Voxel {
  I b, i, j, k;
};

// The voxels of (B, H, W, D), numbered with the last axis fastest.
template <typename I>
struct Voxels {
  I count;
  Divisor<I> height, width, depth;

  template <typename T>
  explicit Voxels(const View<T>& x)
      : count(I(x.size[0] * x.voxels())), height(x.size[2]), width(x.size[3]), depth(x.size[4]) {}

  LGANET_HD Voxel<I> at(I n) const {
    const I row = depth.divide(n), plane = width.divide(row), b = height.divide(plane);
    return {b, plane - b * I(height.by), row - plane * I(width.by), n - row * I(depth.by)};
  }
};

// A (B, C, H, W, D) array in memory. next: the step to the following voxel of an axis, 0 on an axis
// of one voxel.
template <typename T, typename I>
struct Array {
  T* data;
  I batch, channel, step[3], next[3];

  Array() = default;
  explicit Array(const View<T>& x) : data(x.data), batch(I(x.stride[0])), channel(I(x.stride[1])) {
    for (int a = 0; a < 3; ++a) {
      step[a] = I(x.stride[2 + a]);
      next[a] = x.size[2 + a] > 1 ? step[a] : 0;
    }
  }
  LGANET_HD I offset(const Voxel<I>& v) const {
    return v.b * batch + v.i * step[0] + v.j * step[1] + v.k * step[2];
  }
  // The step from the first corner of a cell to row r of its corners: (0, 0), (0, 1), (1, 0), (1,
  // 1).
  LGANET_HD I row(int r) const { return (r & 2 ? next[0] : 0) + (r & 1 ? next[1] : 0); }
};

template <typename T, typename I>
LGANET_HD Array<const T, I> as_const(const Array<T, I>& x) {
  Array<const T, I> result;
  result.data = x.data;
  result.batch = x.batch;
  result.channel = x.channel;
  for (int a = 0; a < 3; ++a) {
    result.step[a] = x.step[a];
    result.next[a] = x.next[a];
  }
  return result;
}

// Whether an int32_t can index the numbers of an array, and all threads, `threads` per voxel.
template <typename T>
bool is_small(const View<T>& x, int64_t threads = 1) {
  int64_t reach = 0;
  for (int a = 0; a < 5; ++a) reach += (x.size[a] - 1) * x.stride[a];
  return reach < INT32_MAX && x.size[0] * x.voxels() * threads <= INT32_MAX - kThreads;
}

// fitting: int32_t if possible. wide: always int64_t.
enum class Index : bool { fitting, wide };

// Calls body with a zero of the type of index to use.
template <typename F>
void switch_index(Index index, bool small, F&& body) {
  if (small && index == Index::fitting)
    body(int32_t{});
  else
    body(int64_t{});
}

inline dim3 blocks_for(int64_t threads) {
  return dim3(unsigned((threads + kThreads - 1) / kThreads));
}

template <typename I>
__device__ __forceinline__ I thread_index() {
  return I(blockIdx.x) * kThreads + I(threadIdx.x);
}

}  // namespace lganet
