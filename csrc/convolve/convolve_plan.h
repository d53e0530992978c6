// How the 3^3 convolution of convolve.cuh is divided into blocks, and which tiles are candidates.
// Plain host code, without CUDA.
//
// A block computes a tile of h x w x d voxels and `columns` outputs. It keeps the tile and the
// voxels around it in shared memory as planes of 16 bytes of channels, one chunk of one or two
// planes at a time. A plane is a list of voxels, in lines of d + 2. The neighbours in w are the
// same list, shifted by d + 2. So the rows of products are the voxels of the list, over w and d
// together; of d + 2 rows, 2 are between two lines and lost. A warp computes segments of 32 rows
// with 30 results (the taps along d are added between rows), one segment for each of `lines` values
// of h.
#pragma once

#include "convolve/convolve_precision.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace lganet {

constexpr int kRows = 32;          // of a segment
constexpr int kNewRows = 30;       // with a result
constexpr int kConvolveWarps = 8;  // of a block at most

// The kinds of kernels; one is compiled for each.
struct ConvolveKind {
  int number_bytes;  // 2 or 4
  bool exact;        // full float32, by three products instead of one
  int planes;        // 16 bytes of channels of a chunk, 1 or 2
  int columns;       // outputs of a block: 8, 16, 24 or 32; if exact, 8 or 16

  constexpr int per_plane() const { return 16 / number_bytes; }
  constexpr int chunk() const { return planes * per_plane(); }
  // Values of h of a warp, limited by the registers.
  constexpr int lines() const { return columns == 8 && !exact ? 4 : 2; }
  // Products of a chunk along the inner axis: 9 neighbours of two planes, or 5 pairs of neighbours
  // of one.
  constexpr int steps() const { return planes == 2 ? 9 : 5; }
  constexpr int column_tiles() const { return 3 * columns / 8; }
  constexpr int weight_bytes() const { return steps() * column_tiles() * (exact ? 512 : 256); }
  constexpr int chunks(int inputs) const { return (inputs + chunk() - 1) / chunk(); }
  constexpr int blocks(int outputs) const { return (outputs + columns - 1) / columns; }
};

// The kind for so many inputs and outputs: with the fewest products, then the fewest reads of x.
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
  // Bytes from one plane to the next. The last segment may read beyond the last line; 64 bytes
  // modulo 128 allow the two planes of four voxels to be written without bank conflicts.
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

// The layout of a block's shared memory, in bytes: first the planes of two chunks.
struct ConvolveShared {
  int stage, weight_slots, weights, sums, bias, norm, total;

  constexpr ConvolveShared(const ConvolveKind& kind, const ConvolveTile& tile, int inputs,
                           int limit)
      : stage(kind.planes * tile.plane_bytes()), weight_slots(kind.chunks(inputs)) {
    place(kind, tile, inputs);
    // The weights of all chunks are kept if two blocks still fit, else there are two buffers.
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

// A model of the time of a tile, in clock cycles of one of 128 multiprocessors: for each block the
// largest of products (2 cycles each), reads of shared memory (128 bytes per cycle) and loads (32
// bytes per cycle); a block alone on its multiprocessor also waits for a third of the loads.
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

// The candidates for the tile, the fastest by the model first; none if nothing fits. limit: bytes
// of shared memory of a block.
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
