// Warp with one thread per voxel of the flow, which loops over the channels. Neighbouring threads
// read and write neighbouring voxels of the last axis.
#pragma once

#include "warp/warp_points.cuh"

namespace lganet {

// One voxel, one thread.
template <typename T, typename A, typename I>
__global__ void __launch_bounds__(kThreads)
    warp_voxels(Array<const T, I> image, Array<const A, I> flow, Array<T, I> out, I channels,
                Reading<A> reading, Voxels<I> voxels) {
  const I n = thread_index<I>();
  if (n >= voxels.count) return;
  const Voxel<I> v = voxels.at(n);
  A at[3];
  position_of(flow, v, reading.scale, at);
  T* to = out.data + out.offset(v);
  if (reading.nearest()) {
    const Nearest<A, I> nearest = nearest_at(at, reading, v.b);
    const T* from = image.data + image.offset(nearest.voxel);
    for (I c = 0; c < channels; ++c)
      to[c * out.channel] = nearest.inside ? from[c * image.channel] : T(A(0));
    return;
  }
  const Point<A, I> point = point_at<Find::weights>(at, reading, v.b);
  const device::Square<A> square = device::square_of(point.weight[0], point.weight[1]);
  const T* corner = image.data + image.offset(point.corner);
  const A* own = flow.data + flow.offset(v);
  for (I c = 0; c < channels; ++c) {
    A value = value_at(corner + c * image.channel, image, square, point.weight[2]);
    if (!point.inside) value = 0;
    if (reading.adds_flow()) value += own[c * flow.channel];
    to[c * out.channel] = T(reading.scale * value);
  }
}

// Adds the terms of a channel to the four rows of corners. If the next lane's first corner is this
// lane's second one, both terms are added by one atomic operation: this lane `gives` its term, the
// next one `takes` it.
template <typename A, typename I>
__device__ __forceinline__ void add_corners(const Sums<A, I>& sums, I corner,
                                            const device::Square<A>& square,
                                            const device::Pair<A>& ends, A grad, bool gives,
                                            bool takes, double scale) {
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const A term = square.row[r] * grad, above = ends.above * term;
    const A handed = __shfl_up_sync(~0u, above, 1);
    const I row = corner + sums.plain.row(r);
    sums.add(row, ends.below * term + (takes ? handed : A(0)), scale);
    if (!gives) sums.add(row + sums.plain.next[2], above, scale);
  }
}

// With a bound of two blocks the registers suffice; without a bound the compiler spills some.
template <typename T, typename A, typename I>
__global__ void __launch_bounds__(kThreads, 2)
    warp_voxels_backward(Array<const T, I> image, Array<const A, I> flow, Array<const T, I> grad,
                         Wanted<A, I> wanted, I channels, Reading<A> reading, Voxels<I> voxels) {
  const I n = thread_index<I>();
  const bool active = n < voxels.count;
  const Voxel<I> v = voxels.at(active ? n : 0);
  const Sums<A, I>& sums = wanted.image;
  const double fixed = sums.scale();
  A at[3];
  position_of(flow, v, reading.scale, at);
  const T* from = grad.data + grad.offset(v);
  if (reading.nearest()) {
    const Nearest<A, I> nearest = nearest_at(at, reading, v.b);
    const I place = sums.plain.offset(nearest.voxel);
    if (active && nearest.inside)
      for (I c = 0; c < channels; ++c)
        sums.add(place + c * sums.plain.channel, A(from[c * grad.channel]), fixed);
    return;
  }
  const Point<A, I> point = point_at<Find::weights_and_slopes>(at, reading, v.b);
  const device::SlopeWeights<A> weights(point.weight, point.slope);
  const T* corner = image.data + image.offset(point.corner);
  const I into = sums.plain.offset(point.corner);
  bool gives = false, takes = false;
  if (wanted.needed.image) {
    const int lane = threadIdx.x % 32;
    gives = __shfl_down_sync(~0u, into, 1) == into + sums.plain.next[2] && lane < 31;
    takes = __shfl_up_sync(~0u, int(gives), 1) && lane > 0;
  }
  A sum[3] = {};
  for (I c = 0; c < channels; ++c) {
    const A g = active ? reading.scale * A(from[c * grad.channel]) : A(0);
    const A passed = point.inside ? g : A(0);
    if (wanted.needed.image)
      add_corners(sums, into + c * sums.plain.channel, weights.square, weights.ends, passed, gives,
                  takes, fixed);
    if (!wanted.needed.flow) continue;
    const T* rows = corner + c * image.channel;
    A slope[3] = {};
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const T* row = rows + image.row(r);
      weights.add(slope, r, A(row[0]), A(row[image.next[2]]));
    }
#pragma unroll
    for (int a = 0; a < 3; ++a) {
      if (point.inside) sum[a] += g * reading.scale * slope[a];
      if (reading.adds_flow() && a == c) sum[a] += g;
    }
  }
  if (wanted.needed.flow && active) store_flow(wanted, v, sum, fixed);
}

}  // namespace lganet
