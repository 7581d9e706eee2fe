// Dense convolutions of NHWC images by HWIO kernels, with any stride and any border of zeros.
//
// Images are copied once into a border of zeros (not at all where there is none), so that no loop
// asks where the image ends. Everything else is a register tile:
//
//   Pixels        out[P pixels, V·lanes channels]     P = 6 or 8, V = 1, 2 or 4
//                 For each value under the window: V loads of weights, which stream by, P values of
//                 the image, each broadcast, and P·V multiply-adds. (P + V) / (P·V) loads for each
//                 multiply-add, 10/24 at best: bound by arithmetic, as long as weights come from L2.
//                 It computes outputs, and, with mirrored kernels, the gradients of inputs.
//
// A window's row, `width × channels` values, lies contiguously in NHWC: it is one loop. The kernel's
// gradient has a tile of its own, in dense_conv_gradient.h.
#pragma once

#include <utility>

#include "bordered.h"

namespace lth {

// One tile of outputs: see above. `rows` rows of `run` values under the window; `pixels` are where
// windows begin, `outs` where outputs go, of which `channels` are left.
template <int kPixels, int kVectors>
inline void Pixels(const float* const* pixels, int rows, ptrdiff_t pitch, int run,
                   const float* weights, float* const* outs, int channels) {
  Vector sums[kPixels][kVectors] = {};
  for (int row = 0; row < rows; ++row) {
    const float* windows[kPixels];
    for (int p = 0; p < kPixels; ++p) windows[p] = pixels[p] + row * pitch;
    for (int i = 0; i < run; ++i) {
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

// Windows of one kind: those of a forward pass, or of input gradients that lie alike between
// strides. `weights` are packed [block][rows][run][block's lanes]; a place is (window's begin in
// the bordered image, output's begin), in floats.
struct Phase {
  int rows, run;
  std::vector<float> weights;
  std::vector<std::pair<int64_t, int64_t>> places;
};

template <int kVectors>
inline void Tiles(const Phase& phase, const float* image, ptrdiff_t pitch, const float* weights,
                  float* out, int channels) {
  constexpr int kPixels = PixelsOf(kVectors);
  const int count = static_cast<int>(phase.places.size());
  for (int begin = 0; begin < count; begin += kPixels) {
    // The last tile goes back over pixels of the one before: it writes the same values again.
    const int first = std::max(0, std::min(begin, count - kPixels));
    const float* pixels[kPixels];
    float* outs[kPixels];
    for (int p = 0; p < kPixels; ++p) {
      const auto& place = phase.places[std::min(first + p, count - 1)];
      pixels[p] = image + place.first;
      outs[p] = out + place.second;
    }
    Pixels<kPixels, kVectors>(pixels, phase.rows, pitch, phase.run, weights, outs, channels);
  }
}

// All outputs [.., channels] of one image.
inline void Apply(const std::vector<Phase>& phases, const std::vector<Block>& blocks,
                  Bordered image, float* out, int channels) {
  for (const Phase& phase : phases) {
    size_t offset = 0;
    for (const Block& block : blocks) {
      const float* weights = phase.weights.data() + offset;
      float* to = out + block.begin;
      const int left = channels - block.begin;
      if (block.vectors == 4) {
        if constexpr (kMostVectors >= 4)
          Tiles<4>(phase, image.data, image.pitch, weights, to, left);
      } else if (block.vectors == 2) {
        Tiles<2>(phase, image.data, image.pitch, weights, to, left);
      } else {
        Tiles<1>(phase, image.data, image.pitch, weights, to, left);
      }
      offset += static_cast<size_t>(phase.rows) * phase.run * block.vectors * kLanes;
    }
  }
}

// `weights` of a phase: for each block, `rows × run` vectors that `value(row, i, channel)` gives.
template <class Pool, class Value>
void Pack(Pool& pool, Phase& phase, const std::vector<Block>& blocks, int channels, Value value) {
  size_t lanes = 0;
  std::vector<size_t> offsets;
  for (const Block& block : blocks) {
    offsets.push_back(lanes * phase.rows * phase.run);
    lanes += static_cast<size_t>(block.vectors) * kLanes;
  }
  phase.weights.resize(lanes * phase.rows * phase.run);
  ForEach(pool, static_cast<int>(blocks.size()), [&](int index) {
    const Block block = blocks[index];
    float* to = phase.weights.data() + offsets[index];
    const int width = block.vectors * kLanes, some = std::min(width, channels - block.begin);
    for (int row = 0; row < phase.rows; ++row) {
      for (int i = 0; i < phase.run; ++i, to += width) {
        for (int c = 0; c < some; ++c) to[c] = value(row, i, block.begin + c);
        std::fill(to + some, to + width, 0.0f);
      }
    }
  });
}

// out[n, y, x, k] = Σ image[n, y·stride + r - pad, x·stride + q - pad, c] · kernel[r, q, c, k]
template <class Pool>
void Forward(Pool& pool, const Conv& conv, const float* images, const float* kernel, float* out) {
  const int run = conv.kernel_width * conv.channels;
  const int rows = (conv.out_height - 1) * conv.stride_height + conv.kernel_height;
  const int columns = (conv.out_width - 1) * conv.stride_width + conv.kernel_width;
  const bool inside = conv.pad_height == 0 && conv.pad_width == 0 && rows <= conv.height &&
                      columns <= conv.width;
  const int64_t pitch = static_cast<int64_t>(inside ? conv.width : columns) * conv.channels;
  std::vector<Phase> phases(1);
  Phase& phase = phases[0];
  phase.rows = conv.kernel_height;
  phase.run = run;
  for (int y = 0; y < conv.out_height; ++y) {
    for (int x = 0; x < conv.out_width; ++x) {
      phase.places.emplace_back(
          y * conv.stride_height * pitch + static_cast<int64_t>(x) * conv.stride_width * conv.channels,
          (static_cast<int64_t>(y) * conv.out_width + x) * conv.features);
    }
  }
  const auto blocks = Blocks(conv.features, kMostVectors);
  Pack(pool, phase, blocks, conv.features, [&](int row, int i, int k) {
    return kernel[(static_cast<size_t>(row) * run + i) * conv.features + k];
  });
  const size_t in_size = static_cast<size_t>(conv.height) * conv.width * conv.channels;
  const size_t out_size = static_cast<size_t>(conv.out_height) * conv.out_width * conv.features;
  ForEach(pool, conv.images, [&](int n) {
    const Bordered image =
        WithBorder<0>(images + n * in_size, 1, conv.height, conv.width, conv.channels,
                      conv.pad_height, conv.pad_width, rows, columns);
    Apply(phases, blocks, image, out + n * out_size, conv.features);
  });
}

// The gradient of the images, given that of the output.
//
// Pixels whose (y + pad) leaves the same rest a under division by the stride see the same kernel
// rows a, a + stride, …: for each rest, a convolution of stride one with those rows, mirrored.
template <class Pool>
void InputGradient(Pool& pool, const Conv& conv, const float* kernel, const float* gradient,
                   float* out) {
  const int most_rows = RoundUp(conv.kernel_height, conv.stride_height) / conv.stride_height;
  const int most_columns = RoundUp(conv.kernel_width, conv.stride_width) / conv.stride_width;
  const int top = most_rows - 1, left = most_columns - 1;
  const int rows = top + std::max(conv.out_height,
                                  (conv.height - 1 + conv.pad_height) / conv.stride_height + 1);
  const int columns =
      left + std::max(conv.out_width, (conv.width - 1 + conv.pad_width) / conv.stride_width + 1);
  const bool inside = top == 0 && left == 0 && rows <= conv.out_height && columns <= conv.out_width;
  const int64_t pitch = static_cast<int64_t>(inside ? conv.out_width : columns) * conv.features;
  const auto blocks = Blocks(conv.channels, kMostVectors);
  std::vector<Phase> phases(static_cast<size_t>(conv.stride_height) * conv.stride_width);
  for (int a = 0; a < conv.stride_height; ++a) {
    for (int b = 0; b < conv.stride_width; ++b) {
      Phase& phase = phases[static_cast<size_t>(a) * conv.stride_width + b];
      const int u = a < conv.kernel_height
                        ? RoundUp(conv.kernel_height - a, conv.stride_height) / conv.stride_height
                        : 0;
      const int v = b < conv.kernel_width
                        ? RoundUp(conv.kernel_width - b, conv.stride_width) / conv.stride_width
                        : 0;
      phase.rows = v > 0 ? u : 0;
      phase.run = v * conv.features;
      for (int y = 0; y < conv.height; ++y) {
        if ((y + conv.pad_height) % conv.stride_height != a) continue;
        const int64_t row = (y + conv.pad_height - a) / conv.stride_height - u + 1 + top;
        for (int x = 0; x < conv.width; ++x) {
          if ((x + conv.pad_width) % conv.stride_width != b) continue;
          const int64_t column = (x + conv.pad_width - b) / conv.stride_width - v + 1 + left;
          phase.places.emplace_back(
              phase.rows ? row * pitch + column * conv.features : 0,
              (static_cast<int64_t>(y) * conv.width + x) * conv.channels);
        }
      }
      Pack(pool, phase, blocks, conv.channels, [&](int row, int i, int c) {
        const int r = a + conv.stride_height * (u - 1 - row);
        const int q = b + conv.stride_width * (v - 1 - i / conv.features);
        const int k = i % conv.features;
        return kernel[((static_cast<size_t>(r) * conv.kernel_width + q) * conv.channels + c) *
                          conv.features + k];
      });
    }
  }
  const size_t in_size = static_cast<size_t>(conv.height) * conv.width * conv.channels;
  const size_t out_size = static_cast<size_t>(conv.out_height) * conv.out_width * conv.features;
  ForEach(pool, conv.images, [&](int n) {
    const Bordered image = WithBorder<0>(gradient + n * out_size, 1, conv.out_height,
                                         conv.out_width, conv.features, top, left, rows, columns);
    Apply(phases, blocks, image, out + n * in_size, conv.channels);
  });
}

}  // namespace lth
