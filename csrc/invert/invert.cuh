// The inverse of a displacement field on the device: one thread per point, which iterates until its
// point has converged.
#pragma once

#include "invert/invert_call.h"
#include "warp/warp_points.cuh"

namespace lganet {

template <typename A>
struct Inversion {
  A step[9], metric[9];
  A tolerance, shrink;
  int64_t patience;
};

template <typename A>
LGANET_HD void turn(const A (&matrix)[9], const A (&v)[3], A (&out)[3]) {
#pragma unroll
  for (int a = 0; a < 3; ++a)
    out[a] = matrix[3 * a] * v[0] + matrix[3 * a + 1] * v[1] + matrix[3 * a + 2] * v[2];
}

// u with u + field(p + u) = goal at every voxel p where it is found; see ops/invert.py. The launch
// bound is one block: with more, the compiler spills registers in float64.
template <typename A, typename I>
__global__ void __launch_bounds__(kThreads, 1)
    invert_points(Array<const A, I> field, Array<const A, I> goal, Array<const A, I> start,
                  Array<A, I> out, bool* solved, Reading<A> reading, Inversion<A> how,
                  Voxels<I> voxels) {
  const I n = thread_index<I>();
  if (n >= voxels.count) return;
  const Voxel<I> v = voxels.at(n);
  A flow[3], best[3], aim[3];
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    flow[a] = best[a] = start.data[start.offset(v) + a * start.channel];
    aim[a] = goal.data[goal.offset(v) + a * goal.channel];
  }
  const A enough = how.tolerance * how.tolerance, less = how.shrink * how.shrink;
  A least = A(__builtin_inf());
  bool done = false;
  for (int64_t misses = 0;;) {
    const A at[3] = {A(v.i) + flow[0], A(v.j) + flow[1], A(v.k) + flow[2]};
    const Point<A, I> point = point_at<Find::weights>(at, reading, v.b);
    const device::Square<A> square = device::square_of(point.weight[0], point.weight[1]);
    const A* corner = field.data + field.offset(point.corner);
    A error[3], length[3], step[3];
#pragma unroll
    for (int a = 0; a < 3; ++a)
      error[a] =
          value_at(corner + a * field.channel, field, square, point.weight[2]) + flow[a] - aim[a];
    turn(how.metric, error, length);
    const A size = length[0] * length[0] + length[1] * length[1] + length[2] * length[2];
    done = size <= enough;
    const bool better = size < less * least;
#pragma unroll
    for (int a = 0; a < 3; ++a) best[a] = better || done ? flow[a] : best[a];
    misses += !better;
    if (done || misses > how.patience) break;
    turn(how.step, error, step);
#pragma unroll
    for (int a = 0; a < 3; ++a) flow[a] -= step[a];
    least = better ? size : least;
  }
#pragma unroll
  for (int a = 0; a < 3; ++a) out.data[out.offset(v) + a * out.channel] = best[a];
  solved[n] = done;
}

template <typename A>
void start_invert(Stream stream, const InvertCall<A>& call, const View<A>& out, bool* solved,
                  Index index) {
  Inversion<A> how{{}, {}, call.tolerance, call.shrink, call.patience};
  std::copy(call.step, call.step + 9, how.step);
  std::copy(call.metric, call.metric + 9, how.metric);
  const bool small =
      is_small(call.field) && is_small(call.goal) && is_small(call.start) && is_small(out);
  switch_index(index, small, [&](auto zero) {
    using I = decltype(zero);
    launch(stream, blocks_for(out.size[0] * out.voxels()), dim3(kThreads), invert_points<A, I>,
           Array<const A, I>(call.field), Array<const A, I>(call.goal),
           Array<const A, I>(call.start), Array<A, I>(out), solved,
           reading_of<A>(call.field, {Sampling::linear, Padding::border, Plus::nothing}, A(1)), how,
           Voxels<I>(out));
  });
}

}  // namespace lganet
