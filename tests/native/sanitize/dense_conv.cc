// Dense convolutions, their shapes from test_dense_conv.py.
#include "dense_conv.h"

#include "convolutions.h"

namespace {

using check::Square;

void Check(const std::string& name, const lth::Convolution& c) {
  check::AgreeWithLoops(
      name, c, [](auto&&... of) { lth::dense_conv::Forward(of...); },
      [](auto&&... of) { lth::dense_conv::InputGradient(of...); },
      [](auto&&... of) { lth::dense_conv::KernelGradient(of...); });
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
