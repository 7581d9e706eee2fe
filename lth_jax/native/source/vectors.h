// Short vectors in GCC's and Clang's portable notation: sixteen floats where a register holds them,
// eight elsewhere (two registers each on machines with narrower ones).
#pragma once

#include <cstddef>
#include <cstring>

namespace lth {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
typedef float Eight __attribute__((vector_size(8 * sizeof(float))));

// Returns the lanes from `from` on, which need not be aligned. It is copied, which compiles to one
// unaligned load: a cast of the pointer would break the rules of aliasing and of alignment.
template <class V>
inline V Load(const float* from) {
  V lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

template <class V>
inline void Store(float* to, V lanes) {
  std::memcpy(to, &lanes, sizeof lanes);
}

constexpr int RoundUp(int count, int step) { return (count + step - 1) / step * step; }

}  // namespace lth
