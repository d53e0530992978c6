// What the template arguments EXACT of the CUDA convolution are.
#pragma once

namespace lganet {

// float32 with all its bits, or numbers as the tensor cores take them: half types, TF32.
constexpr bool kExact = true, kRounded = false;

}  // namespace lganet
