// Integrate on the device. A step composes a field with itself, with the kernels of warp.cuh. The
// first field is `scale` times the velocity, which is not stored.
#pragma once

#include "warp/warp.cuh"

namespace lganet {

// to(p) = scale * (from(p) + from(p + scale * from(p))).
template <typename A, typename I>
LGANET_HD void square_voxel(const Array<const A, I>& from, const Array<A, I>& to, const Voxel<I>& v,
                            const Reading<A>& reading) {
  A at[3];
  position_of(from, v, reading.scale, at);
  const Point<A, I> point = point_at<Find::weights>(at, reading, v.b);
  const device::Square<A> square = device::square_of(point.weight[0], point.weight[1]);
  const A* own = from.data + from.offset(v);
  const A* corner = from.data + from.offset(point.corner);
  A* out = to.data + to.offset(v);
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    const A value = value_at(corner + c * from.channel, from, square, point.weight[2]);
    out[c * to.channel] = reading.scale * (own[c * from.channel] + (point.inside ? value : A(0)));
  }
}

// All steps in one launch, one thread per voxel; `spare` has the strides of `result`.
template <typename A, typename I>
__global__ void __launch_bounds__(kThreads)
    integrate_voxels(Array<const A, I> velocity, Array<A, I> result, A* spare, Reading<A> reading,
                     Voxels<I> voxels, int steps) {
  const I n = thread_index<I>();
  const bool active = n < voxels.count;
  const Voxel<I> v = voxels.at(active ? n : 0);
  Array<const A, I> from = velocity;
  Array<A, I> to = result;
  for (int left = steps - 1; left >= 0; --left) {
    to.data = left % 2 ? spare : result.data;
    if (active) square_voxel(from, to, v, reading);
    if (left > 0) grid_barrier();
    from = as_const(to);
    reading.scale = 1;
  }
}

template <typename A>
struct DeviceField {
  View<const A> field;
  A scale;  // a factor to multiply by
  Index index;
};

template <typename A>
DeviceWarp<A, A> squaring_of(const DeviceField<A>& from) {
  return {from.field, from.field, kCompose, from.scale, from.index};
}

template <typename A>
void start_square(Stream stream, const DeviceField<A>& from, const View<A>& to) {
  start_warp<A>(stream, squaring_of(from), to);
}

// The backward of a step. `result.flow` and `result.image` are the same memory. It must be zero and
// receives the sums; with `result.fixed`, it is overwritten here and the sums are added later.
template <typename A>
void start_square_backward(Stream stream, const DeviceField<A>& at, const View<const A>& grad,
                           WarpGradients<A> result) {
  result.needed = {.image = true, .flow = true};
  result.together = !result.fixed;
  start_warp_backward<A>(stream, squaring_of(at), grad, result);
  if (result.fixed)
    start_finish(stream, result, grad.size[0] * grad.voxels(), result.flow.data, Finish::add);
}

// Whether the device can run a thread for every voxel at once: then one launch does all steps.
template <typename A>
bool in_one_launch(const View<const A>& velocity) {
  return is_small(velocity) && blocks_for(velocity.size[0] * velocity.voxels()).x <=
                                   resident_blocks(integrate_voxels<A, int32_t>);
}

// `steps` squarings, at least one, of scale * velocity.
template <typename A>
void start_integrate(Stream stream, const View<const A>& velocity, const View<A>& result, A* spare,
                     A scale, int steps) {
  using I = int32_t;
  launch_grid(stream, blocks_for(velocity.size[0] * velocity.voxels()), dim3(kThreads),
              integrate_voxels<A, I>, Array<const A, I>(velocity), Array<A, I>(result), spare,
              reading_of<A>(velocity, kCompose, scale), Voxels<I>(velocity), steps);
}

}  // namespace lganet
