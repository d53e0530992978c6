// Matrix products of a warp, and asynchronous copies to shared memory. Compute capability 8.0 and
// later; tests/cuda/host/host_mma.h emulates them on the host.
//
// - load_matrices: rows of 16 bytes in shared memory to the registers of a product.
// - load_matrices_transposed: the same for the transposed 8x8 matrices of 16-bit numbers.
// - multiply_add<T>: sums (16 x 8) += a (16 x k) b (k x 8), k = kDepth<T>.
// - copy_async<BYTES>: one copy from global to shared memory; zeros unless `here`.
// - copy_async_part: the same for 16 bytes, with zeros after the first `bytes`.
// - end_copies: ends a group of copies of this thread.
// - wait_copies<N>: waits until all groups of this thread but the last N have arrived; other
//   threads may read them after __syncthreads().
// - dynamic_shared: the shared memory requested by launch_shared.
//
// Layout of the registers of lane l, p = l % 4, q = l / 4. A register has two 16-bit numbers, the
// lower first, or one float. "Numbers p" are 2p and 2p + 1 for 16-bit numbers, p for floats.
//
// - a[0], a[1], a[2], a[3]: rows q, q + 8, q, q + 8; numbers p of the first half of k in a[0] and
//   a[1], of the second half in a[2] and a[3].
// - b[0], b[1]: column q; numbers p of the first and of the second half of k.
// - sums[0..3]: columns 2p and 2p + 1 of row q, then of row q + 8.
// - load_matrices: lane 8i + j points to row j of matrix i, which goes to register i; lane l gets
//   numbers p of row q.
// - load_matrices_transposed: lane l gets rows 2p and 2p + 1 of column q.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <type_traits>

#include "common/launch.cuh"

namespace lganet {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

// Length of the inner axis of one product; float means TF32.
template <typename T>
constexpr int kDepth = 32 / int(sizeof(T));

#ifdef __CUDACC__

__device__ __forceinline__ unsigned shared_address(const void* p) {
  return unsigned(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char lganet_dynamic_shared[];
  return lganet_dynamic_shared;
}

__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ void load_matrices(uint32_t (&to)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(shared_address(row))
               : "memory");
}

// Not volatile: a product has no effect but its sums, so the compiler may move it.
#define LGANET_PRODUCT(SHAPE, TYPE)                                          \
  asm("mma.sync.aligned." SHAPE ".row.col.f32." TYPE "." TYPE                \
      ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])           \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

template <typename T>
__device__ __forceinline__ void multiply_add(float (&sums)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<T, Half>)
    LGANET_PRODUCT("m16n8k16", "f16");
  else if constexpr (std::is_same_v<T, BFloat16>)
    LGANET_PRODUCT("m16n8k16", "bf16");
  else
    LGANET_PRODUCT("m16n8k8", "tf32");
}

#undef LGANET_PRODUCT

template <int BYTES>
__device__ __forceinline__ void copy_async(void* to, const void* from, bool here) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16);
  if constexpr (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(here ? 16 : 0)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "n"(BYTES), "r"(here ? BYTES : 0)
                 : "memory");
}

__device__ __forceinline__ void copy_async_part(void* to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
               "l"(__cvta_generic_to_global(from)), "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void end_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// A float rounded to the 10 bits of mantissa of TF32; a product itself truncates its operands.
__device__ __forceinline__ float round_tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return __uint_as_float(bits);
}

// Packs two floats as 16-bit numbers into a register.
template <typename T>
__device__ __forceinline__ uint32_t pack_two(float low, float high) {
  uint32_t bits;
  if constexpr (std::is_same_v<T, Half>)
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  else
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

}  // namespace lganet

#else
}  // namespace lganet

#ifdef LGANET_MMA_HEADER
#include LGANET_MMA_HEADER
#endif
#endif
