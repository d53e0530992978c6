// The arguments of an inversion, on the CPU and on a device.
#pragma once

#include <algorithm>
#include <vector>

#include "common/view.h"
#include "warp/warp_mode.h"

namespace lganet {

template <typename A>
struct InvertCall {
  View<const A> field, goal, start;
  A step[9], metric[9];
  A tolerance, shrink;
  int64_t patience;

  InvertCall(View<const A> field, View<const A> goal, View<const A> start,
             const std::vector<double>& step, const std::vector<double>& metric, double tolerance,
             double shrink, int64_t patience)
      : field(field),
        goal(goal),
        start(start),
        tolerance(A(tolerance)),
        shrink(A(shrink)),
        patience(patience) {
    std::copy(step.begin(), step.end(), this->step);
    std::copy(metric.begin(), metric.end(), this->metric);
  }
};

}  // namespace lganet
