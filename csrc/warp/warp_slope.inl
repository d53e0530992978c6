// The gradient to the flow: the slope of the image at the position times the gradient to the
// result. Included by warp_loops.h, once per instruction set: no include guard.

template <Load kLoad, typename I, typename T, typename A>
void flow_gradient_lanes(const WarpCall<T, A>& call, const View<const T>& grad, const View<A>& out,
                         int64_t begin, int64_t end) {
  using V = Vec<A>;
  const Volume<A> volume = volume_of<A>(call.image, call.mode.padding);
  each_register<Last::again, A>(out, begin, end, [&](Row row, int64_t k, int count) LGANET_INLINE {
    const Positions<A> p = positions_of(call.flow, row, k, count);
    const Corners<A, I> corners = corners_at<Find::weights_and_slopes, I>(p, volume);
    const SlopeWeights<V> weights(corners.weight, corners.slope);
    V sum[3] = {};
    for (int64_t c = 0; c < call.image.size[1]; ++c) {
      const T* image = call.image.at(row.b, c);
      const V g = load_lanes<A>(place_of(grad, row, k, c), grad.stride[4], count);
      V slope[3] = {};
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        V first, second;
        load_ends<kLoad, A>(image + row_offset(volume, r), corners.offset, volume.next[2], first,
                            second);
        weights.add(slope, r, first, second);
      }
      for (int a = 0; a < 3; ++a) sum[a] += g * slope[a];
    }
    for (int a = 0; a < 3; ++a) {
      sum[a] = corners.inside ? sum[a] : V{};
      if (call.mode.plus == Plus::flow)
        sum[a] += load_lanes<A>(place_of(grad, row, k, a), grad.stride[4], count);
      store_lanes<A>(place_of(out, row, k, a), out.stride[4], count, sum[a]);
    }
  });
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
  using V = Vec<A>;
  const Volume<A> volume = volume_of<A>(call.image, call.mode.padding);
  const int64_t channels = call.image.size[1];
  each_register<Last::fewer, A>(out, begin, end, [&](Row row, int64_t k, int count) LGANET_INLINE {
    const Positions<A> p = positions_of(call.flow, row, k, count);
    const Corners<A, I> corners = corners_at<Find::weights_and_slopes, I>(p, volume);
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
          sum[corner] += one * load_lanes<A>(image + corner_offset(volume, corner) + c, 1, some);
      }
      for (int corner = 0; corner < 8; ++corner) product[corner][l] = sum_of_lanes(sum[corner]);
    }
    const SlopeWeights<V> weights(corners.weight, corners.slope);
    V sum[3] = {};
    for (int r = 0; r < 4; ++r)
      weights.add(sum, r, load_vector<V>(product[2 * r]), load_vector<V>(product[2 * r + 1]));
    for (int a = 0; a < 3; ++a)
      store_lanes<A>(place_of(out, row, k, a), out.stride[4], count, corners.inside ? sum[a] : V{});
  });
}
