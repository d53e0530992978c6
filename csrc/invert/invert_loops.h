// The loops of invert: a register of neighbouring points, until all of them have converged.
namespace lganet::LGANET_ISA {

#include "warp/warp_lanes.inl"
#include "warp/warp_axis.inl"
#include "warp/warp_corners.inl"

template <typename A>
struct Vector {
  Vec<A> at[3];
};

template <typename A>
LGANET_HD Vector<A> turned(const A (&matrix)[9], const Vector<A>& v) {
  Vector<A> out;
  for (int a = 0; a < 3; ++a)
    out.at[a] = matrix[3 * a] * v.at[0] + matrix[3 * a + 1] * v.at[1] + matrix[3 * a + 2] * v.at[2];
  return out;
}

// flow + field(p + flow) - goal, p being the voxels k, k + 1, ... of a row.
template <typename I, typename A>
LGANET_HD Vector<A> error_of(const InvertCall<A>& call, const Volume<A>& volume, Row row, int64_t k,
                             const Vector<A>& flow, const Vector<A>& goal) {
  Positions<A> p;
  p.at[0] = flow.at[0] + A(row.i);
  p.at[1] = flow.at[1] + A(row.j);
  p.at[2] = flow.at[2] + (counting<A>() + A(k));
  const Corners<A, I> corners = corners_at<Find::weights, I>(p, volume);
  const Square<Vec<A>> square = square_of(corners.weight[0], corners.weight[1]);
  const Pair<Vec<A>> ends = corners.weight[2];
  Vector<A> error;
  for (int c = 0; c < 3; ++c) {
    const A* field = call.field.at(row.b, c);
    Vec<A> value = flow.at[c] - goal.at[c];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const A* from = field + row_offset(volume, r);
      value += square.row[r] * (ends.below * load_each<A>(from, corners.offset) +
                                ends.above * load_each<A>(from + volume.next[2], corners.offset));
    }
    error.at[c] = value;
  }
  return error;
}

template <typename I, typename A>
void invert(const InvertCall<A>& call, const View<A>& out, bool* solved, int64_t begin,
            int64_t end) {
  using V = Vec<A>;
  const Volume<A> volume = volume_of<A>(call.field, Padding::border);
  const int64_t depth = out.size[4];
  for (int64_t line = begin; line < end; ++line) {
    const Row row = row_of(out, line);
    for (int64_t k = 0; k < depth; k += kLanes<A>) {
      const int count = lanes_left<A>(depth, k);
      Vector<A> flow, goal, best;
      for (int a = 0; a < 3; ++a) {
        flow.at[a] = load_lanes<A>(place_of(call.start, row, k, a), call.start.stride[4], count);
        best.at[a] = flow.at[a];
        goal.at[a] = load_lanes<A>(place_of(call.goal, row, k, a), call.goal.stride[4], count);
      }
      V least = V{} + A(__builtin_inf()), misses = {};
      Mask<A> converging = least > V{}, done;
      while (true) {
        const Vector<A> error = error_of<I>(call, volume, row, k, flow, goal);
        const Vector<A> length = turned(call.metric, error);
        const V size =
            length.at[0] * length.at[0] + length.at[1] * length.at[1] + length.at[2] * length.at[2];
        done = size <= call.tolerance * call.tolerance;
        const Mask<A> better = size < call.shrink * call.shrink * least;
        for (int a = 0; a < 3; ++a) best.at[a] = better ? flow.at[a] : best.at[a];
        misses += better ? V{} : V{} + 1;
        converging &= ~done & (misses <= A(call.patience));
        bool any = false;
        for (int l = 0; l < count; ++l) any |= converging[l] != 0;
        if (!any) break;
        const Vector<A> step = turned(call.step, error);
        for (int a = 0; a < 3; ++a) flow.at[a] = converging ? flow.at[a] - step.at[a] : flow.at[a];
        least = better ? size : least;
      }
      for (int a = 0; a < 3; ++a)
        store_lanes<A>(place_of(out, row, k, a), out.stride[4], count,
                       done ? flow.at[a] : best.at[a]);
      for (int l = 0; l < count; ++l) solved[line * depth + k + l] = done[l] != 0;
    }
  }
}

template <typename A>
void invert_rows(const InvertCall<A>& call, const View<A>& out, bool* solved, int64_t begin,
                 int64_t end) {
  is_small(call.field) ? invert<int32_t>(call, out, solved, begin, end)
                       : invert<int64_t>(call, out, solved, begin, end);
}

}  // namespace lganet::LGANET_ISA
