// The values of the template argument EXACT of the CUDA convolution.
#pragma once

namespace lganet {

// Full float32, or the types of the tensor cores: half types, TF32.
constexpr bool kExact = true, kRounded = false;

}  // namespace lganet
