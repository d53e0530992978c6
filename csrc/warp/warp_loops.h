// The loops of warp over rows of voxels along the last axis. The lanes of a register are either
// neighbouring voxels ("lanes") or channels of one voxel ("channels").

namespace lganet::LGANET_ISA {

#include "warp/warp_lanes.inl"
#include "warp/warp_axis.inl"
#include "warp/warp_corners.inl"

// The voxel that mode "nearest" reads, and whether it is inside.
template <typename A>
struct Nearest {
  int64_t offset[kLanes<A>];
  int32_t plane[kLanes<A>];
  A inside[kLanes<A>];
};

template <typename A>
LGANET_HD Nearest<A> nearest_at(const Positions<A>& p, const Volume<A>& volume) {
  using V = Vec<A>;
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

// How the two corners of a row are read: by two loads, or by one.
enum class Load : bool { each, pairs };

#include "warp/warp_read.inl"
#include "warp/warp_slope.inl"
#include "warp/warp_scatter.inl"

// The loop depends on the memory format of the image, and on whether its offsets fit into 32 bits.
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
  if (call.mode.sampling == Sampling::nearest) return warp_nearest(call, out, begin, end);
  if (by_channels(call.image) && out.stride[1] == 1)
    return is_small(call.image) ? warp_channels<int32_t>(call, out, begin, end)
                                : warp_channels<int64_t>(call, out, begin, end);
  if (!is_small(call.image)) return warp_lanes<Load::each, int64_t>(call, out, begin, end);
  if constexpr (sizeof(T) == sizeof(A))
    if (in_pairs(call.image)) return warp_lanes<Load::pairs, int32_t>(call, out, begin, end);
  warp_lanes<Load::each, int32_t>(call, out, begin, end);
}

template <typename T, typename A>
void flow_gradient_rows(const WarpCall<T, A>& call, const View<const T>& grad, const View<A>& out,
                        int64_t begin, int64_t end) {
  if (by_channels(call.image) && grad.stride[1] == 1)
    return is_small(call.image) ? flow_gradient_channels<int32_t>(call, grad, out, begin, end)
                                : flow_gradient_channels<int64_t>(call, grad, out, begin, end);
  if (!is_small(call.image))
    return flow_gradient_lanes<Load::each, int64_t>(call, grad, out, begin, end);
  if constexpr (sizeof(T) == sizeof(A))
    if (in_pairs(call.image))
      return flow_gradient_lanes<Load::pairs, int32_t>(call, grad, out, begin, end);
  flow_gradient_lanes<Load::each, int32_t>(call, grad, out, begin, end);
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
    if (call.mode.sampling == Sampling::nearest)
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
