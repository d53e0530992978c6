#include "convolve.cuh"

namespace lganet {
LGANET_CONVOLVE(, float, true)
}
