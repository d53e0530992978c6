// The part of the CUDA convolution's weight and bias gradients that needs no CUDA: their schemas,
// and which configurations may be used.
#include "convolve/convolve_gradient_plan.h"
#include "common/tensors.h"

namespace lganet {

namespace {

// device: multiprocessors, bytes of shared memory per multiprocessor and per block.
std::vector<int64_t> convolve_weight_gradient_configs(int64_t inputs, int64_t outputs,
                                                      int64_t number_bytes, bool exact, bool masked,
                                                      std::vector<int64_t> size,
                                                      std::vector<int64_t> device) {
  using namespace weight_gradient;
  STD_TORCH_CHECK(size.size() == 3 && device.size() == 3, "expected three sizes, three limits");
  STD_TORCH_CHECK(inputs > 0 && outputs > 0 && size[0] > 0 && size[1] > 0 && size[2] > 0,
                  "channels and sizes must be positive");
  const Sizes sizes{inputs, outputs, {1, size[0], size[1], size[2]}, number_bytes, exact, masked};
  return ranked(sizes, {device[0], device[1], device[2]});
}

}  // namespace

}  // namespace lganet

STABLE_TORCH_LIBRARY_FRAGMENT(lganet_fast, m) {
  m.def(
      "convolve_maps_weight_gradient(Tensor[] maps, Tensor grad, Tensor? norm, float slope, "
      "Tensor? mask, bool exact, int config) -> (Tensor, Tensor)");
  m.def(
      "convolve_weight_gradient_configs(int inputs, int outputs, int number_bytes, bool exact, "
      "bool masked, int[] size, int[] device) -> int[]");
}

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CompositeExplicitAutograd, m) {
  m.impl("convolve_weight_gradient_configs", TORCH_BOX(&lganet::convolve_weight_gradient_configs));
}
