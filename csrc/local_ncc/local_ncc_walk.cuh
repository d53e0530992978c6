// Local normalised cross-correlation on the GPU, the walk.
//
// A block of threads computes a tile of the last two axes and walks along the first, some planes at
// a time. Each plane, with the border of its boxes, is read once: boxes are joined along the last
// axis, then the second, in shared memory, then along the walk, where every thread keeps the last
// planes of its column in registers. No moments are stored in memory.
//
// Four adjacent boxes are joined together around their common part: window + 6 additions instead of
// 4 window - 4, without subtractions.
#pragma once

#include "local_ncc/local_ncc_jobs.cuh"

namespace lganet::device {

constexpr int kTile = 16;        // of the last two axes
constexpr int kRawPlanes = 2;    // read at a time
constexpr int kMaxReach = 4;     // half of the widest window whose boxes fit in registers
constexpr int kMinLength = 16;   // planes of a walk, without the first 2 reach
constexpr int kMaxLength = 128;  // of a walk: a thread's float32 sums stay accurate enough
constexpr int kBlocks = 512;     // to aim for: enough for a large GPU
static_assert(kThreads == kTile * kTile, "one thread for each column");

// Joins kPlanes adjacent boxes; box i has the elements i .. i + 2 REACH.
template <int REACH, typename Run, typename Element, typename Put>
LGANET_HD void slide(const Element& element, const Put& put) {
  constexpr int kRun = REACH > 1 ? 4 : 2;  // boxes that share an element, the pivot
#pragma unroll
  for (int begin = 0; begin < kPlanes; begin += kRun) {
    Run before[kRun];
    before[kRun - 1] = Run(element(begin + kRun - 1));
#pragma unroll
    for (int j = kRun; j <= 2 * REACH; ++j) before[kRun - 1].add(element(begin + j));
#pragma unroll
    for (int i = kRun - 2; i >= 0; --i) {
      before[i] = before[i + 1];
      before[i].add(element(begin + i));
    }
    Run after = before[0].none();
    put(begin, before[0]);
#pragma unroll
    for (int i = 1; i < kRun; ++i) {
      after.add(element(begin + 2 * REACH + i));
      before[i].add(after);
      put(begin + i, before[i]);
    }
  }
}

// The division of a volume: tiles along the last two axes, walks along the first. It depends only
// on the volume's size, so that results do not depend on the GPU.
struct Tiling {
  int tiles_w, tiles_d, walks;
  int length;  // planes of a walk, a multiple of kPlanes

  explicit Tiling(const int64_t (&size)[5]) {
    const auto parts = [](int64_t n, int64_t step) { return (n + step - 1) / step; };
    tiles_w = parts(size[3], kTile);
    tiles_d = parts(size[4], kTile);
    const int64_t columns = size[0] * size[1] * tiles_w * tiles_d;
    const int64_t wanted = parts(kBlocks, columns), most = parts(size[2], kMinLength);
    const int64_t cut = parts(size[2], wanted < most ? wanted : most);
    length = parts(cut < kMaxLength ? cut : kMaxLength, kPlanes) * kPlanes;
    walks = parts(size[2], length);
  }

  int64_t blocks(const int64_t (&size)[5]) const {
    return size[0] * size[1] * walks * tiles_w * tiles_d;
  }
};

// Shared memory of a walk. Rows and planes are padded so that bank conflicts are at most two-way.
template <int REACH, typename Job>
struct Workspace {
  using T = typename Job::Number;
  static constexpr int kHalo = kTile + 2 * REACH;
  static constexpr int kRaw = sizeof(typename Job::Element) / sizeof(T);
  static constexpr int kParts = sizeof(typename Job::Box) / sizeof(T);
  static constexpr int kRawRow = kHalo + 1, kRow = kTile + 1;
  static constexpr int kRawPlane = kHalo * kRawRow, kRawStride = kRawPlanes * kRawPlane;
  static constexpr int kBoxPlane = (kHalo * kRow + 15) / 32 * 32 + 16;
  static constexpr int kBoxStride = kPlanes * kBoxPlane;
  static constexpr int kColumnPlane = kThreads + 16, kColumnStride = kPlanes * kColumnPlane;

  T raw[kRaw * kRawStride];
  union {
    T boxes[kParts * kBoxStride];       // joined along the last axis
    T columns[kParts * kColumnStride];  // joined along the last two
    double sums[2][kThreads];
  };
};

template <int REACH, typename Job>
__global__ __launch_bounds__(kThreads, 2) void walk(const Job job, const Tiling tiling) {
  using T = typename Job::Number;
  using Element = typename Job::Element;
  using Box = typename Job::Box;
  using Run = typename Job::Run;
  using Work = Workspace<REACH, Job>;
  constexpr int kHalo = Work::kHalo;
  constexpr int kWarps = kThreads / kLanes, kRows = (kHalo + kWarps - 1) / kWarps;
  __shared__ Work work;

  const auto& size = job.size();
  const int channels = size[1], height = size[2], width = size[3], depth = size[4];
  int block = blockIdx.x;
  const int first_d = block % tiling.tiles_d * kTile;
  block /= tiling.tiles_d;
  const int first_w = block % tiling.tiles_w * kTile;
  block /= tiling.tiles_w;
  const int first_h = block % tiling.walks * tiling.length;
  block /= tiling.walks;
  const int b = block / channels, c = block % channels;
  const int last_h = first_h + tiling.length < height ? first_h + tiling.length : height;
  const int end_h = last_h + REACH < height ? last_h + REACH : height;
  const int thread = threadIdx.x;

  // A warp reads a row of the next planes while the current ones are joined.
  const int lane = thread % kLanes, warp = thread / kLanes;
  const int lane_w = first_w - REACH + warp, lane_d = first_d - REACH + lane;
  const bool lane_reads = lane < kHalo && lane_d >= 0 && lane_d < depth;
  int64_t start[Job::kStarts];
  job.begin(start, {b, c, 0, lane_w, lane_d});
  Element next[kRawPlanes][kRows];
  const auto read = [&](int from) {
#pragma unroll
    for (int p = 0; p < kRawPlanes; ++p)
#pragma unroll
      for (int k = 0; k < kRows; ++k) {
        const int h = from + p, w = lane_w + k * kWarps;
        const bool inside =
            lane_reads && h >= 0 && h < end_h && w >= 0 && w < width && warp + k * kWarps < kHalo;
        next[p][k] = inside ? job.read(start, h, k * kWarps) : Element{};
      }
  };
  const auto keep = [&] {
#pragma unroll
    for (int p = 0; p < kRawPlanes; ++p)
#pragma unroll
      for (int k = 0; k < kRows; ++k)
        if (lane < kHalo && warp + k * kWarps < kHalo)
          scatter(work.raw + p * Work::kRawPlane + (warp + k * kWarps) * Work::kRawRow + lane,
                  Work::kRawStride, next[p][k]);
  };

  const T inverse = T(1) / (2 * REACH + 1);

  // Along the last axis, kPlanes boxes of a row per thread; threads of a warp have different rows.
  const auto join_d = [&](int to_plane) {
    constexpr int kLines = kRawPlanes * kHalo;
    static_assert(kLines * (kTile / kPlanes) <= kThreads);
    if (thread >= kLines * (kTile / kPlanes)) return;
    const int line = thread % kLines, d = thread / kLines * kPlanes;
    const int plane = line / kHalo, row = line % kHalo;
    const T* from = work.raw + plane * Work::kRawPlane + row * Work::kRawRow + d;
    T* to = work.boxes + (to_plane + plane) * Work::kBoxPlane + row * Work::kRow + d;
    slide<REACH, Run>(
        [&](int j) { return gather<Element>(from + j, Work::kRawStride); },
        [&](int i, const Run& run) { scatter(to + i, Work::kBoxStride, run.whole(inverse)); });
  };

  // Along the second axis, kPlanes boxes of a column of a plane per thread.
  const auto join_w = [&] {
    const int d = thread % kTile, plane = thread / kTile % kPlanes;
    const int w = thread / kTile / kPlanes * kPlanes;
    const T* from = work.boxes + plane * Work::kBoxPlane + w * Work::kRow + d;
    T* to = work.columns + plane * Work::kColumnPlane + w * kTile + d;
    Box joined[kPlanes];
    slide<REACH, Run>([&](int j) { return gather<Box>(from + j * Work::kRow, Work::kBoxStride); },
                      [&](int i, const Run& run) { joined[i] = run.whole(inverse); });
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kPlanes; ++i) scatter(to + i * kTile, Work::kColumnStride, joined[i]);
    __syncthreads();
  };

  // Along the walk: planes first_out .. first_out + kPlanes - 1; `here`: which of them belong to
  // this block.
  const int w = first_w + thread / kTile, d = first_d + thread % kTile;
  const auto here = [&](int h) { return w < width && d < depth && h >= first_h && h < last_h; };
  Box window[2 * REACH + kPlanes] = {};
  typename Job::State state;
  const auto join_h = [&](int first_out) {
    slide<REACH, Run>([&](int j) { return window[j]; },
                      [&](int i, const Run& run) {
                        const int h = first_out + i;
                        if (here(h)) job.finish(state, i, {b, c, h, w, d}, run.whole(inverse));
                      });
  };

  read(first_h - REACH);
  for (int h = first_h - REACH; h < last_h + REACH; h += kPlanes) {
    for (int p = 0; p < kPlanes; p += kRawPlanes) {
      keep();
      __syncthreads();
      read(h + p + kRawPlanes);
      join_d(p);
      __syncthreads();
    }
    const int first_out = h - REACH;
#pragma unroll
    for (int i = 0; i < kPlanes; ++i)
      if (here(first_out + i)) job.fetch(state, i, {b, c, first_out + i, w, d});
    join_w();
#pragma unroll
    for (int i = 0; i < kPlanes; ++i)
      window[2 * REACH + i] =
          gather<Box>(work.columns + i * Work::kColumnPlane + thread, Work::kColumnStride);
    if (first_out + kPlanes > first_h) join_h(first_out);
#pragma unroll
    for (int i = 0; i < 2 * REACH; ++i) window[i] = window[i + kPlanes];
  }

  if constexpr (Job::kSums > 0) {
    __syncthreads();
    block_sums(job.sums + int64_t(blockIdx.x) * Job::kSums, work.sums, state.sums);
  }
}

}  // namespace lganet::device
