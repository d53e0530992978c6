// The corners that the voxels of a row read, one voxel per lane; shared by warp and integrate.
// Included in the loops' namespace once per instruction set: no include guard.

// Row `row` of a (B, C, H, W, D) array, counted over B, H and W.
struct Row {
  int64_t b, i, j;
};

template <typename T>
LGANET_HD Row row_of(const View<T>& x, int64_t row) {
  return {row / (x.size[2] * x.size[3]), row / x.size[3] % x.size[2], row % x.size[3]};
}

// The axes of the image that a call reads. step: strides; next: strides to the next voxel, 0 on an
// axis of one voxel.
template <typename A>
struct Volume {
  Axis<A> axis[3];
  int64_t step[3], next[3];
};

template <typename A, typename T>
LGANET_HD Volume<A> volume_of(const View<T>& image, Padding padding) {
  Volume<A> volume;
  for (int a = 0; a < 3; ++a) {
    volume.axis[a] = axis_of<A>(image.size[2 + a], padding);
    volume.step[a] = image.stride[2 + a];
    volume.next[a] = image.size[2 + a] > 1 ? volume.step[a] : 0;
  }
  return volume;
}

// Whether 32 bits hold the distance between any two voxels of one channel.
template <typename T>
bool is_small(const View<T>& image) {
  int64_t reach = 2;
  for (int a = 2; a < 5; ++a) reach += (image.size[a] - 1) * image.stride[a];
  return fits_int32(reach);
}

template <typename T>
LGANET_HD T* place_of(const View<T>& x, Row row, int64_t k, int64_t c) {
  return x.at(row.b, c) + row.i * x.stride[2] + row.j * x.stride[3] + k * x.stride[4];
}

// The number of voxels k, k + 1, ... up to the end of the row, at most a register.
template <typename A>
LGANET_HD int lanes_left(int64_t size, int64_t k) {
  return int(size - k < kLanes<A> ? size - k : kLanes<A>);
}

// The start of the run at `next`. The last run of a row starts earlier and repeats some voxels, so
// that the register is full.
template <typename A>
LGANET_HD int64_t full_run(int64_t size, int64_t next) {
  return size >= kLanes<A> && next > size - kLanes<A> ? size - kLanes<A> : next;
}

// The last register of a row: with fewer voxels, or full, with some voxels computed again.
enum class Last : bool { fewer, again };

// Calls body(row, k, count) for the voxels k .. k + count - 1 of each row of `out`, a register of
// them at a time.
template <Last kLast, typename A, typename T, typename F>
LGANET_HD void each_register(const View<T>& out, int64_t begin, int64_t end, const F& body) {
  const int64_t depth = out.size[4];
  for (int64_t line = begin; line < end; ++line) {
    const Row row = row_of(out, line);
    for (int64_t next = 0; next < depth; next += kLanes<A>) {
      const int64_t k = kLast == Last::again ? full_run<A>(depth, next) : next;
      body(row, k, lanes_left<A>(depth, k));
    }
  }
}

// The positions that the voxels k, k + 1, ... of a row read.
template <typename A>
struct Positions {
  Vec<A> shift[3], at[3];
};

template <typename A>
LGANET_HD Positions<A> positions_of(const View<const A>& flow, Row row, int64_t k, int count) {
  Positions<A> p;
  for (int a = 0; a < 3; ++a)
    p.shift[a] = load_lanes<A>(place_of(flow, row, k, a), flow.stride[4], count);
  p.at[0] = p.shift[0] + A(row.i);
  p.at[1] = p.shift[1] + A(row.j);
  p.at[2] = p.shift[2] + (counting<A>() + A(k));
  return p;
}

// All ones where true.
template <typename A>
using Mask = decltype(Vec<A>{} < Vec<A>{});

// The corners that these voxels read: the offset of the first corner, and the weights along the
// axes.
template <typename A, typename I>
struct Corners {
  I offset[kLanes<A>];
  int32_t plane[kLanes<A>];
  Mask<A> inside;  // whether any corner is inside
  Pair<Vec<A>> weight[3], slope[3];
};

template <Find kFind, typename I, typename A>
LGANET_HD Corners<A, I> corners_at(const Positions<A>& p, const Volume<A>& volume) {
  using V = Vec<A>;
  using N = Indices<A, int32_t>;
  using O = Indices<A, I>;
  Corners<A, I> corners;
  corners.inside = ~Mask<A>{};
  O offset = {};
  for (int a = 0; a < 3; ++a) {
    const Axis<A> axis = volume.axis[a];
    const V x = clamped(p.at[a], axis.low, axis.high);
    corners.inside &= is_near(x, axis);
    const N index = __builtin_convertvector(clamped(x, A(0), axis.last), N);
    const V distance = x - __builtin_convertvector(index, V);
    corners.weight[a] = weights_at(distance, axis);
    if constexpr (kFind == Find::weights_and_slopes)
      corners.slope[a] = slopes_at(distance, p.at[a], axis);
    offset += __builtin_convertvector(index, O) * I(volume.step[a]);
    if (a == 0) store_vector(corners.plane, index);
  }
  store_vector(corners.offset, offset);
  return corners;
}

template <typename A>
LGANET_HD int64_t row_offset(const Volume<A>& volume, int r) {
  return (r & 2 ? volume.next[0] : 0) + (r & 1 ? volume.next[1] : 0);
}

// The weights of the eight corners, for every lane.
template <typename A>
struct Cube {
  A weight[8][kLanes<A>];
};

template <typename A>
LGANET_HD Cube<A> cube_of(const Pair<Vec<A>> (&w)[3]) {
  const Square<Vec<A>> square = square_of(w[0], w[1]);
  Cube<A> cube;
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    store_vector(cube.weight[2 * r], square.row[r] * w[2].below);
    store_vector(cube.weight[2 * r + 1], square.row[r] * w[2].above);
  }
  return cube;
}

template <typename A>
LGANET_HD int64_t corner_offset(const Volume<A>& volume, int corner) {
  return row_offset(volume, corner >> 1) + (corner & 1 ? volume.next[2] : 0);
}
