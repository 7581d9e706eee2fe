// Convolutions with sparse kernels as XLA calls them; arrays may have leading axes of runs.
#include "sparse_conv.h"

#include "bindings.h"

namespace lth {
namespace {

using Pair = ffi::Span<const int64_t>;

// Shapes: images [.., n, h, w, c], out [.., n, oh, ow, k].
Sliding SlidingOf(Dimensions images, Dimensions out, Pair sides, Pair strides, Pair pads) {
  const auto x = Last<4>(images), y = Last<4>(out);
  const auto of = [](Pair pair, int axis) { return static_cast<int>(pair[axis]); };
  const int rows = of(sides, 0), columns = of(sides, 1), top = of(pads, 0), left = of(pads, 1);
  const int down = of(strides, 0), along = of(strides, 1);
  return {x[0], x[1], x[2], x[3], rows, columns, y[3], down, along, top, left, y[1], y[2]};
}

// Calls `one(chosen pool, run, its table)` for each run of `images`. Shapes: begins [.., planes of
// the target + 1, 1], columns [.., capacity], places as columns, or null.
template <class One>
ffi::Error EachRun(ffi::ThreadPool& pool, const Plan& plan, Dimensions images, Integers begins,
                   Integers columns, const int32_t* places, One one) {
  const int targets = plan.target.planes();
  const int64_t capacity = Last<1>(columns.dimensions())[0];
  for (int64_t run = 0; run < Runs(images, 4); ++run) {
    const Table table{begins.typed_data() + run * (targets + 1),
                      columns.typed_data() + run * capacity,
                      places ? places + run * capacity : nullptr};
    Shared(pool, plan.work(table.begins[targets]), [&](auto& chosen) { one(chosen, run, table); });
  }
  return ffi::Error::Success();
}

// Shapes: values and columns [.., capacity], from and to as the plan's source and target.
ffi::Error ConvolveRuns(ffi::ThreadPool& pool, const Plan& plan, Floats values, Integers begins,
                        Integers columns, const int32_t* places, Floats from, FloatResult to) {
  const int64_t capacity = Last<1>(columns.dimensions())[0];
  const size_t source = plan.walk.images * plan.source.size();
  const size_t target = plan.walk.images * plan.target.size();
  return EachRun(pool, plan, to->dimensions(), begins, columns, places,
                 [&](auto& chosen, int64_t run, const Table& table) {
                   Convolve(chosen, plan, table, values.typed_data() + run * capacity,
                            from.typed_data() + run * source, to->typed_data() + run * target);
                 });
}

// Shapes: images [.., n, h, w, c], out [.., n, oh, ow, k].
ffi::Error ForwardCall(ffi::ThreadPool pool, Floats values, Integers begins, Integers columns,
                       Floats images, FloatResult out, Pair sides, Pair strides, Pair pads) {
  const Plan plan =
      ForwardPlan(SlidingOf(images.dimensions(), out->dimensions(), sides, strides, pads));
  return ConvolveRuns(pool, plan, values, begins, columns, nullptr, images, out);
}

// The mirrored table, its values at `places`; given [.., n, oh, ow, k], images [.., n, h, w, c].
ffi::Error InputGradientCall(ffi::ThreadPool pool, Floats values, Integers begins, Integers columns,
                             Integers places, Floats given, FloatResult images, Pair sides,
                             Pair strides, Pair pads) {
  const Plan plan =
      MirroredPlan(SlidingOf(images->dimensions(), given.dimensions(), sides, strides, pads));
  return ConvolveRuns(pool, plan, values, begins, columns, places.typed_data(), given, images);
}

// Shapes: as in the forward call, given [.., n, oh, ow, k], gradient [.., capacity].
ffi::Error KernelGradientCall(ffi::ThreadPool pool, Integers begins, Integers columns,
                              Floats images, Floats given, FloatResult gradient, Pair sides,
                              Pair strides, Pair pads) {
  const Plan plan =
      ForwardPlan(SlidingOf(images.dimensions(), given.dimensions(), sides, strides, pads));
  const int capacity = Last<1>(columns.dimensions())[0];
  const size_t source = plan.walk.images * plan.source.size();
  const size_t target = plan.walk.images * plan.target.size();
  return EachRun(pool, plan, given.dimensions(), begins, columns, nullptr,
                 [&](auto& chosen, int64_t run, const Table& table) {
                   TapGradient(chosen, plan, table, images.typed_data() + run * source,
                               given.typed_data() + run * target, capacity,
                               gradient->typed_data() + run * capacity);
                 });
}

}  // namespace
}  // namespace lth

#define LTH_BIND lth::ffi::Ffi::Bind().Ctx<lth::ffi::ThreadPool>()
#define LTH_WINDOW Attr<lth::Pair>("sides").Attr<lth::Pair>("strides").Attr<lth::Pair>("pads")

XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseConvForward, lth::ForwardCall,
                              LTH_BIND.Arg<lth::Floats>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>()
                                  .LTH_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseConvInputGradient, lth::InputGradientCall,
                              LTH_BIND.Arg<lth::Floats>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>()
                                  .LTH_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseConvKernelGradient, lth::KernelGradientCall,
                              LTH_BIND.Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>()
                                  .LTH_WINDOW);
