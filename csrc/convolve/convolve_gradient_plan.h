// How the weight gradient is divided among blocks and warps. Plain host code, without CUDA.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "convolve/convolve_precision.h"

namespace lganet::weight_gradient {

// The sums of a warp: `rows` tiles of 16 rows, `outputs` times 8 outputs.
struct Shape {
  int rows, outputs;
};
constexpr Shape kShapes[] = {{5, 1}, {3, 2}, {3, 3}, {5, 2}};

// The number of shapes for a type: larger ones do not fit into the registers.
constexpr int shapes_of(int number_bytes, bool exact) {
  return number_bytes == 2 ? 4 : exact ? 2 : 3;
}

// Lines of a box in height and width, without the borders.
struct Lines {
  int h, w;
};
constexpr Lines kLines[] = {{4, 4}, {2, 4}, {4, 8}, {8, 8}};

// A configuration is one number from 1 on: the shape, then the lines.
constexpr int kShapeCount = sizeof(kShapes) / sizeof(Shape);
constexpr int kLineCount = sizeof(kLines) / sizeof(Lines);

// Warps of a block. Two blocks should be resident on a multiprocessor, so that one copies while the
// other multiplies, with equally many warps on each of its four schedulers: 4 with 128 registers
// per thread, or 3 with 168.
constexpr int warps_of(Shape shape, bool exact) {
  return shape.rows * shape.outputs <= 5 && !exact ? 8 : 6;
}
constexpr int kBlocks = 2;

// Bytes from voxel to voxel of a box in shared memory: an odd multiple of eight numbers, so that
// simultaneous reads of a warp, of eight voxels (floats: four), are in different banks.
constexpr int voxel_bytes(int eights, int64_t number_bytes) {
  return 8 * (eights | 1) * int(number_bytes);
}

// Limits of the device.
struct Limits {
  int64_t processors, shared_processor,
      shared_block;  // multiprocessors; bytes per multiprocessor, per block
};

// Sizes of a call. size: batch, height, width, depth.
struct Sizes {
  int64_t inputs, outputs, size[4], number_bytes;
  bool exact, masked;
};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Plan {
  Shape shape;
  Lines lines;
  int in_chunks, in_blocks, out_blocks, row_warps, voxel_warps;
  int voxels_d;  // of a box; 0 if not even one group of 8 fits
  int64_t x_stride, grad_stride, tiles[3], shared, blocks;

  Plan(const Sizes& sizes, int config, const Limits& limits)
      : shape(kShapes[(config - 1) % kShapeCount]), lines(kLines[(config - 1) / kShapeCount]) {
    const int64_t chunks = ceil_div(sizes.inputs, 8);
    for (int n = 1, least = INT32_MAX; n <= 4;
         ++n) {  // the number of inputs with the least padding
      const int warps = int(ceil_div(9 * n, 2 * shape.rows));
      const int work = int(ceil_div(chunks, n)) * warps;
      if (work > least) continue;
      least = work;
      in_chunks = n;
      row_warps = warps;
    }
    in_blocks = int(ceil_div(chunks, in_chunks));
    out_blocks = int(ceil_div(sizes.outputs, 8 * shape.outputs));
    voxel_warps = warps_of(shape, sizes.exact) / row_warps;
    x_stride = voxel_bytes(in_chunks, sizes.number_bytes);
    grad_stride = voxel_bytes(shape.outputs, sizes.number_bytes);

    const int64_t room = std::min(limits.shared_block, limits.shared_processor / kBlocks - 1024);
    const int64_t groups = ceil_div(sizes.size[3], 8);
    int64_t most = groups;
    while (most > 0 && bytes(sizes, 8 * most) > room) --most;
    voxels_d = most ? int(8 * ceil_div(groups, ceil_div(groups, most))) : 0;
    if (!voxels_d) return;
    shared = bytes(sizes, voxels_d);
    tiles[0] = ceil_div(sizes.size[1], lines.h);
    tiles[1] = ceil_div(sizes.size[2], lines.w);
    tiles[2] = ceil_div(sizes.size[3], voxels_d);
    const int64_t all = all_tiles(sizes);
    const int64_t most_blocks =
        std::max<int64_t>(1, limits.processors * kBlocks / (in_blocks * out_blocks));
    blocks = ceil_div(all, ceil_div(all, most_blocks));
  }

  int threads() const { return 32 * row_warps * voxel_warps; }
  int64_t all_tiles(const Sizes& sizes) const {
    return sizes.size[0] * tiles[0] * tiles[1] * tiles[2];
  }
  // The number of sums: of a block's weights, of all weights, and of weights and biases.
  int64_t of_pair() const { return int64_t(row_warps) * shape.rows * 3 * shape.outputs * 128; }
  int64_t weights() const { return of_pair() * in_blocks * out_blocks; }
  int64_t entries() const { return weights() + int64_t(out_blocks) * shape.outputs * 8; }

  // A model of the time, in clock cycles of a multiprocessor. For each box, the largest of products
  // (2 cycles each), reads of shared memory (128 bytes per cycle) and copies (16 bytes per cycle
  // with their instructions), plus the part that the other block does not hide; then the sums of
  // blocks.
  double cost(const Sizes& sizes, const Limits& limits) const {
    const int64_t x = (lines.h + 2) * (lines.w + 2) * voxels_d * in_chunks;
    const int64_t grad =
        lines.h * lines.w * (voxels_d + 2) * shape.outputs * (sizes.masked ? 2 : 1);
    const double copies = double(x + grad) * 8 * double(sizes.number_bytes) / 16;
    const double steps = double(lines.h * lines.w * voxels_d) * double(sizes.number_bytes) / 32;
    const int columns = 3 * shape.outputs;
    const double products = 2.0 * steps * row_warps * shape.rows * columns * (sizes.exact ? 3 : 1);
    const double reads = steps * row_warps * (4 * shape.rows + 2 * columns);
    const double box = std::max({products, reads, copies}) + copies / 4 + 500;
    const int64_t all = blocks * in_blocks * out_blocks;
    const double turns = double(ceil_div(all_tiles(sizes), blocks));
    const double sums = double(blocks * entries()) * 8 / (32.0 * double(limits.processors));
    return turns * double(ceil_div(all, limits.processors)) * box + sums;
  }

 private:
  // Bytes of shared memory: boxes, the table of groups, the bias sums of threads; later the sums of
  // warps.
  int64_t bytes(const Sizes& sizes, int64_t depth) const {
    const int64_t x = (lines.h + 2) * (lines.w + 2) * depth * x_stride;
    const int64_t grad = lines.h * lines.w * (depth + 2) * grad_stride * (sizes.masked ? 2 : 1);
    const int64_t groups = lines.h * lines.w * depth,
                  biases = 16 / sizes.number_bytes * 4 * threads();
    return std::max(x + grad + groups + biases, voxel_warps > 1 ? 4 * of_pair() : 0);
  }
};

inline bool is_config(int64_t config, const Sizes& sizes) {
  return config >= 1 && config <= kShapeCount * kLineCount &&
         (config - 1) % kShapeCount < shapes_of(int(sizes.number_bytes), sizes.exact);
}

// The configurations that fit, the fastest by the model first.
inline std::vector<int64_t> ranked(const Sizes& sizes, const Limits& limits) {
  std::vector<std::pair<double, int64_t>> found;
  for (int config = 1; config <= kShapeCount * kLineCount; ++config) {
    if (!is_config(config, sizes)) continue;
    const Plan plan(sizes, config, limits);
    if (plan.voxels_d) found.push_back({plan.cost(sizes, limits), config});
  }
  std::sort(found.begin(), found.end());
  std::vector<int64_t> configs;
  for (const auto& [cycles, config] : found) configs.push_back(config);
  return configs;
}

}  // namespace lganet::weight_gradient
