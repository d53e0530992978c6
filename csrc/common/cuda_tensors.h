// Shared by the host code of every CUDA operator: the current device and stream.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>

#include "common/launch.cuh"
#include "common/tensors.h"

namespace lganet {

// PyTorch's current stream of a device. The function is looked up at run time in the loaded CUDA
// library of PyTorch, not linked, so that this extension also loads with a build without CUDA.
inline Stream current_stream(int32_t device) {
  using Get = int32_t (*)(int32_t, void**);
  static const Get get = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    void* found = library ? dlsym(library, "aoti_torch_get_current_cuda_stream") : nullptr;
    STD_TORCH_CHECK(found, "this PyTorch is a build without CUDA");
    return reinterpret_cast<Get>(found);
  }();
  void* stream = nullptr;
  STD_TORCH_CHECK(get(device, &stream) == 0, "CUDA: no current stream");
  return static_cast<Stream>(stream);
}

// Makes the device of a tensor the current one during the lifetime of this object.
class OnDeviceOf {
 public:
  explicit OnDeviceOf(const Tensor& x)
      : guard_(x.get_device_index()), stream_(current_stream(x.get_device_index())) {}
  operator Stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  Stream stream_;
};

}  // namespace lganet
