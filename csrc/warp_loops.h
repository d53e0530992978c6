// The loops of warp over rows of voxels along the last axis. Two ways to keep a register full:
// neighbouring voxels side by side ("lanes"), or neighbouring channels of one voxel ("channels").

namespace lganet::LGANET_ISA {

#include "warp_lanes.h"
#include "warp.h"
#include "warp_corners.h"

// The same for nearest: one voxel each, and whether it lies inside.
template <typename A>
struct Nearest {
  int64_t offset[kLanes<A>];
  int32_t plane[kLanes<A>];
  A inside[kLanes<A>];
};

template <typename A>
LGANET_HD Nearest<A> nearest_at(const Positions<A>& p, const Volume<A>& volume) {
  using V = Lanes<A>;
  using N = Indices<A, int32_t>;
  using O = Indices<A, int64_t>;
  Nearest<A> nearest;
  O offset = {};
  V inside = V{} + 1;
  for (int a = 0; a < 3; ++a) {
    const Axis<A> axis = volume.axis[a];
    const V x = nearest_whole<A>(clamped(p.at[a], axis.low, axis.high));
    const V within = clamped(x, A(0), axis.end);
    const N index = __builtin_convertvector(within, N);
    inside = x == within ? inside : V{};
    offset += __builtin_convertvector(index, O) * volume.step[a];
    if (a == 0) store_vector(nearest.plane, index);
  }
  store_vector(nearest.offset, offset);
  store_vector(nearest.inside, inside);
  return nearest;
}

template <bool kPairs, typename A, typename T, typename I>
LGANET_HD void load_ends(const T* from, const I* offset, int64_t next, Lanes<A>& first,
                         Lanes<A>& second) {
  if constexpr (kPairs) {
    load_pairs<A>(from, offset, first, second);
  } else {
    first = load_each<A>(from, offset);
    second = load_each<A>(from + next, offset);
  }
}

template <bool kPairs, typename I, typename T, typename A>
void warp_lanes(const WarpCall<T, A>& call, const View<T>& out, int64_t begin, int64_t end) {
  using V = Lanes<A>;
  const Volume<A> volume = volume_of<A>(call.image, call.border);
  const int64_t depth = out.size[4];
  for (int64_t line = begin; line < end; ++line) {
    const Row row = row_of(out, line);
    for (int64_t next = 0; next < depth; next += kLanes<A>) {
      const int64_t k = full_run<A>(depth, next);
      const int count = lanes_left<A>(depth, k);
      const Positions<A> p = positions_of(call.flow, row, k, count);
      const Corners<A, I> corners = corners_at<false, I>(p, volume);
      const Square<V> square = square_of(corners.weight[0], corners.weight[1]);
      const Pair<V> ends = corners.weight[2];
      for (int64_t c = 0; c < out.size[1]; ++c) {
        const T* image = call.image.at(row.b, c);
        V value = call.add_flow ? p.shift[c] : V{};
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) {
          V first, second;
          load_ends<kPairs, A>(image + row_offset(volume, r), corners.offset, volume.next[2], first,
                               second);
          value += square.row[r] * (ends.below * first + ends.above * second);
        }
        store_lanes<A>(place_of(out, row, k, c), out.stride[4], count, value);
      }
    }
  }
}

template <typename T, typename A>
void warp_nearest(const WarpCall<T, A>& call, const View<T>& out, int64_t begin, int64_t end) {
  const Volume<A> volume = volume_of<A>(call.image, call.border);
  const int64_t depth = out.size[4];
  for (int64_t line = begin; line < end; ++line) {
    const Row row = row_of(out, line);
    for (int64_t k = 0; k < depth; k += kLanes<A>) {
      const int count = lanes_left<A>(depth, k);
      const Nearest<A> at = nearest_at(positions_of(call.flow, row, k, count), volume);
      for (int64_t c = 0; c < out.size[1]; ++c) {
        const T* image = call.image.at(row.b, c);
        T* to = place_of(out, row, k, c);
        for (int l = 0; l < count; ++l)
          to[l * out.stride[4]] = at.inside[l] != 0 ? image[at.offset[l]] : T(A(0));
      }
    }
  }
}

template <typename I, typename T, typename A>
void warp_channels(const WarpCall<T, A>& call, const View<T>& out, int64_t begin, int64_t end) {
  using V = Lanes<A>;
  const Volume<A> volume = volume_of<A>(call.image, call.border);
  const int64_t depth = out.size[4], channels = out.size[1];
  for (int64_t line = begin; line < end; ++line) {
    const Row row = row_of(out, line);
    for (int64_t k = 0; k < depth; k += kLanes<A>) {
      const int count = lanes_left<A>(depth, k);
      const Positions<A> p = positions_of(call.flow, row, k, count);
      const Corners<A, I> corners = corners_at<false, I>(p, volume);
      const Cube<A> cube = cube_of<A>(corners.weight);
      for (int l = 0; l < count; ++l) {
        const T* image = call.image.at(row.b, 0) + corners.offset[l];
        T* to = place_of(out, row, k + l, 0);
        for (int64_t c = 0; c < channels; c += kLanes<A>) {
          const int some = lanes_left<A>(channels, c);
          V value = {};
#pragma GCC unroll 8
          for (int corner = 0; corner < 8; ++corner)
            value += cube.weight[corner][l] *
                     load_lanes<A>(image + corner_offset(volume, corner) + c, 1, some);
          store_lanes<A>(to + c, 1, some, value);
        }
      }
    }
  }
}

// The gradient to the flow: the image's slope at the position, against the result's gradient.
template <bool kPairs, typename I, typename T, typename A>
void flow_gradient_lanes(const WarpCall<T, A>& call, const View<const T>& grad, const View<A>& out,
                         int64_t begin, int64_t end) {
  using V = Lanes<A>;
  const Volume<A> volume = volume_of<A>(call.image, call.border);
  const int64_t depth = out.size[4];
  for (int64_t line = begin; line < end; ++line) {
    const Row row = row_of(out, line);
    for (int64_t next = 0; next < depth; next += kLanes<A>) {
      const int64_t k = full_run<A>(depth, next);
      const int count = lanes_left<A>(depth, k);
      const Positions<A> p = positions_of(call.flow, row, k, count);
      const Corners<A, I> corners = corners_at<true, I>(p, volume);
      const auto& [wh, ww, wd] = corners.weight;
      const auto& [sh, sw, sd] = corners.slope;
      const Square<V> square = square_of(wh, ww), slope_h = square_of(sh, ww),
                      slope_w = square_of(wh, sw);
      V sum[3] = {};
      for (int64_t c = 0; c < call.image.size[1]; ++c) {
        const T* image = call.image.at(row.b, c);
        const V g = load_lanes<A>(place_of(grad, row, k, c), grad.stride[4], count);
        V slope[3] = {};
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) {
          V first, second;
          load_ends<kPairs, A>(image + row_offset(volume, r), corners.offset, volume.next[2], first,
                               second);
          const V value = wd.below * first + wd.above * second;
          slope[0] += slope_h.row[r] * value;
          slope[1] += slope_w.row[r] * value;
          slope[2] += square.row[r] * (sd.below * first + sd.above * second);
        }
        for (int a = 0; a < 3; ++a) sum[a] += g * slope[a];
        if (call.add_flow) sum[c] += g;
      }
      for (int a = 0; a < 3; ++a)
        store_lanes<A>(place_of(out, row, k, a), out.stride[4], count, sum[a]);
    }
  }
}

template <typename V>
LGANET_HD auto sum_of_lanes(V x) {
  auto sum = x[0];
  for (int l = 1; l < int(sizeof(V) / sizeof(sum)); ++l) sum += x[l];
  return sum;
}

template <typename I, typename T, typename A>
void flow_gradient_channels(const WarpCall<T, A>& call, const View<const T>& grad,
                            const View<A>& out, int64_t begin, int64_t end) {
  using V = Lanes<A>;
  const Volume<A> volume = volume_of<A>(call.image, call.border);
  const int64_t depth = out.size[4], channels = call.image.size[1];
  for (int64_t line = begin; line < end; ++line) {
    const Row row = row_of(out, line);
    for (int64_t k = 0; k < depth; k += kLanes<A>) {
      const int count = lanes_left<A>(depth, k);
      const Positions<A> p = positions_of(call.flow, row, k, count);
      const Corners<A, I> corners = corners_at<true, I>(p, volume);
      A product[8][kLanes<A>] = {};
      for (int l = 0; l < count; ++l) {
        const T* image = call.image.at(row.b, 0) + corners.offset[l];
        const T* g = place_of(grad, row, k + l, 0);
        V sum[8] = {};
        for (int64_t c = 0; c < channels; c += kLanes<A>) {
          const int some = lanes_left<A>(channels, c);
          const V one = load_lanes<A>(g + c, 1, some);
#pragma GCC unroll 8
          for (int corner = 0; corner < 8; ++corner)
            sum[corner] +=
                one * load_lanes<A>(image + corner_offset(volume, corner) + c, 1, some);
        }
        for (int corner = 0; corner < 8; ++corner) product[corner][l] = sum_of_lanes(sum[corner]);
      }
      const auto& [wh, ww, wd] = corners.weight;
      const auto& [sh, sw, sd] = corners.slope;
      const Square<V> square = square_of(wh, ww), slope_h = square_of(sh, ww),
                      slope_w = square_of(wh, sw);
      V sum[3] = {};
      for (int r = 0; r < 4; ++r) {
        const V first = load_vector<V>(product[2 * r]), second = load_vector<V>(product[2 * r + 1]);
        const V value = wd.below * first + wd.above * second;
        sum[0] += slope_h.row[r] * value;
        sum[1] += slope_w.row[r] * value;
        sum[2] += square.row[r] * (sd.below * first + sd.above * second);
      }
      for (int a = 0; a < 3; ++a)
        store_lanes<A>(place_of(out, row, k, a), out.stride[4], count, sum[a]);
    }
  }
}

// The planes of the image that each row of the flow reads.
template <typename T, typename A>
void reach_rows(const WarpCall<T, A>& call, Reach* reach, int64_t begin, int64_t end) {
  using V = Lanes<A>;
  const Axis<A> axis = axis_of<A>(call.image.size[2], call.border);
  const A last = call.nearest ? axis.end : axis.last;
  const int64_t depth = call.flow.size[4];
  for (int64_t line = begin; line < end; ++line) {
    const Row row = row_of(call.flow, line);
    V least = V{} + last, most = V{};
    for (int64_t k = 0; k < depth; k += kLanes<A>) {
      const V x = load_lanes<A>(place_of(call.flow, row, k, 0), call.flow.stride[4],
                                lanes_left<A>(depth, k)) + A(row.i);
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

// The gradient to the image, scattered: each call owns some of its planes and adds to no others, in
// the order of the flow's voxels. So nothing races, and the result is the same however the planes
// are shared out.
template <typename A>
LGANET_HD void clear(const View<A>& out, Own own) {
  const int64_t planes = own.last - own.first + 1;
  const bool channels_last = out.stride[4] == out.size[1];
  for (int64_t c = 0; c < (channels_last ? 1 : out.size[1]); ++c)
    __builtin_memset(out.at(own.b, c) + own.first * out.stride[2], 0,
                     planes * out.stride[2] * sizeof(A));
}

// Adds to the first corners of the four rows that start at `to`, in the planes that are owned.
template <typename A>
LGANET_HD void add_rows(A* to, const Volume<A>& volume, const A (&value)[4], Own own, int32_t plane) {
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half)
    if (own.holds(plane + half))
#pragma GCC unroll 2
      for (int r = 2 * half; r < 2 * half + 2; ++r) to[row_offset(volume, r)] += value[r];
}

// Where the next voxel reads the next corners, what both add to one is summed up first.
template <typename I, typename T, typename A>
void scatter_lanes(const WarpCall<T, A>& call, const View<const T>& grad, const View<A>& out,
                   const Reach* reach, Own own) {
  using V = Lanes<A>;
  const Volume<A> volume = volume_of<A>(out, call.border);
  const int64_t depth = grad.size[4], rows = grad.size[2] * grad.size[3];
  for (int64_t line = own.b * rows; line < (own.b + 1) * rows; ++line) {
    if (!own.meets(reach[line])) continue;
    const Row row = row_of(grad, line);
    for (int64_t k = 0; k < depth; k += kLanes<A>) {
      const int count = lanes_left<A>(depth, k);
      const Positions<A> p = positions_of(call.flow, row, k, count);
      const Corners<A, I> corners = corners_at<false, I>(p, volume);
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
            for (A& row : pending) row = 0;
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
  using V = Lanes<A>;
  const Volume<A> volume = volume_of<A>(out, call.border);
  const int64_t depth = grad.size[4], rows = grad.size[2] * grad.size[3], channels = out.size[1];
  for (int64_t line = own.b * rows; line < (own.b + 1) * rows; ++line) {
    if (!own.meets(reach[line])) continue;
    const Row row = row_of(grad, line);
    for (int64_t k = 0; k < depth; k += kLanes<A>) {
      const int count = lanes_left<A>(depth, k);
      const Positions<A> p = positions_of(call.flow, row, k, count);
      const Corners<A, I> corners = corners_at<false, I>(p, volume);
      const Cube<A> cube = cube_of<A>(corners.weight);
      for (int l = 0; l < count; ++l) {
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
  const Volume<A> volume = volume_of<A>(out, call.border);
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

// Which of the loops fits: by the layout of the image, and whether its offsets fit into 32 bits.
template <typename T>
LGANET_HD bool by_channels(const View<T>& image) {
  return image.stride[1] == 1 && image.size[1] >= 4;
}

template <typename T>
LGANET_HD bool in_pairs(const View<T>& image) {
  return image.stride[4] == 1 && image.size[4] > 1;
}

template <typename T, typename A>
void warp_rows(const WarpCall<T, A>& call, const View<T>& out, int64_t begin, int64_t end) {
  if (call.nearest) return warp_nearest(call, out, begin, end);
  if (by_channels(call.image) && out.stride[1] == 1)
    return is_small(call.image) ? warp_channels<int32_t>(call, out, begin, end)
                                : warp_channels<int64_t>(call, out, begin, end);
  if (!is_small(call.image)) return warp_lanes<false, int64_t>(call, out, begin, end);
  if constexpr (sizeof(T) == sizeof(A))
    if (in_pairs(call.image)) return warp_lanes<true, int32_t>(call, out, begin, end);
  warp_lanes<false, int32_t>(call, out, begin, end);
}

template <typename T, typename A>
void flow_gradient_rows(const WarpCall<T, A>& call, const View<const T>& grad, const View<A>& out,
                        int64_t begin, int64_t end) {
  if (by_channels(call.image) && grad.stride[1] == 1)
    return is_small(call.image) ? flow_gradient_channels<int32_t>(call, grad, out, begin, end)
                                : flow_gradient_channels<int64_t>(call, grad, out, begin, end);
  if (!is_small(call.image))
    return flow_gradient_lanes<false, int64_t>(call, grad, out, begin, end);
  if constexpr (sizeof(T) == sizeof(A))
    if (in_pairs(call.image))
      return flow_gradient_lanes<true, int32_t>(call, grad, out, begin, end);
  flow_gradient_lanes<false, int32_t>(call, grad, out, begin, end);
}

// Fills the planes [begin, end) of the image's gradient, counted over B and H.
template <typename T, typename A>
void image_gradient_planes(const WarpCall<T, A>& call, const View<const T>& grad,
                           const View<A>& out, const Reach* reach, int64_t begin, int64_t end) {
  const int64_t planes = out.size[2];
  for (int64_t b = begin / planes; b * planes < end; ++b) {
    const int64_t first = begin - b * planes, last = end - b * planes - 1;
    const Own own{b, first > 0 ? first : 0, last < planes ? last : planes - 1};
    clear(out, own);
    if (call.nearest)
      scatter_nearest(call, grad, out, reach, own);
    else if (by_channels(out) && grad.stride[1] == 1)
      is_small(out) ? scatter_channels<int32_t>(call, grad, out, reach, own)
                    : scatter_channels<int64_t>(call, grad, out, reach, own);
    else
      is_small(out) ? scatter_lanes<int32_t>(call, grad, out, reach, own)
                    : scatter_lanes<int64_t>(call, grad, out, reach, own);
  }
}

// The gradient of a half type, rounded once.
template <typename T, typename A>
void round_all(const A* from, T* to, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += kLanes<A>) {
    const int count = lanes_left<A>(end, i);
    store_lanes<A>(to + i, 1, count, load_lanes<A>(from + i, 1, count));
  }
}

}  // namespace lganet::LGANET_ISA
