// How the 3^3 convolution of convolve.cuh is cut into blocks, and which cuts are worth a try. Plain
// host code: it needs no CUDA.
//
// A block computes a tile of h x w x d voxels and `columns` outputs. It holds the tile with the
// voxels around it in shared memory as planes of 16 bytes of channels, the voxels of a plane side
// by side, lines of d + 2 after lines; a chunk of one or two planes at a time. A neighbour in w is
// then the same list of voxels from d + 2 on, so rows of products are voxels of the list, w and d
// in one, and what lies between two lines costs 2 rows in d + 2. A warp takes segments of 32 rows,
// of which 30 come out (the taps along d are added up between rows), one for each of `lines` values
// of h.
#pragma once

#include "convolve/convolve_precision.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace lganet {

constexpr int kRows = 32;          // of a segment
constexpr int kNewRows = 30;       // that come out of it
constexpr int kConvolveWarps = 8;  // of a block at most

// What is compiled: a kernel for each.
struct ConvolveKind {
  int number_bytes;  // 2 or 4
  bool exact;        // float32 to its last bits, by three products for one
  int planes;        // 16 bytes of channels of a chunk, 1 or 2
  int columns;       // outputs of a block: 8, 16, 24 or 32; where exact, 8 or 16

  constexpr int per_plane() const { return 16 / number_bytes; }
  constexpr int chunk() const { return planes * per_plane(); }
  // Values of h of a warp: as many as there are registers for.
  constexpr int lines() const { return columns == 8 && !exact ? 4 : 2; }
  // Products of the inner axis for a chunk: 9 neighbours of two planes, or pairs of those of one.
  constexpr int steps() const { return planes == 2 ? 9 : 5; }
  constexpr int column_tiles() const { return 3 * columns / 8; }
  constexpr int weight_bytes() const { return steps() * column_tiles() * (exact ? 512 : 256); }
  constexpr int chunks(int inputs) const { return (inputs + chunk() - 1) / chunk(); }
  constexpr int blocks(int outputs) const { return (outputs + columns - 1) / columns; }
};

// The kernel for so many inputs and outputs: the fewest products, then the fewest reads of x.
constexpr ConvolveKind convolve_kind(int inputs, int outputs, int number_bytes, bool exact) {
  ConvolveKind kind{number_bytes, exact, 2, 8};
  int best = INT32_MAX;
  for (int columns : {32, 24, 16, 8}) {
    if (exact && columns > 16) continue;  // too many registers, and too much of shared memory
    const int cost = (outputs + columns - 1) / columns * (columns + 6);
    if (cost < best) best = cost, kind.columns = columns;
  }
  const bool fewer = 5 * ((inputs + 7) / 8) < 9 * ((inputs + 15) / 16);
  if (number_bytes == 2 && fewer && kind.columns < 32) kind.planes = 1;
  return kind;
}

struct ConvolveTile {
  int h, w, d;

  constexpr int line() const { return d + 2; }
  constexpr int row() const { return (w + 2) * line(); }  // voxels of one h
  constexpr int segments() const { return (w * line() - 2 + kNewRows - 1) / kNewRows; }
  constexpr int warps(const ConvolveKind& kind) const { return h / kind.lines() * segments(); }
  // From one plane to the next. The last segment may read beyond the last line; 64 bytes modulo 128
  // let the two planes of four voxels be written at once.
  constexpr int plane_bytes() const {
    const int beyond = segments() * kNewRows + 2 - w * line();
    const int voxels = (h + 2) * row() + std::max(beyond, 0);
    return (voxels + 3) / 8 * 128 + 64;
  }

  constexpr int32_t code() const { return h | w << 8 | d << 16; }
  static constexpr ConvolveTile of_code(int64_t code) {
    return {int(code & 255), int(code >> 8 & 255), int(code >> 16 & 32767)};
  }
};

// Where things are in the shared memory of a block, in bytes: first the planes of two chunks.
struct ConvolveShared {
  int stage, weight_slots, weights, sums, bias, norm, total;

  constexpr ConvolveShared(const ConvolveKind& kind, const ConvolveTile& tile, int inputs,
                           int limit)
      : stage(kind.planes * tile.plane_bytes()), weight_slots(kind.chunks(inputs)) {
    place(kind, tile, inputs);
    // The weights of all chunks stay where that lets two blocks run at once, else two take turns.
    if (weight_slots > 2 && total > limit / 2) {
      weight_slots = 2;
      place(kind, tile, inputs);
    }
  }

 private:
  constexpr void place(const ConvolveKind& kind, const ConvolveTile& tile, int inputs) {
    weights = 2 * stage;
    sums = weights + weight_slots * kind.weight_bytes();
    bias = sums + tile.warps(kind) * 2 * kind.columns * 4;
    norm = bias + kind.columns * 4;
    total = norm + 2 * kind.chunks(inputs) * kind.chunk() * 4;
  }
};

constexpr bool fits(const ConvolveKind& kind, const ConvolveTile& tile, int inputs, int limit) {
  if (tile.h < 1 || tile.w < 1 || tile.d < 1 || tile.h % kind.lines()) return false;
  if (tile.h > 64 || tile.w > 64 || tile.d > 512) return false;
  const int warps = tile.warps(kind);
  return warps >= 1 && warps <= kConvolveWarps &&
         ConvolveShared(kind, tile, inputs, limit).total <= limit;
}

// What a tile costs, in clock cycles of one of 128 multiprocessors: for each block the larger of
// products (2 cycles each), reads of shared memory (128 bytes a cycle) and loads (32 bytes a
// cycle); a block alone on its multiprocessor waits for a third of the loads as well.
inline double cost(const ConvolveKind& kind, const ConvolveTile& tile, int inputs,
                   const int64_t (&size)[3], int outputs, int limit) {
  const ConvolveShared shared(kind, tile, inputs, limit);
  const int warps = tile.warps(kind), lines = kind.lines(), chunks = kind.chunks(inputs);
  const int again = kind.exact ? 3 : 1;
  const double products = 2.0 * warps * lines * 2 * kind.column_tiles() * kind.steps() * again;
  const int fragments = kind.planes == 2 ? 3 * (lines + 2) * 2 : (3 * lines + 2) * 2;
  const double reads = warps * (4.0 * fragments + kind.weight_bytes() / 128.0);
  const bool streamed = shared.weight_slots < chunks;
  const double loads =
      ((tile.h + 2.0) * tile.row() * 16 * kind.planes + (streamed ? kind.weight_bytes() : 0)) /
      32.0;
  const int64_t resident = std::clamp(std::min(limit / shared.total, 12 / warps), 1, 4);
  const double chunk = std::max({products, reads, loads}) + (resident == 1 ? loads / 3 : 0);
  const int64_t count = (size[0] + tile.h - 1) / tile.h * ((size[1] + tile.w - 1) / tile.w) *
                        ((size[2] + tile.d - 1) / tile.d) * kind.blocks(outputs);
  const int64_t turns = (count + 128 * resident - 1) / (128 * resident) * resident;
  return double(turns) * (chunks * (chunk + 200) + 60.0 * warps * lines);
}

// The tiles worth a try, the best of the model first; none where nothing fits. limit: bytes of
// shared memory of a block.
inline std::vector<ConvolveTile> convolve_tiles(int inputs, int outputs, int number_bytes,
                                                bool exact, const int64_t (&size)[3], int limit) {
  const ConvolveKind kind = convolve_kind(inputs, outputs, number_bytes, exact);
  std::vector<int> depths;
  for (int parts = 1; parts <= 16; ++parts) {
    const int64_t d = (size[2] + parts - 1) / parts;
    if (d <= 240 && (depths.empty() || depths.back() != d)) depths.push_back(int(d));
  }
  for (int d : {30, 60})
    if (d < size[2]) depths.push_back(d);
  std::vector<std::pair<double, ConvolveTile>> found;
  for (int d : depths)
    for (int w = 1; w <= 8; ++w)
      for (int h = kind.lines(); h <= 8; h += kind.lines()) {
        const ConvolveTile tile{h, w, d};
        if (!fits(kind, tile, inputs, limit)) continue;
        found.push_back({cost(kind, tile, inputs, size, outputs, limit), tile});
      }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<ConvolveTile> tiles;
  for (const auto& [cycles, tile] : found)
    if (tiles.size() < 8) tiles.push_back(tile);
  return tiles;
}

}  // namespace lganet
