// Dense convolutions, their shapes from test_dense_conv.py.
#include "dense_conv.h"

#include "convolutions.h"

namespace {

using check::Square;

void Check(const std::string& name, const lth::Convolution& c) {
  const size_t in = size_t(c.images) * c.height * c.width * c.channels;
  const size_t weights = size_t(c.kernel_height) * c.kernel_width * c.channels * c.features;
  const size_t out = size_t(c.images) * c.out_height * c.out_width * c.features;
  const auto images = check::Normal(in), kernel = check::Normal(weights),
             given = check::Normal(out);
  std::vector<double> y(out), dx(in), dw(weights);
  check::Products(c, [&](size_t i, size_t w, size_t o) {
    y[o] += double{images[i]} * kernel[w];
    dx[i] += double{given[o]} * kernel[w];
    dw[w] += double{given[o]} * images[i];
  });
  const auto forward = check::Unwritten(out), input = check::Unwritten(in);
  const auto gradient = check::Unwritten(weights);
  check::WithThreads([&](check::Pool& pool) {
    lth::dense_conv::Forward(pool, c, images.get(), kernel.get(), forward.get());
  });
  check::WithThreads([&](check::Pool& pool) {
    lth::dense_conv::InputGradient(pool, c, kernel.get(), given.get(), input.get());
  });
  check::WithThreads([&](check::Pool& pool) {
    lth::dense_conv::KernelGradient(pool, c, images.get(), given.get(), gradient.get());
  });
  check::Agree(name + ", forward", forward, y);
  check::Agree(name + ", input gradient", input, dx);
  check::Agree(name + ", kernel gradient", gradient, dw);
}

}  // namespace

void CheckDenseConv() {
  Check("conv2 first", Square(32, 3, 64, 3, 1, 1));
  Check("conv2 second, smaller", Square(16, 64, 64, 3, 1, 1));
  Check("conv6 fifth, smaller", Square(8, 64, 128, 3, 1, 1));
  Check("lenet5 first", Square(28, 1, 6, 5, 1, 0));
  Check("lenet5 second", Square(14, 6, 16, 5, 1, 0));
  Check("resnet20", Square(32, 16, 16, 3, 1, 1));
  Check("resnet20 strided", Square(32, 16, 32, 3, 2, 1));
  Check("resnet20 shortcut", Square(32, 16, 32, 1, 2, 0));
  Check("resnet50 stem", Square(32, 3, 64, 7, 2, 3));
  Check("resnet50 narrow", Square(8, 256, 64, 1, 1, 0));
  Check("vgg last", Square(2, 512, 512, 3, 1, 1));
  Check("vit patches", Square(32, 3, 192, 4, 4, 0));
  Check("densenet", Square(16, 112, 32, 3, 1, 1));
  Check("no multiple of lanes", Square(9, 5, 37, 3, 2, 1));
  for (int i = 0; i < 60; ++i) Check("drawn " + std::to_string(i), check::Drawn(9, 40, 40));
}
