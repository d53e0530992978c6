// Warp on the device: the choice of the kernel, of the type of index and of the number of threads.
#pragma once

#include "warp/warp_channels.cuh"
#include "warp/warp_voxels.cuh"

namespace lganet {

template <typename T, typename A>
struct DeviceWarp {
  View<const T> image;
  View<const A> flow;
  WarpMode mode;
  A scale;  // by which image and flow are multiplied
  Index index;
};

template <typename T, typename A>
void start_warp(Stream stream, const DeviceWarp<T, A>& call, const View<T>& out) {
  const bool packs = in_packs(call.image) && in_packs(out) && call.mode.plus == Plus::nothing;
  const int log_group = packs ? log_group_of(call.image) : 0;
  const int64_t threads = (out.size[0] * out.voxels()) << log_group;
  const bool small = is_small(call.image) && is_small(call.flow) && is_small(out, 1 << log_group);
  const Reading<A> reading = reading_of<A>(call.image, call.mode, call.scale);
  switch_index(call.index, small, [&](auto zero) {
    using I = decltype(zero);
    const Array<const T, I> image(call.image);
    const Array<const A, I> flow(call.flow);
    const Array<T, I> to(out);
    const I channels = I(out.size[1]);
    if (packs)
      launch(stream, blocks_for(threads), dim3(kThreads), warp_channels<T, A, I>, image, flow, to,
             channels, reading, Voxels<I>(out), log_group);
    else
      launch(stream, blocks_for(threads), dim3(kThreads), warp_voxels<T, A, I>, image, flow, to,
             channels, reading, Voxels<I>(out));
  });
}

// The results of the backward. The sums have the size of `image`, which is dense, and are zero
// before.
template <typename A>
struct WarpGradients {
  View<A> image;  // its data is not used with `fixed`
  View<A> flow;
  Fixed* fixed;  // the same number of sums, zero before, followed by the peak
  Needed needed;
  bool together;  // see Wanted
};

template <typename T, typename A>
void start_warp_backward(Stream stream, const DeviceWarp<T, A>& call, const View<const T>& grad,
                         const WarpGradients<A>& result) {
  const bool packs = in_packs(call.image) && in_packs(grad) && call.mode.plus == Plus::nothing &&
                     (!result.needed.image || result.image.stride[1] == 1);
  const int log_group = packs ? log_group_of(call.image) : 0;
  const int64_t voxels = grad.size[0] * grad.voxels(), threads = voxels << log_group;
  const bool small = is_small(call.image) && is_small(call.flow) &&
                     is_small(grad, 1 << log_group) &&
                     (!result.needed.image || is_small(result.image)) &&
                     (!result.needed.flow || is_small(result.flow));
  const Reading<A> reading = reading_of<A>(call.image, call.mode, call.scale);
  switch_index(call.index, small, [&](auto zero) {
    using I = decltype(zero);
    const Array<const T, I> image(call.image), from(grad);
    const Array<const A, I> flow(call.flow);
    const I channels = I(grad.size[1]);
    Wanted<A, I> wanted{{}, {}, result.needed, result.together};
    if (result.needed.flow) wanted.flow = Array<A, I>(result.flow);
    if (result.needed.image) {
      wanted.image = {Array<A, I>(result.image), result.fixed, nullptr, headroom_for(voxels)};
      if (result.fixed) {
        Fixed* peak =
            result.fixed + result.image.size[0] * result.image.size[1] * result.image.voxels();
        wanted.image.peak = peak;
        launch_team(stream, blocks_for(voxels), dim3(kThreads), find_peak<T, A, I>, from, channels,
                    Voxels<I>(grad), peak);
      }
    }
    if (packs)
      launch_team(stream, blocks_for(threads), dim3(kThreads), warp_channels_backward<T, A, I>,
                  image, flow, from, wanted, channels, reading, Voxels<I>(grad), log_group);
    else
      launch_team(stream, blocks_for(threads), dim3(kThreads), warp_voxels_backward<T, A, I>, image,
                  flow, from, wanted, channels, reading, Voxels<I>(grad));
  });
}

// The sizes and strides of an array, without data.
template <typename A, typename T>
View<A> like(const View<T>& x) {
  View<A> result{};
  for (int a = 0; a < 5; ++a) {
    result.size[a] = x.size[a];
    result.stride[a] = x.stride[a];
  }
  return result;
}

// Rounds the finished sums to the type of `to` and writes them or adds them to it.
template <typename T, typename A>
void start_finish(Stream stream, const WarpGradients<A>& sums, int64_t terms, T* to, Finish how) {
  const int64_t count = sums.image.size[0] * sums.image.size[1] * sums.image.voxels();
  launch(stream, blocks_for(count), dim3(kThreads), finish_sums<T, A>, sums.image.data, sums.fixed,
         sums.fixed + (sums.fixed ? count : 0), headroom_for(terms), to, count, how);
}

}  // namespace lganet
