// Products of dense layers, as XLA calls them. Arrays may have leading axes, of runs.
#include "dense_product.h"

#include "bindings.h"

namespace lth {
namespace dense_product {
namespace {

// Shapes: x [.., n, in], kernel [.., in, out], out [.., n, out].
ffi::Error ForwardCall(ffi::ThreadPool pool, Floats x, Floats kernel, FloatResult out) {
  const auto [n, outputs] = Last<2>(out->dimensions());
  const int64_t width = Last<1>(x.dimensions())[0], examples = n, columns = outputs;
  for (int64_t run = 0; run < CountRuns(out->dimensions(), 2); ++run) {
    WithPool(pool, examples * width * columns, [&](auto& chosen) {
      Forward(chosen, x.typed_data() + run * examples * width,
              kernel.typed_data() + run * width * columns, examples, width, columns,
              out->typed_data() + run * examples * columns);
    });
  }
  return ffi::Error::Success();
}

// Shapes: x as above, out_gradient [.., n, out], gradient [.., in, out].
ffi::Error KernelGradientCall(ffi::ThreadPool pool, Floats x, Floats out_gradient,
                              FloatResult gradient) {
  const auto [n, outputs] = Last<2>(out_gradient.dimensions());
  const int64_t width = Last<1>(x.dimensions())[0], examples = n, columns = outputs;
  for (int64_t run = 0; run < CountRuns(out_gradient.dimensions(), 2); ++run) {
    WithPool(pool, examples * width * columns, [&](auto& chosen) {
      KernelGradient(chosen, x.typed_data() + run * examples * width,
                     out_gradient.typed_data() + run * examples * columns, examples, width, columns,
                     gradient->typed_data() + run * width * columns);
    });
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace dense_product
}  // namespace lth

#define LTH_DENSE_PRODUCT(name, call)                            \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, lth::dense_product::call,  \
                                lth::ffi::Ffi::Bind()            \
                                    .Ctx<lth::ffi::ThreadPool>() \
                                    .Arg<lth::Floats>()          \
                                    .Arg<lth::Floats>()          \
                                    .Ret<lth::Floats>())

LTH_DENSE_PRODUCT(DenseProductForward, ForwardCall);
LTH_DENSE_PRODUCT(DenseProductKernelGradient, KernelGradientCall);
