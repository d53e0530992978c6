#include "convolve.cuh"

namespace lganet {
LGANET_CONVOLVE(, BFloat16, false)
}
