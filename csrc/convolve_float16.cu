#include "convolve.cuh"

namespace lganet {
LGANET_CONVOLVE(, Half, false)
}
