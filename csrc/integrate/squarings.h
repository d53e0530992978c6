// The order in which integrate squares fields, forward and backward, on the CPU and on CUDA.
//
// `Run` has the steps: squared(field), the next field; step_back(field, gradient), the gradient to
// the field from that to the next one; give(field), which releases a field.
//
// The backward computes the intermediate fields again. It keeps at most kHeld of them up to
// 2 kHeld steps, and one more each time the number of steps doubles.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace lganet {

constexpr int64_t kHeld = 4;

// `steps` squarings; releases `from`.
template <typename Run, typename Field>
Field squared(Run& run, Field from, int64_t steps) {
  for (; steps > 0; --steps) {
    Field to = run.squared(from);
    run.give(std::exchange(from, to));
  }
  return from;
}

// The gradient to `start` from that to the field after `steps` squarings; releases `start`.
template <typename Run, typename Field, typename Gradient>
Gradient reverse(Run& run, const Field& start, int64_t steps, Gradient grad) {
  if (steps > kHeld) {
    const int64_t half = steps / 2;
    grad = reverse(run, squared(run, run.squared(start), half - 1), steps - half, grad);
    return reverse(run, start, half, grad);
  }
  std::vector<Field> fields{start};
  while (int64_t(fields.size()) < steps) fields.push_back(run.squared(fields.back()));
  for (; steps > 0; --steps) {
    grad = run.step_back(fields.back(), grad);
    run.give(fields.back());
    fields.pop_back();
  }
  return grad;
}

}  // namespace lganet
