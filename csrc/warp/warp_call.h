// The arguments of the loops that warp and compose share.
#pragma once

#include <tuple>

#include "common/tensors.h"
#include "warp/warp_mode.h"

namespace lganet {

// A: the type in which the loops compute.
template <typename T, typename A>
struct WarpCall {
  View<const T> image;
  View<const A> flow;
  WarpMode mode;
};

// The first and last plane of the image that one row of the flow reads.
struct Reach {
  int64_t first, last;
};

// The planes first .. last of one image, to which only one thread writes.
struct Own {
  int64_t b, first, last;

  LGANET_HD bool holds(int64_t plane) const { return plane >= first && plane <= last; }
  LGANET_HD bool meets(Reach reach) const { return reach.first <= last && reach.last >= first; }
};

// The mode of the operator `warp`, from its arguments.
inline WarpMode warp_mode(bool nearest, bool border) {
  return {nearest ? Sampling::nearest : Sampling::linear, border ? Padding::border : Padding::zeros,
          Plus::nothing};
}

inline void check_warp(const Tensor& image, const Tensor& flow) {
  STD_TORCH_CHECK(
      image.dim() == 5 && flow.dim() == 5 && flow.size(1) == 3 && image.size(0) == flow.size(0),
      "warp: expected an image (B, C, h, w, d) and a flow (B, 3, H, W, D)");
  STD_TORCH_CHECK(flow.scalar_type() == working_type(image),
                  "warp: the flow must be float64 for a float64 image and float32 for any other");
}

// The image's channels on the flow's grid.
inline Tensor empty_result(const Tensor& image, const Tensor& flow) {
  return empty_in_format_of(
      image, {flow.size(0), image.size(1), flow.size(2), flow.size(3), flow.size(4)});
}

Tensor warp_image(const Tensor& image, const Tensor& flow, WarpMode mode);

std::tuple<Tensor, Tensor> warp_image_backward(const Tensor& grad, const Tensor& image,
                                               const Tensor& flow, WarpMode mode, Needed needed);

// The same on a CUDA device.
namespace cuda {

// How the gradient to the image is summed: as fast as possible, or repeatable bit for bit, as
// always on the CPU.
enum class Summation : bool { fast, repeatable };

inline Summation summation(bool deterministic) {
  return deterministic ? Summation::repeatable : Summation::fast;
}

Tensor warp_image(const Tensor& image, const Tensor& flow, WarpMode mode);

std::tuple<Tensor, Tensor> warp_image_backward(const Tensor& grad, const Tensor& image,
                                               const Tensor& flow, WarpMode mode, Needed needed,
                                               Summation summation);

}  // namespace cuda

}  // namespace lganet
