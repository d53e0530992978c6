// A torch tensor as the plain pointer, sizes and strides that kernels take, without linking torch.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "common/view.h"

namespace lganet {

namespace py = pybind11;
using torch::headeronly::BFloat16;
using torch::headeronly::Half;

inline std::string type_of(const py::object& tensor) { return py::str(tensor.attr("dtype")); }

// Calls body with a zero of the tensor's type.
template <typename F>
void switch_float(const py::object& tensor, F&& body) {
  const std::string type = type_of(tensor);
  if (type == "torch.float32") return body(float{});
  if (type == "torch.float64") return body(double{});
  if (type == "torch.float16") return body(Half{});
  if (type == "torch.bfloat16") return body(BFloat16{});
  throw std::invalid_argument("no such type here: " + type);
}

template <typename F>
void switch_wide_float(const py::object& tensor, F&& body) {
  const std::string type = type_of(tensor);
  if (type == "torch.float32") return body(float{});
  if (type == "torch.float64") return body(double{});
  throw std::invalid_argument("no such type here: " + type);
}

// Its first number.
template <typename T>
T* data_of(const py::object& tensor) {
  if (tensor.attr("element_size")().cast<size_t>() != sizeof(T))
    throw std::invalid_argument("unexpected type: " + type_of(tensor));
  return reinterpret_cast<T*>(tensor.attr("data_ptr")().cast<uintptr_t>());
}

// A tensor of five axes.
template <typename T>
View<T> view_of(const py::object& tensor) {
  const auto size = py::list(tensor.attr("shape")).cast<std::vector<int64_t>>();
  const auto stride = py::list(tensor.attr("stride")()).cast<std::vector<int64_t>>();
  if (size.size() != 5) throw std::invalid_argument("expected five axes");
  View<T> view;
  view.data = data_of<T>(tensor);
  for (int axis = 0; axis < 5; ++axis) {
    view.size[axis] = size[axis];
    view.stride[axis] = stride[axis];
  }
  return view;
}

}  // namespace lganet
