// compose on a CUDA device, with the kernels of warp.
#include "warp/warp_call.h"

namespace lganet::cuda {

namespace {

Tensor compose(Tensor first, Tensor second) { return cuda::warp_image(first, second, kCompose); }

std::tuple<Tensor, Tensor> compose_backward(Tensor grad, Tensor first, Tensor second,
                                            bool need_first, bool need_second, bool deterministic) {
  return cuda::warp_image_backward(grad, first, second, kCompose,
                                   {.image = need_first, .flow = need_second},
                                   summation(deterministic));
}

}  // namespace

}  // namespace lganet::cuda

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CUDA, m) {
  m.impl("compose", TORCH_BOX(&lganet::cuda::compose));
  m.impl("compose_backward", TORCH_BOX(&lganet::cuda::compose_backward));
}
