// Convolutions by sparse kernels, as XLA calls them. Arrays may have leading axes, of runs.
#include "sparse_conv.h"

#include "bindings.h"

namespace lth {
namespace sparse_conv {
namespace {

// Shapes: images [.., n, h, w, c], out [.., n, oh, ow, k].
Convolution ConvolutionOf(Dimensions images, Dimensions out, Pair sides, Pair strides, Pair pads) {
  const auto x = Last<4>(images), y = Last<4>(out);
  const auto [kernel_height, kernel_width] = TwoInts(sides);
  const auto [stride_height, stride_width] = TwoInts(strides);
  const auto [pad_height, pad_width] = TwoInts(pads);
  return {x[0],          x[1],         x[2],       x[3],      kernel_height, kernel_width, y[3],
          stride_height, stride_width, pad_height, pad_width, y[1],          y[2]};
}

// Calls `body(chosen pool, run, its matrix)` for each run of `images`. Shapes: row_pointers [..,
// planes of the target + 1, 1], column_indices [.., capacity], value_indices the same, or null.
template <class Body>
ffi::Error ForEachRun(ffi::ThreadPool& pool, const Plan& plan, Dimensions images,
                      Integers row_pointers, Integers column_indices, const int32_t* value_indices,
                      Body body) {
  const int targets = plan.target.planes();
  const int64_t capacity = Last<1>(column_indices.dimensions())[0];
  for (int64_t run = 0; run < CountRuns(images, 4); ++run) {
    const Csr matrix{row_pointers.typed_data() + run * (targets + 1),
                     column_indices.typed_data() + run * capacity,
                     value_indices ? value_indices + run * capacity : nullptr};
    WithPool(pool, plan.work(matrix.row_pointers[targets]),
             [&](auto& chosen) { body(chosen, run, matrix); });
  }
  return ffi::Error::Success();
}

// Shapes: values and column_indices [.., capacity], from and to as the plan's source and target.
ffi::Error ForwardRuns(ffi::ThreadPool& pool, const Plan& plan, Floats values,
                       Integers row_pointers, Integers column_indices, const int32_t* value_indices,
                       Floats from, FloatResult to) {
  const int64_t capacity = Last<1>(column_indices.dimensions())[0];
  const size_t source = plan.grid.images * plan.source.image_size();
  const size_t target = plan.grid.images * plan.target.image_size();
  return ForEachRun(pool, plan, to->dimensions(), row_pointers, column_indices, value_indices,
                    [&](auto& chosen, int64_t run, const Csr& matrix) {
                      Forward(chosen, plan, matrix, values.typed_data() + run * capacity,
                              from.typed_data() + run * source, to->typed_data() + run * target);
                    });
}

// Shapes: images [.., n, h, w, c], out [.., n, oh, ow, k].
ffi::Error ForwardCall(ffi::ThreadPool pool, Floats values, Integers row_pointers,
                       Integers column_indices, Floats images, FloatResult out, Pair sides,
                       Pair strides, Pair pads) {
  const Plan plan =
      ForwardPlan(ConvolutionOf(images.dimensions(), out->dimensions(), sides, strides, pads));
  return ForwardRuns(pool, plan, values, row_pointers, column_indices, nullptr, images, out);
}

// Takes the transposed matrix. Shapes: out_gradient [.., n, oh, ow, k], images [.., n, h, w, c].
ffi::Error InputGradientCall(ffi::ThreadPool pool, Floats values, Integers row_pointers,
                             Integers column_indices, Integers value_indices, Floats out_gradient,
                             FloatResult images, Pair sides, Pair strides, Pair pads) {
  const Plan plan = TransposedPlan(
      ConvolutionOf(images->dimensions(), out_gradient.dimensions(), sides, strides, pads));
  return ForwardRuns(pool, plan, values, row_pointers, column_indices, value_indices.typed_data(),
                     out_gradient, images);
}

// Shapes: as in the forward call, out_gradient [.., n, oh, ow, k], gradient [.., capacity].
ffi::Error KernelGradientCall(ffi::ThreadPool pool, Integers row_pointers, Integers column_indices,
                              Floats images, Floats out_gradient, FloatResult gradient, Pair sides,
                              Pair strides, Pair pads) {
  const Plan plan = ForwardPlan(
      ConvolutionOf(images.dimensions(), out_gradient.dimensions(), sides, strides, pads));
  const int capacity = Last<1>(column_indices.dimensions())[0];
  const size_t source = plan.grid.images * plan.source.image_size();
  const size_t target = plan.grid.images * plan.target.image_size();
  return ForEachRun(pool, plan, out_gradient.dimensions(), row_pointers, column_indices, nullptr,
                    [&](auto& chosen, int64_t run, const Csr& matrix) {
                      KernelGradient(chosen, plan, matrix, images.typed_data() + run * source,
                                     out_gradient.typed_data() + run * target, capacity,
                                     gradient->typed_data() + run * capacity);
                    });
}

}  // namespace
}  // namespace sparse_conv
}  // namespace lth

#define LTH_BIND lth::ffi::Ffi::Bind().Ctx<lth::ffi::ThreadPool>()
#define LTH_WINDOW Attr<lth::Pair>("sides").Attr<lth::Pair>("strides").Attr<lth::Pair>("pads")

XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseConvForward, lth::sparse_conv::ForwardCall,
                              LTH_BIND.Arg<lth::Floats>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>()
                                  .LTH_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseConvInputGradient, lth::sparse_conv::InputGradientCall,
                              LTH_BIND.Arg<lth::Floats>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>()
                                  .LTH_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseConvKernelGradient, lth::sparse_conv::KernelGradientCall,
                              LTH_BIND.Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>()
                                  .LTH_WINDOW);
