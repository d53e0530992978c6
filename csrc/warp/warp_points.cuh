// The corners that a voxel reads and to which its gradients are added; shared by the kernels of
// warp and integrate.
#pragma once

#include "common/sums.cuh"
#include "warp/warp_mode.h"

namespace lganet {

namespace device {
#include "warp/warp_axis.inl"
}  // namespace device

// The arguments of x(p) = scale * image(p + scale * flow(p)), with Plus::flow + scale * flow(p).
template <typename A>
struct Reading {
  device::Axis<A> axis[3];
  A scale;
  Sampling sampling;
  Plus plus;

  LGANET_HD bool nearest() const { return sampling != Sampling::linear; }
  LGANET_HD bool adds_flow() const { return plus != Plus::nothing; }
};

template <typename A, typename T>
Reading<A> reading_of(const View<T>& image, WarpMode mode, A scale) {
  Reading<A> reading{{}, scale, mode.sampling, mode.plus};
  for (int a = 0; a < 3; ++a) reading.axis[a] = device::axis_of<A>(image.size[2 + a], mode.padding);
  return reading;
}

// A position in the image: the first corner of its cell, and weights along the axes.
template <typename A, typename I>
struct Point {
  Voxel<I> corner;
  bool inside;  // whether any corner is inside
  device::Pair<A> weight[3], slope[3];
};

template <typename A, typename I>
LGANET_HD void position_of(const Array<const A, I>& flow, const Voxel<I>& v, A scale, A (&at)[3]) {
  const A* shift = flow.data + flow.offset(v);
  at[0] = A(v.i) + scale * shift[0];
  at[1] = A(v.j) + scale * shift[flow.channel];
  at[2] = A(v.k) + scale * shift[2 * flow.channel];
}

template <Find kFind, typename A, typename I>
LGANET_HD Point<A, I> point_at(const A (&at)[3], const Reading<A>& reading, I b) {
  Point<A, I> point;
  point.inside = true;
  I index[3];
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    const auto& axis = reading.axis[a];
    const A x = device::clamped(at[a], axis.low, axis.high);
    point.inside = point.inside && device::is_near(x, axis);
    index[a] = I(device::clamped(x, A(0), axis.last));
    const A distance = x - A(index[a]);
    point.weight[a] = device::weights_at(distance, axis);
    if (kFind == Find::weights_and_slopes)
      point.slope[a] = device::slopes_at(distance, at[a], axis);
  }
  point.corner = {b, index[0], index[1], index[2]};
  return point;
}

// The voxel that mode "nearest" reads, and whether it is inside.
template <typename A, typename I>
struct Nearest {
  Voxel<I> voxel;
  bool inside;
};

template <typename A, typename I>
LGANET_HD Nearest<A, I> nearest_at(const A (&at)[3], const Reading<A>& reading, I b) {
  I index[3];
  bool inside = true;
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    const auto& axis = reading.axis[a];
    const A x = device::nearest_whole<A>(device::clamped(at[a], axis.low, axis.high));
    const A within = device::clamped(x, A(0), axis.end);
    inside = inside && x == within;
    index[a] = I(within);
  }
  return {{b, index[0], index[1], index[2]}, inside};
}

template <typename T, typename A, typename I>
LGANET_HD A value_at(const T* corner, const Array<const T, I>& image,
                     const device::Square<A>& square, const device::Pair<A>& ends) {
  A value = 0;
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const T* row = corner + image.row(r);
    value += square.row[r] * (ends.below * A(row[0]) + ends.above * A(row[image.next[2]]));
  }
  return value;
}

// The results of the backward: the gradient to the image as sums, that to the flow, or both.
template <typename A, typename I>
struct Wanted {
  Sums<A, I> image;
  Array<A, I> flow;
  Needed needed;
  bool together;  // the gradient to the flow is added to the image's sums
};

template <typename A, typename I>
__device__ __forceinline__ void store_flow(const Wanted<A, I>& wanted, const Voxel<I>& v,
                                           const A (&sum)[3], double scale) {
  const I place = wanted.flow.offset(v);
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    const I at = place + a * wanted.flow.channel;
    if (wanted.together)
      wanted.image.add(at, sum[a], scale);
    else
      wanted.flow.data[at] = sum[a];
  }
}

}  // namespace lganet
