// A tile of the 3^3 convolution: its copy to shared memory and the steps before the products.
#pragma once

#include "convolve/convolve_plan.h"
#include "common/mma.cuh"

namespace lganet {

// The type of a kernel: numbers, full float32 or not, planes and columns.
template <typename T_, bool EXACT, int PLANES, int COLUMNS>
struct Convolution {
  using T = T_;
  static constexpr ConvolveKind kind{int(sizeof(T)), EXACT, PLANES, COLUMNS};
  static constexpr int kPer = kind.per_plane(), kLines = kind.lines(), kSteps = kind.steps();
  static constexpr int kTaps = COLUMNS / 8;  // tiles of 8 columns of one tap along d
  static constexpr int kTiles = kind.column_tiles();
  static constexpr int kOwn = COLUMNS / 4;      // adjacent outputs of a lane
  static constexpr int kWords = EXACT ? 4 : 2;  // registers of a lane for the weights of a product
};

// A channels-last tensor. pitch: the stride between voxels.
template <typename T>
struct Channels {
  T* data;
  int pitch;
};

constexpr int kMaps = 3;

// The arguments of y = (relu(conv3(cat(f(maps))) + bias) + add) * times, where f(x) is
// leaky((x - shift) * scale) or, with a mask, x where mask > 0 and else 0.
template <typename T>
struct ConvolveCall {
  Channels<const T> maps[kMaps];
  int first[kMaps + 1];  // first channel of each map, then the number of all
  bool whole;  // every plane is from one map and aligned to 16 bytes (the last may be shorter)
  Channels<const T> mask;
  bool whole_mask;      // the same for the mask
  const void* weights;  // packed
  const float* bias;
  const float* norm;  // shift, then scale: (2, batch, inputs)
  float slope;
  bool relu;
  Channels<const T> add, times;
  Channels<T> out;
  bool wide;       // out, add and times can be read and written 16 bytes at a time
  float* moments;  // (2, batch, outputs): mean and 1 / sqrt(variance + 1e-5)
  float* sums;     // (batch, blocks, 2, columns of all): scratch of the moments
  int outputs, batch;
  int size[3];

  int inputs() const { return first[kMaps]; }
};

// The position of a tile.
struct Place {
  int h, w, d, batch;

  // The index of its first voxel in the volume; below 2^31.
  LGANET_HD int64_t first_voxel(const int (&size)[3]) const {
    return int64_t(batch) * size[0] * size[1] * size[2];
  }
};

// The division of a volume into tiles.
struct ConvolveCut {
  ConvolveTile tile;
  int count[3];  // tiles along each axis
  int plane, segments, chunks, weight_slots, weights, sums, bias, norm, stage;
  uint32_t per_line;  // 2^32 / (d + 2), rounded up: divides the numbers of all voxels exactly

  LGANET_HD Place place(int n, int batch) const {
    return {n / count[2] / count[1] * tile.h, n / count[2] % count[1] * tile.w,
            n % count[2] * tile.d, batch};
  }
};

// Converts 16 bytes of channels to floats and back.
template <typename T, int N>
__device__ __forceinline__ void unpack(const uint32_t* words, float (&numbers)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if constexpr (std::is_same_v<T, float>) {
      memcpy(&numbers[i], &words[i], 4);
    } else if constexpr (std::is_same_v<T, BFloat16>) {
      const uint32_t bits = i % 2 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16;
      memcpy(&numbers[i], &bits, 4);
    } else {
      const uint16_t bits = uint16_t(words[i / 2] >> (i % 2 * 16));
      T number;
      memcpy(&number, &bits, 2);
      numbers[i] = float(number);
    }
  }
}

template <typename T, int N>
__device__ __forceinline__ void pack(const float (&numbers)[N], uint32_t* words) {
  if constexpr (std::is_same_v<T, float>) {
    memcpy(words, numbers, sizeof numbers);
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 2) words[i / 2] = pack_two<T>(numbers[i], numbers[i + 1]);
  }
}

// The map with a given channel, starting at that channel.
template <typename T>
__device__ __forceinline__ Channels<const T> map_of(const ConvolveCall<T>& call, int channel) {
  Channels<const T> map = call.maps[0];
  int first = 0;
#pragma unroll
  for (int m = 1; m < kMaps; ++m)
    if (channel >= call.first[m]) map = call.maps[m], first = call.first[m];
  map.data += channel - first;
  return map;
}

// The first of the channels that this lane loads from a chunk: 16 bytes of each of its voxels.
template <typename K>
__device__ __forceinline__ int own_channel(int chunk) {
  return (chunk * K::kind.planes + int(threadIdx.x) % K::kind.planes) * K::kPer;
}

// Calls body(shared memory, voxel, whether it is in the volume) for each 16 bytes of a tile that
// this lane loads.
template <typename K, typename F>
__device__ __forceinline__ void each_item(const ConvolveCut& cut, const Place& at,
                                          const int (&size)[3], unsigned char* stage, F&& body) {
  constexpr int kPlanes = K::kind.planes, kStep = 32 / kPlanes;
  const int first = threadIdx.x % 32 / kPlanes;
  const int across = cut.tile.w + 2, along = cut.tile.line();
  stage += threadIdx.x % kPlanes * cut.plane;
#pragma unroll 1
  for (int line = threadIdx.x / 32; line < (cut.tile.h + 2) * across; line += blockDim.x / 32) {
    const int h = at.h - 1 + line / across, w = at.w - 1 + line % across;
    const bool inside = h >= 0 && h < size[0] && w >= 0 && w < size[1];
    unsigned char* to = stage + (line * along + first) * 16;
    int voxel = inside ? (h * size[1] + w) * size[2] + at.d - 1 + first : 0;
#pragma unroll 1
    for (int k = first; k < along; k += kStep, voxel += kStep, to += 16 * kStep)
      body(to, voxel, inside && at.d - 1 + k >= 0 && at.d - 1 + k < size[2]);
  }
}

// Starts to copy a chunk of a tile.
template <typename K>
__device__ __forceinline__ void load(const ConvolveCall<typename K::T>& call,
                                     const ConvolveCut& cut, const Place& at, int chunk,
                                     unsigned char* stage) {
  using T = typename K::T;
  const int channel = own_channel<K>(chunk), left = call.first[kMaps] - channel;
  if (call.whole) {
    Channels<const T> map = map_of(call, left > 0 ? channel : 0);
    map.data += at.first_voxel(call.size) * map.pitch;
    const int bytes = left >= K::kPer ? 16 : left > 0 ? left * int(sizeof(T)) : 0;
    each_item<K>(cut, at, call.size, stage, [&](unsigned char* to, int voxel, bool here) {
      copy_async_part(to, here ? map.data + int64_t(voxel) * map.pitch : map.data,
                      here ? bytes : 0);
    });
    return;
  }
#pragma unroll 1
  for (int k = 0; k < K::kPer; ++k) {
    Channels<const T> map = map_of(call, k < left ? channel + k : 0);
    map.data += at.first_voxel(call.size) * map.pitch;
    each_item<K>(cut, at, call.size, stage, [&](unsigned char* to, int voxel, bool here) {
      reinterpret_cast<T*>(to)[k] =
          here && k < left ? map.data[int64_t(voxel) * map.pitch] : T(0.0f);
    });
  }
}

// Applies the normalisation or the mask and the rounding to TF32 to a chunk that has arrived, each
// lane to what it has loaded itself. Zeros outside the volume stay 0.
template <typename K>
__device__ __forceinline__ void transform(const ConvolveCall<typename K::T>& call,
                                          const ConvolveCut& cut, const Place& at, int chunk,
                                          unsigned char* stage) {
  using T = typename K::T;
  constexpr bool kRound = sizeof(T) == 4 && !K::kind.exact;
  const bool norm = call.norm, mask = call.mask.data;
  if (!kRound && !norm && !mask) return;
  const int channel = own_channel<K>(chunk), left = call.first[kMaps] - channel;
  const float* table = reinterpret_cast<const float*>(dynamic_shared() + cut.norm) + channel;
  const int second = cut.chunks * K::kind.chunk();
  const T* masks =
      mask ? call.mask.data + at.first_voxel(call.size) * call.mask.pitch + channel : nullptr;
  each_item<K>(cut, at, call.size, stage, [&](unsigned char* to, int voxel, bool here) {
    if (!here) return;
    uint32_t words[4];
    memcpy(words, __builtin_assume_aligned(to, 16), 16);
    float x[K::kPer];
    unpack<T>(words, x);
    if (norm) {
#pragma unroll
      for (int k = 0; k < K::kPer; ++k) {
        const float y = (x[k] - table[k]) * table[second + k];
        x[k] = y > 0 ? y : y * call.slope;
      }
    }
    if (mask) {
      const T* from = masks + int64_t(voxel) * call.mask.pitch;
      float counts[K::kPer];
      if (call.whole_mask && left >= K::kPer) {
        memcpy(words, __builtin_assume_aligned(from, 16), 16);
        unpack<T>(words, counts);
      } else {
#pragma unroll
        for (int k = 0; k < K::kPer; ++k) counts[k] = k < left ? float(from[k]) : 0.0f;
      }
#pragma unroll
      for (int k = 0; k < K::kPer; ++k) x[k] = counts[k] > 0 ? x[k] : 0.0f;
    }
    if constexpr (kRound) {
#pragma unroll
      for (int k = 0; k < K::kPer; ++k) x[k] = round_tf32(x[k]);
    }
    pack<T>(x, words);
    memcpy(__builtin_assume_aligned(to, 16), words, 16);
  });
}

}  // namespace lganet
