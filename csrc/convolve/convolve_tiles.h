// How a convolution loops over a volume: in strips of rows, plane after plane. Each plane is copied
// once, with zeros around it, and divided into tiles of 4 x 4 x 2 voxels; the transforms of many
// tiles are multiplied together. Included after each_isa.h.
#pragma once

#include <algorithm>
#include <memory>

#include "common/pages.h"
#include "common/scratch.h"
#include "common/tensors.h"

namespace lganet {

constexpr int64_t kStrip = 16;       // rows of a strip, without the border rows
constexpr int64_t kPlanes = 24;      // of a strip, at most
constexpr int64_t kJobs = 16;        // parts of the work to aim for
constexpr int64_t kWidestRead = 32;  // numbers that a vector may read beyond the end
constexpr int64_t kTiles = 24;       // multiplied at once, at most; a multiple of all block sizes
constexpr int64_t kPoints = 144;     // of a tile

// Uninitialised memory.
inline std::unique_ptr<float[]> fresh(int64_t count) {
  auto memory = std::unique_ptr<float[]>(new float[count]);
  ask_for_huge_pages(memory.get(), count * sizeof(float));
  return memory;
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

// Copies of the voxels that jobs read from other jobs, two rows or planes at each boundary, for a
// result that overwrites x.
class Borders {
 public:
  Borders(const Jobs& jobs, const float* x)
      : jobs_(jobs),
        across_(2 * (jobs.strips - 1)),
        along_(2 * (jobs.runs - 1)),
        rows_(fresh(jobs.volumes * jobs.height * across_ * jobs.line)),
        planes_(fresh(jobs.volumes * along_ * jobs.width * jobs.line)) {
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

  // Row w of plane h, which is in the strip or the run before or after that of the job.
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

// The stride between the points of `kTiles` tiles. Not a multiple of a power of two, so that the
// points do not compete for the same cache sets.
constexpr int64_t point_step(int64_t padded) { return kTiles * padded + 16; }

// `count` neighbouring tiles along the last axis from tile `start` on; the first is tile `at` of
// its batch. rows: offsets of their 4 x 4 rows in voxels, -1 outside the volume.
struct Line {
  int64_t start, count, at;
  int64_t rows[16];
};

// A batch of transformed tiles.
struct Batch {
  const float* sums;  // point x tile x input
  int64_t count;      // tiles
  const Line* lines;
  int64_t line_count;
};

// Calls body(batch) for all tiles of the jobs from `begin` to `end`.
// borders: null unless the result overwrites x.
template <typename F>
void each_batch(const Tensor& x, const Jobs& jobs, const Borders* borders, int64_t begin,
                int64_t end, F&& body) {
  const float* from = reinterpret_cast<const float*>(x.data_ptr());
  const int64_t inputs = x.size(1), height = x.size(2), width = x.size(3), depth = x.size(4);
  const int64_t padded = round_up(inputs), point = point_step(padded);
  const int64_t deep = (depth + 1) / 2;  // tiles along the last axis
  const int64_t row = (2 * deep + 2) * inputs, plane = (kStrip + 2) * row;
  // Six planes, and a row of zeros for rows outside the volume.
  const Scratch<float> scratch(6 * plane + row + kWidestRead);
  const float* zeros = scratch.get() + 6 * plane;
  const auto sums = fresh(kPoints * point + kWidestRead);
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
    const int64_t tiles = (right - left + 3) / 4 * deep, batches = (tiles + kTiles - 1) / kTiles;
    fill(top - 1);
    fill(top);
    for (int64_t h = top; h < bottom; h += 4) {
      for (int64_t i = 1; i <= 4; ++i) fill(h + i);
      for (int64_t batch = 0; batch < batches; ++batch) {
        const int64_t first = batch * tiles / batches, last = (batch + 1) * tiles / batches;
        Line lines[kTiles];
        int64_t count = 0;
        for (int64_t n = first; n < last; n += lines[count++].count) {
          const int64_t w = left + n / deep * 4;
          Line& line = lines[count];
          line = {n % deep, std::min(last, (n / deep + 1) * deep) - n, n - first, {}};
          const float* rows[36];
          for (int64_t i = 0; i < 36; ++i) {
            const int64_t y = h + i / 6 - 1, z = w + i % 6 - 1;
            const bool inside = y >= 0 && y < height && z >= 0 && z < std::min(right + 1, width);
            rows[i] = inside ? place(y, z) : zeros;
          }
          LGANET_IN(isa_for(inputs), transform_in, rows, inputs, line.start, line.count,
                    sums.get() + line.at * padded, point, padded);
          for (int64_t i = 0; i < 16; ++i) {
            const int64_t y = h + i / 4, z = w + i % 4;
            line.rows[i] = y < height && z < right ? voxels(y, z) : -1;
          }
        }
        body(Batch{sums.get(), last - first, lines, count});
      }
    }
  }
}

}  // namespace lganet
