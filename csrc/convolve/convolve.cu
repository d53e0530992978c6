// The 3^3 convolution on a CUDA device: memory and types. The kernels are in convolve.cuh, compiled
// in one file per type.
#include <map>
#include <mutex>
#include <optional>
#include <tuple>

#include "convolve/convolve.cuh"
#include "common/cuda_tensors.h"

namespace lganet {

LGANET_CONVOLVE(extern, Half, kRounded)
LGANET_CONVOLVE(extern, BFloat16, kRounded)
LGANET_CONVOLVE(extern, float, kRounded)
LGANET_CONVOLVE(extern, float, kExact)

namespace cuda {

namespace {

using Maybe = std::optional<Tensor>;

// The stride between voxels of a map in channels_last_3d, or of some channels of such a map.
int64_t pitch_of(const Tensor& x, const char* name) {
  STD_TORCH_CHECK(x.dim() == 5, name, " must have 5 axes");
  if (is_empty(x)) return x.size(1);  // whatever its strides, which may be 0
  int64_t voxels = 1, pitch = x.size(1);
  bool found = false;
  for (int axis : {4, 3, 2, 0}) {
    if (x.size(axis) > 1 && !found) {
      pitch = x.stride(axis) / voxels;
      found = true;
    }
    STD_TORCH_CHECK(x.size(axis) == 1 || x.stride(axis) == pitch * voxels, name,
                    " must be channels_last_3d, or channels of such a tensor");
    voxels *= x.size(axis);
  }
  STD_TORCH_CHECK(x.size(1) == 1 || x.stride(1) == 1, name, " must be channels_last_3d");
  STD_TORCH_CHECK(pitch >= x.size(1) && pitch < (1 << 30), name, " must not overlap itself");
  return pitch;
}

template <typename T>
Channels<T> channels_of(const Tensor& x, const char* name) {
  return {reinterpret_cast<T*>(x.data_ptr()), int(pitch_of(x, name))};
}

// Whether every voxel begins at a multiple of 16 bytes.
template <typename T>
bool whole(const Channels<T>& x) {
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.pitch * sizeof(T) % 16 == 0;
}

void check_floats(const Tensor& x, const Tensor& beside, int64_t count, const char* name) {
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float && x.is_contiguous(), name,
                  " must be contiguous float32");
  STD_TORCH_CHECK(x.numel() == count, name, " must have ", count, " numbers, got ", x.numel());
  STD_TORCH_CHECK(x.is_cuda() && x.get_device_index() == beside.get_device_index(), name,
                  " must be on the device of x");
}

void check_map(const Tensor& x, const Tensor& like, int64_t channels, const char* name) {
  STD_TORCH_CHECK(x.dim() == 5 && x.size(1) == channels, name, " must have ", channels,
                  " channels");
  for (int axis : {0, 2, 3, 4})
    STD_TORCH_CHECK(x.size(axis) == like.size(axis), name, " must have the size of x");
  STD_TORCH_CHECK(x.scalar_type() == like.scalar_type(), name, " must have the type of x");
  STD_TORCH_CHECK(x.is_cuda() && x.get_device_index() == like.get_device_index(), name,
                  " must be on the device of x");
}

int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  check_cuda(cudaGetDevice(&device));
  check_cuda(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

// The requested tile, or the best by the model, which is kept for each shape.
ConvolveTile tile_for(const ConvolveKind& kind, int inputs, int outputs, const int (&size)[3],
                      int limit, int64_t config) {
  if (config != 0) {
    const ConvolveTile tile = ConvolveTile::of_code(config);
    STD_TORCH_CHECK(fits(kind, tile, inputs, limit), "config ", config,
                    " is not one of convolve_configs for this shape and device");
    return tile;
  }
  static std::mutex mutex;
  static std::map<std::array<int, 8>, ConvolveTile> known;
  const std::lock_guard lock(mutex);
  const std::array<int, 8> key{inputs,  outputs, kind.number_bytes, kind.exact,
                               size[0], size[1], size[2],           limit};
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  const int64_t sizes[3] = {size[0], size[1], size[2]};
  const auto tiles = convolve_tiles(inputs, outputs, kind.number_bytes, kind.exact, sizes, limit);
  STD_TORCH_CHECK(!tiles.empty(), "no tile of this convolution fits into the shared memory");
  return known[key] = tiles[0];
}

struct Options {
  const Tensor &packed, &bias;
  const Maybe &norm, &add, &times, &mask;
  double slope;
  bool relu, moments, exact;
  int64_t config;
};

template <typename T, bool EXACT>
Tensor convolve_as(const Tensor& out, const std::vector<Tensor>& maps, const Options& options) {
  ConvolveCall<T> call{};
  call.whole = true;
  int64_t inputs = 0;
  for (int m = 0; m < kMaps; ++m) {
    call.first[m] = int(inputs);
    if (m >= int(maps.size())) continue;
    check_map(maps[m], out, maps[m].size(1), "x");
    const bool last = m + 1 == int(maps.size());
    call.maps[m] = channels_of<const T>(maps[m], "x");
    call.whole =
        call.whole && whole(call.maps[m]) && (last || maps[m].size(1) * sizeof(T) % 16 == 0);
    inputs += maps[m].size(1);
  }
  STD_TORCH_CHECK(inputs > 0 && inputs < 65536, "expected 1 to 65535 channels, got ", inputs);
  const int64_t batch = out.size(0), outputs = out.size(1);
  STD_TORCH_CHECK(batch < 65536 && outputs < 65536, "too many volumes or outputs");
  STD_TORCH_CHECK(out.size(2) * out.size(3) * out.size(4) < (1 << 30),
                  "a volume must have less than 2^30 voxels");
  call.first[kMaps] = int(inputs);
  call.batch = int(batch);
  call.outputs = int(outputs);
  for (int axis = 0; axis < 3; ++axis) call.size[axis] = int(out.size(2 + axis));
  const ConvolveKind kind = convolve_kind(int(inputs), int(outputs), sizeof(T), EXACT);
  const int64_t packed = int64_t(kind.blocks(int(outputs))) * kind.chunks(int(inputs)) *
                         kind.weight_bytes() / int64_t(sizeof(T));
  STD_TORCH_CHECK(options.packed.scalar_type() == out.scalar_type() &&
                      options.packed.numel() == packed && options.packed.is_contiguous() &&
                      options.packed.is_cuda() &&
                      options.packed.get_device_index() == out.get_device_index(),
                  "packed must be what convolve_packs.pack makes for this precision, beside x");
  call.weights = options.packed.data_ptr();
  check_floats(options.bias, out, outputs, "bias");
  call.bias = reinterpret_cast<const float*>(options.bias.data_ptr());
  if (options.norm) {
    check_floats(*options.norm, out, 2 * batch * inputs, "norm");
    call.norm = reinterpret_cast<const float*>(options.norm->data_ptr());
  }
  call.slope = float(options.slope);
  call.relu = options.relu;
  call.out = channels_of<T>(out, "out");
  call.wide = whole(call.out);
  const auto term = [&](const Maybe& x, const char* name) -> Channels<const T> {
    if (!x) return {};
    check_map(*x, out, outputs, name);
    const auto channels = channels_of<const T>(*x, name);
    call.wide = call.wide && whole(channels);
    return channels;
  };
  call.add = term(options.add, "add");
  call.times = term(options.times, "times");
  if (options.mask) {
    check_map(*options.mask, out, inputs, "mask");
    call.mask = channels_of<const T>(*options.mask, "mask");
    call.whole_mask = whole(call.mask);
  }
  Tensor moments = empty_beside(
      out, options.moments ? std::vector<int64_t>{2, batch, outputs} : std::vector<int64_t>{0},
      ScalarType::Float);
  if (is_empty(out))
    return options.moments ? torch::stable::fill_(moments, std::numeric_limits<double>::quiet_NaN())
                           : moments;
  const Room room{attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
                  attribute(cudaDevAttrMultiProcessorCount)};
  const ConvolveTile tile =
      tile_for(kind, int(inputs), int(outputs), call.size, room.limit, options.config);
  const int blocks = convolve_blocks<T, EXACT>(kind, call, tile, room);
  const int64_t count = batch * blocks * kind.blocks(int(outputs)) * kind.columns * 2;
  const Tensor sums = empty_beside(out, {options.moments ? count : 0}, ScalarType::Float);
  if (options.moments) {
    call.sums = reinterpret_cast<float*>(sums.data_ptr());
    call.moments = reinterpret_cast<float*>(moments.data_ptr());
  }
  start_convolve<T, EXACT>(current_stream(out.get_device_index()), kind, call, tile, room, blocks);
  return moments;
}

Tensor convolve_to(const Tensor& out, const std::vector<Tensor>& maps, const Options& options) {
  STD_TORCH_CHECK(!maps.empty() && maps.size() <= kMaps, "expected 1 to 3 maps, got ", maps.size());
  const OnDeviceOf stream(out);
  switch (out.scalar_type()) {
    case ScalarType::Half:
      return convolve_as<Half, kRounded>(out, maps, options);
    case ScalarType::BFloat16:
      return convolve_as<BFloat16, kRounded>(out, maps, options);
    case ScalarType::Float:
      return options.exact ? convolve_as<float, kExact>(out, maps, options)
                           : convolve_as<float, kRounded>(out, maps, options);
    default:
      STD_TORCH_CHECK(false, "expected float16, bfloat16 or float32");
  }
}

std::tuple<Tensor, Tensor> convolve_maps(std::vector<Tensor> maps, Tensor packed, Tensor bias,
                                         Maybe norm, double slope, bool relu, Maybe add,
                                         Maybe times, Maybe mask, bool moments, int64_t outputs,
                                         bool exact, int64_t config) {
  STD_TORCH_CHECK(!maps.empty() && maps[0].dim() == 5, "expected maps with 5 axes");
  const Tensor& x = maps[0];
  Tensor out = empty_beside(x, {x.size(0), outputs, x.size(2), x.size(3), x.size(4)},
                            x.scalar_type(), MemoryFormat::ChannelsLast3d);
  Tensor found = convolve_to(
      out, maps, {packed, bias, norm, add, times, mask, slope, relu, moments, exact, config});
  return {out, found};
}

Tensor convolve_maps_out(Tensor out, std::vector<Tensor> maps, Tensor packed, Tensor bias,
                         Maybe norm, double slope, bool relu, Maybe add, Maybe times, Maybe mask,
                         bool moments, bool exact, int64_t config) {
  return convolve_to(out, maps,
                     {packed, bias, norm, add, times, mask, slope, relu, moments, exact, config});
}

}  // namespace

}  // namespace cuda

}  // namespace lganet

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CUDA, m) {
  m.impl("convolve_maps", TORCH_BOX(&lganet::cuda::convolve_maps));
  m.impl("convolve_maps_out", TORCH_BOX(&lganet::cuda::convolve_maps_out));
}
