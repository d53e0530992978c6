// neighbour_attention on the CPU: a loop over planes that keeps the rows around them in scratch.
#include <algorithm>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <vector>

#include "common/row_layout.h"
#include "common/runs.h"
#include "common/tensors.h"

namespace lganet {

constexpr int64_t kNeighbours = 27;

// The layout of the heads of a map in scratch, and the number of planes done together.
struct NeighbourSize {
  int64_t heads, width, planes = 4;
  RowLayout features, triples, pairs;  // q and k; mean offsets; norms of the weights

  NeighbourSize(const Tensor& q, int64_t heads)
      : heads(heads),
        width(q.size(1) / heads),
        features(MemoryFormat::Contiguous, q.size(1), q.size(4), 1),
        triples(MemoryFormat::Contiguous, 3 * heads, q.size(4), 1),
        pairs(MemoryFormat::Contiguous, 2 * heads, q.size(4), 1) {
    while (planes > 1 && ring(features) > (1 << 16)) planes /= 2;
  }

  int64_t ring(const RowLayout& row) const { return (planes + 2) * 3 * row.length; }
  int64_t scratch() const {
    const int64_t query = features.length + pairs.length + 2 * triples.length;
    return ((planes + 2) * 3 + 1) * query + features.length + planes * heads * kNeighbours * 16;
  }
};

}  // namespace lganet

#define LGANET_LOOPS "neighbour_attention/neighbour_attention_loops.h"
#include "common/each_isa.h"

namespace lganet {
namespace {

void check(const Tensor& q, const Tensor& k, const Tensor& bias) {
  STD_TORCH_CHECK(q.dim() == 5 && k.dim() == 5, "q and k must have shape (B, C, H, W, D)");
  STD_TORCH_CHECK(q.scalar_type() == k.scalar_type(), "q and k must be of one type");
  for (int axis = 0; axis < 5; ++axis)
    STD_TORCH_CHECK(q.size(axis) == k.size(axis), "q and k must have one shape");
  STD_TORCH_CHECK(bias.dim() == 4 && bias.numel() == bias.size(0) * kNeighbours,
                  "bias must have shape (heads, 3, 3, 3)");
  STD_TORCH_CHECK(bias.size(0) > 0 && q.size(1) % bias.size(0) == 0,
                  "the heads of the bias must divide the channels");
}

// The bias in memory order, offset after offset.
template <typename T>
std::vector<T> numbers_of(const Tensor& bias) {
  std::vector<T> found;
  switch_float(bias.scalar_type(), [&](auto zero) {
    using In = decltype(zero);
    const In* from = reinterpret_cast<const In*>(bias.data_ptr());
    for (int64_t a = 0; a < bias.size(0); ++a)
      for (int64_t i = 0; i < 3; ++i)
        for (int64_t j = 0; j < 3; ++j)
          for (int64_t k = 0; k < 3; ++k)
            found.push_back(T(from[a * bias.stride(0) + i * bias.stride(1) + j * bias.stride(2) +
                                   k * bias.stride(3)]));
  });
  return found;
}

// Calls body(first, count, scratch) for runs of planes, in parallel.
template <typename T, typename F>
void over_runs(const Tensor& q, const NeighbourSize& size, F&& body) {
  const int64_t height = q.size(2);
  torch::stable::parallel_for(0, q.size(0) * height, 1, [&](int64_t begin, int64_t end) {
    const Scratch<T> scratch(size.scratch());
    for_runs(begin, end, height, size.planes,
             [&](int64_t first, int64_t count) { body(first, count, scratch.get()); });
  });
}

std::tuple<Tensor, Tensor> neighbour_attention(Tensor q, Tensor k, Tensor bias, double scale) {
  check(q, k, bias);
  const int64_t heads = bias.size(0);
  const NeighbourSize size(q, heads);
  const auto like = [&](int64_t channels) {
    return empty_in_format_of(q, {q.size(0), channels, q.size(2), q.size(3), q.size(4)},
                              working_type(q));
  };
  Tensor out = like(3 * heads), norms = like(2 * heads);
  if (out.numel() == 0) return {out, norms};
  switch_float(q.scalar_type(), [&](auto zero) {
    using In = decltype(zero);
    using T = Working<In>;
    const auto vq = view_of<const In>(q), vk = view_of<const In>(k);
    const auto to = view_of<T>(out), to_norms = view_of<T>(norms);
    const std::vector<T> offsets = numbers_of<T>(bias);
    over_runs<T>(q, size, [&](int64_t first, int64_t count, T* scratch) {
      LGANET_BEST(attend_planes, vq, vk, offsets.data(), T(scale), to, to_norms, size, first, count,
                  scratch);
    });
  });
  return {out, norms};
}

std::tuple<Tensor, Tensor, Tensor> neighbour_attention_backward(Tensor grad, Tensor q, Tensor k,
                                                                Tensor bias, Tensor out,
                                                                Tensor norms, double scale,
                                                                bool need_query, bool need_key) {
  check(q, k, bias);
  const int64_t heads = bias.size(0);
  STD_TORCH_CHECK(grad.dim() == 5 && grad.scalar_type() == out.scalar_type(),
                  "grad must have the result's shape and type");
  for (int axis = 0; axis < 5; ++axis)
    STD_TORCH_CHECK(grad.size(axis) == (axis == 1 ? 3 * heads : q.size(axis)),
                    "grad must have the result's shape");
  const NeighbourSize size(q, heads);
  Tensor to_q = gradient_like(q, need_query), to_k = gradient_like(k, need_key);
  Tensor to_bias = empty_beside(bias, {heads, 3, 3, 3}, working_type(q));
  const int64_t numbers = heads * kNeighbours, planes = q.size(0) * q.size(2);
  std::vector<double> parts(need_query ? planes * numbers : 0);
  switch_float(q.scalar_type(), [&](auto zero) {
    using In = decltype(zero);
    using T = Working<In>;
    const auto vq = view_of<const In>(q), vk = view_of<const In>(k);
    const auto g = view_of<const T>(grad), vo = view_of<const T>(out);
    const auto vn = view_of<const T>(norms);
    const std::vector<T> offsets = numbers_of<T>(bias);
    if (q.numel())
      over_runs<T>(q, size, [&](int64_t first, int64_t count, T* scratch) {
        if (need_query)
          LGANET_BEST(query_gradient_planes, g, vq, vk, offsets.data(), T(scale), vo, vn,
                      view_of<In>(to_q), parts.data() + first * numbers, size, first, count,
                      scratch);
      });
    if (q.numel() && need_key)
      over_runs<T>(q, size, [&](int64_t first, int64_t count, T* scratch) {
        LGANET_BEST(key_gradient_planes, g, vq, vk, offsets.data(), T(scale), vo, vn,
                    view_of<In>(to_k), size, first, count, scratch);
      });
    T* const sums = reinterpret_cast<T*>(to_bias.data_ptr());
    for (int64_t n = 0; n < numbers; ++n) {
      double sum = 0;
      for (int64_t at = n; at < int64_t(parts.size()); at += numbers) sum += parts[at];
      sums[n] = T(sum);
    }
  });
  return {to_q, to_k, to_bias};
}

}  // namespace
}  // namespace lganet

STABLE_TORCH_LIBRARY_FRAGMENT(lganet_fast, m) {
  m.def("neighbour_attention(Tensor q, Tensor k, Tensor bias, float scale) -> (Tensor, Tensor)");
  m.def(
      "neighbour_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor bias, Tensor out, "
      "Tensor norms, float scale, bool need_query, bool need_key) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CPU, m) {
  m.impl("neighbour_attention", TORCH_BOX(&lganet::neighbour_attention));
  m.impl("neighbour_attention_backward", TORCH_BOX(&lganet::neighbour_attention_backward));
}
