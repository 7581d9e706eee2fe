// Short vectors in GCC's and Clang's portable notation: sixteen floats where a register holds them,
// eight elsewhere (two registers each on machines with narrower ones).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace lth {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
typedef float Eight __attribute__((vector_size(8 * sizeof(float))));
typedef int32_t Bits __attribute__((vector_size(kLanes * sizeof(int32_t))));

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

// Returns the square root of each lane, for which there is no portable notation. Lane by lane GCC
// would take half a register at a time, and so twice the time.
inline Vector Sqrt(Vector x) {
#if defined(__AVX512F__)
  return (Vector)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
#elif defined(__AVX__)
  return (Vector)_mm256_sqrt_ps((__m256)x);
#else
  float lanes[kLanes];
  Store(lanes, x);
  for (float& lane : lanes) lane = std::sqrt(lane);
  return Load<Vector>(lanes);
#endif
}

// Returns as many bytes from `from` on as there are lanes, in 32 bits each. GCC 12 converts vectors
// of bytes one by one.
inline Bits LoadBytes(const uint8_t* from) {
#if defined(__AVX512F__)
  __m128i bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return (Bits)_mm512_maskz_cvtepu8_epi32(0xffff, bytes);
#elif defined(__AVX2__)
  int64_t bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return (Bits)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes));
#else
  Bits bits;
  for (int lane = 0; lane < kLanes; ++lane) bits[lane] = from[lane];
  return bits;
#endif
}

// Returns numbers from `from` on as floats: floats as they are, or bytes.
inline Vector LoadNumbers(const float* from) { return Load<Vector>(from); }
inline Vector LoadNumbers(const uint8_t* from) {
  return __builtin_convertvector(LoadBytes(from), Vector);
}

// Returns e to the power of each lane, to about two units in the last place. Powers below -87 count
// as -87, whose result is next to the smallest normal number; NaN stays NaN. None may exceed 87.
inline Vector Exp(Vector x) {
  typedef uint32_t Words __attribute__((vector_size(sizeof(Vector))));
  constexpr float kShift = 12582912.0f;  // 1.5 · 2^23: a sum with it is rounded to an integer
  constexpr uint32_t kShiftBits = 0x4B400000;
  const Vector least = Vector{} - 87.0f;
  x = x < least ? least : x;
  const Vector shifted = x * 1.44269504f + kShift, whole = shifted - kShift;
  // x = whole · ln 2 + r, with ln 2 in two parts, of which the first has few digits.
  const Vector r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Vector sum = r * (1 / 5040.0f) + 1 / 720.0f;
  const float terms[] = {1 / 120.0f, 1 / 24.0f, 1 / 6.0f, 0.5f, 1.0f, 1.0f};
  for (float term : terms) sum = sum * r + term;
  Words bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits - kShiftBits + 127) << 23;
  Vector power;
  std::memcpy(&power, &bits, sizeof power);
  return sum * power;
}

// Returns which of kLanes entries of a mask are True, for use as in `kept ? a : b`.
inline Bits KeptLanes(const uint8_t* mask) { return LoadBytes(mask) != 0; }

constexpr int RoundUp(int count, int step) { return (count + step - 1) / step * step; }

}  // namespace lth
