// The convolution's kernels for float32 rounded to TF32, apart from the others to be compiled
// beside them.
#include "convolve/convolve.cuh"

namespace lganet {
LGANET_CONVOLVE(, float, kRounded)
}  // namespace lganet
