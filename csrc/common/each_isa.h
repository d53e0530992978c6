// Includes the file named by LGANET_LOOPS once per instruction set, each in its own namespace; the
// macros below choose between them at run time. No include guard: every .cpp uses it once.
//
// Everything that LGANET_LOOPS includes must be included before, so that no shared inline function
// is compiled for an instruction set that the processor may lack.
#include "common/isa.h"

#define LGANET_ISA baseline
#define LGANET_VECTOR_BYTES 16
#include LGANET_LOOPS
#undef LGANET_ISA
#undef LGANET_VECTOR_BYTES

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define LGANET_HAS_X86_ISAS 1

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#define LGANET_ISA avx2
#define LGANET_VECTOR_BYTES 32
#include LGANET_LOOPS
#undef LGANET_ISA
#undef LGANET_VECTOR_BYTES
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#define LGANET_ISA avx512
#define LGANET_VECTOR_BYTES 64
#include LGANET_LOOPS
#undef LGANET_ISA
#undef LGANET_VECTOR_BYTES
#pragma GCC pop_options

// Calls FUNCTION of the given instruction set, which this processor must support.
#define LGANET_IN(ISA, FUNCTION, ...)                                       \
  ((ISA) == ::lganet::Isa::avx512 ? ::lganet::avx512::FUNCTION(__VA_ARGS__) \
   : (ISA) == ::lganet::Isa::avx2 ? ::lganet::avx2::FUNCTION(__VA_ARGS__)   \
                                  : ::lganet::baseline::FUNCTION(__VA_ARGS__))
#else
#define LGANET_IN(ISA, FUNCTION, ...) ((void)(ISA), ::lganet::baseline::FUNCTION(__VA_ARGS__))
#endif

#define LGANET_BEST(FUNCTION, ...) LGANET_IN(::lganet::best_isa(), FUNCTION, __VA_ARGS__)
