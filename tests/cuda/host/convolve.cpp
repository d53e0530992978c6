// The kernels of convolve.cuh; allocations are the caller's, as they are PyTorch's on a device.
#include "convolve/convolve.cuh"

#include <map>

#include "host_view.h"

namespace lganet {

template <typename T>
Channels<T> channels_of(const py::object& tensor) {
  if (tensor.is_none()) return {};
  return {data_of<T>(tensor), tensor.attr("stride")(4).cast<int>()};
}

template <typename T, bool EXACT>
void run(const py::dict& at, const ConvolveKind& kind, const ConvolveTile& tile) {
  ConvolveCall<T> call{};
  int channels = 0;
  const py::list maps = at["maps"];
  for (int m = 0; m < kMaps; ++m) {
    call.first[m] = channels;
    if (m >= int(maps.size())) continue;
    call.maps[m] = channels_of<const T>(maps[m]);
    channels += maps[m].attr("shape").attr("__getitem__")(1).cast<int>();
  }
  call.first[kMaps] = channels;
  call.whole = at["whole"].cast<bool>();
  call.mask = channels_of<const T>(at["mask"]);
  call.whole_mask = call.whole;
  call.weights = reinterpret_cast<const void*>(at["packed"].attr("data_ptr")().cast<uintptr_t>());
  call.bias = data_of<float>(at["bias"]);
  call.norm = at["norm"].is_none() ? nullptr : data_of<float>(at["norm"]);
  call.slope = at["slope"].cast<float>();
  call.relu = at["relu"].cast<bool>();
  call.add = channels_of<const T>(at["add"]);
  call.times = channels_of<const T>(at["times"]);
  call.out = channels_of<T>(at["out"]);
  call.wide = at["wide"].cast<bool>();
  const View<T> out = view_of<T>(at["out"]);
  call.batch = int(out.size[0]);
  call.outputs = int(out.size[1]);
  for (int axis = 0; axis < 3; ++axis) call.size[axis] = int(out.size[2 + axis]);
  const Room room{at["limit"].cast<int>(), at["processors"].cast<int>()};
  const int blocks = convolve_blocks<T, EXACT>(kind, call, tile, room);
  const size_t all = size_t(blocks) * call.batch * kind.blocks(call.outputs) * kind.columns * 2;
  std::vector<float> sums(all, NAN);
  if (!at["moments"].is_none()) {
    call.sums = sums.data();
    call.moments = data_of<float>(at["moments"]);
  }
  start_convolve<T, EXACT>(Stream{}, kind, call, tile, room, blocks);
}

void convolve(py::dict at) {
  const bool exact = at["exact"].cast<bool>();
  switch_float(at["out"], [&](auto zero) {
    using T = std::conditional_t<std::is_same_v<decltype(zero), double>, float, decltype(zero)>;
    const ConvolveKind kind =
        convolve_kind(at["inputs"].cast<int>(), at["outputs"].cast<int>(), sizeof(T), exact);
    const ConvolveTile tile = ConvolveTile::of_code(at["tile"].cast<int>());
    if (!fits(kind, tile, at["inputs"].cast<int>(), at["limit"].cast<int>()))
      throw std::invalid_argument("no such tile");
    if constexpr (sizeof(T) == 4)
      if (exact) return run<T, true>(at, kind, tile);
    run<T, false>(at, kind, tile);
  });
}

std::vector<int> tiles(int inputs, int outputs, int bytes, bool exact, std::array<int, 3> size,
                       int limit) {
  std::vector<int> codes;
  const int64_t sizes[3] = {size[0], size[1], size[2]};
  for (const ConvolveTile& tile : convolve_tiles(inputs, outputs, bytes, exact, sizes, limit))
    codes.push_back(tile.code());
  return codes;
}

}  // namespace lganet

PYBIND11_MODULE(host_convolve, m) {
  m.def("convolve", &lganet::convolve);
  m.def("tiles", &lganet::tiles);
  m.def("kind", [](int inputs, int outputs, int bytes, bool exact) {
    const lganet::ConvolveKind kind = lganet::convolve_kind(inputs, outputs, bytes, exact);
    return std::make_pair(kind.planes, kind.columns);
  });
}
