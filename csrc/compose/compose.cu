// Compose on a CUDA device: warp with the flow added to what it reads.
#include "warp/warp_call.h"

namespace lganet::cuda {

namespace {

Tensor compose(Tensor first, Tensor second) {
  return warp_image(first, second, false, false, true);
}

std::tuple<Tensor, Tensor> compose_backward(Tensor grad, Tensor first, Tensor second,
                                            bool need_first, bool need_second, bool deterministic) {
  return warp_image_backward(grad, first, second, false, false, true, need_first, need_second,
                             deterministic);
}

}  // namespace

}  // namespace lganet::cuda

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CUDA, m) {
  m.impl("compose", TORCH_BOX(&lganet::cuda::compose));
  m.impl("compose_backward", TORCH_BOX(&lganet::cuda::compose_backward));
}
