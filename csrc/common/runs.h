// How volumes are shared out among threads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lganet {

// Voxels, or numbers, that are worth a thread of their own.
constexpr int64_t kVoxelsPerTask = 8192;

// Parts of `voxels` each that together are worth a thread of their own.
inline int64_t parts_per_task(int64_t voxels) {
  return std::max<int64_t>(1, kVoxelsPerTask / std::max<int64_t>(1, voxels));
}

// Calls body(first, count) for runs of at most `most` of the planes from `begin` to `end`, none
// across two volumes of `height` planes.
template <typename F>
void for_runs(int64_t begin, int64_t end, int64_t height, int64_t most, F&& body) {
  while (begin < end) {
    const int64_t count = std::min({most, end - begin, height - begin % height});
    body(begin, count);
    begin += count;
  }
}

}  // namespace lganet
