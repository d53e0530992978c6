// The convolution's kernels for bfloat16, apart from the others to be compiled beside them.
#include "convolve/convolve.cuh"

namespace lganet {
LGANET_CONVOLVE(, BFloat16, kRounded)
}  // namespace lganet
