// How warp, compose and integrate read an image, on the CPU and on a device.
#pragma once

namespace lganet {

enum class Sampling : bool { linear, nearest };
enum class Padding : bool { zeros, border };
enum class Plus : bool { nothing, flow };  // what is added to what is read

struct WarpMode {
  Sampling sampling;
  Padding padding;
  Plus plus;
};

constexpr WarpMode kCompose{Sampling::linear, Padding::zeros, Plus::flow};

// What is found where a position falls: the slopes are for the gradient to it.
enum class Find : bool { weights, weights_and_slopes };

// Which gradients are asked for.
struct Needed {
  bool image, flow;
};

}  // namespace lganet
