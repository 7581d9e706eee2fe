// Dense convolutions, their shapes from test_kernels_convolution.py.
#include "dense_conv.h"
#include "dense_conv_gradient.h"

#include "check.h"

namespace {

// `below` and `right` are the borders on the other sides: outputs follow from all four.
lth::Conv Of(int images, int height, int width, int channels, int rows, int columns, int features,
             int down, int along, int top, int left, int below, int right) {
  return {images, height, width, channels, rows, columns, features, down, along, top, left,
          (height + top + below - rows) / down + 1, (width + left + right - columns) / along + 1};
}

lth::Conv Square(int side, int channels, int features, int window, int stride, int border) {
  return Of(2, side, side, channels, window, window, features, stride, stride, border, border,
            border, border);
}

// Calls `each(image value, kernel value, output value)`, their indices, for every product.
template <class Each>
void Products(const lth::Conv& c, Each each) {
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

void Check(check::Pool& pool, const std::string& name, const lth::Conv& c) {
  const size_t in = size_t(c.images) * c.height * c.width * c.channels;
  const size_t weights = size_t(c.kernel_height) * c.kernel_width * c.channels * c.features;
  const size_t out = size_t(c.images) * c.out_height * c.out_width * c.features;
  const auto images = check::Normal(in), kernel = check::Normal(weights), given = check::Normal(out);
  std::vector<double> y(out), dx(in), dw(weights);
  Products(c, [&](size_t i, size_t w, size_t o) {
    y[o] += double{images[i]} * kernel[w];
    dx[i] += double{given[o]} * kernel[w];
    dw[w] += double{given[o]} * images[i];
  });
  const auto forward = check::Unwritten(out), input = check::Unwritten(in);
  const auto gradient = check::Unwritten(weights);
  lth::Forward(pool, c, images.get(), kernel.get(), forward.get());
  lth::InputGradient(pool, c, kernel.get(), given.get(), input.get());
  lth::KernelGradient(pool, c, images.get(), given.get(), gradient.get());
  check::Agree(name + ", forward", forward, y);
  check::Agree(name + ", input gradient", input, dx);
  check::Agree(name + ", kernel gradient", gradient, dw);
}

}  // namespace

void CheckDenseConv(check::Pool& pool) {
  Check(pool, "conv2 first", Square(32, 3, 64, 3, 1, 1));
  Check(pool, "conv2 second, smaller", Square(16, 64, 64, 3, 1, 1));
  Check(pool, "conv6 fifth, smaller", Square(8, 64, 128, 3, 1, 1));
  Check(pool, "lenet5 first", Square(28, 1, 6, 5, 1, 0));
  Check(pool, "lenet5 second", Square(14, 6, 16, 5, 1, 0));
  Check(pool, "resnet20", Square(32, 16, 16, 3, 1, 1));
  Check(pool, "resnet20 strided", Square(32, 16, 32, 3, 2, 1));
  Check(pool, "resnet20 shortcut", Square(32, 16, 32, 1, 2, 0));
  Check(pool, "resnet50 stem", Square(32, 3, 64, 7, 2, 3));
  Check(pool, "resnet50 narrow", Square(8, 256, 64, 1, 1, 0));
  Check(pool, "vgg last", Square(2, 512, 512, 3, 1, 1));
  Check(pool, "vit patches", Square(32, 3, 192, 4, 4, 0));
  Check(pool, "densenet", Square(16, 112, 32, 3, 1, 1));
  Check(pool, "no multiple of lanes", Square(9, 5, 37, 3, 2, 1));
  for (int i = 0; i < 60; ++i) {
    const auto draw = [](int least, int most) {
      return std::uniform_int_distribution<int>(least, most)(check::Random());
    };
    const int rows = draw(1, 5), columns = draw(1, 5);
    const int top = draw(0, 3), left = draw(0, 3), below = draw(0, 3), right = draw(0, 3);
    const int height = std::max(draw(1, 11), rows - top - below);
    const int width = std::max(draw(1, 11), columns - left - right);
    Check(pool, "drawn " + std::to_string(i),
          Of(draw(1, 9), height, width, draw(1, 40), rows, columns, draw(1, 40), draw(1, 3),
             draw(1, 3), top, left, below, right));
  }
}
