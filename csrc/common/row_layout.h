// A row of a map in scratch: one line along the last axis, with all its channels.
#pragma once

#include <cstdint>

#include "common/scratch.h"
#include "common/tensors.h"

namespace lganet {

// The layout of a row of scratch, in numbers.
struct RowLayout {
  int64_t voxel, channel;  // strides
  int64_t origin;          // offset of voxel 0, channel 0
  int64_t length;

  // margin: voxels before and after the row, which are zero.
  RowLayout(MemoryFormat format, int64_t channels, int64_t depth, int64_t margin) {
    if (format == MemoryFormat::ChannelsLast3d) {
      channel = 1;
      voxel = round_up(channels);
      origin = margin * voxel;
      length = (round_up(depth, 4) + 2 * margin) * voxel;
    } else {
      voxel = 1;
      origin = round_up(margin);
      channel = round_up(depth, 32) + 2 * origin;
      length = round_up(channels, 8) * channel;
    }
  }
};

}  // namespace lganet
