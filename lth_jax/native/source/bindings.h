// What all kernels need to be called by XLA (jax.ffi).
#pragma once

#include <array>
#include <cstdint>

#include "xla/ffi/api/ffi.h"

namespace lth {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Integers = ffi::Buffer<ffi::S32>;
using FloatResult = ffi::ResultBuffer<ffi::F32>;
using Dimensions = ffi::Span<const int64_t>;

// The last dimensions of a shape.
template <size_t kCount>
std::array<int, kCount> Last(Dimensions dims) {
  std::array<int, kCount> last;
  for (size_t i = 0; i < kCount; ++i) {
    last[i] = static_cast<int>(dims[dims.size() - kCount + i]);
  }
  return last;
}

// The number of runs: the product of the dimensions before the last `count`.
inline int64_t Runs(Dimensions dims, size_t count) {
  int64_t runs = 1;
  for (size_t i = 0; i + count < dims.size(); ++i) runs *= dims[i];
  return runs;
}

}  // namespace lth
