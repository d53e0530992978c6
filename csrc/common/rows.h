// A dense (B, C, H, W, D) tensor as rows: the memory of one line along the last axis, in
// channels_last_3d with all channels.
#pragma once

#include "common/tensors.h"

namespace lganet {

template <typename T>
struct Rows {
  T* data;
  int64_t planes, height, width, depth;  // planes: (batch, channel) pairs, or batches
  int64_t inner;                         // numbers per voxel of a row: 1, or the channels

  LGANET_HD int64_t length() const { return depth * inner; }
  LGANET_HD int64_t count() const { return planes * height * width; }
  LGANET_HD T* row(int64_t plane, int64_t i, int64_t j) const {
    return data + ((plane * height + i) * width + j) * length();
  }
};

// Throws if x is not in that memory format.
template <typename T>
Rows<T> rows_of(const Tensor& x, MemoryFormat format) {
  const bool last = format == MemoryFormat::ChannelsLast3d;
  int64_t expected = 1;
  for (int axis : last ? std::vector<int>{1, 4, 3, 2, 0} : std::vector<int>{4, 3, 2, 1, 0}) {
    STD_TORCH_CHECK(x.size(axis) == 1 || x.stride(axis) == expected || x.numel() == 0,
                    "expected a contiguous or channels_last_3d tensor");
    expected *= x.size(axis);
  }
  const int64_t inner = last ? x.size(1) : 1;
  return {reinterpret_cast<T*>(x.data_ptr()),
          x.size(0) * x.size(1) / inner,
          x.size(2),
          x.size(3),
          x.size(4),
          inner};
}

}  // namespace lganet
