// 3^3 convolution of channels-last maps by matrix products; convolve_plan.h describes the tiles.
//
// A block loops over its tiles, and over the chunks of channels of each. While it multiplies one
// chunk, the next one is being copied, of the same tile or the next. Rows of a product are voxels,
// its inner axis is a tap along h and w and 32 bytes of channels (or two taps and 16 bytes),
// columns are outputs and the three taps along d, so that each read of x is used in three products.
#pragma once

#include "convolve/convolve_store.cuh"

namespace lganet {

// The registers of the rows of one product; if exact, the high and the low part of each number.
template <typename K>
struct Rows {
  uint32_t large[4], small[K::kind.exact ? 4 : 1];

  __device__ __forceinline__ void read(const unsigned char* row) {
    load_matrices(large, row);
    if constexpr (K::kind.exact) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float x, most;
        memcpy(&x, &large[i], 4);
        most = round_tf32(x);
        x = round_tf32(x - most);
        memcpy(&large[i], &most, 4);
        memcpy(&small[i], &x, 4);
      }
    }
  }
};

// sums += the rows of each line times the weights of a step, `rows(line, half of the segment)`.
template <typename K, typename F>
__device__ __forceinline__ void multiply(const uint32_t* weights, int step, F&& rows,
                                         float (&sums)[K::kLines][2][K::kTiles][4]) {
  using T = typename K::T;
#pragma unroll
  for (int n = 0; n < K::kTiles; ++n) {
    uint32_t words[K::kWords];
    memcpy(
        words,
        __builtin_assume_aligned(weights + (step * K::kTiles + n) * 32 * K::kWords, 4 * K::kWords),
        sizeof words);
    const uint32_t large[2] = {words[0], words[1]};
    if constexpr (K::kind.exact) {
      const uint32_t small[2] = {words[2], words[3]};
#pragma unroll
      for (int l = 0; l < K::kLines; ++l)
#pragma unroll
        for (int m = 0; m < 2; ++m) multiply_add<T>(sums[l][m][n], rows(l, m).small, large);
#pragma unroll
      for (int l = 0; l < K::kLines; ++l)
#pragma unroll
        for (int m = 0; m < 2; ++m) multiply_add<T>(sums[l][m][n], rows(l, m).large, small);
    }
#pragma unroll
    for (int l = 0; l < K::kLines; ++l)
#pragma unroll
      for (int m = 0; m < 2; ++m) multiply_add<T>(sums[l][m][n], rows(l, m).large, large);
  }
}

// The three taps along h for the rows at `from`. The lines of a warp are neighbours in h, so rows
// are read once for all taps if there are enough registers.
template <typename K>
__device__ __forceinline__ void multiply_taps(const unsigned char* from, int next_h,
                                              const uint32_t* weights,
                                              float (&sums)[K::kLines][2][K::kTiles][4]) {
  constexpr bool kOnce = K::kind.columns < 32;
  constexpr int kRead = K::kLines + (kOnce ? 2 : 0);
  Rows<K> rows[kRead][2];
#pragma unroll
  for (int h = 0; h < 3; ++h) {
    if (!kOnce || h == 0) {
#pragma unroll
      for (int l = 0; l < kRead; ++l)
#pragma unroll
        for (int m = 0; m < 2; ++m) rows[l][m].read(from + (l + h) * next_h + m * 256);
    }
    multiply<K>(
        weights, h, [&](int l, int m) -> auto& { return rows[kOnce ? l + h : l][m]; }, sums);
  }
}

// All products of a chunk with the weights of this lane.
template <typename K>
__device__ __forceinline__ void multiply_chunk(const ConvolveCut& cut, int unit,
                                               const unsigned char* stage, const uint32_t* weights,
                                               float (&sums)[K::kLines][2][K::kTiles][4]) {
  constexpr int kStep = K::kTiles * 32 * K::kWords;
  const int lane = threadIdx.x % 32, second = lane / 16;
  const int next_w = cut.tile.line() * 16, next_h = cut.tile.row() * 16;
  const unsigned char* from = stage + (unit / cut.segments) * K::kLines * next_h +
                              (unit % cut.segments * kNewRows + lane % 16) * 16;
  if constexpr (K::kind.planes == 2) {
    from += second * cut.plane;
#pragma unroll 1
    for (int w = 0; w < 3; ++w, from += next_w, weights += 3 * kStep)
      multiply_taps<K>(from, next_h, weights, sums);
  } else {
    multiply_taps<K>(from + second * next_w, next_h, weights, sums);  // taps 0 and 1 along w
    // tap 2 along w: taps 0 and 1 along h, then tap 2 with itself, whose second weight is 0
    from += 2 * next_w;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      Rows<K> rows[K::kLines][2];
#pragma unroll
      for (int l = 0; l < K::kLines; ++l)
#pragma unroll
        for (int m = 0; m < 2; ++m)
          rows[l][m].read(from + (l + (h ? 2 : second)) * next_h + m * 256);
      multiply<K>(weights, 3 + h, [&](int l, int m) -> auto& { return rows[l][m]; }, sums);
    }
  }
}

// Kept in shared memory: shift and scale of the normalisation, the bias, and the moments so far.
template <typename K>
__device__ __forceinline__ void fill_tables(const ConvolveCall<typename K::T>& call,
                                            const ConvolveCut& cut) {
  constexpr int kColumns = K::kind.columns;
  unsigned char* shared = dynamic_shared();
  float* table = reinterpret_cast<float*>(shared + cut.norm);
  const int channels = cut.chunks * K::kind.chunk(), inputs = call.first[kMaps];
  for (int i = threadIdx.x; call.norm && i < channels; i += blockDim.x) {
    const float* from = call.norm + int64_t(blockIdx.z) * inputs + i;
    table[i] = i < inputs ? from[0] : 0.0f;
    table[channels + i] = i < inputs ? from[int64_t(call.batch) * inputs] : 0.0f;
  }
  float* bias = reinterpret_cast<float*>(shared + cut.bias);
  for (int i = threadIdx.x; i < kColumns; i += blockDim.x) {
    const int output = blockIdx.y * kColumns + i;
    bias[i] = output < call.outputs ? call.bias[output] : 0.0f;
  }
  float* sums = reinterpret_cast<float*>(shared + cut.sums);
  for (int i = threadIdx.x; i < int(blockDim.x) / 32 * 2 * kColumns; i += blockDim.x) sums[i] = 0;
}

template <typename K>
__global__ void __launch_bounds__(32 * kConvolveWarps, 1)
    convolve_maps(ConvolveCall<typename K::T> call, ConvolveCut cut) {
  constexpr int kWeights = K::kind.weight_bytes();
  unsigned char* shared = dynamic_shared();
  const int warp = threadIdx.x / 32;
  const int tiles = cut.count[0] * cut.count[1] * cut.count[2];
  const unsigned char* packed =
      static_cast<const unsigned char*>(call.weights) + int64_t(blockIdx.y) * cut.chunks * kWeights;
  fill_tables<K>(call, cut);
  __syncthreads();

  const auto begin = [&](int tile, int chunk, int number) {
    if (tile < tiles) {
      load<K>(call, cut, cut.place(tile, blockIdx.z), chunk, shared + number % 2 * cut.stage);
      const bool kept = cut.weight_slots == cut.chunks;
      if (!kept || number < cut.chunks) {
        unsigned char* to = shared + cut.weights + (kept ? chunk : number % 2) * kWeights;
        for (int i = threadIdx.x * 16; i < kWeights; i += blockDim.x * 16)
          copy_async<16>(to + i, packed + int64_t(chunk) * kWeights + i, true);
      }
    }
    end_copies();
  };

  int number = 0;  // of chunks so far
  begin(blockIdx.x, 0, 0);
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    float sums[K::kLines][2][K::kTiles][4];
#pragma unroll
    for (int l = 0; l < K::kLines; ++l)
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int n = 0; n < K::kTiles; ++n)
#pragma unroll
          for (int k = 0; k < 4; ++k) sums[l][m][n][k] = 0;
    const Place at = cut.place(tile, blockIdx.z);
#pragma unroll 1
    for (int chunk = 0; chunk < cut.chunks; ++chunk, ++number) {
      unsigned char* stage = shared + number % 2 * cut.stage;
      wait_copies<0>();
      transform<K>(call, cut, at, chunk, stage);
      __syncthreads();  // this chunk has arrived, and no thread reads the previous one any more
      const bool last = chunk + 1 == cut.chunks;
      begin(last ? tile + gridDim.x : tile, last ? 0 : chunk + 1, number + 1);
      const int slot = cut.weight_slots == cut.chunks ? chunk : number % 2;
      multiply_chunk<K>(cut, warp, stage,
                        reinterpret_cast<const uint32_t*>(shared + cut.weights + slot * kWeights) +
                            threadIdx.x % 32 * K::kWords,
                        sums);
    }
    store<K>(call, cut, at, warp, sums);
  }
  if (call.sums) store_sums<K>(call, cut);
}

// The division of a volume into tiles.
template <typename K>
ConvolveCut cut_by(const ConvolveTile& tile, const int (&size)[3], const ConvolveShared& shared,
                   int chunks) {
  return {tile,
          {(size[0] + tile.h - 1) / tile.h, (size[1] + tile.w - 1) / tile.w,
           (size[2] + tile.d - 1) / tile.d},
          tile.plane_bytes(),
          tile.segments(),
          chunks,
          shared.weight_slots,
          shared.weights,
          shared.sums,
          shared.bias,
          shared.norm,
          shared.stage,
          uint32_t(((uint64_t(1) << 32) + tile.line() - 1) / tile.line())};
}

// Limits of the device: bytes of shared memory of a block, and resident blocks.
struct Room {
  int limit, processors;
};

// Blocks for the tiles of one volume and block of outputs: as many as are resident at once.
template <typename K>
int convolve_blocks(const ConvolveCall<typename K::T>& call, const ConvolveTile& tile,
                    const Room& room) {
  const ConvolveShared shared(K::kind, tile, call.inputs(), room.limit);
  const ConvolveCut cut = cut_by<K>(tile, call.size, shared, K::kind.chunks(call.inputs()));
  const int64_t tiles = int64_t(cut.count[0]) * cut.count[1] * cut.count[2];
  const int at_once = blocks_of(convolve_maps<K>, 32 * tile.warps(K::kind), shared.total);
  const int64_t resident = int64_t(room.processors) * std::max(at_once, 1);
  const int64_t others = int64_t(call.batch) * K::kind.blocks(call.outputs);
  const int64_t wanted = (resident + others - 1) / others;
  const int64_t turns = (tiles + wanted - 1) / wanted;  // tiles per block, or one fewer
  return int((tiles + turns - 1) / turns);
}

// Launches the kernel, `blocks` of them for each volume and block of outputs.
template <typename K>
void start_convolve_kind(Stream stream, const ConvolveCall<typename K::T>& call,
                         const ConvolveTile& tile, const Room& room, int blocks) {
  const ConvolveShared shared(K::kind, tile, call.inputs(), room.limit);
  const int of_columns = K::kind.blocks(call.outputs);
  launch_shared(stream, dim3(blocks, of_columns, call.batch), 32 * tile.warps(K::kind),
                shared.total, convolve_maps<K>, call,
                cut_by<K>(tile, call.size, shared, K::kind.chunks(call.inputs())));
  if (!call.sums) return;
  const int64_t count = int64_t(call.batch) * call.outputs;
  const int64_t voxels = int64_t(call.size[0]) * call.size[1] * call.size[2];
  launch_team(stream, dim3((count + 3) / 4), 128, finish_moments<double>, call.sums, call.bias,
              call.moments, call.relu, call.outputs, K::kind.columns, blocks, voxels, count);
}

// Calls body with the kernel of a kind.
template <typename T, bool EXACT, typename F>
void with_kind(const ConvolveKind& kind, F&& body) {
  const auto columns = [&](auto planes) {
    constexpr int kPlanes = decltype(planes)::value;
    if (kind.columns == 8) return body(Convolution<T, EXACT, kPlanes, 8>{});
    if (kind.columns == 16) return body(Convolution<T, EXACT, kPlanes, 16>{});
    if constexpr (!EXACT)
      if (kind.columns == 24) return body(Convolution<T, EXACT, kPlanes, 24>{});
    if constexpr (!EXACT && kPlanes == 2) return body(Convolution<T, EXACT, kPlanes, 32>{});
  };
  if constexpr (sizeof(T) == 2)
    if (kind.planes == 1) return columns(std::integral_constant<int, 1>{});
  columns(std::integral_constant<int, 2>{});
}

// Launches the kernel of any kind; compiled in one file per type.
template <typename T, bool EXACT>
int convolve_blocks(const ConvolveKind& kind, const ConvolveCall<T>& call, const ConvolveTile& tile,
                    const Room& room) {
  int blocks = 0;
  with_kind<T, EXACT>(kind,
                      [&](auto k) { blocks = convolve_blocks<decltype(k)>(call, tile, room); });
  return blocks;
}

template <typename T, bool EXACT>
void start_convolve(Stream stream, const ConvolveKind& kind, const ConvolveCall<T>& call,
                    const ConvolveTile& tile, const Room& room, int blocks) {
  with_kind<T, EXACT>(
      kind, [&](auto k) { start_convolve_kind<decltype(k)>(stream, call, tile, room, blocks); });
}

// Instantiates the kernels of a type; EXTERN is `extern` in files that do not compile them.
#define LGANET_CONVOLVE(EXTERN, T, EXACT)                                                    \
  EXTERN template int convolve_blocks<T, EXACT>(const ConvolveKind&, const ConvolveCall<T>&, \
                                                const ConvolveTile&, const Room&);           \
  EXTERN template void start_convolve<T, EXACT>(                                             \
      Stream, const ConvolveKind&, const ConvolveCall<T>&, const ConvolveTile&, const Room&, int);

}  // namespace lganet
