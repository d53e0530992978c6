// Warp of a channels-last image: several threads per voxel of the flow, each with 16 bytes of
// channels at a time. Neighbouring threads read and write neighbouring channels.
#pragma once

#include <cstdint>
#include <type_traits>

#include "warp/warp_points.cuh"

namespace lganet {

// Numbers that are loaded and stored 16 bytes at a time.
template <typename T>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / int(sizeof(T));
  T value[kSize];
};

// In whole words; the compiler would move 16-bit numbers one by one.
struct alignas(16) Words {
  uint32_t word[4];
};

template <typename T>
LGANET_HD Pack<T> load_pack(const T* from) {
  const Words words = *reinterpret_cast<const Words*>(from);
  Pack<T> pack;
  memcpy(&pack, &words, sizeof pack);
  return pack;
}

template <typename T>
LGANET_HD void store_pack(T* to, const Pack<T>& pack) {
  Words words;
  memcpy(&words, &pack, sizeof pack);
#ifdef __CUDA_ARCH__  // the intrinsic: with 64-bit indices the compiler splits a plain store
  const auto& w = words.word;
  __stwb(reinterpret_cast<uint4*>(to), make_uint4(w[0], w[1], w[2], w[3]));
#else
  *reinterpret_cast<Words*>(to) = words;
#endif
}

// One voxel, 2^log_group threads; each has every 2^log_group-th pack of channels.
template <typename T, typename A, typename I>
__global__ void __launch_bounds__(kThreads)
    warp_channels(Array<const T, I> image, Array<const A, I> flow, Array<T, I> out, I channels,
                  Reading<A> reading, Voxels<I> voxels, int log_group) {
  constexpr int kSize = Pack<T>::kSize;
  const I n = thread_index<I>() >> log_group;
  if (n >= voxels.count) return;
  const I first = I(threadIdx.x & ((1 << log_group) - 1)) * kSize, step = I(kSize) << log_group;
  const Voxel<I> v = voxels.at(n);
  A at[3];
  position_of(flow, v, reading.scale, at);
  T* to = out.data + out.offset(v);
  if (reading.nearest()) {
    const Nearest<A, I> nearest = nearest_at(at, reading, v.b);
    const T* from = image.data + image.offset(nearest.voxel);
    for (I c = first; c < channels; c += step) {
      Pack<T> pack = load_pack(from + c);
#pragma unroll
      for (T& x : pack.value) x = nearest.inside ? x : T(A(0));
      store_pack(to + c, pack);
    }
    return;
  }
  const Point<A, I> point = point_at<Find::weights>(at, reading, v.b);
  const device::Square<A> square = device::square_of(point.weight[0], point.weight[1]);
  const T* corner = image.data + image.offset(point.corner);
  for (I c = first; c < channels; c += step) {
    A sum[kSize] = {};
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const T* row = corner + image.row(r) + c;
      const Pack<T> below = load_pack(row), above = load_pack(row + image.next[2]);
#pragma unroll
      for (int l = 0; l < kSize; ++l)
        sum[l] += square.row[r] * (point.weight[2].below * A(below.value[l]) +
                                   point.weight[2].above * A(above.value[l]));
    }
    Pack<T> pack;
#pragma unroll
    for (int l = 0; l < kSize; ++l) pack.value[l] = T(point.inside ? sum[l] : A(0));
    store_pack(to + c, pack);
  }
}

// Adds to four adjacent float32 sums by one atomic operation if the hardware has it.
template <int kSize, typename A, typename I>
__device__ __forceinline__ void add_pack(const Sums<A, I>& sums, I at, A weight,
                                         const A (&grad)[kSize], double scale) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (sizeof(A) == 4) {
    if (!sums.fixed) {
      if (weight != A(0))
#pragma unroll
        for (int l = 0; l < kSize; l += 4)
          atomicAdd(reinterpret_cast<float4*>(sums.plain.data + at + l),
                    float4{weight * grad[l], weight * grad[l + 1], weight * grad[l + 2],
                           weight * grad[l + 3]});
      return;
    }
  }
#endif
#pragma unroll
  for (int l = 0; l < kSize; ++l) sums.add(at + l, weight * grad[l], scale);
}

template <typename T, typename A, typename I>
__global__ void __launch_bounds__(kThreads, 2)
    warp_channels_backward(Array<const T, I> image, Array<const A, I> flow, Array<const T, I> grad,
                           Wanted<A, I> wanted, I channels, Reading<A> reading, Voxels<I> voxels,
                           int log_group) {
  constexpr int kSize = Pack<T>::kSize;
  const I n = thread_index<I>() >> log_group;
  const bool active = n < voxels.count;
  const I lane = I(threadIdx.x & ((1 << log_group) - 1)), step = I(kSize) << log_group;
  const Voxel<I> v = voxels.at(active ? n : 0);
  const Sums<A, I>& sums = wanted.image;
  const double fixed = sums.scale();
  A at[3];
  position_of(flow, v, reading.scale, at);
  const T* from = grad.data + grad.offset(v);
  if (reading.nearest()) {
    const Nearest<A, I> nearest = nearest_at(at, reading, v.b);
    const I into = sums.plain.offset(nearest.voxel), end = active && nearest.inside ? channels : 0;
    for (I c = lane * kSize; c < end; c += step) {
      const Pack<T> pack = load_pack(from + c);
      A g[kSize];
#pragma unroll
      for (int l = 0; l < kSize; ++l) g[l] = A(pack.value[l]);
      add_pack(sums, into + c, A(1), g, fixed);
    }
    return;
  }
  const Point<A, I> point = point_at<Find::weights_and_slopes>(at, reading, v.b);
  const device::SlopeWeights<A> weights(point.weight, point.slope);
  const T* corner = image.data + image.offset(point.corner);
  const I into = sums.plain.offset(point.corner), end = active && point.inside ? channels : 0;
  A dot[8] = {};  // dot products of the gradient with each corner
  for (I c = lane * kSize; c < end; c += step) {
    const Pack<T> pack = load_pack(from + c);
    A g[kSize];
#pragma unroll
    for (int l = 0; l < kSize; ++l) g[l] = A(pack.value[l]);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      if (wanted.needed.image) {
        const I row = into + sums.plain.row(r) + c;
        add_pack(sums, row, weights.square.row[r] * weights.ends.below, g, fixed);
        add_pack(sums, row + sums.plain.next[2], weights.square.row[r] * weights.ends.above, g,
                 fixed);
      }
      if (wanted.needed.flow) {
        const T* row = corner + image.row(r) + c;
        const Pack<T> below = load_pack(row), above = load_pack(row + image.next[2]);
#pragma unroll
        for (int l = 0; l < kSize; ++l) {
          dot[2 * r] += g[l] * A(below.value[l]);
          dot[2 * r + 1] += g[l] * A(above.value[l]);
        }
      }
    }
  }
  if (!wanted.needed.flow) return;
  A sum[3] = {};
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    weights.add(sum, r, dot[2 * r], dot[2 * r + 1]);
  }
  for (int delta = 1; delta < 1 << log_group; delta *= 2)
#pragma unroll
    for (A& x : sum) x += __shfl_xor_sync(~0u, x, delta);
  if (active && lane == 0) store_flow(wanted, v, sum, fixed);
}

// Whether channels can be read 16 bytes at a time.
template <typename T>
bool in_packs(const View<T>& x) {
  constexpr int64_t kSize = Pack<std::remove_const_t<T>>::kSize;
  bool fits =
      x.stride[1] == 1 && x.size[1] % kSize == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
  for (int a : {0, 2, 3, 4}) fits = fits && (x.size[a] == 1 || x.stride[a] % kSize == 0);
  return fits;
}

// The logarithm of the number of threads per voxel: one per pack of channels, at most a warp.
template <typename T>
int log_group_of(const View<T>& image) {
  const int64_t packs = image.size[1] / Pack<std::remove_const_t<T>>::kSize;
  int log_group = 0;
  while (log_group < 5 && (int64_t(2) << log_group) <= packs) ++log_group;
  return log_group;
}

}  // namespace lganet
