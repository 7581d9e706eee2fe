// Products by sparse kernels, as XLA calls them. Arrays may have leading axes, of runs.
#include "sparse_product.h"

#include "bindings.h"

namespace lth {
namespace sparse_product {
namespace {

// Returns the matrix of a run. Shapes: row_pointers [.., rows + 1, blocks], column_indices
// [.., capacity], value_indices the same, or null.
Csr MatrixOfRun(Integers row_pointers, Integers column_indices, const int32_t* value_indices,
                int64_t run) {
  const auto cut = Last<2>(row_pointers.dimensions());
  const int64_t capacity = Last<1>(column_indices.dimensions())[0];
  return {row_pointers.typed_data() + run * cut[0] * cut[1],
          column_indices.typed_data() + run * capacity,
          value_indices ? value_indices + run * capacity : nullptr, cut[1]};
}

// Shapes: values [.., capacity], row_pointers [.., rows + 1, blocks], column_indices [..,
// capacity], x [.., n, in], y [.., n, rows], tiles [.., tiles, in, 64], or null.
void ForwardRuns(ffi::ThreadPool& pool, Floats values, Integers row_pointers,
                 Integers column_indices, Floats x, FloatResult y, float* tiles) {
  const int examples = Last<2>(y->dimensions())[0], rows = Last<2>(y->dimensions())[1];
  const int capacity = Last<1>(column_indices.dimensions())[0];
  const int width = Last<1>(x.dimensions())[0];
  const int64_t runs = CountRuns(y->dimensions(), 2);
  const int64_t tiles_size = int64_t{CountTiles(examples)} * width * kTileExamples;
  for (int64_t run = 0; run < runs; ++run) {
    const Csr matrix = MatrixOfRun(row_pointers, column_indices, nullptr, run);
    WithPool(pool, int64_t{matrix.begin(rows)} * CountTiles(examples) * kTileExamples,
             [&](auto& chosen) {
               Forward(chosen, values.typed_data() + run * capacity, matrix,
                       x.typed_data() + run * examples * width, examples, width, rows,
                       tiles ? tiles + run * tiles_size : nullptr,
                       y->typed_data() + run * examples * rows);
             });
  }
}

ffi::Error ForwardCall(ffi::ThreadPool pool, Floats values, Integers row_pointers,
                       Integers column_indices, Floats x, FloatResult y) {
  ForwardRuns(pool, values, row_pointers, column_indices, x, y, nullptr);
  return ffi::Error::Success();
}

ffi::Error ForwardWithTilesCall(ffi::ThreadPool pool, Floats values, Integers row_pointers,
                                Integers column_indices, Floats x, FloatResult y,
                                FloatResult tiles) {
  ForwardRuns(pool, values, row_pointers, column_indices, x, y, tiles->typed_data());
  return ffi::Error::Success();
}

// Shapes: as above, out_gradient [.., n, rows], gradient [.., capacity].
ffi::Error KernelGradientCall(ffi::ThreadPool pool, Integers row_pointers, Integers column_indices,
                              Floats tiles, Floats out_gradient, FloatResult gradient) {
  const int examples = Last<2>(out_gradient.dimensions())[0],
            rows = Last<2>(out_gradient.dimensions())[1];
  const int capacity = Last<1>(column_indices.dimensions())[0];
  const int width = Last<2>(tiles.dimensions())[0];
  const int64_t tiles_size = int64_t{CountTiles(examples)} * kTileExamples;
  for (int64_t run = 0; run < CountRuns(out_gradient.dimensions(), 2); ++run) {
    const Csr matrix = MatrixOfRun(row_pointers, column_indices, nullptr, run);
    float* d = Scratch<3>(tiles_size * rows);
    WithPool(pool, matrix.begin(rows) * tiles_size, [&](auto& chosen) {
      TransposeToTiles(chosen, out_gradient.typed_data() + run * examples * rows, examples, rows,
                       d);
      KernelGradient(chosen, matrix, tiles.typed_data() + run * tiles_size * width, d, examples,
                     width, rows, capacity, gradient->typed_data() + run * capacity);
    });
  }
  return ffi::Error::Success();
}

// Takes the transposed matrix. Shapes: row_pointers [.., in + 1, blocks], column_indices and
// value_indices [.., capacity], out_gradient [.., n, out], x [.., n, in].
ffi::Error InputGradientCall(ffi::ThreadPool pool, Floats values, Integers row_pointers,
                             Integers column_indices, Integers value_indices, Floats out_gradient,
                             FloatResult x) {
  const int examples = Last<2>(x->dimensions())[0], rows = Last<2>(x->dimensions())[1];
  const int capacity = Last<1>(column_indices.dimensions())[0];
  const int width = Last<1>(out_gradient.dimensions())[0];
  for (int64_t run = 0; run < CountRuns(x->dimensions(), 2); ++run) {
    const Csr matrix = MatrixOfRun(row_pointers, column_indices, value_indices.typed_data(), run);
    WithPool(pool, int64_t{matrix.begin(rows)} * CountTiles(examples) * kTileExamples,
             [&](auto& chosen) {
               Forward(chosen, values.typed_data() + run * capacity, matrix,
                       out_gradient.typed_data() + run * examples * width, examples, width, rows,
                       nullptr, x->typed_data() + run * examples * rows);
             });
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace sparse_product
}  // namespace lth

#define LTH_BIND lth::ffi::Ffi::Bind().Ctx<lth::ffi::ThreadPool>()

XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseProductForward, lth::sparse_product::ForwardCall,
                              LTH_BIND.Arg<lth::Floats>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseProductForwardWithTiles,
                              lth::sparse_product::ForwardWithTilesCall,
                              LTH_BIND.Arg<lth::Floats>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>()
                                  .Ret<lth::Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseProductKernelGradient, lth::sparse_product::KernelGradientCall,
                              LTH_BIND.Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseProductInputGradient, lth::sparse_product::InputGradientCall,
                              LTH_BIND.Arg<lth::Floats>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>());
