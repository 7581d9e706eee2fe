// Convolutions by dense kernels as XLA calls them, whatever computes them. Arrays may have leading
// axes, of runs.
#pragma once

#include "bindings.h"
#include "convolution.h"

namespace lth {

// Shapes: images [.., n, h, w, c], kernel [.., kh, kw, c, k], out [.., n, oh, ow, k].
inline Convolution DenseConvolutionOf(Dimensions images, Dimensions kernel, Dimensions out,
                                      Pair strides, Pair pads) {
  const auto x = Last<4>(images), w = Last<4>(kernel), y = Last<4>(out);
  const auto [stride_height, stride_width] = TwoInts(strides);
  const auto [pad_height, pad_width] = TwoInts(pads);
  return {x[0],          x[1],         x[2],       x[3],      w[0], w[1], w[3],
          stride_height, stride_width, pad_height, pad_width, y[1], y[2]};
}

// Calls `body` for each run, with the offsets in floats of its images, kernel and outputs.
template <class Body>
void ForEachRun(const Convolution& c, int64_t runs, Body body) {
  const int64_t in = int64_t{c.images} * c.height * c.width * c.channels;
  const int64_t kernel = int64_t{c.kernel_height} * c.kernel_width * c.channels * c.features;
  const int64_t out = int64_t{c.images} * c.out_height * c.out_width * c.features;
  for (int64_t run = 0; run < runs; ++run) body(run * in, run * kernel, run * out);
}

template <auto kForward>
ffi::Error ForwardCall(ffi::ThreadPool pool, Floats images, Floats kernel, FloatResult out,
                       Pair strides, Pair pads) {
  const auto dims = out->dimensions();
  const Convolution conv =
      DenseConvolutionOf(images.dimensions(), kernel.dimensions(), dims, strides, pads);
  ForEachRun(conv, CountRuns(dims, 4), [&](int64_t in, int64_t k, int64_t o) {
    kForward(pool, conv, images.typed_data() + in, kernel.typed_data() + k, out->typed_data() + o);
  });
  return ffi::Error::Success();
}

template <auto kInputGradient>
ffi::Error InputGradientCall(ffi::ThreadPool pool, Floats kernel, Floats out_gradient,
                             FloatResult out, Pair strides, Pair pads) {
  const auto dims = out->dimensions();
  const Convolution conv =
      DenseConvolutionOf(dims, kernel.dimensions(), out_gradient.dimensions(), strides, pads);
  ForEachRun(conv, CountRuns(dims, 4), [&](int64_t in, int64_t k, int64_t o) {
    kInputGradient(pool, conv, kernel.typed_data() + k, out_gradient.typed_data() + o,
                   out->typed_data() + in);
  });
  return ffi::Error::Success();
}

template <auto kKernelGradient>
ffi::Error KernelGradientCall(ffi::ThreadPool pool, Floats images, Floats out_gradient,
                              FloatResult out, Pair strides, Pair pads) {
  const auto dims = out->dimensions();
  const Convolution conv =
      DenseConvolutionOf(images.dimensions(), dims, out_gradient.dimensions(), strides, pads);
  ForEachRun(conv, CountRuns(dims, 4), [&](int64_t in, int64_t k, int64_t o) {
    kKernelGradient(pool, conv, images.typed_data() + in, out_gradient.typed_data() + o,
                    out->typed_data() + k);
  });
  return ffi::Error::Success();
}

}  // namespace lth

#define LTH_DENSE_CONV(name, call)                               \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, call,                      \
                                lth::ffi::Ffi::Bind()            \
                                    .Ctx<lth::ffi::ThreadPool>() \
                                    .Arg<lth::Floats>()          \
                                    .Arg<lth::Floats>()          \
                                    .Ret<lth::Floats>()          \
                                    .Attr<lth::Pair>("strides")  \
                                    .Attr<lth::Pair>("pads"))
