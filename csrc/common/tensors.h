// Shared by the host code of every operator: views of tensors, checks, type switches.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <type_traits>
#include <vector>

#include "common/index.h"
#include "common/pages.h"
#include "common/view.h"

namespace lganet {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;
using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A (B, C, H, W, D) tensor as a pointer with sizes and strides.
template <typename T>
View<T> view_of(const Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 5, "expected a (B, C, H, W, D) tensor, got ", x.dim(), " axes");
  View<T> view;
  view.data = reinterpret_cast<T*>(x.data_ptr());
  for (int axis = 0; axis < 5; ++axis) {
    view.size[axis] = x.size(axis);
    view.stride[axis] = x.stride(axis);
  }
  return view;
}

// Calls body with a zero of the C++ type.
template <typename F>
void switch_float(ScalarType type, F&& body) {
  switch (type) {
    case ScalarType::Float:
      return body(float{});
    case ScalarType::Double:
      return body(double{});
    case ScalarType::Half:
      return body(Half{});
    case ScalarType::BFloat16:
      return body(BFloat16{});
    default:
      STD_TORCH_CHECK(false, "expected float32, float64, float16 or bfloat16");
  }
}

template <typename F>
void switch_wide_float(ScalarType type, F&& body) {
  switch (type) {
    case ScalarType::Float:
      return body(float{});
    case ScalarType::Double:
      return body(double{});
    default:
      STD_TORCH_CHECK(false, "expected float32 or float64");
  }
}

// The type in which an operator computes.
template <typename T>
using Working = std::conditional_t<std::is_same_v<T, double>, double, float>;

inline ScalarType working_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline bool is_empty(const Tensor& x) { return x.numel() == 0; }

inline std::vector<int64_t> sizes_of(const Tensor& x) {
  return {x.sizes().begin(), x.sizes().end()};
}

inline bool is_channels_last(const Tensor& x) {
  return x.dim() == 5 && x.stride(1) == 1 && x.size(1) > 1;
}

inline MemoryFormat format_of(const Tensor& x) {
  return is_channels_last(x) ? MemoryFormat::ChannelsLast3d : MemoryFormat::Contiguous;
}

// An uninitialised tensor on x's device.
inline Tensor empty_beside(const Tensor& x, const std::vector<int64_t>& size, ScalarType type,
                           MemoryFormat format = MemoryFormat::Contiguous) {
  Tensor result = torch::stable::empty(size, type, torch::headeronly::Layout::Strided, x.device(),
                                       false, format);
  if (x.is_cpu()) ask_for_huge_pages(result.data_ptr(), result.numel() * result.element_size());
  return result;
}

// The same in x's memory format.
inline Tensor empty_in_format_of(const Tensor& x, const std::vector<int64_t>& size,
                                 ScalarType type) {
  return empty_beside(x, size, type, format_of(x));
}

inline Tensor empty_in_format_of(const Tensor& x, const std::vector<int64_t>& size) {
  return empty_in_format_of(x, size, x.scalar_type());
}

// Memory for a gradient like x, in its memory format; empty if it is not needed.
inline Tensor gradient_like(const Tensor& x, ScalarType type, bool needed) {
  if (!needed) return empty_beside(x, {0}, type);
  return empty_in_format_of(x, sizes_of(x), type);
}

inline Tensor gradient_like(const Tensor& x, bool needed) {
  return gradient_like(x, x.scalar_type(), needed);
}

}  // namespace lganet
