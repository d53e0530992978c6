// The convolution's kernels for float16, apart from the others to be compiled beside them.
#include "convolve/convolve.cuh"

namespace lganet {
LGANET_CONVOLVE(, Half, kRounded)
}  // namespace lganet
