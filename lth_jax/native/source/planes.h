// How convolutions by sparse kernels lay images out in memory.
//
// A sparse kernel has no two weights that lie side by side, so nothing can be vectorized over
// channels or features. It is vectorized over positions of the window instead: a weight is loaded
// once and multiplied with the values of many positions, which must then lie side by side. In NHWC
// they lie `channels` floats apart, so images are first scattered to planes, one for each channel:
//
//   image [y][x][c]  →  planes [c][row][column][image]  →  sums [k][row][column][image]  →  out
//
// Four decisions follow from that; each has its place below:
//
// 1. Zeros around an image are written into its planes. Otherwise every weight would have to ask at
//    every position whether it is outside of the image.
// 2. With a stride, neighbouring positions see pixels that lie `stride` apart. Pixels whose row and
//    column have the same residues modulo the strides get a plane of their own. Within such a plane
//    the window moves by one, so that a weight's values lie side by side again, and moving the
//    window by one position moves everything that it sees by the same number of floats, in any row.
// 3. So the rows of a plane are treated as one long row. Between the last position of a row and the
//    first of the next one there are positions that wrap around: they are computed and dropped,
//    which costs less than a loop for each row that ends in a part of a vector. The zeros on the
//    right of a row are also the zeros on the left of the next one, which makes fewer such
//    positions.
// 4. Small images (8×8, 4×4, 2×2) do not fill vectors: several of them are interleaved, image by
//    image at each position.
//
// The gradient of the input is the same computation with the transposed matrix: planes of the
// output's gradient are summed to planes of the image.
#pragma once

#include <algorithm>
#include <cstdint>

#include "convolution.h"
#include "transpose.h"
#include "vectors.h"

namespace lth {

// The positions that interleaved images should have together, at least, and the most such images.
// With eight images most loads are aligned, and fewer positions wrap around. Larger images have
// enough positions alone, and interleaving them would take more of the cache.
constexpr int kManyPositions = 512, kMostInterleaved = 16;
// The floats of planes that a task may keep, if a few rows do not need more: 1 MiB, so that they
// stay in a core's own cache (L2) while all weights pass over them.
constexpr int64_t kCachedFloats = int64_t{1} << 18;

// How images [height, width, channels] lie in planes. The plane of a channel and of residues (a, b)
// holds at (row, column) the pixel (row · stride_height + a − top, column · stride_width + b −
// left), and zero where there is no such pixel.
struct PlaneLayout {
  int height, width, channels;
  int stride_height, stride_width;
  // The numbers of residues that have planes: no more than the kernel has rows and columns, since
  // a window of one pixel with stride two, as in a ResNet's shortcut, sees a quarter of the pixels.
  int row_residues, column_residues;
  int top, left;

  int residues() const { return row_residues * column_residues; }
  int planes() const { return channels * residues(); }
  size_t image_size() const { return static_cast<size_t>(height) * width * channels; }
};

// The columns `begin` to `end - 1`.
struct ColumnRange {
  int begin, end;
};

// Those of the first `columns` columns of a plane of column residue `b` that hold pixels, not
// zeros.
inline ColumnRange PixelColumns(const PlaneLayout& layout, int b, int columns) {
  const int stride = layout.stride_width;
  // Rounded up: the first column whose pixel is not on the left of the image, or of its right edge.
  const int begin = std::max(0, layout.left - b + stride - 1) / stride;
  const int end = std::max(0, layout.width + layout.left - b + stride - 1) / stride;
  return {begin, std::min(columns, end)};
}

// The positions of a window on planes: `rows × columns` of them. At each the window sees
// `window_height × window_width` elements of a plane.
struct PositionGrid {
  int images, rows, columns, window_height, window_width;
  int pitch;          // columns from the start of a row of a plane to the start of the next one
  int interleaved;    // images that lie interleaved in a plane
  int rows_per_task;  // a task computes so many rows of positions of the interleaved images

  int tasks_per_image() const { return (rows + rows_per_task - 1) / rows_per_task; }
  int tasks() const { return (images + interleaved - 1) / interleaved * tasks_per_image(); }
  // The columns of a row that windows see. The last ones may be the next row's first ones.
  int seen_columns() const { return columns + window_width - 1; }
  // The vectors that hold so many rows of positions, those that wrap around included.
  int vectors(int row_count) const {
    return RoundUp(((row_count - 1) * pitch + columns) * interleaved, kLanes) / kLanes;
  }
  // The floats of a plane of sums.
  int sums_size() const { return vectors(rows_per_task) * kLanes; }
  // The floats of a plane that windows see. Only the last row has zeros of its own on the right.
  int plane_size() const {
    return ((rows_per_task + window_height - 1) * pitch + seen_columns() - pitch) * interleaved;
  }
  // The floats from the first element of a window to the one at (row, column) of it.
  int offset(int row, int column) const { return (row * pitch + column) * interleaved; }
};

// The grid of `rows × columns` positions on planes of the given layout, whose results are
// `target_planes` planes of sums.
inline PositionGrid MakeGrid(const PlaneLayout& layout, int images, int rows, int columns,
                             int window_height, int window_width, int target_planes) {
  PositionGrid grid{images, rows, columns, window_height, window_width, 0, 1, rows};
  const int seen = grid.seen_columns();
  // Columns of zeros that end a row and begin the next one at once: as many as every plane has at
  // both of its sides, and no more than a window reaches over the end of a row.
  int shared = window_width - 1;
  for (int b = 0; b < layout.column_residues; ++b) {
    const ColumnRange pixels = PixelColumns(layout, b, seen);
    if (pixels.begin < pixels.end)
      shared = std::min(shared, std::min(pixels.begin, seen - pixels.end));
  }
  grid.pitch = seen - shared;
  // From one to eight at once: two or four would make loads that are not aligned, for little.
  while (grid.interleaved < std::min(images, kMostInterleaved) &&
         int64_t{rows} * columns * grid.interleaved < kManyPositions)
    grid.interleaved = grid.interleaved == 1 ? 8 : grid.interleaved * 2;
  // As many rows as the cache holds. But rows that two tasks see are scattered twice: a task has no
  // fewer rows than a window, even if it then needs more than its share of the cache.
  const int64_t row = int64_t{grid.pitch} * grid.interleaved;
  const int64_t left = kCachedFloats - (window_height - 1) * row * layout.planes();
  const int64_t most =
      std::max<int64_t>(left / (row * (layout.planes() + target_planes)), window_height);
  const int tasks = static_cast<int>((rows + most - 1) / most);
  grid.rows_per_task = (rows + tasks - 1) / tasks;  // nearly equal ones, for the threads' sake
  return grid;
}

// A task: `images` images from `image` on, and `rows` rows of positions from `first_row` on.
struct Task {
  int image, images, first_row, rows;
};

inline Task TaskAt(const PositionGrid& grid, int index) {
  const int image = index / grid.tasks_per_image() * grid.interleaved;
  const int first_row = index % grid.tasks_per_image() * grid.rows_per_task;
  return {image, std::min(grid.interleaved, grid.images - image), first_row,
          std::min(grid.rows_per_task, grid.rows - first_row)};
}

// Calls `visit(residue, plane_offset, pixel_offset, count)` for each row of pixels that lies in the
// first `rows` rows and `columns` columns of a task's planes. `count` pixels begin at these
// offsets, in floats, of the plane and of the image.
template <class Visit>
void ForEachPixelRow(const PlaneLayout& layout, const PositionGrid& grid, const Task& task,
                     int rows, int columns, Visit visit) {
  for (int a = 0; a < layout.row_residues; ++a) {
    for (int b = 0; b < layout.column_residues; ++b) {
      const ColumnRange pixels = PixelColumns(layout, b, columns);
      if (pixels.begin >= pixels.end) continue;
      const int x = pixels.begin * layout.stride_width + b - layout.left;
      for (int row = 0; row < rows; ++row) {
        const int y = (task.first_row + row) * layout.stride_height + a - layout.top;
        if (y < 0 || y >= layout.height) continue;
        visit(a * layout.column_residues + b, grid.offset(row, pixels.begin),
              (static_cast<ptrdiff_t>(y) * layout.width + x) * layout.channels,
              pixels.end - pixels.begin);
      }
    }
  }
}

// Scatters a task's images to planes of `plane_size` floats. Everything else is set to zero, also
// one vector behind the last plane, which the last load of a tile may read.
inline void ScatterToPlanes(const PlaneLayout& layout, const PositionGrid& grid, const Task& task,
                            int rows, int columns, const float* images, ptrdiff_t plane_size,
                            float* planes) {
  const float* from = images + task.image * layout.image_size();
  const ptrdiff_t pixel_step = static_cast<ptrdiff_t>(layout.stride_width) * layout.channels;
  const ptrdiff_t channel_step = plane_size * layout.residues();
  // All of it, not only the borders: with residues and a last group of fewer images, what holds no
  // pixel is scattered all over, and a fill runs at the speed of the cache.
  std::fill(planes, planes + plane_size * layout.planes() + kLanes, 0.0f);
  ForEachPixelRow(
      layout, grid, task, rows, columns,
      [&](int residue, int plane_offset, ptrdiff_t pixel_offset, int count) {
        float* to = planes + residue * plane_size + plane_offset;
        // One image: pixels by channels are transposed. Several: at each pixel, images
        // by channels are.
        if (grid.interleaved == 1) {
          Transpose(from + pixel_offset, pixel_step, count, layout.channels, to, channel_step);
          return;
        }
        for (int i = 0; i < count; ++i)
          Transpose(from + pixel_offset + i * pixel_step, layout.image_size(), task.images,
                    layout.channels, to + i * grid.interleaved, channel_step);
      });
}

// Gathers a task's images from planes of sums: the inverse of `ScatterToPlanes`. Positions that
// wrap around lie where no pixel is gathered from.
inline void GatherFromPlanes(const PlaneLayout& layout, const PositionGrid& grid, const Task& task,
                             const float* sums, float* images) {
  float* to = images + task.image * layout.image_size();
  const ptrdiff_t pixel_step = static_cast<ptrdiff_t>(layout.stride_width) * layout.channels;
  const ptrdiff_t plane_size = grid.sums_size(), channel_step = plane_size * layout.residues();
  ForEachPixelRow(
      layout, grid, task, task.rows, grid.columns,
      [&](int residue, int plane_offset, ptrdiff_t pixel_offset, int count) {
        const float* from = sums + residue * plane_size + plane_offset;
        if (grid.interleaved == 1) {
          Transpose(from, channel_step, layout.channels, count, to + pixel_offset, pixel_step);
          return;
        }
        for (int i = 0; i < count; ++i)
          Transpose(from + i * grid.interleaved, channel_step, layout.channels, task.images,
                    to + pixel_offset + i * pixel_step, layout.image_size());
      });
}

// The convolution of one sparse matrix: the planes that windows see (`source`), the planes that
// their sums become (`target`), and the positions. The matrix has a row for each plane of the
// target.
struct Plan {
  Convolution conv;
  bool transposed;
  PlaneLayout source, target;
  PositionGrid grid;

  // The multiply-adds of so many entries.
  int64_t work(int entries) const {
    return int64_t{entries} * grid.images * grid.rows * grid.columns;
  }

  // A column index of the matrix is: channel of the source · 2¹⁶ + row of the kernel · 2⁸ + column
  // of it.
  static int ChannelOf(int32_t column_index) { return column_index >> 16; }

  // Where what an entry is multiplied with lies in the source's planes at the first position.
  int32_t offset(int32_t column_index) const {
    const int channel = ChannelOf(column_index);
    const int y = column_index >> 8 & 255, x = column_index & 255;
    const int row = y / conv.stride_height, column = x / conv.stride_width;
    if (transposed) {
      // Flipped: row 0 of the kernel takes what lies furthest down in the window.
      const int last_row = conv.phase_height() - 1, last_column = conv.phase_width() - 1;
      return channel * grid.plane_size() + grid.offset(last_row - row, last_column - column);
    }
    const int residue = y % conv.stride_height * source.column_residues + x % conv.stride_width;
    return (channel * source.residues() + residue) * grid.plane_size() + grid.offset(row, column);
  }
};

// The plan of `rows × columns` positions.
inline Plan MakePlan(const Convolution& conv, bool transposed, const PlaneLayout& source,
                     const PlaneLayout& target, int rows, int columns) {
  const PositionGrid grid = MakeGrid(source, conv.images, rows, columns, conv.phase_height(),
                                     conv.phase_width(), target.planes());
  return {conv, transposed, source, target, grid};
}

// The plan from images to outputs.
inline Plan ForwardPlan(const Convolution& conv) {
  const int a = std::min(conv.stride_height, conv.kernel_height);
  const int b = std::min(conv.stride_width, conv.kernel_width);
  const PlaneLayout source{
      conv.height, conv.width, conv.channels,   conv.stride_height, conv.stride_width,
      a,           b,          conv.pad_height, conv.pad_width};
  const PlaneLayout target{conv.out_height, conv.out_width, conv.features, 1, 1, 1, 1, 0, 0};
  return MakePlan(conv, false, source, target, conv.out_height, conv.out_width);
}

// The plan from the gradient of the outputs to that of the images.
//
// Pixels whose y + pad has the residue a modulo the stride meet only the kernel's rows a, a +
// stride, …: each residue is a convolution of stride one by these rows, flipped. Its window ends (y
// + pad) / stride rows down in the output's gradient.
inline Plan TransposedPlan(const Convolution& conv) {
  const PlaneLayout source{
      conv.out_height,         conv.out_width,        conv.features, 1, 1, 1, 1,
      conv.phase_height() - 1, conv.phase_width() - 1};
  const PlaneLayout target{conv.height,        conv.width,        conv.channels,
                           conv.stride_height, conv.stride_width, conv.stride_height,
                           conv.stride_width,  conv.pad_height,   conv.pad_width};
  return MakePlan(conv, true, source, target,
                  (conv.height - 1 + conv.pad_height) / conv.stride_height + 1,
                  (conv.width - 1 + conv.pad_width) / conv.stride_width + 1);
}

}  // namespace lth
