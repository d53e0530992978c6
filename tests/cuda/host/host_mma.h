// The instructions of csrc/common/mma.cuh on the host. What a device leaves open is the worst here:
// a copy that has not been waited for has not arrived, and has already destroyed what was there.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

namespace lganet {

inline unsigned char* dynamic_shared() {
  if (!host::dynamic) host::fail("this kernel needs launch_shared");
  return host::dynamic;
}

namespace host {

// Row j of matrix i, as lane 8i + j points to it.
inline const unsigned char* matrix_row(const Warp& warp, int matrix, int row) {
  const unsigned char* p;
  std::memcpy(&p, warp.slot[8 * matrix + row], sizeof p);
  if (reinterpret_cast<uintptr_t>(p) % 16) fail("ldmatrix: a row must be a multiple of 16 bytes");
  return p;
}

template <int N>
void load_matrices(uint32_t (&to)[N], const void* row, bool transposed) {
  Warp& mine = warp();
  const int lane = thread_number() % 32;
  std::memcpy(mine.slot[lane], &row, sizeof row);
  mine.meet.wait();
  for (int i = 0; i < N; ++i)
    for (int half = 0; half < 2; ++half) {
      const int at = lane % 4 * 2 + half, r = transposed ? at : lane / 4;
      const int column = transposed ? lane / 4 : at;
      std::memcpy(reinterpret_cast<unsigned char*>(&to[i]) + 2 * half,
                  matrix_row(mine, i, r) + 2 * column, 2);
    }
  mine.meet.wait();
}

// What a lane hands over for a product.
struct Operands {
  float* sums;
  uint32_t a[4], b[2];
};

// One thread does it for its whole warp; all in one function, which is compiled to be fast.
template <typename T>
__attribute__((optimize("O2"), no_sanitize("address", "undefined"))) void multiply_add(
    const Operands* lanes[32]) {
  constexpr int kPack = 4 / sizeof(T), kHalf = 4 * kPack;
  float a[16][2 * kHalf], b[2 * kHalf][8];
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 6; ++i)
      for (int n = 0; n < kPack; ++n) {
        const uint32_t word = i < 4 ? lanes[lane]->a[i] : lanes[lane]->b[i - 4];
        uint32_t bits = word & 0xffffe000u;  // of float32, the rest is cut off
        if (std::is_same_v<T, BFloat16>) bits = word >> 16 * n << 16;
        if (std::is_same_v<T, Half>) bits = (word >> 16 * n & 0x7fffu) << 13;
        float number;
        __builtin_memcpy(&number, &bits, 4);
        if (std::is_same_v<T, Half>) {
          number *= 0x1p112f;  // the exponents' difference, for subnormal numbers too
          if (bits >= 0x7c00u << 13) number = bits > 0x7c00u << 13 ? NAN : INFINITY;
          if (word >> 16 * n & 0x8000u) number = -number;
        }
        const int k = lane % 4 * kPack + n;
        if (i < 4)
          a[lane / 4 + i % 2 * 8][i / 2 * kHalf + k] = number;
        else
          b[(i - 4) * kHalf + k][lane / 4] = number;
      }
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      float sum = lanes[lane]->sums[i];
      for (int k = 0; k < 2 * kHalf; ++k)
        sum += a[lane / 4 + i / 2 * 8][k] * b[k][lane % 4 * 2 + i % 2];
      lanes[lane]->sums[i] = sum;
    }
}

}  // namespace host

inline void load_matrices(uint32_t (&to)[4], const void* row) {
  host::load_matrices(to, row, false);
}
inline void load_matrices(uint32_t (&to)[2], const void* row) {
  host::load_matrices(to, row, false);
}
inline void load_matrices_transposed(uint32_t (&to)[4], const void* row) {
  host::load_matrices(to, row, true);
}
inline void load_matrices_transposed(uint32_t (&to)[2], const void* row) {
  host::load_matrices(to, row, true);
}

template <typename T>
void multiply_add(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  host::Warp& mine = host::warp();
  host::Operands operands{sums, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const host::Operands* address = &operands;
  std::memcpy(mine.slot[host::thread_number() % 32], &address, sizeof address);
  mine.meet.wait([&] {
    if (mine.meet.expected != 32) host::fail("a product needs all lanes of the warp");
    const host::Operands* lanes[32];
    for (int lane = 0; lane < 32; ++lane)
      std::memcpy(&lanes[lane], mine.slot[lane], sizeof lanes[lane]);
    host::multiply_add<T>(lanes);
  });
}

namespace host {

inline void copy_async(void* to, const void* from, int size, int bytes) {
  if (reinterpret_cast<uintptr_t>(to) % size || (bytes && reinterpret_cast<uintptr_t>(from) % size))
    fail("cp.async: addresses must be multiples of the size");
  if (bytes < 0 || bytes > size) fail("cp.async: no such number of bytes");
  std::memset(to, 0xff, size);
  copies().begun.push_back({to, from, size, bytes});
}

}  // namespace host

template <int BYTES>
void copy_async(void* to, const void* from, bool here) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16);
  host::copy_async(to, from, BYTES, here ? BYTES : 0);
}

inline void copy_async_part(void* to, const void* from, int bytes) {
  host::copy_async(to, from, 16, bytes);
}

inline void end_copies() { host::copies().end(); }

template <int N>
void wait_copies() {
  host::copies().wait(N);
}

inline float round_tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (std::isfinite(x)) bits = (bits + 0x1000u) & 0xffffe000u;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

template <typename T>
uint32_t pack_two(float low, float high) {
  const T numbers[2] = {T(low), T(high)};
  uint32_t bits;
  std::memcpy(&bits, numbers, sizeof bits);
  return bits;
}

}  // namespace lganet
