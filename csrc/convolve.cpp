// 3^3 convolution of float32 volumes, of any number of channels, channels last in and out. A strip of
// the volume is copied plane after plane, each plane once, with zeros around what lies outside.
#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "scratch.h"
#include "tensors.h"

#define LGANET_LOOPS "convolve_loops.h"
#include "each_isa.h"

namespace lganet {
namespace {

constexpr int64_t kStrip = 16;       // rows of a strip, without the one on either side
constexpr int64_t kPlanes = 24;      // planes that a strip goes through before it ends, at most
constexpr int64_t kJobs = 16;        // parts of the work, at least, while they are worth it
constexpr int64_t kWidestRead = 16;  // numbers that a vector may read past a row
constexpr int64_t kTiles = 24;       // multiplied at once, at most; whole blocks of every kind
constexpr int64_t kPoints = 144;     // products of a tile

void check(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  STD_TORCH_CHECK(x.dim() == 5 && weight.dim() == 5, "x and weight must have 5 axes");
  for (const Tensor& t : {x, weight, bias})
    STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float, "x, weight and bias must be float32");
  for (int axis = 2; axis < 5; ++axis)
    STD_TORCH_CHECK(weight.size(axis) == 3, "weight must have shape (outputs, inputs, 3, 3, 3)");
  STD_TORCH_CHECK(weight.size(1) == x.size(1), "weight must have as many inputs as x channels");
  STD_TORCH_CHECK(bias.dim() == 1 && bias.size(0) == weight.size(0) && bias.stride(0) == 1,
                  "bias must have one number for each output");
  int64_t step = x.size(1);
  for (int axis = 4; axis > 0; step *= x.size(axis), --axis)
    STD_TORCH_CHECK(x.size(axis) == 1 || x.stride(axis) == (axis == 1 ? 1 : step),
                    "x must be channels_last_3d");
}

// The parts of the work: runs of planes in strips of rows, for each volume.
struct Jobs {
  int64_t volumes, height, width, line;  // line: numbers of a row of x
  int64_t planes, runs, strips;

  explicit Jobs(const Tensor& x)
      : volumes(x.size(0)), height(x.size(2)), width(x.size(3)), line(x.size(4) * x.size(1)) {
    const auto runs_of = [&](int64_t n) { return (height + n - 1) / n; };
    planes = kPlanes;
    strips = (width + kStrip - 1) / kStrip;
    while (planes > 4 && volumes * strips * runs_of(planes) < kJobs) planes -= 4;
    runs = runs_of(planes);
  }
  int64_t count() const { return volumes * runs * strips; }
};

// What jobs read of the voxels of others, two rows or planes where two jobs meet: kept aside where
// the result takes the place of x.
class Borders {
 public:
  Borders(const Jobs& jobs, const float* x)
      : jobs_(jobs),
        across_(2 * (jobs.strips - 1)),
        along_(2 * (jobs.runs - 1)),
        rows_(new float[jobs.volumes * jobs.height * across_ * jobs.line]),
        planes_(new float[jobs.volumes * along_ * jobs.width * jobs.line]) {
    const auto parallel = [](int64_t count, auto&& body) {
      torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) body(i);
      });
    };
    parallel(jobs.volumes * jobs.height, [&](int64_t i) {
      for (int64_t s = 1; s < jobs.strips; ++s)
        std::copy_n(x + (i * jobs.width + s * kStrip - 1) * jobs.line, 2 * jobs.line,
                    rows_.get() + (i * across_ + 2 * (s - 1)) * jobs.line);
    });
    parallel(jobs.volumes * (jobs.runs - 1), [&](int64_t i) {
      const int64_t b = i / (jobs.runs - 1), r = i % (jobs.runs - 1) + 1;
      const int64_t plane = jobs.width * jobs.line;
      std::copy_n(x + (b * jobs.height + r * jobs.planes - 1) * plane, 2 * plane,
                  planes_.get() + (b * along_ + 2 * (r - 1)) * plane);
    });
  }

  // Row w of plane h, which lies in the strip or the run before or after that of the job.
  const float* row(int64_t b, int64_t run, int64_t strip, int64_t h, int64_t w) const {
    const int64_t top = run * jobs_.planes, left = strip * kStrip;
    if (h < top || h >= top + jobs_.planes) {
      const int64_t slot = h < top ? 2 * run - 2 : 2 * run + 1;
      return planes_.get() + ((b * along_ + slot) * jobs_.width + w) * jobs_.line;
    }
    const int64_t slot = w < left ? 2 * strip - 2 : 2 * strip + 1;
    return rows_.get() + ((b * jobs_.height + h) * across_ + slot) * jobs_.line;
  }

 private:
  const Jobs& jobs_;
  int64_t across_, along_;
  std::unique_ptr<float[]> rows_, planes_;
};

// Memory that nobody has written to yet.
std::unique_ptr<float[]> fresh(int64_t count) { return std::unique_ptr<float[]>(new float[count]); }

// The weights as `multiply` reads them: point x block of outputs x input x output.
std::unique_ptr<float[]> packed(const Tensor& weight, int64_t outputs_padded) {
  const int64_t outputs = weight.size(0), count = kPoints * weight.size(1) * outputs_padded;
  std::unique_ptr<float[]> out = fresh(count);
  if (outputs != outputs_padded) std::fill_n(out.get(), count, 0.0f);
  const auto view = view_of<const float>(weight);
  torch::stable::parallel_for(0, outputs, 8, [&](int64_t begin, int64_t end) {
    LGANET_BEST(pack, view, begin, end, out.get());
  });
  return out;
}

// Writes the result to `out`, channels_last_3d, which may be x where the channels are as many.
void convolve_to(const Tensor& x, const Tensor& weight, const Tensor& bias, bool relu, Tensor& out) {
  if (out.numel() == 0) return;
  const int64_t inputs = x.size(1), outputs = weight.size(0);
  const int64_t height = x.size(2), width = x.size(3), depth = x.size(4);
  const int64_t lanes = vector_bytes() / sizeof(float), vectors = (outputs + lanes - 1) / lanes;
  const int64_t inputs_padded = round_up(inputs), outputs_padded = vectors * lanes;
  const std::unique_ptr<float[]> weights = packed(weight, outputs_padded);
  std::vector<float> shift(outputs_padded);
  std::copy_n(reinterpret_cast<const float*>(bias.data_ptr()), outputs, shift.begin());
  const float* from = reinterpret_cast<const float*>(x.data_ptr());
  float* to = reinterpret_cast<float*>(out.data_ptr());

  const int64_t deep = (depth + 1) / 2;  // tiles along the last axis
  const int64_t row = (2 * deep + 2) * inputs, plane = (kStrip + 2) * row;
  // Not a multiple of what caches index by, so that the points do not all fall into the same lines.
  const int64_t in_point = kTiles * inputs_padded + 16, out_point = kTiles * outputs_padded + 16;
  const Jobs jobs(x);
  std::optional<Borders> borders;
  if (from == to) borders.emplace(jobs, from);
  torch::stable::parallel_for(0, jobs.count(), 1, [&](int64_t begin, int64_t end) {
    // Six planes, and a row of zeros for what lies outside.
    const Scratch<float> scratch(6 * plane + row + kWidestRead);
    const float* zeros = scratch.get() + 6 * plane;
    const auto sums = fresh(kPoints * in_point), products = fresh(kPoints * out_point);
    for (int64_t job = begin; job < end; ++job) {
      const int64_t strip = job % jobs.strips, run = job / jobs.strips % jobs.runs;
      const int64_t b = job / jobs.strips / jobs.runs;
      const int64_t top = run * jobs.planes, bottom = std::min(top + jobs.planes, height);
      const int64_t left = strip * kStrip, right = std::min(left + kStrip, width);
      const auto voxels = [&](int64_t h, int64_t w) {
        return ((b * height + h) * width + w) * depth;
      };
      const auto source = [&](int64_t h, int64_t w) {
        const bool ours = h >= top && h < bottom && w >= left && w < right;
        return ours || !borders ? from + voxels(h, w) * inputs : borders->row(b, run, strip, h, w);
      };
      const auto place = [&](int64_t h, int64_t w) {
        return scratch.get() + (h + 6) % 6 * plane + (w - left + 1) * row;
      };
      const auto fill = [&](int64_t h) {
        if (h < 0 || h >= height) return;
        for (int64_t w = std::max<int64_t>(left - 1, 0); w < std::min(right + 1, width); ++w)
          std::copy_n(source(h, w), depth * inputs, place(h, w) + inputs);
      };
      const int64_t tiles = (right - left + 3) / 4 * deep;
      const int64_t batches = (tiles + kTiles - 1) / kTiles;
      fill(top - 1);
      fill(top);
      for (int64_t h = top; h < bottom; h += 4) {
        for (int64_t i = 1; i <= 4; ++i) fill(h + i);
        for (int64_t batch = 0; batch < batches; ++batch) {
          const int64_t first = batch * tiles / batches, last = (batch + 1) * tiles / batches;
          // Of each group of rows, the tiles along the last axis that belong to the batch.
          const auto groups = [&](auto&& body) {
            for (int64_t n = first, end; n < last; n = end) {
              end = std::min(last, (n / deep + 1) * deep);
              body(left + n / deep * 4, n % deep, end - n, n - first);
            }
          };
          groups([&](int64_t w, int64_t start, int64_t count, int64_t at) {
            const float* rows[36];
            for (int64_t i = 0; i < 36; ++i) {
              const int64_t y = h + i / 6 - 1, z = w + i % 6 - 1;
              const bool inside = y >= 0 && y < height && z >= 0 && z < std::min(right + 1, width);
              rows[i] = inside ? place(y, z) : zeros;
            }
            LGANET_BEST(transform_in, rows, inputs, start, count,
                        sums.get() + at * inputs_padded, in_point, inputs_padded);
          });
          for (int64_t i = 0; i < kPoints; ++i)
            LGANET_BEST(multiply, sums.get() + i * in_point, inputs_padded, inputs, last - first,
                        weights.get() + i * inputs * outputs_padded, vectors,
                        products.get() + i * out_point, outputs_padded);
          groups([&](int64_t w, int64_t start, int64_t count, int64_t at) {
            float* rows[16];
            for (int64_t i = 0; i < 16; ++i) {
              const int64_t y = h + i / 4, z = w + i % 4;
              rows[i] = y < height && z < right ? to + voxels(y, z) * outputs : nullptr;
            }
            LGANET_BEST(transform_out, products.get() + at * outputs_padded, out_point,
                        outputs_padded, outputs, start, count, depth, shift.data(), relu, rows);
          });
        }
      }
    }
  });
}

Tensor convolve(Tensor x, Tensor weight, Tensor bias, bool relu) {
  check(x, weight, bias);
  Tensor out = torch::stable::empty({x.size(0), weight.size(0), x.size(2), x.size(3), x.size(4)},
                                    x.scalar_type(), torch::headeronly::Layout::Strided, x.device(),
                                    false, torch::headeronly::MemoryFormat::ChannelsLast3d);
  convolve_to(x, weight, bias, relu, out);
  return out;
}

void convolve_(Tensor x, Tensor weight, Tensor bias, bool relu) {
  check(x, weight, bias);
  STD_TORCH_CHECK(weight.size(0) == x.size(1), "in place, outputs must be as many as inputs");
  convolve_to(x, weight, bias, relu, x);
}

}  // namespace
}  // namespace lganet

STABLE_TORCH_LIBRARY_FRAGMENT(lganet_fast, m) {
  m.def("convolve(Tensor x, Tensor weight, Tensor bias, bool relu) -> Tensor");
  m.def("convolve_(Tensor(a!) x, Tensor weight, Tensor bias, bool relu) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(lganet_fast, CPU, m) {
  m.impl("convolve", TORCH_BOX(&lganet::convolve));
  m.impl("convolve_", TORCH_BOX(&lganet::convolve_));
}
