// The convolution's kernels for float32 with all its bits, apart from the others to be compiled
// beside them.
#include "convolve/convolve.cuh"

namespace lganet {
LGANET_CONVOLVE(, float, kExact)
}  // namespace lganet
