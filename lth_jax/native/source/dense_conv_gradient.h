// Gradients of the kernels of dense convolutions.
//
// Everything is one register tile:
//
//   KernelTile    gradient[M values under the window, V·lanes channels]    M ≤ 12, V = 1 or 2
//                 For each pixel: V loads of the output's gradient, M values of the image, each
//                 broadcast, and M·V multiply-adds. It passes over some rows of an image, or over
//                 several small images, so that its sums stay in registers long enough.
#pragma once

#include "bordered.h"

namespace lth {

// Images of pixels: images lie `size` floats apart, rows `pitch`, pixels `step`.
struct Grid {
  const float* data;
  ptrdiff_t size, pitch, step;
};

// One tile, added to `to` [M][V·lanes]. Pixels of `image` are where windows begin.
template <int kValues, int kVectors>
void KernelTile(Grid image, Grid gradient, int images, int rows, int columns, float* to) {
  Vector sums[kValues][kVectors];
  for (int m = 0; m < kValues; ++m)
    for (int v = 0; v < kVectors; ++v)
      sums[m][v] = Load<Vector>(to + (m * kVectors + v) * kLanes);
  for (int n = 0; n < images; ++n) {
    for (int row = 0; row < rows; ++row) {
      const float* x = image.data + n * image.size + row * image.pitch;
      const float* g = gradient.data + n * gradient.size + row * gradient.pitch;
      for (int column = 0; column < columns; ++column, x += image.step, g += gradient.step) {
        Vector d[kVectors];
        for (int v = 0; v < kVectors; ++v) d[v] = Load<Vector>(g + v * kLanes);
        for (int m = 0; m < kValues; ++m)
          for (int v = 0; v < kVectors; ++v) sums[m][v] += d[v] * x[m];
      }
    }
  }
  for (int m = 0; m < kValues; ++m)
    for (int v = 0; v < kVectors; ++v) Store(to + (m * kVectors + v) * kLanes, sums[m][v]);
}

using KernelTileFunction = void (*)(Grid, Grid, int, int, int, float*);

constexpr int kMostValues = kMostVectors == 4 ? 12 : 6;

template <int kVectors, int kValues = kMostValues>
KernelTileFunction KernelTileOf(int values) {
  if (values == kValues) return KernelTile<kValues, kVectors>;
  if constexpr (kValues > 1) return KernelTileOf<kVectors, kValues - 1>(values);
  return nullptr;
}

// Pixels that a tile passes over, about: their gradient stays in the first-level cache.
constexpr int kPassed = 128;

// Adds the gradient of `rows` rows of output pixels of so many images to `to`
// [block][kernel row][run][block's lanes]. Rows under a window lie `under` floats apart.
inline void AddKernelGradient(const Conv& conv, const std::vector<Block>& blocks, Grid image,
                              ptrdiff_t under, Grid gradient, int images, int rows, float* to) {
  const int run = conv.kernel_width * conv.channels;
  for (const Block& block : blocks) {
    Grid given = gradient;
    given.data += block.begin;
    for (int r = 0; r < conv.kernel_height; ++r) {
      for (int i = 0; i < run; i += kMostValues) {
        const int values = std::min(kMostValues, run - i);
        Grid seen = image;
        seen.data += r * under + i;
        const auto tile = block.vectors == 2 ? KernelTileOf<2>(values) : KernelTileOf<1>(values);
        tile(seen, given, images, rows, conv.out_width, to);
        to += static_cast<size_t>(values) * block.vectors * kLanes;
      }
    }
  }
}

// Output gradients [pixels, channels] with channels filled up to `padded` by zeros.
template <int kSlot>
const float* FilledUp(const float* given, size_t pixels, int channels, int padded) {
  if (padded == channels) return given;
  float* room = Scratch<kSlot>(pixels * padded);
  for (size_t p = 0; p < pixels; ++p) {
    float* end = std::copy_n(given + p * channels, channels, room + p * padded);
    std::fill(end, room + (p + 1) * padded, 0.0f);
  }
  return room;
}

// out [kernel row · run][features] from sums of parts [part][block][kernel row · run][lanes],
// added in order.
template <class Pool>
void AddParts(Pool& pool, const std::vector<Block>& blocks, int parts, size_t size, int64_t values,
              int features, const float* sums, float* out) {
  constexpr int64_t kChunk = 512;
  ForEach(pool, static_cast<int>((values + kChunk - 1) / kChunk), [&](int chunk) {
    const int64_t first = chunk * kChunk, last = std::min(values, first + kChunk);
    const float* from = sums;
    for (const Block& block : blocks) {
      const int width = block.vectors * kLanes, some = std::min(width, features - block.begin);
      for (int64_t i = first; i < last; ++i) {
        float* to = out + i * features + block.begin;
        std::copy_n(from + i * width, some, to);
        for (int part = 1; part < parts; ++part)
          for (int k = 0; k < some; ++k) to[k] += from[size * part + i * width + k];
      }
      from += values * width;
    }
  });
}

// The gradient of the kernel [kernel_height, kernel_width, channels, features].
//
// Images are shared out in a fixed number of parts, whose sums are added in order.
template <class Pool>
void KernelGradient(Pool& pool, const Conv& conv, const float* images, const float* gradient,
                    float* out) {
  const int rows = (conv.out_height - 1) * conv.stride_height + conv.kernel_height;
  const int columns = (conv.out_width - 1) * conv.stride_width + conv.kernel_width;
  const size_t in_size = static_cast<size_t>(conv.height) * conv.width * conv.channels;
  const size_t pixels = static_cast<size_t>(conv.out_height) * conv.out_width;
  const auto blocks = Blocks(conv.features, 2);
  const int padded = blocks.back().begin + blocks.back().vectors * kLanes;
  const int64_t values = int64_t{conv.kernel_height} * conv.kernel_width * conv.channels;
  const size_t size = values * padded;
  const int parts = std::min(conv.images, size > (1 << 17) ? 4 : 8);
  float* sums = Scratch<4>(size * parts);
  const int slab = std::max(1, kPassed / conv.out_width);
  const int together = std::max(1, static_cast<int>(kPassed / pixels));
  ForEach(pool, parts, [&](int part) {
    float* own = sums + size * part;
    std::fill(own, own + size, 0.0f);
    const int begin = static_cast<int>(static_cast<int64_t>(part) * conv.images / parts);
    const int end = static_cast<int>(static_cast<int64_t>(part + 1) * conv.images / parts);
    for (int n = begin; n < end; n += together) {
      const int some = std::min(together, end - n);
      const Bordered image =
          WithBorder<0>(images + n * in_size, some, conv.height, conv.width, conv.channels,
                        conv.pad_height, conv.pad_width, rows, columns);
      const float* given = FilledUp<1>(gradient + n * pixels * conv.features, some * pixels,
                                       conv.features, padded);
      for (int y = 0; y < conv.out_height; y += slab) {
        const Grid seen{image.data + y * conv.stride_height * image.pitch, image.size,
                        image.pitch * conv.stride_height,
                        static_cast<ptrdiff_t>(conv.stride_width) * conv.channels};
        const ptrdiff_t row = static_cast<ptrdiff_t>(conv.out_width) * padded;
        const Grid of{given + y * row, static_cast<ptrdiff_t>(pixels) * padded, row, padded};
        AddKernelGradient(conv, blocks, seen, image.pitch, of, some,
                          std::min(slab, conv.out_height - y), own);
      }
    }
  });
  AddParts(pool, blocks, parts, size, values, conv.features, sums, out);
}

}  // namespace lth
