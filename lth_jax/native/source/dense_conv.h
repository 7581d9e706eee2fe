// Convolutions of NHWC images by dense HWIO kernels, with any stride and any border of zeros.
//
//   Forward          out[n, y, x, k] = Σ_{r, q, c} pixel(n, y, x; r, q)[c] · kernel[r, q, c, k]
//   KernelGradient   gradient[r, q, c, k] = Σ_{n, y, x} pixel(n, y, x; r, q)[c] · given[n, y, x, k]
//   InputGradient    is Forward's computation on the output's gradient, with flipped kernels.
//
// where pixel(n, y, x; r, q) is image[n, y · stride + r − pad, x · stride + q − pad], and given is
// the gradient of the output.
//
// Images are copied once into a border of zeros (not at all where there is none), so that no inner
// loop asks where the image ends. A row of the window, `width × channels` values, lies side by side
// in NHWC: it is one loop. Everything else is one of two register tiles:
//
//               V vectors of features
//             ┌──────┬──────┬──────┐
//   P pixels  │ sums │ sums │ sums │   PixelTile: P = 6 or 8 output pixels, V = 1, 2 or 4.
//             │  …   │  …   │  …   │   A step is a value under the window.
//             └──────┴──────┴──────┘
//
//   A step loads V vectors of weights, which no step of the tile reads twice, and broadcasts P
//   values of the image, for P·V multiply-adds: 10 loads for 24 at best. It is bound by
//   multiply-adds, as long as the weights come from L2. It computes outputs and gradients of
//   inputs.
//
//             ┌──────┬──────┐
//   M values  │ sums │ sums │          KernelTile: M ≤ 12 values under the window, V = 1 or 2.
//             │  …   │  …   │          A step is an output pixel.
//             └──────┴──────┘
//
//   A step loads V vectors of the output's gradient and broadcasts M values of the image, for M·V
//   multiply-adds. It is bound by these too, if a tile passes over enough pixels at once: its sums
//   are loaded and stored in each pass. So a pass is some rows of an image, or several small
//   images.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "convolution.h"
#include "parallel.h"
#include "vectors.h"

namespace lth {
namespace dense_conv {

// Images [height, width, channels] in borders of zeros: where the first begins, and the floats of
// an image and of a row.
struct PaddedImages {
  const float* data;
  ptrdiff_t size, pitch;
};

// Returns the `rows × columns` pixels from (-top, -left) on of each of `count` images, with zeros
// outside of the images. Where no zeros are needed these are the images themselves.
template <int kSlot>
PaddedImages PadImages(const float* images, int count, int height, int width, int channels, int top,
                       int left, int rows, int columns) {
  const ptrdiff_t line = static_cast<ptrdiff_t>(width) * channels;
  if (top == 0 && left == 0 && rows <= height && columns <= width)
    return {images, line * height, line};
  const ptrdiff_t pitch = static_cast<ptrdiff_t>(columns) * channels;
  float* padded_images = Scratch<kSlot>(static_cast<size_t>(pitch) * rows * count);
  const int from = std::max(0, -left), until = std::min(width, columns - left);
  for (int row = 0; row < rows * count; ++row) {
    float* to = padded_images + row * pitch;
    const int source = row % rows - top;
    if (source < 0 || source >= height || until <= from) {
      std::fill(to, to + pitch, 0.0f);
      continue;
    }
    const float* image = images + row / rows * line * height;
    float* begin = to + static_cast<ptrdiff_t>(from + left) * channels;
    float* end = begin + static_cast<ptrdiff_t>(until - from) * channels;
    std::fill(to, begin, 0.0f);
    std::copy_n(image + source * line + static_cast<ptrdiff_t>(from) * channels, end - begin,
                begin);
    std::fill(end, to + pitch, 0.0f);
  }
  return {padded_images, pitch * rows, pitch};
}

// Channels are cut into blocks of 4, 2 or 1 vectors, the last one filled up with zeros. Powers of
// two, so that three tiles are compiled, not one for each number of vectors.
struct Block {
  int begin, vectors;
};

inline std::vector<Block> MakeBlocks(int channels, int most) {
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

// A tile's sums, the weights of a step and one broadcast value must fit into the registers: 32 of
// sixteen lanes (6 · 4 sums and 4 weights), or 16 of eight (6 · 2 and 2).
#if defined(__AVX512F__)
constexpr int kMostVectors = 4;
constexpr int PixelsPerTile(int vectors) { return vectors == 4 ? 6 : 8; }
#else
constexpr int kMostVectors = 2;
constexpr int PixelsPerTile(int) { return 6; }
#endif

// Computes one tile of outputs: see above. The window has `rows` rows of `row_values` values.
// `pixels` are where windows begin, `outs` where outputs go, of which `channels` are left.
template <int kPixels, int kVectors>
inline void PixelTile(const float* const* pixels, int rows, ptrdiff_t pitch, int row_values,
                      const float* weights, float* const* outs, int channels) {
  Vector sums[kPixels][kVectors] = {};
  for (int row = 0; row < rows; ++row) {
    const float* windows[kPixels];
    for (int p = 0; p < kPixels; ++p) windows[p] = pixels[p] + row * pitch;
    for (int i = 0; i < row_values; ++i) {
      Vector w[kVectors];
      for (int v = 0; v < kVectors; ++v) w[v] = Load<Vector>(weights + v * kLanes);
      weights += kVectors * kLanes;
      for (int p = 0; p < kPixels; ++p) {
        const float x = windows[p][i];
        for (int v = 0; v < kVectors; ++v) sums[p][v] += w[v] * x;
      }
    }
  }
  for (int p = 0; p < kPixels; ++p) {
    if (channels >= kVectors * kLanes) {
      for (int v = 0; v < kVectors; ++v) Store(outs[p] + v * kLanes, sums[p][v]);
    } else {
      std::memcpy(outs[p], sums[p], channels * sizeof(float));
    }
  }
}

// Windows that meet the same weights: all windows of a forward pass; of input gradients, those of
// pixels with the same residues modulo the strides. `weights` are stored [block][rows][row_values]
// [lanes of the block], in the order in which a tile reads them, since the kernel's own order would
// touch a line of the cache for each vector. A position is (begin of the window in the padded
// image, begin of the output), in floats.
struct Phase {
  int rows, row_values;
  std::vector<float> weights;
  std::vector<std::pair<int64_t, int64_t>> positions;
};

// Computes `channels` channels of a phase's outputs, no more than `kVectors` vectors.
template <int kVectors>
inline void ApplyTiles(const Phase& phase, const float* image, ptrdiff_t pitch,
                       const float* weights, float* out, int channels) {
  constexpr int kPixels = PixelsPerTile(kVectors);
  const int count = static_cast<int>(phase.positions.size());
  for (int begin = 0; begin < count; begin += kPixels) {
    // The last tile goes back over pixels of the one before: it writes the same values again.
    const int first = std::max(0, std::min(begin, count - kPixels));
    const float* pixels[kPixels];
    float* outs[kPixels];
    for (int p = 0; p < kPixels; ++p) {
      const auto& position = phase.positions[std::min(first + p, count - 1)];
      pixels[p] = image + position.first;
      outs[p] = out + position.second;
    }
    PixelTile<kPixels, kVectors>(pixels, phase.rows, pitch, phase.row_values, weights, outs,
                                 channels);
  }
}

// Computes all outputs [.., channels] of one image.
inline void Apply(const std::vector<Phase>& phases, const std::vector<Block>& blocks,
                  PaddedImages image, float* out, int channels) {
  for (const Phase& phase : phases) {
    size_t offset = 0;
    for (const Block& block : blocks) {
      const float* weights = phase.weights.data() + offset;
      float* to = out + block.begin;
      const int left = channels - block.begin;
      if (block.vectors == 4) {
        if constexpr (kMostVectors >= 4)
          ApplyTiles<4>(phase, image.data, image.pitch, weights, to, left);
      } else if (block.vectors == 2) {
        ApplyTiles<2>(phase, image.data, image.pitch, weights, to, left);
      } else {
        ApplyTiles<1>(phase, image.data, image.pitch, weights, to, left);
      }
      offset += static_cast<size_t>(phase.rows) * phase.row_values * block.vectors * kLanes;
    }
  }
}

// Sets the weights of a phase: for each block, `rows × row_values` vectors of `value(row, i,
// channel)`.
template <class Pool, class Value>
void Pack(Pool& pool, Phase& phase, const std::vector<Block>& blocks, int channels, Value value) {
  size_t lanes = 0;
  std::vector<size_t> offsets;
  for (const Block& block : blocks) {
    offsets.push_back(lanes * phase.rows * phase.row_values);
    lanes += static_cast<size_t>(block.vectors) * kLanes;
  }
  phase.weights.resize(lanes * phase.rows * phase.row_values);
  ForEach(pool, static_cast<int>(blocks.size()), [&](int index) {
    const Block block = blocks[index];
    float* to = phase.weights.data() + offsets[index];
    const int width = block.vectors * kLanes, count = std::min(width, channels - block.begin);
    for (int row = 0; row < phase.rows; ++row) {
      for (int i = 0; i < phase.row_values; ++i, to += width) {
        for (int c = 0; c < count; ++c) to[c] = value(row, i, block.begin + c);
        std::fill(to + count, to + width, 0.0f);
      }
    }
  });
}

// Computes the outputs [images, out_height, out_width, features].
template <class Pool>
void Forward(Pool& pool, const Convolution& conv, const float* images, const float* kernel,
             float* out) {
  const int row_values = conv.kernel_width * conv.channels;
  const int rows = (conv.out_height - 1) * conv.stride_height + conv.kernel_height;
  const int columns = (conv.out_width - 1) * conv.stride_width + conv.kernel_width;
  const bool unpadded =
      conv.pad_height == 0 && conv.pad_width == 0 && rows <= conv.height && columns <= conv.width;
  const int64_t pitch = static_cast<int64_t>(unpadded ? conv.width : columns) * conv.channels;
  std::vector<Phase> phases(1);
  Phase& phase = phases[0];
  phase.rows = conv.kernel_height;
  phase.row_values = row_values;
  for (int y = 0; y < conv.out_height; ++y) {
    for (int x = 0; x < conv.out_width; ++x) {
      phase.positions.emplace_back(y * conv.stride_height * pitch +
                                       static_cast<int64_t>(x) * conv.stride_width * conv.channels,
                                   (static_cast<int64_t>(y) * conv.out_width + x) * conv.features);
    }
  }
  const auto blocks = MakeBlocks(conv.features, kMostVectors);
  Pack(pool, phase, blocks, conv.features, [&](int row, int i, int k) {
    return kernel[(static_cast<size_t>(row) * row_values + i) * conv.features + k];
  });
  const size_t in_size = static_cast<size_t>(conv.height) * conv.width * conv.channels;
  const size_t out_size = static_cast<size_t>(conv.out_height) * conv.out_width * conv.features;
  ForEach(pool, conv.images, [&](int n) {
    const PaddedImages image =
        PadImages<0>(images + n * in_size, 1, conv.height, conv.width, conv.channels,
                     conv.pad_height, conv.pad_width, rows, columns);
    Apply(phases, blocks, image, out + n * out_size, conv.features);
  });
}

// Returns the phase of the input gradient's pixels whose y + pad has the residue `a` modulo the
// stride, and whose x + pad has the residue `b`.
//
// They meet only the kernel's rows a, a + stride, … and columns b, b + stride, …: their gradient is
// a convolution of stride one by these, flipped. The output's gradient has `top` rows of zeros
// above, `left` columns of them on the left, and rows of `pitch` floats.
template <class Pool>
Phase InputGradientPhase(Pool& pool, const Convolution& conv, const std::vector<Block>& blocks,
                         const float* kernel, int a, int b, int top, int left, int64_t pitch) {
  const auto count = [](int size, int residue, int stride) {
    return residue < size ? RoundUp(size - residue, stride) / stride : 0;
  };
  const int u = count(conv.kernel_height, a, conv.stride_height);
  const int v = count(conv.kernel_width, b, conv.stride_width);
  Phase phase;
  phase.rows = v > 0 ? u : 0;  // without any weight the gradient is zero
  phase.row_values = v * conv.features;
  for (int y = 0; y < conv.height; ++y) {
    if ((y + conv.pad_height) % conv.stride_height != a) continue;
    const int64_t row = (y + conv.pad_height - a) / conv.stride_height - u + 1 + top;
    for (int x = 0; x < conv.width; ++x) {
      if ((x + conv.pad_width) % conv.stride_width != b) continue;
      const int64_t column = (x + conv.pad_width - b) / conv.stride_width - v + 1 + left;
      phase.positions.emplace_back(phase.rows ? row * pitch + column * conv.features : 0,
                                   (static_cast<int64_t>(y) * conv.width + x) * conv.channels);
    }
  }
  Pack(pool, phase, blocks, conv.channels, [&](int row, int i, int c) {
    const int r = a + conv.stride_height * (u - 1 - row);
    const int q = b + conv.stride_width * (v - 1 - i / conv.features);
    const int k = i % conv.features;
    return kernel[((static_cast<size_t>(r) * conv.kernel_width + q) * conv.channels + c) *
                      conv.features +
                  k];
  });
  return phase;
}

// Computes the gradient of the images [images, height, width, channels] from that of the outputs.
template <class Pool>
void InputGradient(Pool& pool, const Convolution& conv, const float* kernel, const float* gradient,
                   float* out) {
  const int top = conv.phase_height() - 1, left = conv.phase_width() - 1;
  const int rows =
      top + std::max(conv.out_height, (conv.height - 1 + conv.pad_height) / conv.stride_height + 1);
  const int columns =
      left + std::max(conv.out_width, (conv.width - 1 + conv.pad_width) / conv.stride_width + 1);
  const bool unpadded =
      top == 0 && left == 0 && rows <= conv.out_height && columns <= conv.out_width;
  const int64_t pitch = static_cast<int64_t>(unpadded ? conv.out_width : columns) * conv.features;
  const auto blocks = MakeBlocks(conv.channels, kMostVectors);
  std::vector<Phase> phases;
  for (int a = 0; a < conv.stride_height; ++a)
    for (int b = 0; b < conv.stride_width; ++b)
      phases.push_back(InputGradientPhase(pool, conv, blocks, kernel, a, b, top, left, pitch));
  const size_t in_size = static_cast<size_t>(conv.height) * conv.width * conv.channels;
  const size_t out_size = static_cast<size_t>(conv.out_height) * conv.out_width * conv.features;
  ForEach(pool, conv.images, [&](int n) {
    const PaddedImages image =
        PadImages<0>(gradient + n * out_size, 1, conv.out_height, conv.out_width, conv.features,
                     top, left, rows, columns);
    Apply(phases, blocks, image, out + n * in_size, conv.channels);
  });
}

// Pixels that a tile passes over: images lie `size` floats apart, rows `pitch`, pixels `step`.
struct Grid {
  const float* data;
  ptrdiff_t size, pitch, step;
};

// Adds one tile to `to` [kValues][kVectors · lanes]. Pixels of `image` are where windows begin.
template <int kValues, int kVectors>
void KernelTile(Grid image, Grid gradient, int images, int rows, int columns, float* to) {
  Vector sums[kValues][kVectors];
  for (int m = 0; m < kValues; ++m)
    for (int v = 0; v < kVectors; ++v) sums[m][v] = Load<Vector>(to + (m * kVectors + v) * kLanes);
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

// As many as the registers hold beside the vectors of a step, for two vectors.
constexpr int kMostValues = kMostVectors == 4 ? 12 : 6;

template <int kVectors, int kValues = kMostValues>
KernelTileFunction KernelTileOf(int values) {
  if (values == kValues) return KernelTile<kValues, kVectors>;
  if constexpr (kValues > 1) return KernelTileOf<kVectors, kValues - 1>(values);
  return nullptr;
}

// About so many pixels does a tile pass over: their gradient stays in L1 for all tiles of a block.
constexpr int kPassPixels = 128;

// Adds what `rows` rows of output pixels of so many images contribute to the kernel's gradient, to
// `to` [block][kernel row][row_values][lanes of the block]. Rows of a window lie `window_pitch`
// floats apart.
inline void AddKernelGradient(const Convolution& conv, const std::vector<Block>& blocks, Grid image,
                              ptrdiff_t window_pitch, Grid gradient, int images, int rows,
                              float* to) {
  const int row_values = conv.kernel_width * conv.channels;
  for (const Block& block : blocks) {
    Grid out_gradient = gradient;
    out_gradient.data += block.begin;
    for (int r = 0; r < conv.kernel_height; ++r) {
      for (int i = 0; i < row_values; i += kMostValues) {
        const int values = std::min(kMostValues, row_values - i);
        Grid seen = image;
        seen.data += r * window_pitch + i;
        const auto tile = block.vectors == 2 ? KernelTileOf<2>(values) : KernelTileOf<1>(values);
        tile(seen, out_gradient, images, rows, conv.out_width, to);
        to += static_cast<size_t>(values) * block.vectors * kLanes;
      }
    }
  }
}

// Returns output gradients [pixels, channels] with channels filled up to `padded` by zeros, so that
// every load of a tile is a whole vector.
template <int kSlot>
const float* PadChannels(const float* out_gradient, size_t pixels, int channels, int padded) {
  if (padded == channels) return out_gradient;
  float* filled = Scratch<kSlot>(pixels * padded);
  for (size_t p = 0; p < pixels; ++p) {
    float* end = std::copy_n(out_gradient + p * channels, channels, filled + p * padded);
    std::fill(end, filled + (p + 1) * padded, 0.0f);
  }
  return filled;
}

// Writes to `out` [kernel row · row_values][features] the sums over parts of `sums` [part][block]
// [kernel row · row_values][lanes], added in order.
template <class Pool>
void SumParts(Pool& pool, const std::vector<Block>& blocks, int parts, size_t size, int64_t values,
              int features, const float* sums, float* out) {
  constexpr int64_t kChunk = 512;
  ForEach(pool, static_cast<int>((values + kChunk - 1) / kChunk), [&](int chunk) {
    const int64_t first = chunk * kChunk, last = std::min(values, first + kChunk);
    const float* from = sums;
    for (const Block& block : blocks) {
      const int width = block.vectors * kLanes, count = std::min(width, features - block.begin);
      for (int64_t i = first; i < last; ++i) {
        float* to = out + i * features + block.begin;
        std::copy_n(from + i * width, count, to);
        for (int part = 1; part < parts; ++part)
          for (int k = 0; k < count; ++k) to[k] += from[size * part + i * width + k];
      }
      from += values * width;
    }
  });
}

// Computes the gradient of the kernel [kernel_height, kernel_width, channels, features].
//
// All images add to the same gradient. They are shared out in a number of parts that depends on
// shapes alone, and the parts' sums are added in order: so no bit depends on the number of threads.
// Large kernels have fewer parts, since each has sums of the kernel's size to clear and to add.
template <class Pool>
void KernelGradient(Pool& pool, const Convolution& conv, const float* images, const float* gradient,
                    float* out) {
  const int rows = (conv.out_height - 1) * conv.stride_height + conv.kernel_height;
  const int columns = (conv.out_width - 1) * conv.stride_width + conv.kernel_width;
  const size_t in_size = static_cast<size_t>(conv.height) * conv.width * conv.channels;
  const size_t pixels = static_cast<size_t>(conv.out_height) * conv.out_width;
  const auto blocks = MakeBlocks(conv.features, 2);
  const int padded = blocks.back().begin + blocks.back().vectors * kLanes;
  const int64_t values = int64_t{conv.kernel_height} * conv.kernel_width * conv.channels;
  const size_t size = values * padded;
  const int parts = std::min(conv.images, size > (1 << 17) ? 4 : 8);
  float* sums = Scratch<4>(size * parts);
  const int pass_rows = std::max(1, kPassPixels / conv.out_width);
  const int pass_images = std::max(1, static_cast<int>(kPassPixels / pixels));
  ForEach(pool, parts, [&](int part) {
    float* part_sums = sums + size * part;
    std::fill(part_sums, part_sums + size, 0.0f);
    const int begin = static_cast<int>(static_cast<int64_t>(part) * conv.images / parts);
    const int end = static_cast<int>(static_cast<int64_t>(part + 1) * conv.images / parts);
    for (int n = begin; n < end; n += pass_images) {
      const int count = std::min(pass_images, end - n);
      const PaddedImages image =
          PadImages<0>(images + n * in_size, count, conv.height, conv.width, conv.channels,
                       conv.pad_height, conv.pad_width, rows, columns);
      const float* out_gradient = PadChannels<1>(gradient + n * pixels * conv.features,
                                                 count * pixels, conv.features, padded);
      for (int y = 0; y < conv.out_height; y += pass_rows) {
        const Grid seen{image.data + y * conv.stride_height * image.pitch, image.size,
                        image.pitch * conv.stride_height,
                        static_cast<ptrdiff_t>(conv.stride_width) * conv.channels};
        const ptrdiff_t row = static_cast<ptrdiff_t>(conv.out_width) * padded;
        const Grid of{out_gradient + y * row, static_cast<ptrdiff_t>(pixels) * padded, row, padded};
        AddKernelGradient(conv, blocks, seen, image.pitch, of, count,
                          std::min(pass_rows, conv.out_height - y), part_sums);
      }
    }
  });
  SumParts(pool, blocks, parts, size, values, conv.features, sums, out);
}

}  // namespace dense_conv
}  // namespace lth
