// The part of the CUDA convolution that needs no CUDA: its schemas, and which tiles are candidates.
#include "convolve/convolve_plan.h"
#include "common/tensors.h"

namespace lganet {
namespace {

std::vector<int64_t> convolve_configs(int64_t inputs, int64_t outputs, int64_t number_bytes,
                                      bool exact, std::vector<int64_t> size, int64_t limit) {
  STD_TORCH_CHECK(size.size() == 3 && *std::min_element(size.begin(), size.end()) > 0,
                  "size must be three numbers, 1 at least");
  STD_TORCH_CHECK(inputs > 0 && outputs > 0 && inputs < 65536 && outputs < 65536,
                  "expected 1 to 65535 inputs and outputs");
  STD_TORCH_CHECK(number_bytes == 4 || (number_bytes == 2 && !exact), "no such type");
  const int64_t sizes[3] = {size[0], size[1], size[2]};
  std::vector<int64_t> codes;
  for (const ConvolveTile& tile :
       convolve_tiles(int(inputs), int(outputs), int(number_bytes), exact, sizes, int(limit)))
    codes.push_back(tile.code());
  return codes;
}

}  // namespace
}  // namespace lganet

#define LGANET_OPTIONS                                                                             \
  "Tensor[] maps, Tensor packed, Tensor bias, Tensor? norm, float slope, bool relu, Tensor? add, " \
  "Tensor? times, Tensor? mask, bool moments, "

STABLE_TORCH_LIBRARY_FRAGMENT(lganet_fast, m) {
  m.def("convolve_maps(" LGANET_OPTIONS "int outputs, bool exact, int config) -> (Tensor, Tensor)");
  m.def("convolve_maps_out(Tensor(a!) out, " LGANET_OPTIONS "bool exact, int config) -> Tensor");
  m.def(
      "convolve_configs(int inputs, int outputs, int number_bytes, bool exact, int[] size, "
      "int limit) -> int[]");
}

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CompositeExplicitAutograd, m) {
  m.impl("convolve_configs", TORCH_BOX(&lganet::convolve_configs));
}
