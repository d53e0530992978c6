// The instruction set to use on this processor.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace lganet {

enum class Isa { baseline, avx2, avx512 };

// The widest that this processor supports; LGANET_FAST_ISA=baseline|avx2 limits it, for tests.
inline Isa best_isa() {
#if defined(__x86_64__) && defined(__GNUC__)
  static const Isa best = [] {
    __builtin_cpu_init();
    Isa found = Isa::baseline;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found = Isa::avx2;
    if (found == Isa::avx2 && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      found = Isa::avx512;
    const char* limit = std::getenv("LGANET_FAST_ISA");
    if (limit && !std::strcmp(limit, "baseline")) return Isa::baseline;
    if (limit && !std::strcmp(limit, "avx2") && found == Isa::avx512) return Isa::avx2;
    return found;
  }();
  return best;
#else
  return Isa::baseline;
#endif
}

// Bytes of a vector.
inline int64_t vector_bytes(Isa isa) {
  return isa == Isa::avx512 ? 64 : isa == Isa::avx2 ? 32 : 16;
}

// The fastest for rows of `count` numbers of 4 bytes: the widest vectors, unless one narrower
// vector holds them all.
inline Isa isa_for(int64_t count) {
  return best_isa() == Isa::avx512 && count <= 8 ? Isa::avx2 : best_isa();
}

}  // namespace lganet
