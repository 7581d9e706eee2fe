// What dense convolutions share: their shape, images in a border of zeros, blocks of channels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "parallel.h"
#include "vectors.h"

namespace lth {

// A convolution. `pad` is the border above and on the left; what lies below follows from `out`.
struct Conv {
  int images, height, width, channels;
  int kernel_height, kernel_width, features;
  int stride_height, stride_width, pad_height, pad_width;
  int out_height, out_width;
};

// Images [height, width, channels] in borders of zeros: where the first begins, and the floats of an
// image and of a row.
struct Bordered {
  const float* data;
  ptrdiff_t size, pitch;
};

// The `rows × columns` pixels from (-top, -left) on of each of `count` images, zeros outside of
// them. Without any border they are the images themselves.
template <int kSlot>
Bordered WithBorder(const float* images, int count, int height, int width, int channels, int top,
                    int left, int rows, int columns) {
  const ptrdiff_t line = static_cast<ptrdiff_t>(width) * channels;
  if (top == 0 && left == 0 && rows <= height && columns <= width)
    return {images, line * height, line};
  const ptrdiff_t pitch = static_cast<ptrdiff_t>(columns) * channels;
  float* room = Scratch<kSlot>(static_cast<size_t>(pitch) * rows * count);
  const int from = std::max(0, -left), until = std::min(width, columns - left);
  for (int row = 0; row < rows * count; ++row) {
    float* to = room + row * pitch;
    const int source = row % rows - top;
    if (source < 0 || source >= height || until <= from) {
      std::fill(to, to + pitch, 0.0f);
      continue;
    }
    const float* image = images + row / rows * line * height;
    float* begin = to + static_cast<ptrdiff_t>(from + left) * channels;
    float* end = begin + static_cast<ptrdiff_t>(until - from) * channels;
    std::fill(to, begin, 0.0f);
    std::copy_n(image + source * line + static_cast<ptrdiff_t>(from) * channels, end - begin, begin);
    std::fill(end, to + pitch, 0.0f);
  }
  return {room, pitch * rows, pitch};
}

// Channels are cut into blocks of 4, 2 or 1 vectors, the last one filled up.
struct Block {
  int begin, vectors;
};

inline std::vector<Block> Blocks(int channels, int most) {
  std::vector<Block> blocks;
  for (int begin = 0; begin < channels;) {
    const int left = RoundUp(channels - begin, kLanes) / kLanes;
    int vectors = 1;
    while (vectors * 2 <= most && vectors < left) vectors *= 2;
    blocks.push_back({begin, vectors});
    begin += vectors * kLanes;
  }
  return blocks;
}

#if defined(__AVX512F__)
constexpr int kMostVectors = 4;
constexpr int PixelsOf(int vectors) { return vectors == 4 ? 6 : 8; }
#else
constexpr int kMostVectors = 2;
constexpr int PixelsOf(int) { return 6; }
#endif

}  // namespace lth
