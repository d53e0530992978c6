// convolve on the CPU, float32 and channels_last_3d, and its gradient to the weights: Winograd
// transforms of tiles, whose products are summed over channels (convolve_loops.h).
#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "common/scratch.h"
#include "common/tensors.h"

#define LGANET_LOOPS "convolve/convolve_loops.h"
#include "common/each_isa.h"

#include "convolve/convolve_tiles.h"

namespace lganet {
namespace {

constexpr int64_t kAccumulatorRows = 24;  // a multiple of all block sizes

// Numbers per vector of the instruction set for so many outputs.
int64_t lanes(int64_t outputs) { return vector_bytes(isa_for(outputs)) / sizeof(float); }

// The outputs, rounded up to whole vectors.
int64_t padded_outputs(int64_t outputs) {
  return (outputs + lanes(outputs) - 1) / lanes(outputs) * lanes(outputs);
}

// The tensor in channels_last_3d, copied only if needed: torch.export plans memory formats ahead
// and sometimes wrongly removes a copy.
Tensor channels_last(const Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 5, "expected a (B, C, H, W, D) tensor, got ", x.dim(), " axes");
  return torch::stable::contiguous(x, MemoryFormat::ChannelsLast3d);
}

void check_last(const Tensor& x, const char* name) {
  STD_TORCH_CHECK(x.dim() == 5, name, " must have 5 axes");
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, name, " must be float32");
  int64_t step = x.size(1);
  for (int axis = 4; axis > 0; step *= x.size(axis), --axis)
    STD_TORCH_CHECK(x.size(axis) == 1 || x.stride(axis) == (axis == 1 ? 1 : step), name,
                    " must be channels_last_3d");
}

void check(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check_last(x, "x");
  STD_TORCH_CHECK(weight.dim() == 5, "weight must have 5 axes");
  for (const Tensor& t : {weight, bias})
    STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float, "weight and bias must be float32");
  for (int axis = 2; axis < 5; ++axis)
    STD_TORCH_CHECK(weight.size(axis) == 3, "weight must have shape (outputs, inputs, 3, 3, 3)");
  STD_TORCH_CHECK(weight.size(1) == x.size(1), "weight must have as many inputs as x channels");
  STD_TORCH_CHECK(bias.dim() == 1 && bias.size(0) == weight.size(0) &&
                      (bias.stride(0) == 1 || bias.size(0) == 1),
                  "bias must have one number for each output");
}

// The weights as `multiply` reads them: point x block of outputs x input x output.
std::unique_ptr<float[]> packed(const Tensor& weight, int64_t outputs_padded) {
  const int64_t outputs = weight.size(0), count = kPoints * weight.size(1) * outputs_padded;
  std::unique_ptr<float[]> out = fresh(count);
  if (outputs != outputs_padded) std::fill_n(out.get(), count, 0.0f);
  const auto view = view_of<const float>(weight);
  torch::stable::parallel_for(0, outputs, 8, [&](int64_t begin, int64_t end) {
    LGANET_IN(isa_for(outputs), pack, view, begin, end, out.get());
  });
  return out;
}

// Writes the result to `out`, channels_last_3d, which may be x if it has as many channels.
void convolve_to(const Tensor& x, const Tensor& weight, const Tensor& bias, bool relu,
                 Tensor& out) {
  if (out.numel() == 0) return;
  const int64_t inputs = x.size(1), outputs = weight.size(0), depth = x.size(4);
  const int64_t padded = padded_outputs(outputs), vectors = padded / lanes(outputs);
  const int64_t in_point = point_step(round_up(inputs)), out_point = point_step(padded);
  const std::unique_ptr<float[]> weights = packed(weight, padded);
  std::vector<float> shift(padded);
  std::copy_n(reinterpret_cast<const float*>(bias.data_ptr()), outputs, shift.begin());
  float* to = reinterpret_cast<float*>(out.data_ptr());
  const Jobs jobs(x);
  std::optional<Borders> borders;
  if (x.data_ptr() == out.data_ptr())
    borders.emplace(jobs, reinterpret_cast<const float*>(x.data_ptr()));
  torch::stable::parallel_for(0, jobs.count(), 1, [&](int64_t begin, int64_t end) {
    const auto products = fresh(kPoints * out_point);
    each_batch(x, jobs, borders ? &*borders : nullptr, begin, end, [&](const Batch& batch) {
      for (int64_t i = 0; i < kPoints; ++i)
        LGANET_IN(isa_for(outputs), multiply, batch.sums + i * in_point, round_up(inputs), inputs,
                  batch.count, weights.get() + i * inputs * padded, vectors,
                  products.get() + i * out_point, padded);
      for (int64_t k = 0; k < batch.line_count; ++k) {
        const Line& line = batch.lines[k];
        float* rows[16];
        for (int64_t i = 0; i < 16; ++i)
          rows[i] = line.rows[i] < 0 ? nullptr : to + line.rows[i] * outputs;
        LGANET_IN(isa_for(outputs), transform_out, products.get() + line.at * padded, out_point,
                  padded, outputs, line.start, line.count, depth, shift.data(), relu, rows);
      }
    });
  });
}

Tensor convolve(Tensor x, Tensor weight, Tensor bias, bool relu) {
  x = channels_last(x);
  bias = torch::stable::contiguous(bias);
  check(x, weight, bias);
  Tensor out = empty_beside(x, {x.size(0), weight.size(0), x.size(2), x.size(3), x.size(4)},
                            x.scalar_type(), MemoryFormat::ChannelsLast3d);
  convolve_to(x, weight, bias, relu, out);
  return out;
}

void convolve_(Tensor x, Tensor weight, Tensor bias, bool relu) {
  check(x, weight, bias);
  STD_TORCH_CHECK(weight.size(0) == x.size(1), "in place, outputs must be as many as inputs");
  convolve_to(x, weight, bias, relu, x);
}

// The gradient to the weights, (outputs, inputs, 3, 3, 3), from that to the result: products of the
// transforms of x and of the gradient, summed over all tiles, separately for each thread.
Tensor convolve_weight_gradient(Tensor grad, Tensor x) {
  grad = channels_last(grad);
  x = channels_last(x);
  check_last(grad, "grad");
  check_last(x, "x");
  for (int axis : {0, 2, 3, 4})
    STD_TORCH_CHECK(grad.size(axis) == x.size(axis), "grad must have the size of x");
  const int64_t inputs = x.size(1), outputs = grad.size(1), depth = x.size(4);
  Tensor out = empty_beside(x, {outputs, inputs, 3, 3, 3}, x.scalar_type());
  const int64_t padded = padded_outputs(outputs), vectors = padded / lanes(outputs);
  const int64_t in_point = point_step(round_up(inputs)), out_point = point_step(padded);
  const int64_t rows = round_up(inputs, kAccumulatorRows), total = kPoints * rows * padded;
  const float* from = reinterpret_cast<const float*>(grad.data_ptr());
  const Jobs jobs(x);
  const int64_t parts =
      std::max<int64_t>(1, std::min<int64_t>(torch::stable::get_num_threads(), jobs.count()));
  std::vector<std::unique_ptr<float[]>> added(parts);
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      added[part] = fresh(total);
      std::fill_n(added[part].get(), total, 0.0f);
      const auto sums = fresh(kPoints * out_point);
      const int64_t first = part * jobs.count() / parts, last = (part + 1) * jobs.count() / parts;
      each_batch(x, jobs, nullptr, first, last, [&](const Batch& batch) {
        for (int64_t k = 0; k < batch.line_count; ++k) {
          const Line& line = batch.lines[k];
          const float* lines[16];
          for (int64_t i = 0; i < 16; ++i)
            lines[i] = line.rows[i] < 0 ? nullptr : from + line.rows[i] * outputs;
          LGANET_IN(isa_for(outputs), transform_gradient, lines, outputs, line.start, line.count,
                    depth, sums.get() + line.at * padded, out_point, padded);
        }
        for (int64_t i = 0; i < kPoints; ++i)
          LGANET_IN(isa_for(outputs), accumulate, batch.sums + i * in_point, round_up(inputs),
                    inputs, batch.count, sums.get() + i * out_point, vectors,
                    added[part].get() + i * rows * padded);
      });
    }
  });
  torch::stable::parallel_for(0, inputs, 4, [&](int64_t begin, int64_t end) {
    for (int64_t part = 1; part < parts; ++part)
      for (int64_t i = 0; i < kPoints; ++i)
        for (int64_t n = (i * rows + begin) * padded; n < (i * rows + end) * padded; ++n)
          added[0][n] += added[part][n];
    LGANET_IN(isa_for(outputs), unpack, added[0].get(), rows * padded, padded, begin, end,
              view_of<float>(out));
  });
  return out;
}

}  // namespace
}  // namespace lganet

STABLE_TORCH_LIBRARY_FRAGMENT(lganet_fast, m) {
  m.def("convolve(Tensor x, Tensor weight, Tensor bias, bool relu) -> Tensor");
  m.def("convolve_(Tensor(a!) x, Tensor weight, Tensor bias, bool relu) -> ()");
  m.def("convolve_weight_gradient(Tensor grad, Tensor x) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CPU, m) {
  m.impl("convolve", TORCH_BOX(&lganet::convolve));
  m.impl("convolve_", TORCH_BOX(&lganet::convolve_));
  m.impl("convolve_weight_gradient", TORCH_BOX(&lganet::convolve_weight_gradient));
}
