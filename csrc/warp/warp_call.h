// What warp and compose ask of the loops that they share.
#pragma once

#include <tuple>

#include "common/tensors.h"

namespace lganet {

// image(p + flow(p)), or with `add_flow` flow(p) + image(p + flow(p)). A is the type computed in.
template <typename T, typename A>
struct WarpCall {
  View<const T> image;
  View<const A> flow;
  bool nearest, border, add_flow;
};

// The planes of the image between which one row of the flow reads.
struct Reach {
  int64_t first, last;
};

// The planes first..last of one image, which one thread owns.
struct Own {
  int64_t b, first, last;

  LGANET_HD bool holds(int64_t plane) const { return plane >= first && plane <= last; }
  LGANET_HD bool meets(Reach reach) const { return reach.first <= last && reach.last >= first; }
};

inline void check_warp(const Tensor& image, const Tensor& flow) {
  STD_TORCH_CHECK(
      image.dim() == 5 && flow.dim() == 5 && flow.size(1) == 3 && image.size(0) == flow.size(0),
      "warp: expected an image (B, C, h, w, d) and a flow (B, 3, H, W, D)");
  const ScalarType working =
      image.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(flow.scalar_type() == working,
                  "warp: the flow must be float64 for a float64 image and float32 for any other");
}

inline void check_integrate(const Tensor& velocity, int64_t steps) {
  STD_TORCH_CHECK(velocity.dim() == 5 && velocity.size(1) == 3 && steps >= 0,
                  "integrate: expected a velocity (B, 3, H, W, D) and steps of at least 0");
}

Tensor warp_image(const Tensor& image, const Tensor& flow, bool nearest, bool border,
                  bool add_flow);

std::tuple<Tensor, Tensor> warp_image_backward(const Tensor& grad, const Tensor& image,
                                               const Tensor& flow, bool nearest, bool border,
                                               bool add_flow, bool need_image, bool need_flow);

// The same on a CUDA device. `deterministic` makes the image's gradient repeat bit for bit, as it
// always does on the CPU.
namespace cuda {

Tensor warp_image(const Tensor& image, const Tensor& flow, bool nearest, bool border,
                  bool add_flow);

std::tuple<Tensor, Tensor> warp_image_backward(const Tensor& grad, const Tensor& image,
                                               const Tensor& flow, bool nearest, bool border,
                                               bool add_flow, bool need_image, bool need_flow,
                                               bool deterministic);

}  // namespace cuda

}  // namespace lganet
