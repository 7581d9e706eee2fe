// Products with sparse dense-layer kernels as XLA calls them; arrays may have leading axes of runs.
#include "sparse_dense.h"

#include "bindings.h"

namespace lth {
namespace {

// The index table of a run. Shapes: begins [.., rows + 1, blocks], columns [.., capacity], places the
// same or null.
Table TableOf(Integers begins, Integers columns, const int32_t* places, int64_t run) {
  const auto cut = Last<2>(begins.dimensions());
  const int64_t capacity = Last<1>(columns.dimensions())[0];
  return {begins.typed_data() + run * cut[0] * cut[1], columns.typed_data() + run * capacity,
          places ? places + run * capacity : nullptr, cut[1]};
}

// Shapes: values [.., capacity], begins [.., rows + 1, blocks], columns [.., capacity], x [.., n, in],
// y [.., n, rows], kept [.., tiles, in, 64] or nothing.
void Forward(ffi::ThreadPool& pool, Floats values, Integers begins, Integers columns, Floats x,
             FloatResult y, float* kept) {
  const int examples = Last<2>(y->dimensions())[0], rows = Last<2>(y->dimensions())[1];
  const int capacity = Last<1>(columns.dimensions())[0];
  const int width = Last<1>(x.dimensions())[0];
  const int64_t runs = Runs(y->dimensions(), 2);
  const int64_t tiled = int64_t{TilesOf(examples)} * width * kTile;
  for (int64_t run = 0; run < runs; ++run) {
    const Table table = TableOf(begins, columns, nullptr, run);
    Shared(pool, int64_t{table.begin(rows)} * TilesOf(examples) * kTile, [&](auto& chosen) {
      Multiply(chosen, values.typed_data() + run * capacity, table,
               x.typed_data() + run * examples * width, examples, width, rows,
               kept ? kept + run * tiled : nullptr, y->typed_data() + run * examples * rows);
    });
  }
}

ffi::Error ForwardCall(ffi::ThreadPool pool, Floats values, Integers begins, Integers columns,
                       Floats x, FloatResult y) {
  Forward(pool, values, begins, columns, x, y, nullptr);
  return ffi::Error::Success();
}

ffi::Error ForwardKeepingCall(ffi::ThreadPool pool, Floats values, Integers begins,
                              Integers columns, Floats x, FloatResult y, FloatResult kept) {
  Forward(pool, values, begins, columns, x, y, kept->typed_data());
  return ffi::Error::Success();
}

// Shapes: as above, given [.., n, rows], gradient [.., capacity].
ffi::Error KernelGradientCall(ffi::ThreadPool pool, Integers begins, Integers columns, Floats kept,
                              Floats given, FloatResult gradient) {
  const int examples = Last<2>(given.dimensions())[0], rows = Last<2>(given.dimensions())[1];
  const int capacity = Last<1>(columns.dimensions())[0];
  const int width = Last<2>(kept.dimensions())[0];
  const int64_t tiled = int64_t{TilesOf(examples)} * kTile;
  for (int64_t run = 0; run < Runs(given.dimensions(), 2); ++run) {
    const Table table = TableOf(begins, columns, nullptr, run);
    float* d = Scratch<3>(tiled * rows);
    Shared(pool, table.begin(rows) * tiled, [&](auto& chosen) {
      ToTiles(chosen, given.typed_data() + run * examples * rows, examples, rows, d);
      SparseGradient(chosen, table, kept.typed_data() + run * tiled * width, d, examples, width,
                     rows, capacity, gradient->typed_data() + run * capacity);
    });
  }
  return ffi::Error::Success();
}

// The transposed table: begins [.., in + 1, blocks], columns and places [.., capacity]; given [.., n, out],
// x [.., n, in].
ffi::Error InputGradientCall(ffi::ThreadPool pool, Floats values, Integers begins, Integers columns,
                             Integers places, Floats given, FloatResult x) {
  const int examples = Last<2>(x->dimensions())[0], rows = Last<2>(x->dimensions())[1];
  const int capacity = Last<1>(columns.dimensions())[0];
  const int width = Last<1>(given.dimensions())[0];
  for (int64_t run = 0; run < Runs(x->dimensions(), 2); ++run) {
    const Table table = TableOf(begins, columns, places.typed_data(), run);
    Shared(pool, int64_t{table.begin(rows)} * TilesOf(examples) * kTile, [&](auto& chosen) {
      Multiply(chosen, values.typed_data() + run * capacity, table,
               given.typed_data() + run * examples * width, examples, width, rows, nullptr,
               x->typed_data() + run * examples * rows);
    });
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace lth

#define LTH_BIND lth::ffi::Ffi::Bind().Ctx<lth::ffi::ThreadPool>()

XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseDenseForward, lth::ForwardCall,
                              LTH_BIND.Arg<lth::Floats>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseDenseForwardKeeping, lth::ForwardKeepingCall,
                              LTH_BIND.Arg<lth::Floats>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>()
                                  .Ret<lth::Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseDenseKernelGradient, lth::KernelGradientCall,
                              LTH_BIND.Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseDenseInputGradient, lth::InputGradientCall,
                              LTH_BIND.Arg<lth::Floats>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>());
