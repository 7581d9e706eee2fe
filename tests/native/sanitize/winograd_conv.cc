// Convolutions by Winograd's way, their shapes from test_winograd_conv.py.
#include "winograd_conv.h"

#include "convolutions.h"

namespace {

void Check(const std::string& name, const lth::Convolution& c) {
  check::AgreeWithLoops(
      name, c, [](auto&&... of) { lth::winograd_conv::Forward(of...); },
      [](auto&&... of) { lth::winograd_conv::InputGradient(of...); },
      [](auto&&... of) { lth::winograd_conv::KernelGradient(of...); });
}

// A convolution by a 3×3 kernel of stride one; borders as of check::Of.
lth::Convolution Of(int images, int height, int width, int channels, int features, int top, int left,
                    int below, int right) {
  return check::Of(images, height, width, channels, 3, 3, features, 1, 1, top, left, below, right);
}

}  // namespace

void CheckWinogradConv() {
  // Both have several chunks of tiles in each part of the kernel's gradient.
  Check("resnet20", Of(9, 32, 32, 16, 16, 1, 1, 1, 1));
  Check("conv2 second, smaller", check::Square(28, 64, 64, 3, 1, 1));
  Check("tiles of two", Of(3, 2, 2, 128, 80, 1, 1, 1, 1));
  Check("one pixel", Of(1, 3, 3, 1, 1, 0, 0, 0, 0));
  Check("wide border", Of(2, 5, 7, 24, 40, 3, 4, 5, 3));
  for (int i = 0; i < 40; ++i) {
    const int top = check::Draw(0, 3), left = check::Draw(0, 3);
    const int below = check::Draw(0, 3), right = check::Draw(0, 3);
    const int height = std::max(check::Draw(1, 11), 3 - top - below);
    const int width = std::max(check::Draw(1, 11), 3 - left - right);
    Check("drawn " + std::to_string(i),
          Of(check::Draw(1, 5), height, width, check::Draw(1, 80), check::Draw(1, 80), top, left,
             below, right));
  }
}
