// The sizes of a two-dimensional convolution, as dense and sparse convolutions share them.
#pragma once

namespace lth {

// A convolution of NHWC images by an HWIO kernel. `pad_height` and `pad_width` are the zeros above
// and on the left of an image; those below and on the right follow from the size of the output.
struct Convolution {
  int images, height, width, channels;
  int kernel_height, kernel_width, features;
  int stride_height, stride_width, pad_height, pad_width;
  int out_height, out_width;

  // The most rows, and columns, of a kernel whose indices have the same residue modulo the stride.
  int phase_height() const { return (kernel_height + stride_height - 1) / stride_height; }
  int phase_width() const { return (kernel_width + stride_width - 1) / stride_width; }
};

}  // namespace lth
