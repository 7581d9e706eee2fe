// What every file needs whose functions XLA calls (jax.ffi).
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
using Pair = ffi::Span<const int64_t>;  // an attribute: one number for rows, one for columns

inline std::array<int, 2> TwoInts(Pair pair) {
  return {static_cast<int>(pair[0]), static_cast<int>(pair[1])};
}

// Returns the last dimensions of a shape.
template <size_t kCount>
std::array<int, kCount> Last(Dimensions dims) {
  std::array<int, kCount> last;
  for (size_t i = 0; i < kCount; ++i) {
    last[i] = static_cast<int>(dims[dims.size() - kCount + i]);
  }
  return last;
}

// Returns the number of runs: the product of the dimensions before the last `count`.
inline int64_t CountRuns(Dimensions dims, size_t count) {
  int64_t runs = 1;
  for (size_t i = 0; i + count < dims.size(); ++i) runs *= dims[i];
  return runs;
}

}  // namespace lth
