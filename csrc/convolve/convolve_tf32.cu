// The convolution's kernels for float32 rounded to TF32, in a separate file to be compiled in
// parallel.
#include "convolve/convolve.cuh"

namespace lganet {
LGANET_CONVOLVE(, float, kRounded)
}  // namespace lganet
