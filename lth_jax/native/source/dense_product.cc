// Products of dense layers as XLA calls them; arrays may have leading axes of runs.
#include "dense_product.h"

#include "bindings.h"

namespace lth {
namespace {

// Shapes: x [.., n, in], kernel [.., in, out], out [.., n, out].
ffi::Error ForwardCall(ffi::ThreadPool pool, Floats x, Floats kernel, FloatResult out) {
  const auto [n, outputs] = Last<2>(out->dimensions());
  const int64_t width = Last<1>(x.dimensions())[0], examples = n, columns = outputs;
  for (int64_t run = 0; run < Runs(out->dimensions(), 2); ++run) {
    Shared(pool, examples * width * columns, [&](auto& chosen) {
      Product(chosen, x.typed_data() + run * examples * width,
              kernel.typed_data() + run * width * columns, examples, width, columns,
              out->typed_data() + run * examples * columns);
    });
  }
  return ffi::Error::Success();
}

// Shapes: as above, given [.., n, out], gradient [.., in, out].
ffi::Error KernelGradientCall(ffi::ThreadPool pool, Floats x, Floats given, FloatResult gradient) {
  const auto [n, outputs] = Last<2>(given.dimensions());
  const int64_t width = Last<1>(x.dimensions())[0], examples = n, columns = outputs;
  for (int64_t run = 0; run < Runs(given.dimensions(), 2); ++run) {
    Shared(pool, examples * width * columns, [&](auto& chosen) {
      ProductGradient(chosen, x.typed_data() + run * examples * width,
                      given.typed_data() + run * examples * columns, examples, width, columns,
                      gradient->typed_data() + run * width * columns);
    });
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace lth

#define LTH_PRODUCT(name, call)                          \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, lth::call,         \
                                lth::ffi::Ffi::Bind()    \
                                    .Ctx<lth::ffi::ThreadPool>() \
                                    .Arg<lth::Floats>()  \
                                    .Arg<lth::Floats>()  \
                                    .Ret<lth::Floats>())

LTH_PRODUCT(ProductForward, ForwardCall);
LTH_PRODUCT(ProductKernelGradient, KernelGradientCall);
