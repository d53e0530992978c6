// How warp, compose and integrate read an image, on the CPU and on a device.
#pragma once

namespace lganet {

enum class Sampling : bool { linear, nearest };
enum class Padding : bool { zeros, border };
enum class Plus : bool { nothing, flow };  // what is added to the value read

struct WarpMode {
  Sampling sampling;
  Padding padding;
  Plus plus;
};

constexpr WarpMode kCompose{Sampling::linear, Padding::zeros, Plus::flow};

// What to compute at a position; the slopes are for its gradient.
enum class Find : bool { weights, weights_and_slopes };

// The gradients to compute.
struct Needed {
  bool image, flow;
};

}  // namespace lganet
