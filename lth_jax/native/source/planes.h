// The geometry of convolutions by sparse kernels: how images are dealt to planes, and how windows
// move over them.
//
// A task takes some rows of an image, or, where images are small, of several side by side. They are
// dealt to planes, one for each channel, in a border of zeros, and stay in the cache meanwhile:
//
//   image [y][x][c]  →  planes [c][row][column][lane]  →  sums [k][row][column][lane]  →  out
//
// Pixels of a stride are dealt to planes of their own, by the rest of row and column, so that a
// window's step is one everywhere: moving the window moves all that a weight meets by as many
// floats, whatever the row. So rows are walked as if they were one; what lies between them is
// computed and dropped. A row's border on the right is the next row's on the left.
//
// The gradient of the input is the same walk over the mirrored table, planes of the output's
// gradient summed to planes of the image.
#pragma once

#include <algorithm>
#include <cstdint>

#include "transpose.h"
#include "vectors.h"

namespace lth {

// Positions that images side by side should have together, at least, and the most such images.
// With eight side by side, most loads are aligned, and less lies between rows; larger images have
// enough positions alone, and would need more of the cache.
constexpr int kManyPositions = 512, kMostLanes = 16;
// Floats of planes that a task may keep, if a few rows do not need more: of a core's own cache.
constexpr int64_t kCached = int64_t{1} << 18;

// A convolution. `pad` is the border above and on the left; what lies below follows from `out`.
struct Sliding {
  int images, height, width, channels;
  int kernel_height, kernel_width, features;
  int stride_height, stride_width, pad_height, pad_width;
  int out_height, out_width;

  // Rows of a plane under the window.
  int reach_height() const { return (kernel_height + stride_height - 1) / stride_height; }
  int reach_width() const { return (kernel_width + stride_width - 1) / stride_width; }
};

// How images [height, width, channels] are dealt to planes: plane (a, b) of a channel holds at
// (row, column) the pixel (row · step_height + a − top, column · step_width + b − left).
struct Deal {
  int height, width, channels;
  int step_height, step_width;
  int rests_height, rests_width;  // how many a and b there are
  int top, left;

  int rests() const { return rests_height * rests_width; }
  int planes() const { return channels * rests(); }
  size_t size() const { return static_cast<size_t>(height) * width * channels; }
};

// The columns of a plane, of `count`, that hold pixels.
struct Span {
  int begin, end;
};

inline Span Filled(const Deal& deal, int b, int count) {
  const int step = deal.step_width;
  const int begin = std::max(0, deal.left - b + step - 1) / step;
  const int end = std::max(0, deal.width + deal.left - b + step - 1) / step;
  return {begin, std::min(count, end)};
}

// How windows move over planes: `rows × columns` positions, each seeing `reach` of both.
struct Walk {
  int images, rows, columns, reach_height, reach_width;
  int pitch;  // from a row of a plane to the next one, in columns
  int lanes;  // images side by side
  int band;   // rows of a task

  int bands() const { return (rows + band - 1) / band; }
  int tasks() const { return (images + lanes - 1) / lanes * bands(); }
  // Columns of a row under all windows: the last ones may be the next row's first ones.
  int seen() const { return columns + reach_width - 1; }
  // Vectors of positions in so many rows, and floats of a plane of sums.
  int vectors(int some) const {
    return RoundUp(((some - 1) * pitch + columns) * lanes, kLanes) / kLanes;
  }
  int sums() const { return vectors(band) * kLanes; }
  // Floats of a plane that windows see. The border of its last row belongs to it.
  int plane() const { return ((band + reach_height - 1) * pitch + seen() - pitch) * lanes; }
  // Floats from one weight's place under the window to another's.
  int shift(int row, int column) const { return (row * pitch + column) * lanes; }
};

// The walk of `rows × columns` windows over dealt images, to so many planes of sums.
inline Walk WalkOf(const Deal& deal, int images, int rows, int columns, int reach_height,
                   int reach_width, int targets) {
  Walk walk{images, rows, columns, reach_height, reach_width, 0, 1, rows};
  const int seen = walk.seen();
  int shared = reach_width - 1;  // columns of zeros that end a row and begin the next
  for (int b = 0; b < deal.rests_width; ++b) {
    const Span filled = Filled(deal, b, seen);
    if (filled.begin < filled.end)
      shared = std::min(shared, std::min(filled.begin, seen - filled.end));
  }
  walk.pitch = seen - shared;
  while (walk.lanes < std::min(images, kMostLanes) &&
         int64_t{rows} * columns * walk.lanes < kManyPositions)
    walk.lanes = walk.lanes == 1 ? 8 : walk.lanes * 2;
  const int64_t row = int64_t{walk.pitch} * walk.lanes;
  const int64_t left = kCached - (reach_height - 1) * row * deal.planes();
  const int64_t most = std::max<int64_t>(left / (row * (deal.planes() + targets)), reach_height);
  const int bands = static_cast<int>((rows + most - 1) / most);
  walk.band = (rows + bands - 1) / bands;
  return walk;
}

// A task: the images from `image` on, `some` of them, and rows of positions.
struct Task {
  int image, some, first, rows;
};

inline Task TaskOf(const Walk& walk, int index) {
  const int image = index / walk.bands() * walk.lanes, first = index % walk.bands() * walk.band;
  return {image, std::min(walk.lanes, walk.images - image), first,
          std::min(walk.band, walk.rows - first)};
}

// Calls `visit(rest, place, pixel, count)` for each row of pixels in the task's first `rows` rows
// of `columns`: they lie from `place` of a plane and from `pixel` of an image on, in floats.
template <class Visit>
void EachRow(const Deal& deal, const Walk& walk, const Task& task, int rows, int columns,
             Visit visit) {
  for (int a = 0; a < deal.rests_height; ++a) {
    for (int b = 0; b < deal.rests_width; ++b) {
      const Span filled = Filled(deal, b, columns);
      if (filled.begin >= filled.end) continue;
      const int x = filled.begin * deal.step_width + b - deal.left;
      for (int row = 0; row < rows; ++row) {
        const int y = (task.first + row) * deal.step_height + a - deal.top;
        if (y < 0 || y >= deal.height) continue;
        visit(a * deal.rests_width + b, walk.shift(row, filled.begin),
              (static_cast<ptrdiff_t>(y) * deal.width + x) * deal.channels,
              filled.end - filled.begin);
      }
    }
  }
}

// Deals a task's images to planes of `plane` floats, zero elsewhere, and behind the last one.
inline void ToPlanes(const Deal& deal, const Walk& walk, const Task& task, int rows, int columns,
                     const float* images, ptrdiff_t plane, float* planes) {
  const float* from = images + task.image * deal.size();
  const ptrdiff_t step = static_cast<ptrdiff_t>(deal.step_width) * deal.channels;
  const ptrdiff_t next = plane * deal.rests();
  std::fill(planes, planes + plane * deal.planes() + kLanes, 0.0f);
  EachRow(deal, walk, task, rows, columns, [&](int rest, int place, ptrdiff_t pixel, int count) {
    float* to = planes + rest * plane + place;
    if (walk.lanes == 1) {
      Transpose(from + pixel, step, count, deal.channels, to, next);
      return;
    }
    for (int i = 0; i < count; ++i)
      Transpose(from + pixel + i * step, deal.size(), task.some, deal.channels, to + i * walk.lanes,
                next);
  });
}

// The inverse: planes of sums to a task's images.
inline void ToImages(const Deal& deal, const Walk& walk, const Task& task, const float* sums,
                     float* images) {
  float* to = images + task.image * deal.size();
  const ptrdiff_t step = static_cast<ptrdiff_t>(deal.step_width) * deal.channels;
  const ptrdiff_t plane = walk.sums(), next = plane * deal.rests();
  EachRow(deal, walk, task, task.rows, walk.columns,
          [&](int rest, int place, ptrdiff_t pixel, int count) {
            const float* from = sums + rest * plane + place;
            if (walk.lanes == 1) {
              Transpose(from, next, deal.channels, count, to + pixel, step);
              return;
            }
            for (int i = 0; i < count; ++i)
              Transpose(from + i * walk.lanes, next, deal.channels, task.some,
                        to + pixel + i * step, deal.size());
          });
}

// A table's convolution: what windows see, what their sums become, and the walk from these to
// those. A table has a row for each plane of the target.
struct Plan {
  Sliding window;
  bool mirrored;
  Deal source, target;
  Walk walk;

  // Multiply-adds of so many entries.
  int64_t work(int entries) const {
    return int64_t{entries} * walk.images * walk.rows * walk.columns;
  }

  // Where what an entry meets lies in planes, before the position is added. Its column in the table
  // is a channel of the source · 2¹⁶ + a row under the window · 2⁸ + a column there.
  int32_t offset(int32_t column) const {
    const int channel = column >> 16, y = column >> 8 & 255, x = column & 255;
    const int down = y / window.stride_height, along = x / window.stride_width;
    if (mirrored) {
      const int above = window.reach_height() - 1, before = window.reach_width() - 1;
      return channel * walk.plane() + walk.shift(above - down, before - along);
    }
    const int rest = y % window.stride_height * source.rests_width + x % window.stride_width;
    return (channel * source.rests() + rest) * walk.plane() + walk.shift(down, along);
  }
};

// The plan of `rows × columns` windows.
inline Plan PlanOf(const Sliding& s, bool mirrored, const Deal& source, const Deal& target,
                   int rows, int columns) {
  const Walk walk =
      WalkOf(source, s.images, rows, columns, s.reach_height(), s.reach_width(), target.planes());
  return {s, mirrored, source, target, walk};
}

// From images to outputs.
inline Plan ForwardPlan(const Sliding& s) {
  const int down = s.stride_height, along = s.stride_width;
  const int a = std::min(down, s.kernel_height), b = std::min(along, s.kernel_width);
  const Deal source{s.height, s.width, s.channels, down, along, a, b, s.pad_height, s.pad_width};
  const Deal target{s.out_height, s.out_width, s.features, 1, 1, 1, 1, 0, 0};
  return PlanOf(s, false, source, target, s.out_height, s.out_width);
}

// From the gradient of the outputs to that of the images.
//
// Pixels whose (y + pad) leaves the rest a under division by the stride see the kernel's rows a,
// a + stride, …, mirrored: (y + pad) / stride rows down in the output's gradient, and above.
inline Plan MirroredPlan(const Sliding& s) {
  const int down = s.stride_height, along = s.stride_width;
  const int above = s.reach_height() - 1, before = s.reach_width() - 1;
  const int top = s.pad_height, left = s.pad_width;
  const Deal source{s.out_height, s.out_width, s.features, 1, 1, 1, 1, above, before};
  const Deal target{s.height, s.width, s.channels, down, along, down, along, top, left};
  return PlanOf(s, true, source, target, (s.height - 1 + top) / down + 1,
                (s.width - 1 + left) / along + 1);
}

}  // namespace lth
