// The convolution's kernels for float16, in a separate file to be compiled in parallel.
#include "convolve/convolve.cuh"

namespace lganet {
LGANET_CONVOLVE(, Half, kRounded)
}  // namespace lganet
