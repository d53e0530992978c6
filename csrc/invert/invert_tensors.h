// The checks and results of an inversion, on the CPU and on a device.
#pragma once

#include <vector>

#include "invert/invert_call.h"
#include "common/tensors.h"

namespace lganet {

inline void check_invert(const Tensor& field, const Tensor& goal, const Tensor& start,
                         const std::vector<double>& step, const std::vector<double>& metric) {
  STD_TORCH_CHECK(step.size() == 9 && metric.size() == 9, "step and metric must hold 9 numbers");
  for (const Tensor* x : {&field, &goal, &start})
    STD_TORCH_CHECK(x->dim() == 5 && x->size(1) == 3 && x->size(0) == field.size(0) &&
                        x->scalar_type() == field.scalar_type(),
                    "field, goal and start must be (B, 3, ...) of one type");
  for (int axis = 2; axis < 5; ++axis)
    STD_TORCH_CHECK(goal.size(axis) == start.size(axis), "goal and start must have one shape");
}

// Which points were solved: (B, H, W, D).
inline Tensor empty_solved(const Tensor& goal) {
  return empty_beside(goal, {goal.size(0), goal.size(2), goal.size(3), goal.size(4)},
                      ScalarType::Bool);
}

}  // namespace lganet
