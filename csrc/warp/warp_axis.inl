// The neighbours and weights of an interpolated read along one axis: the arithmetic of warp,
// compose and integrate. V is a number or a vector of numbers, A its scalar type.
// Compiled once per instruction set, in the namespace of the loops: no include guard.
//
// A position x reads two neighbours, `first` and `first` + 1, always inside the axis. The weight of
// a voxel c is max(0, 1 - |x - c|), which is linear interpolation with zeros outside. With border
// padding, x is first clamped to the axis. A NaN counts as a position before the axis. A read
// outside the axis is skipped, not multiplied by 0, because the image may be infinite there.

// One axis of an image: the range to which x is clamped, the last voxel, the last voxel that has a
// next one, and the distance to the next one; infinite on an axis of one voxel, so that its weight
// is 0.
template <typename A>
struct Axis {
  A low, high, end, last, next;
};

template <typename A>
LGANET_HD Axis<A> axis_of(int64_t size, Padding padding) {
  const bool border = padding == Padding::border;
  return {border ? A(0) : A(-2), border ? A(size - 1) : A(size + 1), A(size - 1),
          A(size > 1 ? size - 2 : 0), size > 1 ? A(1) : A(__builtin_inf())};
}

template <typename V>
LGANET_HD V larger(V a, V b) {
  return a > b ? a : b;
}

template <typename V>
LGANET_HD V smaller(V a, V b) {
  return a < b ? a : b;
}

// x within [low, high]; NaN becomes low.
template <typename V, typename A>
LGANET_HD V clamped(V x, A low, A high) {
  return smaller(larger(x, V{} + low), V{} + high);
}

// Whether a clamped position is on the axis or less than a voxel outside it.
template <typename V, typename A>
LGANET_HD auto is_near(V x, Axis<A> axis) {
  return (x >= A(-1)) & (x < axis.end + 1);
}

template <typename V>
LGANET_HD V tent(V distance) {
  return larger(smaller(1 - distance, 1 + distance), V{});
}

// The derivative of tent(x - c) with respect to x; from the right where it jumps.
template <typename V>
LGANET_HD V tent_slope(V distance) {
  const V up = V{} + 1, none = V{};
  return distance >= -1 ? (distance < 0 ? up : (distance < 1 ? -up : none)) : none;
}

// A value for each of the two neighbours along an axis: weights, or their derivatives with respect
// to the position.
template <typename V>
struct Pair {
  V below, above;
};

template <typename V, typename A>
LGANET_HD Pair<V> weights_at(V distance, Axis<A> axis) {
  return {tent(distance), tent(distance - axis.next)};
}

// position: x before clamping; if clamping changed it, the derivative is 0.
template <typename V, typename A>
LGANET_HD Pair<V> slopes_at(V distance, V position, Axis<A> axis) {
  const V below = tent_slope(distance), above = tent_slope(distance - axis.next), none = V{};
  return {position > axis.low ? (position < axis.high ? below : none) : none,
          position > axis.low ? (position < axis.high ? above : none) : none};
}

// The nearest whole number, ties to even, of |x| below 2^22.
template <typename A>
constexpr A kRound = sizeof(A) == 4 ? A(12582912.0) : A(6755399441055744.0);

template <typename A, typename V>
LGANET_HD V nearest_whole(V x) {
  return (x + kRound<A>)-kRound<A>;
}

// The products of the weights along the first two axes: the four rows of corners, (0, 0), (0, 1),
// (1, 0) and (1, 1).
template <typename V>
struct Square {
  V row[4];
};

template <typename V>
LGANET_HD Square<V> square_of(const Pair<V>& h, const Pair<V>& w) {
  return {{h.below * w.below, h.below * w.above, h.above * w.below, h.above * w.above}};
}

// The slope of the image along each axis at a position, from the two corners of each row.
template <typename V>
struct SlopeWeights {
  Square<V> along_h, along_w, square;
  Pair<V> ends, along_d;

  LGANET_HD SlopeWeights(const Pair<V> (&weight)[3], const Pair<V> (&slope)[3])
      : along_h(square_of(slope[0], weight[1])),
        along_w(square_of(weight[0], slope[1])),
        square(square_of(weight[0], weight[1])),
        ends(weight[2]),
        along_d(slope[2]) {}

  LGANET_HD void add(V (&sum)[3], int row, const V& first, const V& second) const {
    const V value = ends.below * first + ends.above * second;
    sum[0] += along_h.row[row] * value;
    sum[1] += along_w.row[row] * value;
    sum[2] += square.row[row] * (along_d.below * first + along_d.above * second);
  }
};
