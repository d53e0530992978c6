// What warp and compose ask of the loops that they share.
#pragma once

#include <tuple>

#include "tensors.h"

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

Tensor warp_image(const Tensor& image, const Tensor& flow, bool nearest, bool border, bool add_flow);

std::tuple<Tensor, Tensor> warp_image_backward(const Tensor& grad, const Tensor& image,
                                               const Tensor& flow, bool nearest, bool border,
                                               bool add_flow, bool need_image, bool need_flow);

}  // namespace lganet
