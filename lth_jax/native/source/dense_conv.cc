// Dense convolutions as XLA calls them; arrays may have leading axes of runs.
#include "dense_conv.h"

#include "bindings.h"
#include "dense_conv_gradient.h"

namespace lth {
namespace {

using Strides = ffi::Span<const int64_t>;

// Shapes: images [.., n, h, w, c], kernel [.., kh, kw, c, k], out [.., n, oh, ow, k].
Conv ConvOf(Dimensions images, Dimensions kernel, Dimensions out, Strides strides, Strides pads) {
  const auto x = Last<4>(images), w = Last<4>(kernel), y = Last<4>(out);
  return {x[0], x[1], x[2], x[3], w[0], w[1], w[3], static_cast<int>(strides[0]),
          static_cast<int>(strides[1]), static_cast<int>(pads[0]), static_cast<int>(pads[1]),
          y[1], y[2]};
}

// Calls `one` for each run, with the offsets in floats of its images, kernel and outputs.
template <class One>
void EachRun(const Conv& c, int64_t runs, One one) {
  const int64_t in = int64_t{c.images} * c.height * c.width * c.channels;
  const int64_t kernel = int64_t{c.kernel_height} * c.kernel_width * c.channels * c.features;
  const int64_t out = int64_t{c.images} * c.out_height * c.out_width * c.features;
  for (int64_t run = 0; run < runs; ++run) one(run * in, run * kernel, run * out);
}

ffi::Error ForwardCall(ffi::ThreadPool pool, Floats images, Floats kernel, FloatResult out,
                       Strides strides, Strides pads) {
  const auto dims = out->dimensions();
  const Conv conv = ConvOf(images.dimensions(), kernel.dimensions(), dims, strides, pads);
  EachRun(conv, Runs(dims, 4), [&](int64_t in, int64_t k, int64_t o) {
    Forward(pool, conv, images.typed_data() + in, kernel.typed_data() + k, out->typed_data() + o);
  });
  return ffi::Error::Success();
}

ffi::Error InputGradientCall(ffi::ThreadPool pool, Floats kernel, Floats gradient, FloatResult out,
                             Strides strides, Strides pads) {
  const auto dims = out->dimensions();
  const Conv conv = ConvOf(dims, kernel.dimensions(), gradient.dimensions(), strides, pads);
  EachRun(conv, Runs(dims, 4), [&](int64_t in, int64_t k, int64_t o) {
    InputGradient(pool, conv, kernel.typed_data() + k, gradient.typed_data() + o,
                  out->typed_data() + in);
  });
  return ffi::Error::Success();
}

ffi::Error KernelGradientCall(ffi::ThreadPool pool, Floats images, Floats gradient,
                              FloatResult out, Strides strides, Strides pads) {
  const auto dims = out->dimensions();
  const Conv conv = ConvOf(images.dimensions(), dims, gradient.dimensions(), strides, pads);
  EachRun(conv, Runs(dims, 4), [&](int64_t in, int64_t k, int64_t o) {
    KernelGradient(pool, conv, images.typed_data() + in, gradient.typed_data() + o,
                   out->typed_data() + k);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace lth

#define LTH_CONV(name, call)                              \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, lth::call,          \
                                lth::ffi::Ffi::Bind()     \
                                    .Ctx<lth::ffi::ThreadPool>() \
                                    .Arg<lth::Floats>()   \
                                    .Arg<lth::Floats>()   \
                                    .Ret<lth::Floats>()   \
                                    .Attr<lth::Strides>("strides") \
                                    .Attr<lth::Strides>("pads"))

LTH_CONV(ConvForward, ForwardCall);
LTH_CONV(ConvInputGradient, InputGradientCall);
LTH_CONV(ConvKernelGradient, KernelGradientCall);
