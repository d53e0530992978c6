// The convolution's kernels for full float32, in a separate file to be compiled in parallel.
#include "convolve/convolve.cuh"

namespace lganet {
LGANET_CONVOLVE(, float, kExact)
}  // namespace lganet
