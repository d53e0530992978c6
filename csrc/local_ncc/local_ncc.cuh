// Local normalised cross-correlation on the GPU: the other kernels, and the functions that launch
// all of them.
//
// The result is one number, so the gradient is linear in one number: it is computed for 1, and the
// backward scales it. A walk (local_ncc_walk.cuh) over the images gives the value and the fields of
// the gradient, a second walk over the fields gives the gradient. Windows that the walk does not
// support, and float64, are summed one axis after the other, with the boxes in memory.
//
// Addresses are computed in 64 bits, once for each column of a walk.
#pragma once

#include "local_ncc/local_ncc_walk.cuh"

namespace lganet::device {

// Joins the boxes of any window along one axis, one thread per voxel: first along the last axis,
// from the input of the job, then along the second and the first, from memory; the first axis gives
// the result.
template <int AXIS, typename Job>
__global__ __launch_bounds__(kThreads) void join_axis(const Job job, int64_t reach,
                                                      const typename Job::Number* from,
                                                      typename Job::Number* to) {
  using T = typename Job::Number;
  using Box = typename Job::Box;
  using Run = typename Job::Run;
  constexpr bool kFirst = AXIS == 4, kLast = AXIS == 2;
  const auto& size = job.size();
  const int64_t total = count_of(size), parts = (size[4] + kLanes - 1) / kLanes;
  const int64_t row = blockIdx.x / parts * (kThreads / kLanes) + threadIdx.x / kLanes;
  const int64_t d = blockIdx.x % parts * kLanes + threadIdx.x % kLanes;
  const int64_t plane = row / size[3], volume = plane / size[2];
  typename Job::State state;
  if (d < size[4] && volume < size[0] * size[1]) {
    const Voxel v{int(volume / size[1]), int(volume % size[1]), int(plane % size[2]),
                  int(row % size[3]), int(d)};
    const int64_t n = place_of(size, v), step = kLast ? size[3] * size[4] : size[4];
    const int64_t place = kFirst ? v.d : kLast ? v.h : v.w;
    const auto element = [&](int64_t k) {
      if constexpr (kFirst) {
        int64_t start[Job::kStarts];
        job.begin(start, {v.b, v.c, v.h, v.w, v.d + int(k)});
        return job.read(start, 0, 0);
      } else {
        return gather<Box>(from + n + k * step, total);
      }
    };
    Run run(element(0));
    for (int64_t k = -reach; k <= reach; ++k) {
      const bool inside = place + k >= 0 && place + k < size[AXIS];
      if (k != 0) run.add(inside ? element(k) : decltype(element(k)){});
    }
    const Box box = run.whole(T(1) / T(2 * reach + 1));
    if constexpr (kLast) {
      job.fetch(state, 0, v);
      job.finish(state, 0, v, box);
    } else {
      scatter(to + n, total, box);
    }
  }
  if constexpr (kLast && Job::kSums > 0) {
    __shared__ double sums[2][kThreads];
    block_sums(job.sums + int64_t(blockIdx.x) * Job::kSums, sums, state.sums);
  }
}

// The mean from the sums of all blocks, and one over the sum of all weights.
template <typename T>
__global__ __launch_bounds__(kThreads) void total_up(double* sums, int64_t blocks, T* value,
                                                     T* scale) {
  __shared__ double shared[2][kThreads];
  double mine[2] = {};
  for (int64_t i = threadIdx.x; i < blocks; i += kThreads)
    for (int k = 0; k < 2; ++k) mine[k] += sums[2 * i + k];
  block_sums(sums, shared, mine);
  if (threadIdx.x != 0) return;
  *value = static_cast<T>(sums[0] / sums[1]);
  *scale = static_cast<T>(1 / sums[1]);
}

// to = from * by, four numbers per thread.
template <typename In, typename T>
__global__ __launch_bounds__(kThreads) void multiply(const T* from, const T* by, In* to,
                                                     int64_t count) {
  constexpr int kPack = 4;
  struct alignas(16) Source {
    T x[kPack];
  };
  struct alignas(kPack * sizeof(In) < 16 ? kPack * sizeof(In) : 16) Target {
    In x[kPack];
  };
  const int64_t n = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * kPack;
  const T factor = *by;
  const bool aligned = reinterpret_cast<uintptr_t>(from) % alignof(Source) == 0 &&
                       reinterpret_cast<uintptr_t>(to) % alignof(Target) == 0;
  if (aligned && n + kPack <= count) {
    const Source source = *reinterpret_cast<const Source*>(from + n);
    Target target;
#pragma unroll
    for (int i = 0; i < kPack; ++i) target.x[i] = static_cast<In>(source.x[i] * factor);
    *reinterpret_cast<Target*>(to + n) = target;
  } else {
    for (int64_t i = n; i < n + kPack && i < count; ++i) to[i] = static_cast<In>(from[i] * factor);
  }
}

// Whether the walk supports this window; else boxes are kept in memory.
template <typename T>
bool is_walked(int64_t window) {
  return sizeof(T) == sizeof(float) && window > 1 && window <= 2 * kMaxReach + 1;
}

// The number of blocks of either job's kernels.
template <typename T>
int64_t blocks_of(const int64_t (&size)[5], int64_t window) {
  if (is_walked<T>(window)) return Tiling(size).blocks(size);
  const int64_t rows = size[0] * size[1] * size[2] * size[3], in_block = kThreads / kLanes;
  return (rows + in_block - 1) / in_block * ((size[4] + kLanes - 1) / kLanes);
}

// scratch: two boxes per voxel, if the walk does not support the window.
template <typename Job>
void start(Stream stream, const Job& job, int64_t window, typename Job::Number* scratch) {
  using T = typename Job::Number;
  const auto& size = job.size();
  const dim3 grid(unsigned(blocks_of<T>(size, window))), block(kThreads);
  if constexpr (sizeof(T) == sizeof(float)) {
    const Tiling tiling(size);
    switch (is_walked<T>(window) ? window / 2 : 0) {
      case 1:
        return launch_team(stream, grid, block, walk<1, Job>, job, tiling);
      case 2:
        return launch_team(stream, grid, block, walk<2, Job>, job, tiling);
      case 3:
        return launch_team(stream, grid, block, walk<3, Job>, job, tiling);
      case 4:
        return launch_team(stream, grid, block, walk<4, Job>, job, tiling);
    }
  }
  const int64_t reach = window / 2;
  T* const other = scratch + count_of(size) * int64_t(sizeof(typename Job::Box) / sizeof(T));
  launch_team(stream, grid, block, join_axis<4, Job>, job, reach, scratch, scratch);
  launch_team(stream, grid, block, join_axis<3, Job>, job, reach, scratch, other);
  launch_team(stream, grid, block, join_axis<2, Job>, job, reach, other, scratch);
}

template <typename In, typename T>
struct NccCall {
  View<const In> a, b;
  View<const T> weight;    // no data: all ones
  View<T> grad_a, grad_b;  // no data: not needed; for a gradient of 1 to the result
  int64_t window;

  int fields() const { return grad_a.data && grad_b.data ? 5 : grad_a.data || grad_b.data ? 3 : 0; }
};

// How many numbers of working memory a call needs.
template <typename T>
struct NccNeeds {
  int64_t sums, fields, scratch;

  template <typename In>
  explicit NccNeeds(const NccCall<In, T>& call)
      : sums(2 * blocks_of<T>(call.a.size, call.window)),
        fields(call.fields() * count_of(call.a.size)),
        scratch(is_walked<T>(call.window) ? 0 : 10 * count_of(call.a.size)) {}
};

// Memory on the device, of the sizes in NccNeeds.
template <typename T>
struct NccMemory {
  double* sums;
  T *fields, *scratch;
  T* scale;  // one number
};

// The value, a single number, and the gradients. Volumes must not be empty.
template <typename In, typename T>
void start_ncc(Stream stream, const NccCall<In, T>& call, const NccMemory<T>& memory, T* value) {
  const int64_t n = count_of(call.a.size), box = call.window * call.window * call.window;
  const bool swap = call.grad_a.data && !call.grad_b.data;
  const auto &x = swap ? call.b : call.a, &y = swap ? call.a : call.b;
  const T epsilon = T(1e-5) / T(box) / T(box);
  const ValueJob<In, T> job{x,       y,          call.weight, memory.fields, call.fields(),
                            epsilon, T(2) / box, memory.sums};
  start(stream, job, call.window, memory.scratch);
  launch_team(stream, dim3(1), dim3(kThreads), total_up<T>, memory.sums,
              blocks_of<T>(call.a.size, call.window), value, memory.scale);
  const auto gradient = [&](int along, const View<const In>& x, const View<const In>& y,
                            const View<T>& grad) {
    const T* fields = memory.fields;
    const GradientJob<In, T> job{
        {fields, fields + along * n, fields + (along + 1) * n}, x, y, grad, memory.scale};
    start(stream, job, call.window, memory.scratch);
  };
  if (call.fields() > 0) gradient(1, x, y, swap ? call.grad_a : call.grad_b);
  if (call.fields() > 3) gradient(3, y, x, call.grad_a);
}

// to = from * by, for `count` numbers; `by` is a number on the device.
template <typename In, typename T>
void start_multiply(Stream stream, const T* from, const T* by, In* to, int64_t count) {
  const int64_t each = 4 * kThreads;
  if (count == 0) return;
  launch(stream, dim3(unsigned((count + each - 1) / each)), dim3(kThreads), multiply<In, T>, from,
         by, to, count);
}

}  // namespace lganet::device
