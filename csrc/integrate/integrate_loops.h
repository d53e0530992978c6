// The loops of integrate. A voxel of a field has its three components and a zero in adjacent
// memory: so one corner is one load, and the two corners of a pair are one load of twice the width.

namespace lganet::LGANET_ISA {

#include "warp/warp_lanes.inl"
// first: the other files need it
#include "warp/warp_axis.inl"
#include "warp/warp_corners.inl"

template <typename A>
using Quad = typename VectorOf<A, 4>::type;
template <typename A>
using TwoQuads = typename VectorOf<A, 8>::type;

template <typename A>
LGANET_HD Quad<A> first_of(TwoQuads<A> x) {
  return __builtin_shufflevector(x, x, 0, 1, 2, 3);
}

template <typename A>
LGANET_HD Quad<A> second_of(TwoQuads<A> x) {
  return __builtin_shufflevector(x, x, 4, 5, 6, 7);
}

template <typename A>
LGANET_HD Volume<A> volume_of(const Field<A>& field) {
  const int64_t step[3] = {field.width * field.depth, field.depth, 1};
  const int64_t size[3] = {field.height, field.width, field.depth};
  Volume<A> volume;
  for (int a = 0; a < 3; ++a) {
    volume.axis[a] = axis_of<A>(size[a], Padding::zeros);
    volume.step[a] = 4 * step[a];
    volume.next[a] = size[a] > 1 ? 4 * step[a] : 0;
  }
  return volume;
}

template <typename A>
LGANET_HD Row row_of(const Field<A>& field, int64_t row) {
  return {row / (field.width * field.height), row / field.width % field.height, row % field.width};
}

template <typename A>
LGANET_HD A* start_of(const Field<A>& field, int64_t b) {
  return field.data + 4 * b * field.height * field.width * field.depth;
}

// Beyond the end of a row it reads the next row, or the padding at the end of the field.
template <typename A>
LGANET_HD Positions<A> positions_of(const A* quads, Row row, int64_t k) {
  Positions<A> p;
  for (int a = 0; a < 3; ++a) p.shift[a] = load_spread<A>(quads + a, 4);
  p.at[0] = p.shift[0] + A(row.i);
  p.at[1] = p.shift[1] + A(row.j);
  p.at[2] = p.shift[2] + (counting<A>() + A(k));
  return p;
}

// to = scale * from, from separate components to the layout of a field.
template <typename A>
void gather_components(const View<const A>& from, const Field<A>& to, A scale, int64_t begin,
                       int64_t end) {
  for (int64_t line = begin; line < end; ++line) {
    const Row row = row_of(to, line);
    A* quad = to.data + 4 * line * to.depth;
    for (int64_t k = 0; k < to.depth; ++k)
      store_vector(quad + 4 * k,
                   scale * Quad<A>{*place_of(from, row, k, 0), *place_of(from, row, k, 1),
                                   *place_of(from, row, k, 2), A(0)});
  }
}

template <typename A>
void spread_components(const Field<A>& from, const View<A>& to, A scale, int64_t begin,
                       int64_t end) {
  for (int64_t line = begin; line < end; ++line) {
    const Row row = row_of(from, line);
    const A* quad = from.data + 4 * line * from.depth;
    for (int a = 0; a < 3; ++a) {
      A* out = place_of(to, row, 0, a);
      for (int64_t k = 0; k < from.depth; ++k) out[k * to.stride[4]] = scale * quad[4 * k + a];
    }
  }
}

// to(p) = from(p) + from(p + from(p)).
template <typename I, typename A>
void square_rows(const Field<A>& from, const Field<A>& to, int64_t begin, int64_t end) {
  const Volume<A> volume = volume_of(from);
  for (int64_t line = begin; line < end; ++line) {
    const Row row = row_of(from, line);
    const A* start = start_of(from, row.b);
    for (int64_t k = 0; k < from.depth; k += kLanes<A>) {
      const int count = lanes_left<A>(from.depth, k);
      const int64_t place = 4 * (line * from.depth + k);
      const Positions<A> p = positions_of(from.data + place, row, k);
      const Corners<A, I> corners = corners_at<Find::weights, I>(p, volume);
      const Square<Vec<A>> square = square_of(corners.weight[0], corners.weight[1]);
      A weight[4][kLanes<A>], below[kLanes<A>], above[kLanes<A>], inside[kLanes<A>];
      store_vector(inside, corners.inside ? Vec<A>{} + 1 : Vec<A>{});
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) store_vector(weight[r], square.row[r]);
      store_vector(below, corners.weight[2].below);
      store_vector(above, corners.weight[2].above);
      for (int l = 0; l < count; ++l) {
        const A* corner = start + corners.offset[l];
        TwoQuads<A> sum = {};
        if (inside[l] != 0)
#pragma GCC unroll 4
          for (int r = 0; r < 4; ++r)
            sum += weight[r][l] * load_vector<TwoQuads<A>>(corner + row_offset(volume, r));
        const Quad<A> own = load_vector<Quad<A>>(from.data + place + 4 * l);
        store_vector(to.data + place + 4 * l,
                     own + below[l] * first_of<A>(sum) + above[l] * second_of<A>(sum));
      }
    }
  }
}

// The planes that each row of the field reads.
template <typename A>
void reach_of_rows(const Field<A>& field, Reach* reach, int64_t begin, int64_t end) {
  const Axis<A> axis = axis_of<A>(field.height, Padding::zeros);
  for (int64_t line = begin; line < end; ++line) {
    const A i = A(row_of(field, line).i);
    const A* quad = field.data + 4 * line * field.depth;
    A low = axis.last, high = 0;
    for (int64_t k = 0; k < field.depth; ++k) {
      const A plane = clamped(quad[4 * k] + i, A(0), axis.last);
      low = smaller(low, plane);
      high = larger(high, plane);
    }
    reach[line] = {int64_t(low), int64_t(high) + 1};
  }
}

// The dot products of x with a, b and c.
template <typename A>
LGANET_HD Quad<A> dots(Quad<A> x, Quad<A> a, Quad<A> b, Quad<A> c) {
  a *= x, b *= x, c *= x;
  const Quad<A> ab =
      __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Quad<A> cc = __builtin_shufflevector(c, Quad<A>{}, 0, 4, 1, 5) +
                     __builtin_shufflevector(c, Quad<A>{}, 2, 6, 3, 7);
  return __builtin_shufflevector(ab, cc, 0, 1, 4, 5) + __builtin_shufflevector(ab, cc, 2, 3, 6, 7);
}

// Adds to the first corners of the four rows that start at `to`, in the planes of `own` only.
template <typename A>
LGANET_HD void add_rows(A* to, const Volume<A>& volume, const Quad<A> (&value)[4], Own own,
                        int32_t plane) {
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half)
    if (own.holds(plane + half))
#pragma GCC unroll 2
      for (int r = 2 * half; r < 2 * half + 2; ++r) {
        A* at = to + row_offset(volume, r);
        store_vector(at, load_vector<Quad<A>>(at) + value[r]);
      }
}

// The backward of one squaring, for the planes [begin, end) of `to`, counted over B and H. Each
// voxel's gradient is added to the voxel itself, also times the field's slope at its position, and
// to the corners that it read. Only these planes are changed, in the order of the voxels. If the
// next voxel reads the next corners, the terms of both for a corner are added first.
template <typename I, typename A>
void square_gradient(const Field<A>& field, const Field<A>& grad, const Field<A>& to,
                     const Reach* reach, Own own) {
  using V = Vec<A>;
  const Volume<A> volume = volume_of(field);
  const int64_t rows = field.height * field.width;
  __builtin_memset(start_of(to, own.b) + own.first * volume.step[0], 0,
                   (own.last - own.first + 1) * volume.step[0] * sizeof(A));
  for (int64_t line = own.b * rows; line < (own.b + 1) * rows; ++line) {
    const Row row = row_of(field, line);
    const bool owned = own.holds(row.i);
    if (!owned && !own.meets(reach[line])) continue;
    const A* start = start_of(field, row.b);
    A* target = start_of(to, row.b);
    for (int64_t k = 0; k < field.depth; k += kLanes<A>) {
      const int count = lanes_left<A>(field.depth, k);
      const int64_t place = 4 * (line * field.depth + k);
      const Positions<A> p = positions_of(field.data + place, row, k);
      const Corners<A, I> corners = corners_at<Find::weights_and_slopes, I>(p, volume);
      const Cube<A> cube = cube_of<A>(corners.weight);
      const auto& [wh, ww, wd] = corners.weight;
      const auto& [sh, sw, sd] = corners.slope;
      A weight[3][4][kLanes<A>], ends[4][kLanes<A>], inside[kLanes<A>];
      store_vector(inside, corners.inside ? V{} + 1 : V{});
      const Square<V> slope_h = square_of(sh, ww), slope_w = square_of(wh, sw),
                      square = square_of(wh, ww);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        store_vector(weight[0][r], slope_h.row[r]);
        store_vector(weight[1][r], slope_w.row[r]);
        store_vector(weight[2][r], square.row[r]);
      }
      store_vector(ends[0], wd.below);
      store_vector(ends[1], wd.above);
      store_vector(ends[2], sd.below);
      store_vector(ends[3], sd.above);
      Quad<A> pending[4] = {};
      I expected = corners.offset[0];
      int32_t plane = corners.plane[0];
      for (int l = 0; l < count; ++l) {
        const Quad<A> g = load_vector<Quad<A>>(grad.data + place + 4 * l);
        if (corners.offset[l] != expected) {
          add_rows<A>(target + expected, volume, pending, own, plane);
          for (Quad<A>& sum : pending) sum = Quad<A>{};
          plane = corners.plane[l];
        }
        Quad<A> value[4];
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) {
          value[r] = pending[r] + cube.weight[2 * r][l] * g;
          pending[r] = cube.weight[2 * r + 1][l] * g;
        }
        add_rows<A>(target + corners.offset[l], volume, value, own, plane);
        expected = corners.offset[l] + I(volume.next[2]);
        if (!owned) continue;
        const A* read = start + corners.offset[l];
        TwoQuads<A> slope[3] = {};
        if (inside[l] != 0)
#pragma GCC unroll 4
          for (int r = 0; r < 4; ++r) {
            const auto pair = load_vector<TwoQuads<A>>(read + row_offset(volume, r));
            for (int a = 0; a < 3; ++a) slope[a] += weight[a][r][l] * pair;
          }
        A* self = to.data + place + 4 * l;
        store_vector(
            self,
            load_vector<Quad<A>>(self) + g +
                dots<A>(g, ends[0][l] * first_of<A>(slope[0]) + ends[1][l] * second_of<A>(slope[0]),
                        ends[0][l] * first_of<A>(slope[1]) + ends[1][l] * second_of<A>(slope[1]),
                        ends[2][l] * first_of<A>(slope[2]) + ends[3][l] * second_of<A>(slope[2])));
      }
      add_rows<A>(target + expected, volume, pending, own, plane);
    }
  }
}

template <typename A>
bool is_small(const Field<A>& field) {
  return fits_int32(4 * field.height * field.width * field.depth);
}

template <typename A>
void square(const Field<A>& from, const Field<A>& to, int64_t begin, int64_t end) {
  is_small(from) ? square_rows<int32_t>(from, to, begin, end)
                 : square_rows<int64_t>(from, to, begin, end);
}

template <typename A>
void square_backward(const Field<A>& field, const Field<A>& grad, const Field<A>& to,
                     const Reach* reach, Own own) {
  is_small(field) ? square_gradient<int32_t>(field, grad, to, reach, own)
                  : square_gradient<int64_t>(field, grad, to, reach, own);
}

}  // namespace lganet::LGANET_ISA
