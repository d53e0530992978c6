// A strided (B, C, H, W, D) array, on the host or a device.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define LGANET_HD __host__ __device__ __forceinline__
#else
#define LGANET_HD inline __attribute__((always_inline))
#endif
#define LGANET_INLINE __attribute__((always_inline))  // for a lambda, after its parameters

namespace lganet {

template <typename T>
struct View {
  T* data;
  int64_t size[5];
  int64_t stride[5];

  LGANET_HD T* at(int64_t b, int64_t c) const { return data + b * stride[0] + c * stride[1]; }
  LGANET_HD int64_t voxels() const { return size[2] * size[3] * size[4]; }
};

}  // namespace lganet
