// The gradients of the 3x3x3 convolution to its weights and bias, as one matrix product over the
// voxels:
//
//   weight[co, ci, i, j, k] = sum over voxels p of grad[co, p] x[ci, p + (i, j, k) - 1]
//
// A block keeps the sums of some inputs and outputs, all 27 taps, in registers while it loops over
// its part of the volume, box by box. A box has lines of x along the last axis, with one more line
// on either side in height and width, and the same lines of the gradient, each with one more voxel
// at both ends. Rows of the product are (i, j, input), columns (k, output). A tap is an offset in
// the box, and the three taps of the last axis share the reads of x. Voxels are processed in groups
// of 8. A warp has MT tiles of 16 rows and 3 NC tiles of 8 columns, NC times 8 outputs; warps have
// different rows, or different groups of voxels.
//
// Every block writes its sums once, and a second kernel adds them, both in an order that depends
// only on the sizes and the device: results are repeatable bit for bit.
#pragma once

#include "convolve/convolve_gradient_plan.h"

#include "convolve/convolve_gradient_box.cuh"

namespace lganet::weight_gradient {

// EXACT: floats are split into a high and a low TF32 part; three products are almost as accurate
// as float32.
template <typename T>
struct Job {
  Maps<T> x, grad, mask;  // no mask: null
  Norm norm;
  Place size;
  int inputs, outputs, in_chunks, out_blocks, row_warps, voxel_warps;
  Box x_box, grad_box;
  int lines_h, lines_w, voxels_d;  // of x, without the borders
  int tiles;
  Divisor<int32_t> tiles_h, tiles_w, tiles_d;
  float* sums;  // (gridDim.x, entries)
  int64_t entries;

  LGANET_HD Place tile(int number) const {
    const int plane = tiles_d.divide(number), slab = tiles_w.divide(plane);
    const int b = tiles_h.divide(slab);
    return {b, (slab - b * int(tiles_h.by)) * lines_h, (plane - slab * int(tiles_w.by)) * lines_w,
            (number - plane * int(tiles_d.by)) * voxels_d};
  }
  LGANET_HD int groups() const { return lines_h * lines_w * (voxels_d / 8); }
};

// The offset of a group of 8 voxels, in bytes.
struct Group {
  int x, grad;
};

template <typename T>
__device__ __forceinline__ Group group_of(const Job<T>& job, int number) {
  const int per_line = job.voxels_d / 8, line = number / per_line, d = number % per_line * 8;
  const int h = line / job.lines_w, w = line % job.lines_w;
  return {((h * job.x_box.width + w) * job.x_box.depth + d) * job.x_box.stride,
          (line * job.grad_box.depth + d) * job.grad_box.stride};
}

// The offset in bytes of eight rows: (i, j) = (tap / 3, tap % 3) of eight inputs.
template <typename T>
__device__ __forceinline__ int rows_at(const Job<T>& job, int eight) {
  const int tap = eight / job.in_chunks, chunk = eight % job.in_chunks;
  if (tap >= 9) return 0;  // padding rows, not read
  const int line = tap / 3 * job.x_box.width + tap % 3;
  return line * job.x_box.depth * job.x_box.stride + chunk * 8 * int(sizeof(T));
}

// The offset of tile j of the columns: the gradient is read at the negative of the tap.
template <typename T, int NC>
constexpr int columns_at(int j) {
  return (2 - j / NC) * voxel_bytes(NC, sizeof(T)) + j % NC * 8 * int(sizeof(T));
}

// The index of a warp's rows and that of its voxels in the block.
struct WarpPlace {
  int row, voxel;

  __device__ __forceinline__ explicit WarpPlace(int row_warps) {
    const int warp = anew(threadIdx.x) / 32;
    voxel = warp / row_warps;
    row = warp - voxel * row_warps;
  }
};

// The sums of one warp.
template <typename T, bool EXACT, int MT, int NC>
struct Products {
  static constexpr int kColumns = 3 * NC;
  static constexpr int kGroups = kDepth<T> / 8;               // of a product
  static constexpr int kStride = voxel_bytes(NC, sizeof(T));  // of the gradient's box
  float sums[MT][kColumns][4] = {};

  __device__ __forceinline__ void add_half(const Job<T>& job, const unsigned char* x,
                                           const unsigned char* grad, const Group* groups,
                                           const int (&rows)[MT][2], int first, int step) {
    const int lane = threadIdx.x % 32, row = lane % 8, second = lane / 8 % 2, third = lane / 16;
    x += row * job.x_box.stride;
    grad += row * kStride;
    const int count = job.groups();
    int from_x = groups[first + third].x, from_grad = groups[first + second].grad;
    for (int g = first; g < count; g += step) {
      uint32_t a[MT][4];
#pragma unroll
      for (int m = 0; m < MT; ++m)
        load_matrices_transposed(a[m], x + from_x + (second ? rows[m][1] : rows[m][0]));
      const unsigned char* b_at = grad + from_grad;
      const int next = g + step < count ? g + step : g;
      from_x = groups[next + third].x;
      from_grad = groups[next + second].grad;
#pragma unroll
      for (int j = 0; j < kColumns; j += 2) {
        uint32_t b[2][2];
        const int left = columns_at<T, NC>(j);
        if (j + 1 < kColumns) {
          const int right = columns_at<T, NC>(j + 1);
          uint32_t both[4];
          load_matrices_transposed(both, b_at + (third ? right : left));
          b[0][0] = both[0], b[0][1] = both[1], b[1][0] = both[2], b[1][1] = both[3];
        } else {
          load_matrices_transposed(b[0], b_at + left);
        }
#pragma unroll
        for (int m = 0; m < MT; ++m) {
          multiply_add<T>(sums[m][j], a[m], b[0]);
          if (j + 1 < kColumns) multiply_add<T>(sums[m][j + 1], a[m], b[1]);
        }
      }
    }
  }

  // Splits a float: the high part has 11 bits, the low part is the rest, which a product truncates
  // to 11 bits.
  static __device__ __forceinline__ void split(const unsigned char* from, uint32_t& high,
                                               uint32_t& low) {
    const float x = *reinterpret_cast<const float*>(from);
    memcpy(&high, &x, 4);
    if constexpr (EXACT) {
      high = (high + 0x1000u) & 0xffffe000u;
      float near;
      memcpy(&near, &high, 4);
      const float rest = x - near;
      memcpy(&low, &rest, 4);
    }
  }

  __device__ __forceinline__ void add_single(const Job<T>& job, const unsigned char* x,
                                             const unsigned char* grad, const Group* groups,
                                             const int (&rows)[MT][2], int first, int step) {
    const int lane = threadIdx.x % 32, voxel = lane % 4, channel = lane / 4 * 4;
    const int x_four = 4 * job.x_box.stride;
    x += voxel * job.x_box.stride + channel;
    grad += voxel * kStride + channel;
    for (int g = first, count = job.groups(); g < count; g += step) {
      const unsigned char *a_at = x + groups[g].x, *b_at = grad + groups[g].grad;
      uint32_t a[MT][4], a_low[MT][4], b[2], b_low[2];
#pragma unroll
      for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          split(a_at + rows[m][i % 2] + i / 2 * x_four, a[m][i], a_low[m][i]);
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        if constexpr (EXACT)
          __syncwarp();  // stops the compiler from reading ahead, which needs too many registers
#pragma unroll
        for (int i = 0; i < 2; ++i)
          split(b_at + columns_at<T, NC>(j) + i * 4 * kStride, b[i], b_low[i]);
#pragma unroll
        for (int m = 0; m < MT; ++m) {
          if constexpr (!EXACT) {
            multiply_add<float>(sums[m][j], a[m], b);
          } else {  // a product truncates its sum, so the three have their own
            float sum[4] = {};
            multiply_add<float>(sum, a_low[m], b);
            multiply_add<float>(sum, a[m], b_low);
            multiply_add<float>(sum, a[m], b);
#pragma unroll
            for (int r = 0; r < 4; ++r) sums[m][j][r] += sum[r];
          }
        }
      }
    }
  }

  // Adds the sums of warps with the same rows and other voxels to those of the first, in order.
  __device__ __forceinline__ void add_warps(float* shared, const WarpPlace& warp, int voxel_warps) {
    const int lane = threadIdx.x % 32;
    float* mine = shared + warp.row * (MT * kColumns * 128) + lane;
    for (int other = 1; other < voxel_warps; ++other) {
      __syncthreads();
      if (warp.voxel == other) each([&](int index, float& sum) { mine[index * 32] = sum; });
      __syncthreads();
      if (warp.voxel == 0) each([&](int index, float& sum) { sum += mine[index * 32]; });
    }
  }

  // body(number, sum)
  template <typename F>
  __device__ __forceinline__ void each(F&& body) {
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
      for (int j = 0; j < kColumns; ++j)
#pragma unroll
        for (int r = 0; r < 4; ++r) body((m * kColumns + j) * 4 + r, sums[m][j][r]);
  }
};

template <typename T, bool EXACT, int MT, int NC>
__global__ void __launch_bounds__(32 * warps_of({MT, NC}, EXACT), kBlocks)
    multiply_boxes(const Job<T> job) {
  unsigned char* shared = dynamic_shared();
  unsigned char *x = shared, *grad = x + job.x_box.bytes(), *mask = grad + job.grad_box.bytes();
  const bool masked = job.mask.map[0].data;
  Group* groups = reinterpret_cast<Group*>(masked ? mask + job.grad_box.bytes() : mask);
  float* bias = reinterpret_cast<float*>(groups + job.groups());  // sums of each thread
#pragma unroll
  for (int k = 0; k < kUnit<T>; ++k) bias[threadIdx.x * kUnit<T> + k] = 0;
  for (int g = threadIdx.x; g < job.groups(); g += int(blockDim.x)) groups[g] = group_of(job, g);
  WarpPlace warp(job.row_warps);
  int rows[MT][2];
#pragma unroll
  for (int m = 0; m < MT; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      rows[m][half] = rows_at(job, (warp.row * MT + m) * 2 + half);

  Products<T, EXACT, MT, NC> products;
  for (int tile = blockIdx.x; tile < job.tiles; tile += int(gridDim.x)) {
    const Place at = job.tile(tile), x_at{at.b, at.h - 1, at.w - 1, at.d};
    const Place grad_at{at.b, at.h, at.w, at.d - 1};
    const int thread = anew(threadIdx.x), pair = anew(blockIdx.y), in_block = pair / job.out_blocks;
    const Share<T> x_share(thread, in_block, job.in_chunks);
    const Share<T> grad_share(thread, pair - in_block * job.out_blocks, NC);
    begin_copy(job.x, x_share, job.x_box, x_at, job.size, x);
    begin_copy(job.grad, grad_share, job.grad_box, grad_at, job.size, grad);
    if (masked) begin_copy(job.mask, grad_share, job.grad_box, grad_at, job.size, mask);
    end_copies();
    wait_copies<0>();
    finish_inputs<EXACT>(job.norm, job.inputs, x_share, job.x_box, x_at, job.size, x);
    finish_gradient<EXACT>(grad_share, job.grad_box, grad_at, job.size, grad,
                           masked ? mask : nullptr, bias + thread * kUnit<T>);
    __syncthreads();
    const int first = thread / 32 / job.row_warps * products.kGroups,
              step = job.voxel_warps * products.kGroups;
    if constexpr (sizeof(T) == 2)
      products.add_half(job, x, grad, groups, rows, first, step);
    else
      products.add_single(job, x, grad, groups, rows, first, step);
    __syncthreads();
  }

  const int64_t of_warp = int64_t(MT) * products.kColumns * 128;
  float* to = job.sums + blockIdx.x * job.entries;
  const int out_block = anew(blockIdx.y);
  if (out_block < job.out_blocks) {  // the first of the inputs
    float* to_bias = to + int64_t(gridDim.y) * job.row_warps * of_warp + out_block * NC * 8;
    for (int c = threadIdx.x; c < NC * 8; c += int(blockDim.x)) {
      float sum = 0;
      for (int t = 0; t < int(blockDim.x) * kUnit<T> / (NC * 8); ++t) sum += bias[t * NC * 8 + c];
      to_bias[c] = sum;
    }
  }
  warp = WarpPlace(job.row_warps);
  products.add_warps(reinterpret_cast<float*>(shared), warp, job.voxel_warps);
  if (warp.voxel == 0) {
    float* mine = to + (int64_t(blockIdx.y) * job.row_warps + warp.row) * of_warp;
    products.each([&](int index, float sum) { mine[index * 32 + threadIdx.x % 32] = sum; });
  }
}

// The places of the entries of the sums.
struct Entries {
  int64_t weights, all;  // first those of the weights, then of the biases
  int tiles, columns, in_chunks, out_blocks, row_warps, inputs, outputs;

  // The place in (outputs, inputs, 27); -1 for rows and columns of padding.
  LGANET_HD int64_t weight(int64_t entry) const {
    const int lane = int(entry % 32), r = int(entry / 32 % 4);
    const int64_t tile = entry / 128;
    const int j = int(tile % columns), m = int(tile / columns % tiles);
    const int warp = int(tile / columns / tiles % row_warps);
    const int pair = int(tile / columns / tiles / row_warps);
    const int eight = (warp * tiles + m) * 2 + r / 2, tap = eight / in_chunks;
    const int in = (pair / out_blocks * in_chunks + eight % in_chunks) * 8 + lane / 4;
    const int chunks = columns / 3;
    const int out = (pair % out_blocks * chunks + j % chunks) * 8 + lane % 4 * 2 + r % 2;
    if (tap >= 9 || in >= inputs || out >= outputs) return -1;
    return (int64_t(out) * inputs + in) * 27 + tap * 3 + j / chunks;
  }
};

// Adds the sums of all blocks: a lane for each entry, a warp for every kThreads / 32-th block.
__global__ void __launch_bounds__(kThreads)
    add_blocks(const Entries entries, const float* sums, int blocks, float* weight, float* bias) {
  __shared__ float part[kThreads];
  const int64_t entry = int64_t(blockIdx.x) * 32 + threadIdx.x % 32;
  float sum = 0;
  if (entry < entries.all)
    for (int b = threadIdx.x / 32; b < blocks; b += kThreads / 32)
      sum += sums[b * entries.all + entry];
  part[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x >= 32 || entry >= entries.all) return;
  for (int warp = 1; warp < kThreads / 32; ++warp) sum += part[warp * 32 + threadIdx.x];
  if (entry < entries.weights) {
    const int64_t at = entries.weight(entry);
    if (at >= 0) weight[at] = sum;
  } else if (entry - entries.weights < entries.outputs) {
    bias[entry - entries.weights] = sum;
  }
}

// Device memory that a call writes.
struct Results {
  float *weight, *bias;  // (outputs, inputs, 27); (outputs)
  float* sums;           // blocks times entries of the plan
};

template <typename T, bool EXACT, int MT, int NC>
void start_shape(Stream stream, const Plan& plan, const Job<T>& job) {
  const dim3 grid(unsigned(plan.blocks), unsigned(plan.in_blocks * plan.out_blocks));
  launch_shared(stream, grid, dim3(plan.threads()), int(plan.shared),
                &multiply_boxes<T, EXACT, MT, NC>, job);
}

// The plan must be for these sizes. Maps without data are absent.
template <typename T, bool EXACT>
void start(Stream stream, const Sizes& sizes, const Plan& plan, const Maps<T>& x,
           const Maps<T>& grad, const Maps<T>& mask, const Norm& norm, const Results& results) {
  const int depth = plan.voxels_d;
  const Box x_box(plan.lines.h + 2, plan.lines.w + 2, depth, int(plan.x_stride));
  const Box grad_box(plan.lines.h, plan.lines.w, depth + 2, int(plan.grad_stride));
  Job<T> job{x,
             grad,
             mask,
             norm,
             {int(sizes.size[0]), int(sizes.size[1]), int(sizes.size[2]), int(sizes.size[3])},
             int(sizes.inputs),
             int(sizes.outputs),
             plan.in_chunks,
             plan.out_blocks,
             plan.row_warps,
             plan.voxel_warps,
             x_box,
             grad_box,
             plan.lines.h,
             plan.lines.w,
             depth,
             int(plan.all_tiles(sizes)),
             Divisor<int32_t>(plan.tiles[0]),
             Divisor<int32_t>(plan.tiles[1]),
             Divisor<int32_t>(plan.tiles[2]),
             results.sums,
             plan.entries()};
  const auto is = [&](Shape shape) {
    return plan.shape.rows == shape.rows && plan.shape.outputs == shape.outputs;
  };
  if (is({5, 1})) start_shape<T, EXACT, 5, 1>(stream, plan, job);
  if (is({3, 2})) start_shape<T, EXACT, 3, 2>(stream, plan, job);
  if constexpr (shapes_of(sizeof(T), EXACT) > 2)
    if (is({3, 3})) start_shape<T, EXACT, 3, 3>(stream, plan, job);
  if constexpr (shapes_of(sizeof(T), EXACT) > 3)
    if (is({5, 2})) start_shape<T, EXACT, 5, 2>(stream, plan, job);
  const Entries entries{plan.weights(),         plan.entries(),    plan.shape.rows,
                        3 * plan.shape.outputs, plan.in_chunks,    plan.out_blocks,
                        plan.row_warps,         int(sizes.inputs), int(sizes.outputs)};
  launch_team(stream, dim3(unsigned(ceil_div(plan.entries(), 32))), dim3(kThreads), &add_blocks,
              entries, static_cast<const float*>(results.sums), int(plan.blocks), results.weight,
              results.bias);
}

}  // namespace lganet::weight_gradient
