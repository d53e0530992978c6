// Launching a kernel, on a device or, for the tests, on the host.
//
// Kernels and the functions that launch them are in csrc/<op>/*.cuh and take plain pointers: the
// .cu compiles them for the device, the tests compile the same file with the host compiler.
//
// - launch(stream, grid, block, kernel, arguments...): a kernel without barriers.
// - launch_team(stream, grid, block, kernel, arguments...): with __syncthreads or shuffles.
// - launch_shared(stream, grid, block, bytes, kernel, arguments...): the same with `bytes` of
//   dynamic_shared() (mma.cuh).
// - launch_grid(stream, grid, block, kernel, arguments...): with grid_barrier(). All blocks must be
//   resident at once, at most `resident_blocks`.
#pragma once

#include <cstdint>

#include "common/view.h"

#ifdef __CUDACC__

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace lganet {

using Stream = cudaStream_t;
constexpr int kThreads = 256;  // of a block, by default

inline void check_cuda(cudaError_t status) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

template <typename... P, typename... Q>
void launch(Stream stream, dim3 grid, dim3 block, void (*kernel)(P...), Q... arguments) {
  kernel<<<grid, block, 0, stream>>>(P(arguments)...);
  check_cuda(cudaGetLastError());
}

template <typename... P, typename... Q>
void launch_team(Stream stream, dim3 grid, dim3 block, void (*kernel)(P...), Q... arguments) {
  launch(stream, grid, block, kernel, arguments...);
}

// Allows the blocks of a kernel dynamic shared memory above the default. Sets the device's maximum,
// not `bytes`, because another host thread may be about to launch the kernel with more.
template <typename... P>
void allow_shared(void (*kernel)(P...), int bytes) {
  if (bytes <= 48 * 1024) return;  // the default limit
  int device = 0, most = 0;
  cudaFuncAttributes attributes;
  check_cuda(cudaGetDevice(&device));
  check_cuda(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  check_cuda(cudaFuncGetAttributes(&attributes, kernel));
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  most - int(attributes.sharedSizeBytes)));
}

template <typename... P, typename... Q>
void launch_shared(Stream stream, dim3 grid, dim3 block, int bytes, void (*kernel)(P...),
                   Q... arguments) {
  allow_shared(kernel, bytes);
  kernel<<<grid, block, bytes, stream>>>(P(arguments)...);
  check_cuda(cudaGetLastError());
}

// How many blocks of a kernel are resident on a multiprocessor.
template <typename... P>
int blocks_of(void (*kernel)(P...), int threads, int bytes) {
  int blocks = 0;
  allow_shared(kernel, bytes);
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, bytes));
  return blocks;
}

template <typename... P>
void launch_grid(Stream stream, dim3 grid, dim3 block, void (*kernel)(P...), P... arguments) {
  void* pointers[] = {&arguments...};
  check_cuda(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel), grid, block,
                                         pointers, 0, stream));
}

// How many blocks of a kernel are resident on the current device; 0 without cooperative launches.
template <typename... P>
int64_t resident_blocks(void (*kernel)(P...)) {
  int device = 0, promises = 0, processors = 0, blocks = 0;
  check_cuda(cudaGetDevice(&device));
  check_cuda(cudaDeviceGetAttribute(&promises, cudaDevAttrCooperativeLaunch, device));
  check_cuda(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, kThreads, 0));
  return promises ? int64_t(processors) * blocks : 0;
}

__device__ __forceinline__ void grid_barrier() { cooperative_groups::this_grid().sync(); }

}  // namespace lganet

#elif defined(LGANET_LAUNCH_HEADER)  // another way to run a kernel
#include LGANET_LAUNCH_HEADER
#endif
