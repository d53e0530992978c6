// How the weight gradient is divided among blocks and warps: sizes of everything, no work.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lganet::weight_gradient {

// What a warp adds up: `rows` tiles of 16 rows, `outputs` times 8 outputs.
struct Shape {
  int rows, outputs;
};
constexpr Shape kShapes[] = {{5, 1}, {3, 2}, {3, 3}, {5, 2}};

// How many of them there are for a type: larger ones would not fit into the registers.
constexpr int shapes_of(int number_bytes, bool split) {
  return number_bytes == 2 ? 4 : split ? 2 : 3;
}

// Lines of a box in height and width, without the borders.
struct Lines {
  int h, w;
};
constexpr Lines kLines[] = {{4, 4}, {2, 4}, {4, 8}, {8, 8}};

// A configuration is one number: the shape, then the lines.
constexpr int kShapeCount = sizeof(kShapes) / sizeof(Shape);
constexpr int kLineCount = sizeof(kLines) / sizeof(Lines);
constexpr int kConfigs = kShapeCount * kLineCount;

// Of a block. Two are to run on a multiprocessor at once, one copies while the other multiplies,
// and its quarters get equally many warps: 4 of 128 registers a thread, or 3 of 168.
constexpr int warps_of(Shape shape, bool split) {
  return shape.rows * shape.outputs <= 5 && !split ? 8 : 6;
}
constexpr int kBlocks = 2;

// From voxel to voxel of a box in shared memory: an odd number of eights, so that what a warp reads
// at once, of eight voxels or of four of floats, lies in different banks.
constexpr int voxel_bytes(int eights, int64_t number_bytes) {
  return 8 * (eights | 1) * int(number_bytes);
}

// Of the device.
struct Limits {
  int64_t processors, shared_processor, shared_block;  // multiprocessors; bytes of each, of a block
};

// Of a call: `size` is batch, height, width, depth.
struct Sizes {
  int64_t inputs, outputs, size[4], number_bytes;
  bool split, masked;
};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Plan {
  Shape shape;
  Lines lines;
  int in_chunks, in_blocks, out_blocks, row_warps, voxel_warps;
  int voxels_d;  // of a box; 0: not even one group of 8 fits
  int64_t x_stride, grad_stride, tiles[3], shared, blocks;

  Plan(const Sizes& sizes, int config, const Limits& limits)
      : shape(kShapes[config % kShapeCount]), lines(kLines[config / kShapeCount]) {
    const int64_t chunks = ceil_div(sizes.inputs, 8);
    for (int n = 1, least = INT32_MAX; n <= 4; ++n) {  // of inputs at a time: the least filling
      const int warps = int(ceil_div(9 * n, 2 * shape.rows));
      const int work = int(ceil_div(chunks, n)) * warps;
      if (work > least) continue;
      least = work;
      in_chunks = n;
      row_warps = warps;
    }
    in_blocks = int(ceil_div(chunks, in_chunks));
    out_blocks = int(ceil_div(sizes.outputs, 8 * shape.outputs));
    voxel_warps = warps_of(shape, sizes.split) / row_warps;
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
  // Numbers of a block's sums of weights, of all sums of weights, and with those of the biases.
  int64_t of_pair() const { return int64_t(row_warps) * shape.rows * 3 * shape.outputs * 128; }
  int64_t weights() const { return of_pair() * in_blocks * out_blocks; }
  int64_t entries() const { return weights() + int64_t(out_blocks) * shape.outputs * 8; }

 private:
  // Of shared memory: boxes, the table of groups, threads' sums of the bias; later sums of warps.
  int64_t bytes(const Sizes& sizes, int64_t depth) const {
    const int64_t x = (lines.h + 2) * (lines.w + 2) * depth * x_stride;
    const int64_t grad = lines.h * lines.w * (depth + 2) * grad_stride * (sizes.masked ? 2 : 1);
    const int64_t groups = lines.h * lines.w * depth,
                  biases = 16 / sizes.number_bytes * 4 * threads();
    return std::max(x + grad + groups + biases, voxel_warps > 1 ? 4 * of_pair() : 0);
  }
};

}  // namespace lganet::weight_gradient
