// What the drivers of convolutions share: their shapes, and the naive loop over all products.
#pragma once

#include <algorithm>
#include <string>

#include "check.h"
#include "convolution.h"

namespace check {

using lth::Convolution;

// Returns a convolution. `below` and `right` are the borders on the other sides: outputs follow from
// all four.
inline Convolution Of(int images, int height, int width, int channels, int rows, int columns,
                      int features, int down, int along, int top, int left, int below, int right) {
  return {images,
          height,
          width,
          channels,
          rows,
          columns,
          features,
          down,
          along,
          top,
          left,
          (height + top + below - rows) / down + 1,
          (width + left + right - columns) / along + 1};
}

inline Convolution Square(int side, int channels, int features, int window, int stride,
                          int border) {
  return Of(2, side, side, channels, window, window, features, stride, stride, border, border,
            border, border);
}

inline int Draw(int least, int most) {
  return std::uniform_int_distribution<int>(least, most)(Random());
}

// Any shape, with up to so many images, channels and features.
inline Convolution Drawn(int images, int channels, int features) {
  const int rows = Draw(1, 5), columns = Draw(1, 5);
  const int top = Draw(0, 3), left = Draw(0, 3), below = Draw(0, 3), right = Draw(0, 3);
  const int height = std::max(Draw(1, 11), rows - top - below);
  const int width = std::max(Draw(1, 11), columns - left - right);
  return Of(Draw(1, images), height, width, Draw(1, channels), rows, columns, Draw(1, features),
            Draw(1, 3), Draw(1, 3), top, left, below, right);
}

// Calls `each(image value, kernel value, output value)`, their indices, for every product.
template <class Each>
void Products(const Convolution& c, Each each) {
  for (int n = 0; n < c.images; ++n)
    for (int y = 0; y < c.out_height; ++y)
      for (int x = 0; x < c.out_width; ++x)
        for (int r = 0; r < c.kernel_height; ++r)
          for (int q = 0; q < c.kernel_width; ++q) {
            const int row = y * c.stride_height + r - c.pad_height;
            const int column = x * c.stride_width + q - c.pad_width;
            if (row < 0 || row >= c.height || column < 0 || column >= c.width) continue;
            for (int i = 0; i < c.channels; ++i)
              for (int k = 0; k < c.features; ++k)
                each(((size_t(n) * c.height + row) * c.width + column) * c.channels + i,
                     ((size_t(r) * c.kernel_width + q) * c.channels + i) * c.features + k,
                     ((size_t(n) * c.out_height + y) * c.out_width + x) * c.features + k);
          }
}

// Compares a kind's three passes with naive loops in float64, over several numbers of threads.
template <class Forward, class InputGradient, class KernelGradient>
void AgreeWithLoops(const std::string& name, const Convolution& c, Forward forward,
                    InputGradient input_gradient, KernelGradient kernel_gradient) {
  const size_t in = size_t(c.images) * c.height * c.width * c.channels;
  const size_t weights = size_t(c.kernel_height) * c.kernel_width * c.channels * c.features;
  const size_t out = size_t(c.images) * c.out_height * c.out_width * c.features;
  const auto images = Normal(in), kernel = Normal(weights), given = Normal(out);
  std::vector<double> y(out), dx(in), dw(weights);
  Products(c, [&](size_t i, size_t w, size_t o) {
    y[o] += double{images[i]} * kernel[w];
    dx[i] += double{given[o]} * kernel[w];
    dw[w] += double{given[o]} * images[i];
  });
  const auto found = Unwritten(out), input = Unwritten(in), gradient = Unwritten(weights);
  WithThreads([&](Pool& pool) { forward(pool, c, images.get(), kernel.get(), found.get()); });
  WithThreads([&](Pool& pool) { input_gradient(pool, c, kernel.get(), given.get(), input.get()); });
  WithThreads(
      [&](Pool& pool) { kernel_gradient(pool, c, images.get(), given.get(), gradient.get()); });
  Agree(name + ", forward", found, y);
  Agree(name + ", input gradient", input, dx);
  Agree(name + ", kernel gradient", gradient, dw);
}

}  // namespace check
