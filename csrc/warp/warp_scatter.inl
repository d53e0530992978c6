// The gradient to the image. Each call adds only to its own planes, in the order of the flow's
// voxels. So there are no races, and the result does not depend on how the planes are divided among
// threads.
// Included by warp_loops.h, once per instruction set: no include guard.

// The planes of the image that each row of the flow reads.
template <typename T, typename A>
void reach_rows(const WarpCall<T, A>& call, Reach* reach, int64_t begin, int64_t end) {
  using V = Vec<A>;
  const Axis<A> axis = axis_of<A>(call.image.size[2], call.mode.padding);
  const A last = call.mode.sampling == Sampling::nearest ? axis.end : axis.last;
  const int64_t depth = call.flow.size[4];
  for (int64_t line = begin; line < end; ++line) {
    const Row row = row_of(call.flow, line);
    V least = V{} + last, most = V{};
    for (int64_t k = 0; k < depth; k += kLanes<A>) {
      const V x = load_lanes<A>(place_of(call.flow, row, k, 0), call.flow.stride[4],
                                lanes_left<A>(depth, k)) +
                  A(row.i);
      const V plane = clamped(x, A(0), last);
      least = smaller(least, plane);
      most = larger(most, plane);
    }
    A low = least[0], high = most[0];
    for (int l = 1; l < kLanes<A>; ++l) {
      low = smaller(low, least[l]);
      high = larger(high, most[l]);
    }
    reach[line] = {int64_t(low), int64_t(high) + 1};
  }
}

template <typename A>
LGANET_HD void clear(const View<A>& out, Own own) {
  const int64_t planes = own.last - own.first + 1;
  const bool channels_last = out.stride[4] == out.size[1];
  for (int64_t c = 0; c < (channels_last ? 1 : out.size[1]); ++c)
    __builtin_memset(out.at(own.b, c) + own.first * out.stride[2], 0,
                     planes * out.stride[2] * sizeof(A));
}

// Adds to the first corners of the four rows that start at `to`, in the planes of `own` only.
template <typename A>
LGANET_HD void add_rows(A* to, const Volume<A>& volume, const A (&value)[4], Own own,
                        int32_t plane) {
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half)
    if (own.holds(plane + half))
#pragma GCC unroll 2
      for (int r = 2 * half; r < 2 * half + 2; ++r) to[row_offset(volume, r)] += value[r];
}

// If the next voxel reads the next corners, the terms of both for a corner are added first.
template <typename I, typename T, typename A>
void scatter_lanes(const WarpCall<T, A>& call, const View<const T>& grad, const View<A>& out,
                   const Reach* reach, Own own) {
  using V = Vec<A>;
  const Volume<A> volume = volume_of<A>(out, call.mode.padding);
  const int64_t depth = grad.size[4], rows = grad.size[2] * grad.size[3];
  for (int64_t line = own.b * rows; line < (own.b + 1) * rows; ++line) {
    if (!own.meets(reach[line])) continue;
    const Row row = row_of(grad, line);
    for (int64_t k = 0; k < depth; k += kLanes<A>) {
      const int count = lanes_left<A>(depth, k);
      const Positions<A> p = positions_of(call.flow, row, k, count);
      const Corners<A, I> corners = corners_at<Find::weights, I>(p, volume);
      const Cube<A> cube = cube_of<A>(corners.weight);
      for (int64_t c = 0; c < out.size[1]; ++c) {
        const V from = load_lanes<A>(place_of(grad, row, k, c), grad.stride[4], count);
        A g[kLanes<A>];
        store_vector(g, from);
        A* image = out.at(row.b, c);
        A pending[4] = {};
        I expected = corners.offset[0];
        int32_t plane = corners.plane[0];
        for (int l = 0; l < count; ++l) {
          if (corners.offset[l] != expected) {
            add_rows(image + expected, volume, pending, own, plane);
            for (A& sum : pending) sum = 0;
            plane = corners.plane[l];
          }
          A value[4];
#pragma GCC unroll 4
          for (int r = 0; r < 4; ++r) {
            value[r] = pending[r] + cube.weight[2 * r][l] * g[l];
            pending[r] = cube.weight[2 * r + 1][l] * g[l];
          }
          add_rows(image + corners.offset[l], volume, value, own, plane);
          expected = corners.offset[l] + I(volume.next[2]);
        }
        add_rows(image + expected, volume, pending, own, plane);
      }
    }
  }
}

template <typename I, typename T, typename A>
void scatter_channels(const WarpCall<T, A>& call, const View<const T>& grad, const View<A>& out,
                      const Reach* reach, Own own) {
  using V = Vec<A>;
  const Volume<A> volume = volume_of<A>(out, call.mode.padding);
  const int64_t depth = grad.size[4], rows = grad.size[2] * grad.size[3], channels = out.size[1];
  for (int64_t line = own.b * rows; line < (own.b + 1) * rows; ++line) {
    if (!own.meets(reach[line])) continue;
    const Row row = row_of(grad, line);
    for (int64_t k = 0; k < depth; k += kLanes<A>) {
      const int count = lanes_left<A>(depth, k);
      const Positions<A> p = positions_of(call.flow, row, k, count);
      const Corners<A, I> corners = corners_at<Find::weights, I>(p, volume);
      const Cube<A> cube = cube_of<A>(corners.weight);
      for (int l = 0; l < count; ++l) {
        if (!corners.inside[l]) continue;
        const T* g = place_of(grad, row, k + l, 0);
        for (int half = 0; half < 2; ++half) {
          if (!own.holds(corners.plane[l] + half)) continue;
          A* image = out.at(row.b, 0) + corners.offset[l];
          for (int64_t c = 0; c < channels; c += kLanes<A>) {
            const int some = lanes_left<A>(channels, c);
            const V one = load_lanes<A>(g + c, 1, some);
#pragma GCC unroll 4
            for (int corner = 4 * half; corner < 4 * half + 4; ++corner) {
              A* to = image + corner_offset(volume, corner) + c;
              store_lanes<A>(to, 1, some,
                             load_lanes<A>(to, 1, some) + one * cube.weight[corner][l]);
            }
          }
        }
      }
    }
  }
}

template <typename T, typename A>
void scatter_nearest(const WarpCall<T, A>& call, const View<const T>& grad, const View<A>& out,
                     const Reach* reach, Own own) {
  const Volume<A> volume = volume_of<A>(out, call.mode.padding);
  const int64_t depth = grad.size[4], rows = grad.size[2] * grad.size[3];
  for (int64_t line = own.b * rows; line < (own.b + 1) * rows; ++line) {
    if (!own.meets(reach[line])) continue;
    const Row row = row_of(grad, line);
    for (int64_t k = 0; k < depth; k += kLanes<A>) {
      const int count = lanes_left<A>(depth, k);
      const Nearest<A> at = nearest_at(positions_of(call.flow, row, k, count), volume);
      for (int l = 0; l < count; ++l) {
        if (at.inside[l] == 0 || !own.holds(at.plane[l])) continue;
        for (int64_t c = 0; c < out.size[1]; ++c)
          out.at(row.b, c)[at.offset[l]] += A(*place_of(grad, row, k + l, c));
      }
    }
  }
}
