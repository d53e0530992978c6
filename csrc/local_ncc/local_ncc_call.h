// The checks of local_ncc's arguments, on any device.
#pragma once

#include <optional>

#include "common/tensors.h"

namespace lganet {

inline void check_ncc(const Tensor& a, const Tensor& b, const std::optional<Tensor>& weight,
                      int64_t window) {
  STD_TORCH_CHECK(a.dim() == 5 && b.dim() == 5, "a and b must have shape (B, C, H, W, D)");
  STD_TORCH_CHECK(a.scalar_type() == b.scalar_type(), "a and b must be of one type");
  STD_TORCH_CHECK(a.get_device_index() == b.get_device_index(), "a and b must be on one device");
  STD_TORCH_CHECK(window > 0 && window % 2 == 1, "window must be odd, got ", window);
  for (int axis = 0; axis < 5; ++axis)
    STD_TORCH_CHECK(a.size(axis) == b.size(axis), "a and b must have one shape");
  if (!weight) return;
  STD_TORCH_CHECK(weight->dim() == 5 && weight->size(1) == 1,
                  "weight must have shape (B, 1, H, W, D)");
  STD_TORCH_CHECK(weight->scalar_type() == working_type(a), "weight must have the result's type");
  STD_TORCH_CHECK(weight->get_device_index() == a.get_device_index(),
                  "weight must be on the images' device");
  for (int axis : {0, 2, 3, 4})
    STD_TORCH_CHECK(weight->size(axis) == a.size(axis), "weight must have the images' size");
}

}  // namespace lganet
