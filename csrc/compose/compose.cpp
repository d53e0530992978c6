// compose on the CPU, with the loops of warp.
#include "warp/warp_call.h"

namespace lganet {

namespace {

Tensor compose(Tensor first, Tensor second) { return warp_image(first, second, kCompose); }

std::tuple<Tensor, Tensor> compose_backward(Tensor grad, Tensor first, Tensor second,
                                            bool need_first, bool need_second,
                                            bool /*deterministic*/) {
  return warp_image_backward(grad, first, second, kCompose,
                             {.image = need_first, .flow = need_second});
}

}  // namespace

}  // namespace lganet

STABLE_TORCH_LIBRARY_FRAGMENT(lganet_fast, m) {
  m.def("compose(Tensor first, Tensor second) -> Tensor");
  m.def(
      "compose_backward(Tensor grad, Tensor first, Tensor second, bool need_first, "
      "bool need_second, bool deterministic=False) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CPU, m) {
  m.impl("compose", TORCH_BOX(&lganet::compose));
  m.impl("compose_backward", TORCH_BOX(&lganet::compose_backward));
}
