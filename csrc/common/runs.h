// How volumes are divided among threads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lganet {

// The least voxels, or numbers, for a thread.
constexpr int64_t kVoxelsPerTask = 8192;

// The least parts, of `voxels` each, for a thread.
inline int64_t parts_per_task(int64_t voxels) {
  return std::max<int64_t>(1, kVoxelsPerTask / std::max<int64_t>(1, voxels));
}

// Calls body(first, count) for runs of at most `most` of the planes from `begin` to `end`. No run
// crosses from one volume of `height` planes to the next.
template <typename F>
void for_runs(int64_t begin, int64_t end, int64_t height, int64_t most, F&& body) {
  while (begin < end) {
    const int64_t count = std::min({most, end - begin, height - begin % height});
    body(begin, count);
    begin += count;
  }
}

}  // namespace lganet
