// Convolutions of NHWC images by sparse kernels, with any stride and any border of zeros.
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
//   Row           out[V·lanes positions] = Σ value[e] · planes[offset of e + positions]    V ≤ 8
//                 Sums stay in registers; for each weight one broadcast, V loads and as many
//                 multiply-adds. One load for each multiply-add, seldom aligned: bound by loads.
//   GradientRow   gradient[e] += planes[offset of e + positions] · given[positions]
//                 `given` stays in registers: the same walk with a dot product for each weight.
//
// The gradient of the input is the forward walk over the mirrored table, planes of the output's
// gradient summed to planes of the image.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "parallel.h"
#include "transpose.h"
#include "vectors.h"

namespace lth {

constexpr int kMostTile = 8;  // vectors of positions that a weight meets at once
// Positions that images side by side should have together, at least, and the most such images.
// With eight side by side, most loads are aligned, and less lies between rows; larger images have
// enough positions alone, and would need more of the cache.
constexpr int kManyPositions = 512, kMostLanes = 16;
// Floats of planes that a task may keep, if a few rows do not need more: of a core's own cache.
constexpr int64_t kCached = int64_t{1} << 18;
// The sums of a kernel's gradient, added in order at the end.
constexpr int kParts = 16;

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

// How windows move over planes: `rows × columns` positions, each seeing `reach` of rows and columns.
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
      Transpose(from + pixel + i * step, deal.size(), task.some, deal.channels,
                to + i * walk.lanes, next);
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

// A weight: where what it meets lies in planes, before the position is added.
struct Tap {
  int32_t offset;
  float value;
};

template <int kVectors>
inline void Row(const Tap* tap, const Tap* end, const float* planes, float* out) {
  constexpr int kChains = kVectors > 4 ? 1 : 2;  // in flight, to hide the latency of multiply-adds
  Vector sums[kChains][kVectors] = {};
  const auto add = [&](const Tap& one, Vector* sum) {
    const float* x = planes + one.offset;
    for (int j = 0; j < kVectors; ++j) sum[j] += Load<Vector>(x + j * kLanes) * one.value;
  };
  for (; tap + kChains <= end; tap += kChains)
    for (int chain = 0; chain < kChains; ++chain) add(tap[chain], sums[chain]);
  for (; tap < end; ++tap) add(*tap, sums[0]);
  for (int j = 0; j < kVectors; ++j) {
    for (int chain = 1; chain < kChains; ++chain) sums[0][j] += sums[chain][j];
    Store(out + j * kLanes, sums[0][j]);
  }
}

// Adds to gradient[0] to gradient[count - 1].
template <int kVectors>
inline void GradientRow(const int32_t* offsets, int count, const float* planes, const float* given,
                        float* gradient) {
  Vector d[kVectors];
  for (int j = 0; j < kVectors; ++j) d[j] = Load<Vector>(given + j * kLanes);
  for (int entry = 0; entry < count; entry += 8) {
    const int some = std::min(8, count - entry);
    Eight products[8] = {};
    for (int e = 0; e < some; ++e) {
      const float* x = planes + offsets[entry + e];
      Vector sum = Load<Vector>(x) * d[0];
      for (int j = 1; j < kVectors; ++j) sum += Load<Vector>(x + j * kLanes) * d[j];
      products[e] = Fold(sum);
    }
    const Eight sums = Sums(products);
    if (some == 8) {
      Store(gradient + entry, Load<Eight>(gradient + entry) + sums);
    } else {
      for (int e = 0; e < some; ++e) gradient[entry + e] += sums[e];
    }
  }
}

// Calls `body(V)` with V an integral constant of that value, 1 to `kMostTile`.
template <int kVectors = kMostTile, class Body>
inline void WithVectors(int vectors, Body body) {
  if constexpr (kVectors > 1) {
    if (vectors < kVectors) return WithVectors<kVectors - 1>(vectors, body);
  }
  body(std::integral_constant<int, kVectors>());
}

// Cuts a task's positions into tiles of nearly the same size: `body(V, first position)`.
template <class Body>
inline void EachTile(int vectors, Body body) {
  const int tiles = (vectors + kMostTile - 1) / kMostTile;
  for (int tile = 0; tile < tiles; ++tile) {
    const int begin = vectors * tile / tiles, end = vectors * (tile + 1) / tiles;
    WithVectors(end - begin, [&](auto some) { body(some, begin * kLanes); });
  }
}

// Images of `to`, plane by plane the sums of those of `from`: taps begins[p] to begins[p + 1] - 1
// are plane p's.
template <class Pool>
void Convolve(Pool& pool, const Walk& walk, const Deal& source, const Deal& target,
              const int32_t* begins, const Tap* taps, const float* from, float* to) {
  const ptrdiff_t plane = walk.plane(), sums = walk.sums();
  ForEach(pool, walk.tasks(), [&](int index) {
    const Task task = TaskOf(walk, index);
    float* planes = Scratch<0>(plane * source.planes() + kLanes);
    float* outs = Scratch<1>(sums * target.planes());
    ToPlanes(source, walk, task, task.rows + walk.reach_height - 1, walk.seen(), from, plane,
             planes);
    EachTile(walk.vectors(task.rows), [&](auto some, int position) {
      for (int p = 0; p < target.planes(); ++p)
        Row<decltype(some)::value>(taps + begins[p], taps + begins[p + 1], planes + position,
                                   outs + p * sums + position);
    });
    ToImages(target, walk, task, outs, to);
  });
}

// gradient[entry], from images and the gradient of what they were convolved to.
//
// Tasks are shared out in a fixed number of parts, whose sums are added in order.
template <class Pool>
void TapGradient(Pool& pool, const Walk& walk, const Deal& source, const Deal& target,
                 const int32_t* begins, const int32_t* offsets, const float* images,
                 const float* given, float* gradient) {
  const ptrdiff_t plane = walk.plane(), sums = walk.sums();
  const int entries = begins[target.planes()], parts = std::min(kParts, walk.tasks());
  float* of_parts = Scratch<4>(static_cast<size_t>(parts) * entries);
  ForEach(pool, parts, [&](int part) {
    float* own = of_parts + static_cast<ptrdiff_t>(part) * entries;
    float* planes = Scratch<0>(plane * source.planes() + kLanes);
    float* d = Scratch<1>(sums * target.planes() + kLanes);
    std::fill(own, own + entries, 0.0f);
    const int64_t tasks = walk.tasks();
    for (int index = tasks * part / parts; index < tasks * (part + 1) / parts; ++index) {
      const Task task = TaskOf(walk, index);
      ToPlanes(source, walk, task, task.rows + walk.reach_height - 1, walk.seen(), images, plane,
               planes);
      ToPlanes(target, walk, task, task.rows, walk.columns, given, sums, d);
      EachTile(walk.vectors(task.rows), [&](auto some, int position) {
        for (int k = 0; k < target.planes(); ++k)
          GradientRow<decltype(some)::value>(offsets + begins[k], begins[k + 1] - begins[k],
                                             planes + position, d + k * sums + position,
                                             own + begins[k]);
      });
    }
  });
  const int chunk = 1 << 14;
  ForEach(pool, (entries + chunk - 1) / chunk, [&](int index) {
    for (int e = index * chunk; e < std::min(entries, (index + 1) * chunk); ++e) {
      float sum = of_parts[e];
      for (int part = 1; part < parts; ++part)
        sum += of_parts[static_cast<ptrdiff_t>(part) * entries + e];
      gradient[e] = sum;
    }
  });
}

}  // namespace lth
