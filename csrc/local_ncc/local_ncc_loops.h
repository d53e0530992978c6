// The loops of local_ncc over planes. Vectors run along the last axis.
namespace lganet::LGANET_ISA {

constexpr int64_t kVectorBytes = LGANET_VECTOR_BYTES;
#include "common/lanes.inl"
#include "local_ncc/local_ncc_voxel.inl"

template <typename T>
LGANET_HD Moments<Vec<T>> load_moments(const T* from, int64_t stride) {
  return {load(from), load(from + stride), load(from + 2 * stride), load(from + 3 * stride),
          load(from + 4 * stride)};
}

template <typename T>
LGANET_HD void store_moments(T* to, int64_t stride, const Moments<Vec<T>>& m) {
  store(to, m.a);
  store(to + stride, m.b);
  store(to + 2 * stride, m.aa);
  store(to + 3 * stride, m.bb);
  store(to + 4 * stride, m.ab);
}

// One row of a volume as T.
template <typename In, typename T>
void read_row(T* to, const View<const In>& x, const In* volume, int64_t h, int64_t w) {
  const In* from = volume + h * x.stride[2] + w * x.stride[3];
  const int64_t n = x.size[4], step = x.stride[4];
  if (step == 1)
    for (int64_t d = 0; d < n; ++d) to[d] = static_cast<T>(from[d]);
  else
    for (int64_t d = 0; d < n; ++d) to[d] = static_cast<T>(from[d * step]);
}

// Moments of each column over `window` rows; a and b are in pairs of rows.
template <typename T>
void join_columns(T* to, const T* rows, int64_t line, int64_t window) {
  const T inverse = T(1) / window;
  const int64_t middle = window / 2;
  for (int64_t d = 0; d < line; d += kLanes<T>) {
    const T* row = rows + d;
    Join<Vec<T>> join(load(row + 2 * middle * line), load(row + (2 * middle + 1) * line));
    for (int64_t i = 0; i < middle; ++i)
      join.add(load(row + 2 * i * line), load(row + (2 * i + 1) * line));
    for (int64_t i = middle + 1; i < window; ++i)
      join.add(load(row + 2 * i * line), load(row + (2 * i + 1) * line));
    store_moments(to + d, line, join.whole(inverse));
  }
}

// Moments over the `window` rows of a ring, around the one in `slot`.
template <typename T>
void join_rows(T* to, int64_t to_stride, const T* ring, int64_t line, int64_t window,
               int64_t slot) {
  const T inverse = T(1) / window;
  for (int64_t d = 0; d < line; d += kLanes<T>) {
    const T* row = ring + d;
    Join<Vec<T>> join(load_moments(row + 5 * slot * line, line));
    for (int64_t j = 0; j < slot; ++j) join.add(load_moments(row + 5 * j * line, line));
    for (int64_t j = slot + 1; j < window; ++j) join.add(load_moments(row + 5 * j * line, line));
    store_moments(to + d, to_stride, join.whole(inverse));
  }
}

// The correlation along a row from its moments, summed with `weight`; with FIELDS, also the fields
// of the gradient.
template <int FIELDS, typename T>
double agree(T* fields, const T* moments, int64_t stride, const T* weight, const NccSize<T> size) {
  const int64_t reach = size.window / 2;
  const T inverse = T(1) / size.window;
  Vec<T> sum{};
  for (int64_t d = 0; d < size.line; d += kLanes<T>) {
    const T* at = moments + d;
    Join<Vec<T>> join(load_moments(at, stride));
    for (int64_t k = 1; k <= reach; ++k) {
      join.add(load_moments(at - k, stride));
      join.add(load_moments(at + k, stride));
    }
    const Moments<Vec<T>> m = join.whole(inverse);
    const Agreement<Vec<T>> agreement(m, size.epsilon);
    const Vec<T> w = load(weight + d);
    sum += w * agreement.value(m.ab);
    if constexpr (FIELDS > 0) {
      const Vec<T> across = (w * size.scale) * agreement.slope;
      Vec<T> along, rest;
      store(fields + d, across);
      derivative(across, agreement.slope, m.a, m.aa, m.b, along, rest);
      store(fields + stride + d, along);
      store(fields + 2 * stride + d, rest);
      if constexpr (FIELDS > 3) {
        derivative(across, agreement.slope, m.b, m.bb, m.a, along, rest);
        store(fields + 3 * stride + d, along);
        store(fields + 4 * stride + d, rest);
      }
    }
  }
  double total = 0;
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) total += sum[lane];
  return total;
}

// Sums of `window` neighbours along each of FIELDS rows.
template <int FIELDS, typename T>
void sum_along(T* to, const T* fields, int64_t stride, int64_t line, int64_t window) {
  const int64_t reach = window / 2;
  for (int64_t f = 0; f < FIELDS; ++f)
    for (int64_t d = 0; d < line; d += kLanes<T>) {
      const T* at = fields + f * stride + d;
      Vec<T> sum = load(at);
      for (int64_t k = 1; k <= reach; ++k) sum += load(at - k) + load(at + k);
      store(to + f * line + d, sum);
    }
}

// Sums over the rows of a ring; two at once, since each addition waits for the previous one.
template <typename T>
void sum_rows(T* to, const T* ring, int64_t length, int64_t window) {
  int64_t d = 0;
  for (; d + 2 * kLanes<T> <= length; d += 2 * kLanes<T>) {
    const T* row = ring + d;
    Vec<T> sum[2] = {load(row), load(row + kLanes<T>)};
    for (int64_t j = 1; j < window; ++j) {
      row += length;
      sum[0] += load(row);
      sum[1] += load(row + kLanes<T>);
    }
    store(to + d, sum[0]);
    store(to + d + kLanes<T>, sum[1]);
  }
  for (; d < length; d += kLanes<T>) {
    Vec<T> sum = load(ring + d);
    for (int64_t j = 1; j < window; ++j) sum += load(ring + j * length + d);
    store(to + d, sum);
  }
}

// Prefetches memory of the next row. The address need not exist.
inline void fetch(const void* from, int64_t bytes) {
  const auto start = reinterpret_cast<uintptr_t>(from);
  for (int64_t at = 0; at < bytes; at += kCacheLine)
    __builtin_prefetch(reinterpret_cast<const void*>(start + at));
}

template <typename In>
void fetch_row(const View<const In>& x, const In* volume, int64_t h, int64_t w) {
  if (w < x.size[3] && x.stride[4] == 1)
    fetch(volume + h * x.stride[2] + w * x.stride[3], x.size[4] * sizeof(In));
}

// Planes first .. first + count - 1 of one volume: adds the correlation of each plane to `sums`,
// and with FIELDS writes their fields, summed over the window along the last two axes, to the
// planes' slots.
template <int FIELDS, typename In, typename T>
void ncc_planes(const NccInput<In, T>& in, const NccSize<T>& size, int64_t first, int64_t count,
                T* scratch, double* sums, T* slots) {
  const int64_t window = size.window, reach = window / 2, line = size.line;
  const int64_t height = in.a.size[2], width = in.a.size[3], depth = in.a.size[4];
  const int64_t volume = first / height, h0 = first % height;
  const int64_t batch = volume / in.a.size[1], channel = volume % in.a.size[1];
  const In* a = in.a.at(batch, channel);
  const In* b = in.b.at(batch, channel);

  T* const rows = scratch;
  T* const rings = rows + (kPlanes + 2 * reach) * 2 * line;
  T* const box = rings + kPlanes * window * 5 * line;
  T* const weight = box + 5 * size.padded;
  T* const fields = weight + line;
  T* const field_rings = fields + FIELDS * size.padded;
  std::memset(rings, 0, sizeof(T) * kPlanes * window * 5 * line);
  std::memset(field_rings, 0, sizeof(T) * kPlanes * window * FIELDS * line);
  if (!in.weight.data)
    for (int64_t d = 0; d < depth; ++d) weight[d] = 1;

  // Row r is read. Then the correlation at row w, and the sums of fields at row w - reach, can be
  // computed.
  for (int64_t r = 0; r < width + (FIELDS ? 2 : 1) * reach; ++r) {
    const int64_t w = r - reach;
    if (r < width)
      for (int64_t i = 0; i < count + 2 * reach; ++i) {
        const int64_t h = h0 + i - reach;
        T* row = rows + 2 * i * line;
        if (h >= 0 && h < height) {
          read_row(row, in.a, a, h, r);
          read_row(row + line, in.b, b, h, r);
          fetch_row(in.a, a, h, r + 1);
          fetch_row(in.b, b, h, r + 1);
        } else {
          std::memset(row, 0, sizeof(T) * 2 * line);
        }
      }
    for (int64_t p = 0; p < count; ++p) {
      T* ring = rings + p * window * 5 * line;
      T* entering = ring + r % window * 5 * line;
      if (r < width)
        join_columns(entering, rows + 2 * p * line, line, window);
      else
        std::memset(entering, 0, sizeof(T) * 5 * line);
      if (w < 0) continue;
      T* field_ring = field_rings + p * window * FIELDS * line;
      T* summed = field_ring + w % window * FIELDS * line;
      if (w < width) {
        join_rows(box + size.lead, size.padded, ring, line, window, w % window);
        if (in.weight.data) read_row(weight, in.weight, in.weight.at(batch, 0), h0 + p, w);
        sums[first + p] +=
            agree<FIELDS>(fields + size.lead, box + size.lead, size.padded, weight, size);
        if constexpr (FIELDS > 0)
          sum_along<FIELDS>(summed, fields + size.lead, size.padded, line, window);
      } else if constexpr (FIELDS > 0) {
        std::memset(summed, 0, sizeof(T) * FIELDS * line);
      }
      if constexpr (FIELDS > 0)
        if (w >= reach) {
          T* const slot = slots + ((first + p) % size.slots * width + w - reach) * FIELDS * line;
          sum_rows(slot, field_ring, FIELDS * line, window);
          fetch(slot + FIELDS * line, sizeof(T) * FIELDS * line);
        }
    }
  }
}

template <typename T>
void write_row(const View<T>& x, int64_t b, int64_t c, int64_t h, int64_t w, const T* from) {
  T* to = x.at(b, c) + h * x.stride[2] + w * x.stride[3];
  const int64_t n = x.size[4], step = x.stride[4];
  if (step == 1)
    std::memcpy(to, from, sizeof(T) * n);
  else
    for (int64_t d = 0; d < n; ++d) to[d * step] = from[d];
}

template <typename In, typename T>
void scale(In* to, const T* from, int64_t count, T by) {
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<In>(from[i] * by);
}

// The gradient at planes first .. first + count - 1 of one volume, from the slots around each.
template <int FIELDS, typename In, typename T>
void ncc_gradient_planes(const NccInput<In, T>& in, const NccSize<T>& size, int64_t first,
                         int64_t count, T* scratch, const T* slots, const View<T>& grad_a,
                         const View<T>& grad_b) {
  const int64_t reach = size.window / 2, line = size.line;
  const int64_t height = in.a.size[2], width = in.a.size[3];
  const int64_t volume = first / height;
  const int64_t batch = volume / in.a.size[1], channel = volume % in.a.size[1];
  T* const a = scratch;
  T* const b = a + line;
  T* const to_a = b + line;
  T* const to_b = to_a + line;
  const int64_t plane = width * FIELDS * line;
  for (int64_t w = 0; w < width; ++w)
    for (int64_t p = first; p < first + count; ++p) {
      const int64_t h = p % height;
      const int64_t from = p - std::min(h, reach), to = p + std::min(height - 1 - h, reach);
      // The slots are a ring buffer: up to two runs.
      const int64_t start = from % size.slots, total = to - from + 1;
      const int64_t before_end = std::min(total, size.slots - start);
      const T* const row = slots + w * FIELDS * line;
      read_row(a, in.a, in.a.at(batch, channel), h, w);
      read_row(b, in.b, in.b.at(batch, channel), h, w);
      fetch_row(in.a, in.a.at(batch, channel), h, w + 1);
      fetch_row(in.b, in.b.at(batch, channel), h, w + 1);
      for (int64_t q = 0; q < total; ++q)
        if (q == 0 || p == first + count - 1)
          fetch(row + ((start + q) % size.slots) * plane + FIELDS * line,
                sizeof(T) * FIELDS * line);
      for (int64_t d = 0; d < line; d += kLanes<T>) {
        Vec<T> sum[FIELDS] = {};
        const auto add = [&](const T* at, int64_t planes) {
          for (int64_t q = 0; q < planes; ++q, at += plane)
            for (int f = 0; f < FIELDS; ++f) sum[f] += load(at + f * line);
        };
        add(row + start * plane + d, before_end);
        add(row + d, total - before_end);
        const Vec<T> x = load(a + d), y = load(b + d);
        store(to_b + d, x * sum[0] + y * sum[1] + sum[2]);
        if constexpr (FIELDS > 3) store(to_a + d, y * sum[0] + x * sum[3] + sum[4]);
      }
      write_row(grad_b, batch, channel, h, w, to_b);
      if constexpr (FIELDS > 3) write_row(grad_a, batch, channel, h, w, to_a);
    }
}

}  // namespace lganet::LGANET_ISA
