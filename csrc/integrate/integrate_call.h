// The checks of integrate's arguments, on any device.
#pragma once

#include "common/tensors.h"

namespace lganet {

inline void check_integrate(const Tensor& velocity, int64_t steps) {
  STD_TORCH_CHECK(velocity.dim() == 5 && velocity.size(1) == 3 && steps >= 0,
                  "integrate: expected a velocity (B, 3, H, W, D) and steps of at least 0");
}

}  // namespace lganet
