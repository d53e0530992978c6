// The convolution's kernels for bfloat16, in a separate file to be compiled in parallel.
#include "convolve/convolve.cuh"

namespace lganet {
LGANET_CONVOLVE(, BFloat16, kRounded)
}  // namespace lganet
