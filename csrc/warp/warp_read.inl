// Reading an image where a flow points.
// Included by warp_loops.h, once per instruction set: no include guard.

template <Load kLoad, typename A, typename T, typename I>
LGANET_HD void load_ends(const T* from, const I* offset, int64_t next, Vec<A>& first,
                         Vec<A>& second) {
  if constexpr (kLoad == Load::pairs) {
    load_pairs<A>(from, offset, first, second);
  } else {
    first = load_each<A>(from, offset);
    second = load_each<A>(from + next, offset);
  }
}

template <Load kLoad, typename I, typename T, typename A>
void warp_lanes(const WarpCall<T, A>& call, const View<T>& out, int64_t begin, int64_t end) {
  using V = Vec<A>;
  const Volume<A> volume = volume_of<A>(call.image, call.mode.padding);
  each_register<Last::again, A>(out, begin, end, [&](Row row, int64_t k, int count) LGANET_INLINE {
    const Positions<A> p = positions_of(call.flow, row, k, count);
    const Corners<A, I> corners = corners_at<Find::weights, I>(p, volume);
    const Square<V> square = square_of(corners.weight[0], corners.weight[1]);
    const Pair<V> ends = corners.weight[2];
    for (int64_t c = 0; c < out.size[1]; ++c) {
      const T* image = call.image.at(row.b, c);
      V value = {};
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        V first, second;
        load_ends<kLoad, A>(image + row_offset(volume, r), corners.offset, volume.next[2], first,
                            second);
        value += square.row[r] * (ends.below * first + ends.above * second);
      }
      value = corners.inside ? value : V{};
      if (call.mode.plus == Plus::flow) value += p.shift[c];
      store_lanes<A>(place_of(out, row, k, c), out.stride[4], count, value);
    }
  });
}

template <typename T, typename A>
void warp_nearest(const WarpCall<T, A>& call, const View<T>& out, int64_t begin, int64_t end) {
  const Volume<A> volume = volume_of<A>(call.image, call.mode.padding);
  each_register<Last::fewer, A>(out, begin, end, [&](Row row, int64_t k, int count) LGANET_INLINE {
    const Nearest<A> at = nearest_at(positions_of(call.flow, row, k, count), volume);
    for (int64_t c = 0; c < out.size[1]; ++c) {
      const T* image = call.image.at(row.b, c);
      T* to = place_of(out, row, k, c);
      for (int l = 0; l < count; ++l)
        to[l * out.stride[4]] = at.inside[l] != 0 ? image[at.offset[l]] : T(A(0));
    }
  });
}

template <typename I, typename T, typename A>
void warp_channels(const WarpCall<T, A>& call, const View<T>& out, int64_t begin, int64_t end) {
  using V = Vec<A>;
  const Volume<A> volume = volume_of<A>(call.image, call.mode.padding);
  const int64_t channels = out.size[1];
  each_register<Last::fewer, A>(out, begin, end, [&](Row row, int64_t k, int count) LGANET_INLINE {
    const Positions<A> p = positions_of(call.flow, row, k, count);
    const Corners<A, I> corners = corners_at<Find::weights, I>(p, volume);
    const Cube<A> cube = cube_of<A>(corners.weight);
    for (int l = 0; l < count; ++l) {
      const T* image = call.image.at(row.b, 0) + corners.offset[l];
      T* to = place_of(out, row, k + l, 0);
      for (int64_t c = 0; c < channels; c += kLanes<A>) {
        const int some = lanes_left<A>(channels, c);
        V value = {};
        if (corners.inside[l])
#pragma GCC unroll 8
          for (int corner = 0; corner < 8; ++corner)
            value += cube.weight[corner][l] *
                     load_lanes<A>(image + corner_offset(volume, corner) + c, 1, some);
        store_lanes<A>(to + c, 1, some, value);
      }
    }
  });
}
