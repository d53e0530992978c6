// Sums to which many threads add in no fixed order.
//
// The last bits of floating-point sums depend on that order. Deterministic sums are integers
// instead: every term is rounded to a multiple of a power of two, chosen so that no sum of `terms`
// terms, each at most the `peak`, overflows 64 bits. Up to 2^31 terms that is at least 30 bits
// below the peak, and 38 bits for a volume of 2^23 voxels. If the peak is not finite, the result is
// NaN.
#pragma once

#include <cmath>
#include <cstring>

#include "common/voxels.cuh"

namespace lganet {

using Fixed = unsigned long long;  // the type of atomicAdd; sums are modulo 2^64

LGANET_HD Fixed bits_of(double x) {
  Fixed bits;
  memcpy(&bits, &x, sizeof x);
  return bits;
}

// The power of two by which terms are multiplied; 0 if the peak is not finite. headroom: 61 minus
// the binary logarithm of the number of terms, rounded up.
LGANET_HD double fixed_scale(Fixed peak, int headroom) {
  const int exponent = int(peak >> 52) - 1023;
  if (exponent > 1023) return 0;
  const int power = headroom - exponent;
  const Fixed bits = Fixed((power < 1022 ? power : 1022) + 1023) << 52;
  double scale;
  memcpy(&scale, &bits, sizeof scale);
  return scale;
}

inline int headroom_for(int64_t terms) {
  int bits = 0;
  while ((int64_t(1) << bits) < terms) ++bits;
  return 61 - bits;
}

// The sums: `plain`, or `fixed`, followed by the bits of the largest term, a double.
template <typename A, typename I>
struct Sums {
  Array<A, I> plain;  // `fixed` has the same strides
  Fixed* fixed;
  const Fixed* peak;
  int headroom;

  LGANET_HD double scale() const { return fixed ? fixed_scale(*peak, headroom) : 0; }

  __device__ __forceinline__ void add(I at, A term, double scale) const {
    if (term == A(0)) return;  // corners outside the image have weight 0
    if (!fixed)
      atomicAdd(plain.data + at, term);
    else if (scale > 0)
      atomicAdd(fixed + at, Fixed(llrint(double(term) * scale)));
  }
};

// The bits of the largest |x|, as a double; NaN counts as the largest.
template <typename T, typename A, typename I>
__global__ void __launch_bounds__(kThreads)
    find_peak(Array<const T, I> x, I channels, Voxels<I> voxels, Fixed* peak) {
  const I n = thread_index<I>();
  Fixed most = 0;
  if (n < voxels.count) {
    const T* from = x.data + x.offset(voxels.at(n));
    for (I c = 0; c < channels; ++c) {
      const Fixed bits = bits_of(fabs(double(A(from[c * x.channel]))));
      most = bits > most ? bits : most;
    }
  }
  for (int delta = 16; delta > 0; delta /= 2) {
    const Fixed other = __shfl_xor_sync(~0u, most, delta);
    most = other > most ? other : most;
  }
  if (threadIdx.x % 32 == 0) atomicMax(peak, most);
}

enum class Finish : bool { write, add };

// Writes the sums to `to`, or adds them to it.
template <typename T, typename A>
__global__ void __launch_bounds__(kThreads)
    finish_sums(const A* plain, const Fixed* fixed, const Fixed* peak, int headroom, T* to,
                int64_t count, Finish how) {
  const int64_t n = thread_index<int64_t>();
  if (n >= count) return;
  A sum;
  if (fixed) {
    const double scale = fixed_scale(*peak, headroom);
    sum = scale > 0 ? A(double((long long)(fixed[n])) / scale) : A(NAN);
  } else {
    sum = plain[n];
  }
  to[n] = T(how == Finish::add ? A(to[n]) + sum : sum);
}

}  // namespace lganet
