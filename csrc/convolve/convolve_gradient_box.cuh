// Boxes of voxels in shared memory: copied 16 bytes of channels at a time, and then changed in
// place by the threads that copied them.
#pragma once

#include <vector>

#include "common/mma.cuh"
#include "common/voxels.cuh"

namespace lganet::weight_gradient {

// Channels of one copy.
template <typename T>
constexpr int kUnit = 16 / int(sizeof(T));

template <typename T>
struct alignas(16) Unit {
  T number[kUnit<T>];
};

// A channels-last tensor. pitch: the stride between voxels. aligned: whether every voxel starts at
// a multiple of 16 bytes.
template <typename T>
struct Map {
  const T* data = nullptr;
  int64_t pitch = 0;
  bool aligned = true;
};

// The pitch of a (B, C, H, W, D) tensor; 0 if it is not channels-last with a constant pitch.
template <typename T>
int64_t pitch_of(const View<T>& x) {
  int64_t pitch = 0, voxels = 1;
  for (int axis : {4, 3, 2, 0}) {
    if (x.size[axis] > 1) {
      if (pitch == 0 && voxels == 1) pitch = x.stride[axis];
      if (x.stride[axis] != pitch * voxels) return 0;
    }
    voxels *= x.size[axis];
  }
  if (voxels == 1) pitch = x.size[1];
  return pitch >= x.size[1] && (x.size[1] == 1 || x.stride[1] == 1) ? pitch : 0;
}

// Up to three tensors as one with all their channels; map i has channels first[i] to first[i + 1].
template <typename T>
struct Maps {
  Map<T> map[3];
  int first[4] = {};

  Maps() = default;
  explicit Maps(const std::vector<View<const T>>& views) {
    for (size_t i = 0; i < 3; ++i) {
      first[i + 1] = first[i];
      if (i >= views.size()) continue;
      const View<const T>& x = views[i];
      map[i] = {x.data, pitch_of(x)};
      map[i].aligned = (reinterpret_cast<uintptr_t>(x.data) | map[i].pitch * sizeof(T)) % 16 == 0;
      first[i + 1] += int(x.size[1]);
    }
  }
  LGANET_HD int of_channel(int c) const { return (c >= first[1]) + (c >= first[2]); }
};

// Batch, height, width, depth: the size of a volume, or the position of a voxel.
struct Place {
  int b, h, w, d;
};

// The size of a box, and the bytes from voxel to voxel in shared memory.
struct Box {
  int voxels, height, width, depth, stride;
  Divisor<int32_t> by_depth, by_width;

  Box(int height, int width, int depth, int stride)
      : voxels(height * width * depth),
        height(height),
        width(width),
        depth(depth),
        stride(stride),
        by_depth(depth),
        by_width(width) {}

  LGANET_HD int bytes() const { return voxels * stride; }
};

// Returns x, hidden from the optimiser: values computed from it are computed again instead of being
// kept in registers, which the sums need.
__device__ __forceinline__ int anew(int x) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+r"(x));
#endif
  return x;
}

// The part of a box that one thread copies and changes: one unit of channels of every `step`-th
// voxel.
template <typename T>
struct Share {
  int channel, first, step, offset;

  // block: which group of `eights` times 8 channels.
  __device__ __forceinline__ Share(int thread, int block, int eights) {
    const int units = eights * 8 / kUnit<T>, unit = thread % units;
    channel = block * eights * 8 + unit * kUnit<T>;
    step = int(blockDim.x) / units;
    first = thread / units;
    if (first >= step) first = INT32_MAX / 2;  // a thread without work
    offset = unit * 16;
  }

  // Calls body(byte in the box, voxel of the volume, depth in the box) for each voxel of the box at
  // a corner in a volume of that size; the voxel is -1 outside the volume.
  template <typename F>
  __device__ __forceinline__ void each(const Box& box, const Place& corner, const Place& size,
                                       F&& body) const {
#pragma unroll 1
    for (int n = first; n < box.voxels; n += step) {
      const int line = box.by_depth.divide(n), plane = box.by_width.divide(line);
      const int in_d = n - line * box.depth, d = corner.d + in_d;
      const int h = corner.h + plane, w = corner.w + line - plane * box.width;
      const bool inside = unsigned(h) < unsigned(size.h) && unsigned(w) < unsigned(size.w) &&
                          unsigned(d) < unsigned(size.d);
      const int voxel = ((corner.b * size.h + h) * size.w + w) * size.d + d;
      body(n * box.stride + offset, inside ? voxel : -1, in_d);
    }
  }
};

// Starts the copies of a thread's share of a box; zeros outside the volume and beyond the last
// channel.
template <typename T>
__device__ __forceinline__ void begin_copy(const Maps<T>& maps, const Share<T>& share,
                                           const Box& box, const Place& corner, const Place& size,
                                           unsigned char* to) {
  const int number = maps.of_channel(share.channel), channel = share.channel - maps.first[number];
  const Map<T>& map = maps.map[number];
  if (map.aligned && channel % kUnit<T> == 0 &&
      share.channel + kUnit<T> <= maps.first[number + 1]) {
    const T* data = map.data + channel;
    const int64_t pitch = map.pitch;
    share.each(box, corner, size, [&](int byte, int voxel, int) {
      copy_async<16>(to + byte, data + (voxel < 0 ? 0 : voxel * pitch), voxel >= 0);
    });
    return;
  }
  share.each(box, corner, size, [&](int byte, int voxel, int) {
#pragma unroll 1
    for (int k = 0; k < kUnit<T>; ++k) {
      const int c = share.channel + k, n = maps.of_channel(c);
      const bool there = voxel >= 0 && c < maps.first[3];
      reinterpret_cast<T*>(to + byte)[k] =
          there ? maps.map[n].data[voxel * maps.map[n].pitch + c - maps.first[n]] : T(0.f);
    }
  });
}

// A number as the products need it: floats are rounded to TF32 unless they are split later.
template <typename T, bool EXACT>
__device__ __forceinline__ T as_factor(float x) {
  if constexpr (std::is_same_v<T, float> && !EXACT) return round_tf32(x);
  return T(x);
}

// The input of the convolution: leaky((x - shift) * scale), with moments (2, B, C) of shift and
// scale.
struct Norm {
  const float* moments = nullptr;
  float slope = 1;
};

template <bool EXACT, typename T>
__device__ __forceinline__ void finish_inputs(const Norm& norm, int channels, const Share<T>& share,
                                              const Box& box, const Place& corner,
                                              const Place& size, unsigned char* data) {
  constexpr bool kRounds = std::is_same_v<T, float> && !EXACT;
  if (!norm.moments && !kRounds) return;
  float shift[kUnit<T>], scale[kUnit<T>];
#pragma unroll
  for (int k = 0; k < kUnit<T>; ++k) {
    const int c = share.channel + k;
    const bool there = norm.moments && c < channels;
    shift[k] = there ? norm.moments[corner.b * channels + c] : 0;
    scale[k] = there ? norm.moments[(size.b + corner.b) * channels + c] : 1;
  }
  const float slope = norm.moments ? norm.slope : 1;
  share.each(box, corner, size, [&](int byte, int voxel, int) {
    if (voxel < 0) return;
    Unit<T> unit = *reinterpret_cast<Unit<T>*>(data + byte);
#pragma unroll
    for (int k = 0; k < kUnit<T>; ++k) {
      const float f = (float(unit.number[k]) - shift[k]) * scale[k];
      unit.number[k] = as_factor<T, EXACT>(f > 0 ? f : f * slope);
    }
    *reinterpret_cast<Unit<T>*>(data + byte) = unit;
  });
}

// Sets the gradient to zero where the mask is not above zero, and adds the box's own voxels, all
// but the first and last of its depth, to `total`.
template <bool EXACT, typename T>
__device__ __forceinline__ void finish_gradient(const Share<T>& share, const Box& box,
                                                const Place& corner, const Place& size,
                                                unsigned char* data, const unsigned char* mask,
                                                float* total) {
  float sums[kUnit<T>] = {};
  share.each(box, corner, size, [&](int byte, int voxel, int depth) {
    if (voxel < 0) return;
    const bool own = depth > 0 && depth < box.depth - 1;
    Unit<T> unit = *reinterpret_cast<Unit<T>*>(data + byte), above;
    if (mask) above = *reinterpret_cast<const Unit<T>*>(mask + byte);
#pragma unroll
    for (int k = 0; k < kUnit<T>; ++k) {
      const float g = !mask || float(above.number[k]) > 0 ? float(unit.number[k]) : 0;
      if (own) sums[k] += g;
      unit.number[k] = as_factor<T, EXACT>(g);
    }
    *reinterpret_cast<Unit<T>*>(data + byte) = unit;
  });
#pragma unroll
  for (int k = 0; k < kUnit<T>; ++k) total[k] += sums[k];
}

}  // namespace lganet::weight_gradient
