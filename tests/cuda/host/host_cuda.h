// Enough of CUDA for the host compiler to run the kernels of csrc/*.cuh, so that the sanitizers see
// every access. How to put the kernels of csrc/<op>.cuh under test:
//
//   <op>.cpp       includes host_view.h and <op>.cuh, and binds functions that take tensors:
//                  PYBIND11_MODULE(host_<op>, m) { m.def("forward", ...); }
//   check_<op>.py  pytest tests: `import host_<op>`, call it on CPU tensors, compare.
//
// tests/cuda/test_cuda_host.py finds these files by name, builds and runs them under
// AddressSanitizer and UndefinedBehaviorSanitizer.
//
// launch() runs the threads of a grid one after the other; a barrier there is an error.
// launch_team() gives each thread of a block a stack of its own (host_team.h), and runs the blocks
// one after the other: the variables that are __shared__ are then simply static. They hold no zeros
// at the start of a block. launch_shared() is the same with dynamic shared memory, full of NaNs and
// of just the size that is asked for. launch_grid() gives each thread of the grid a thread of the
// host;
// __shared__ is not for it. Here are __syncthreads, __syncwarp, __shfl_{up,down,xor,}_sync with
// every lane in the mask, atomicAdd and atomicMax, __threadfence and __launch_bounds__ of no
// effect, and in host_mma.h the instructions of mma.cuh.
#pragma once

#include <atomic>
#include <barrier>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  int64_t count() const { return int64_t(x) * y * z; }
};

inline thread_local dim3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

#include "host_team.h"

namespace lganet {

using Stream = std::nullptr_t;
constexpr int kThreads = 64;  // fewer than on a device: a block takes as many threads of the host

namespace host {

// One warp of a block: what its lanes exchange.
struct Warp {
  explicit Warp(int lanes) : meet(lanes) {}
  Barrier meet;
  alignas(16) unsigned char slot[32][16];
};

struct Block {
  explicit Block(int threads) : meet(threads) {
    for (int start = 0; start < threads; start += 32)
      warps.push_back(std::make_unique<Warp>(threads - start < 32 ? threads - start : 32));
  }
  Barrier meet;
  std::vector<std::unique_ptr<Warp>> warps;
};

inline Block* block = nullptr;            // the one that runs, where it is a team
inline unsigned char* dynamic = nullptr;  // its dynamic shared memory

inline Copies& copies() {
  if (!Team::running) fail("this kernel needs launch_team");
  return Team::running->copies();
}

inline int thread_number() {
  return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

inline Warp& warp() {
  if (!block) fail("this kernel needs launch_team");
  return *block->warps[thread_number() / 32];
}

inline dim3 place(int64_t n, dim3 size) {
  return dim3(n % size.x, n / size.x % size.y, n / size.x / size.y);
}

inline void begin(dim3 grid, dim3 threads) {
  if (grid.count() == 0 || grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535)
    fail("no such grid");
  if (threads.count() == 0 || threads.count() > 1024 || threads.z > 64) fail("no such block");
  gridDim = grid;
  blockDim = threads;
}

template <typename T, typename From>
T exchange(T value, From from) {
  static_assert(sizeof(T) <= 16);
  Warp& mine = warp();
  const int lane = thread_number() % 32;
  std::memcpy(mine.slot[lane], &value, sizeof(T));
  mine.meet.wait();
  const int source = from(lane);
  if (source >= 0 && source < 32) std::memcpy(&value, mine.slot[source], sizeof(T));
  mine.meet.wait();
  return value;
}

}  // namespace host

template <typename... P, typename... Q>
void launch(Stream, dim3 grid, dim3 threads, void (*kernel)(P...), Q... arguments) {
  host::begin(grid, threads);
  for (int64_t b = 0; b < grid.count(); ++b)
    for (int64_t t = 0; t < threads.count(); ++t) {
      blockIdx = host::place(b, grid);
      threadIdx = host::place(t, threads);
      kernel(P(arguments)...);
    }
}

template <typename... P, typename... Q>
void launch_shared(Stream, dim3 grid, dim3 threads, int bytes, void (*kernel)(P...),
                   Q... arguments) {
  host::begin(grid, threads);
  if (bytes > 227 * 1024) host::fail("no such amount of shared memory");
  const int count = int(threads.count());
  std::unique_ptr<host::Block> block;
  unsigned char* dynamic = nullptr;
  const auto fresh_block = [&] {
    block = std::make_unique<host::Block>(count);
    host::block = block.get();
    std::free(dynamic);
    host::dynamic = dynamic = nullptr;
    if (bytes == 0) return;
    if (posix_memalign(reinterpret_cast<void**>(&dynamic), 128, bytes)) host::fail("no memory");
    std::memset(dynamic, 0xff, bytes);
    host::dynamic = dynamic;
  };
  fresh_block();
  host::Barrier turn(count);
  const std::function<void(int)> body = [&](int t) {
    for (int64_t b = 0; b < grid.count(); ++b) {
      blockIdx = host::place(b, grid);
      threadIdx = host::place(t, threads);
      kernel(P(arguments)...);
      host::copies() = {};
      host::block->warps[t / 32]->meet.drop();
      host::block->meet.drop();
      turn.wait([&] {
        fresh_block();
        host::Team::running->turn_around();
      });
    }
  };
  host::Team(count, body).run();
  std::free(dynamic);
  host::dynamic = nullptr;
  host::block = nullptr;
}

template <typename... P, typename... Q>
void launch_team(Stream stream, dim3 grid, dim3 threads, void (*kernel)(P...), Q... arguments) {
  launch_shared(stream, grid, threads, 0, kernel, arguments...);
}

template <typename... P>
int blocks_of(void (*)(P...), int, int) {
  return 1;
}

namespace host {

inline std::barrier<>* whole_grid = nullptr;

}  // namespace host

inline void grid_barrier() {
  if (!host::whole_grid) host::fail("this kernel needs launch_grid");
  host::whole_grid->arrive_and_wait();
}

template <typename... P>
int64_t resident_blocks(void (*)(P...)) {
  return 6;  // few enough for a test to have more
}

template <typename... P>
void launch_grid(Stream, dim3 grid, dim3 threads, void (*kernel)(P...), P... arguments) {
  host::begin(grid, threads);
  if (grid.count() > resident_blocks(kernel)) host::fail("these blocks do not run at once");
  std::barrier<> meet(grid.count() * threads.count());
  host::whole_grid = &meet;
  std::vector<std::thread> team;
  for (int64_t b = 0; b < grid.count(); ++b)
    for (int64_t t = 0; t < threads.count(); ++t)
      team.emplace_back([=, &meet] {
        blockIdx = host::place(b, grid);
        threadIdx = host::place(t, threads);
        kernel(arguments...);
        meet.arrive_and_drop();
      });
  for (std::thread& thread : team) thread.join();
  host::whole_grid = nullptr;
}

}  // namespace lganet

inline void __syncthreads() {
  if (!lganet::host::block) lganet::host::fail("this kernel needs launch_team");
  lganet::host::block->meet.wait();
}

inline void __syncwarp() { lganet::host::warp().meet.wait(); }

inline void __threadfence() {}

template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return lganet::host::exchange(value, [=](int) { return lane; });
}

template <typename T>
T __shfl_up_sync(unsigned, T value, int delta) {
  return lganet::host::exchange(value, [=](int lane) { return lane - delta; });
}

template <typename T>
T __shfl_down_sync(unsigned, T value, int delta) {
  return lganet::host::exchange(value, [=](int lane) { return lane + delta; });
}

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return lganet::host::exchange(value, [=](int lane) { return lane ^ mask; });
}

template <typename T>
T atomicAdd(T* to, T value) {
  return std::atomic_ref<T>(*to).fetch_add(value);
}

template <typename T>
T atomicMax(T* to, T value) {
  std::atomic_ref<T> place(*to);
  T seen = place.load();
  while (seen < value && !place.compare_exchange_weak(seen, value)) {
  }
  return seen;
}
