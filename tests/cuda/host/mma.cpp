// The instructions of mma.cuh: one warp multiplies matrices that it copies to shared memory.
#include "common/mma.cuh"

#include "host_view.h"

namespace lganet {

// sums = a (16 x k) b (k x 8), and the transposed of a twice, by each number of matrices at a time.
template <typename T>
__global__ void multiply(const T* a, const T* b, float* sums, T* transposed, bool wait) {
  constexpr int k = kDepth<T>, kPack = 16 / sizeof(T);
  T* shared = reinterpret_cast<T*>(dynamic_shared());
  const int lane = threadIdx.x % 32, p = lane % 4, q = lane / 4;
  copy_async<16>(shared + lane * kPack, a + lane * kPack, true);
  end_copies();
  if (wait) wait_copies<0>();
  __syncthreads();
  uint32_t of_a[4], of_b[2];
  load_matrices(of_a, shared + lane % 16 * k + lane / 16 * kPack);
  for (int i = 0; i < 2; ++i) {
    T numbers[4 / sizeof(T)];
    for (int n = 0; n < int(4 / sizeof(T)); ++n)
      numbers[n] = b[(i * kPack + p * int(4 / sizeof(T)) + n) * 8 + q];
    memcpy(&of_b[i], numbers, sizeof numbers);
  }
  float mine[4] = {0, 0, 0, 0};
  multiply_add<T>(mine, of_a, of_b);
  for (int i = 0; i < 4; ++i) sums[(q + i / 2 * 8) * 8 + p * 2 + i % 2] = mine[i];
  if constexpr (sizeof(T) == 2) {
    uint32_t turned[4];  // of the matrices: rows 0 to 7, rows 8 to 15, then the second half of k
    load_matrices_transposed(turned, shared + lane % 16 * k + lane / 16 * kPack);
    for (int i = 0; i < 4; ++i)
      for (int n = 0; n < 2; ++n)
        memcpy(&transposed[(i / 2 * 8 + q) * 16 + i % 2 * 8 + p * 2 + n],
               reinterpret_cast<T*>(&turned[i]) + n, 2);
    uint32_t two[2];
    load_matrices_transposed(two, shared + lane % 16 * k);
    for (int i = 0; i < 2; ++i)
      if (two[i] != turned[i]) transposed[0] = T(NAN);
  }
}

template <typename T>
__global__ void pack_row(const float* from, T* to) {
  const uint32_t two = pack_two<T>(from[2 * threadIdx.x], from[2 * threadIdx.x + 1]);
  memcpy(to + 2 * threadIdx.x, &two, 4);
}

__global__ void round_row(const float* from, float* to) {
  to[threadIdx.x] = round_tf32(from[threadIdx.x]);
}

// Each thread passes its number to its neighbour, with the barrier in between or without.
__global__ void pass_on(int* to, bool barrier) {
  int* shared = reinterpret_cast<int*>(dynamic_shared());
  shared[threadIdx.x] = threadIdx.x;
  if (barrier) __syncthreads();
  to[blockIdx.x * blockDim.x + threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x];
}

}  // namespace lganet

PYBIND11_MODULE(host_mma, m) {
  using namespace lganet;
  m.def("multiply", [](py::object a, py::object b, py::object sums, py::object turned, bool wait) {
    switch_float(a, [&](auto zero) {
      using T = std::conditional_t<std::is_same_v<decltype(zero), double>, float, decltype(zero)>;
      launch_shared(Stream{}, 1, 32, 512, multiply<T>, data_of<T>(a), data_of<T>(b),
                    data_of<float>(sums), data_of<T>(turned), wait);
    });
  });
  m.def("pack", [](py::object from, py::object to) {
    const auto count = to.attr("numel")().cast<unsigned>();
    switch_float(to, [&](auto zero) {
      using T = std::conditional_t<sizeof(zero) == 2, decltype(zero), Half>;
      launch_team(Stream{}, 1, count / 2, pack_row<T>, data_of<float>(from), data_of<T>(to));
    });
  });
  m.def("round", [](py::object from, py::object to) {
    const auto count = to.attr("numel")().cast<unsigned>();
    launch_team(Stream{}, 1, count, round_row, data_of<float>(from), data_of<float>(to));
  });
  m.def("pass_on", [](py::object to, bool barrier) {
    launch_shared(Stream{}, 2, 64, 256, pass_on, data_of<int>(to), barrier);
  });
}
