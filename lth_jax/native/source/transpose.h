// Transposing matrices of floats, eight by eight in registers.
#pragma once

#include "vectors.h"

namespace lth {

#define LTH_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)

// to[j · to_pitch + i] = from[i · from_pitch + j] for i, j < 8.
inline void TransposeEight(const float* from, ptrdiff_t from_pitch, float* to, ptrdiff_t to_pitch) {
  Eight r[8], t[8];
  for (int i = 0; i < 8; ++i) r[i] = Load<Eight>(from + i * from_pitch);
  for (int i = 0; i < 8; i += 2) {
    t[i] = LTH_SHUFFLE(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    t[i + 1] = LTH_SHUFFLE(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      r[i + 2 * j] = LTH_SHUFFLE(t[i + j], t[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      r[i + 2 * j + 1] = LTH_SHUFFLE(t[i + j], t[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int i = 0; i < 4; ++i) {
    Store(to + i * to_pitch, LTH_SHUFFLE(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11));
    Store(to + (i + 4) * to_pitch, LTH_SHUFFLE(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15));
  }
}

// to[j · to_pitch + i] = from[i · from_pitch + j] for i < rows, j < columns.
inline void Transpose(const float* from, ptrdiff_t from_pitch, int rows, int columns, float* to,
                      ptrdiff_t to_pitch) {
  for (int i = 0; i < rows; i += 8) {
    for (int j = 0; j < columns; j += 8) {
      if (i + 8 <= rows && j + 8 <= columns) {
        TransposeEight(from + i * from_pitch + j, from_pitch, to + j * to_pitch + i, to_pitch);
        continue;
      }
      for (int r = i; r < rows && r < i + 8; ++r)
        for (int c = j; c < columns && c < j + 8; ++c)
          to[c * to_pitch + r] = from[r * from_pitch + c];
    }
  }
}

typedef uint8_t SixteenBytes __attribute__((vector_size(16)));

// to[j · to_pitch + i] = rows[i][j] for i, j < 16.
inline void TransposeSixteenBytes(const uint8_t* const* rows, uint8_t* to, ptrdiff_t to_pitch) {
  SixteenBytes r[16], t[16];
  for (int i = 0; i < 16; ++i) std::memcpy(&r[i], rows[i], sizeof r[i]);
  // Each round deals rows i and i + 8 in turn, as one deals two halves of a deck of cards.
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 8; ++i) {
      t[2 * i] =
          LTH_SHUFFLE(r[i], r[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      t[2 * i + 1] =
          LTH_SHUFFLE(r[i], r[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    std::memcpy(r, t, sizeof r);
  }
  for (int i = 0; i < 16; ++i) std::memcpy(to + i * to_pitch, &r[i], sizeof r[i]);
}

// Adds neighbours: [a0+a1, a2+a3, b0+b1, b2+b3 | the same of the upper halves].
inline Eight AddNeighbours(Eight a, Eight b) {
  return LTH_SHUFFLE(a, b, 0, 2, 8, 10, 4, 6, 12, 14) +
         LTH_SHUFFLE(a, b, 1, 3, 9, 11, 5, 7, 13, 15);
}

// The sums of the lanes of eight vectors: seven additions, instead of seven for each.
inline Eight Sums(const Eight* v) {
  const Eight low = AddNeighbours(AddNeighbours(v[0], v[1]), AddNeighbours(v[2], v[3]));
  const Eight high = AddNeighbours(AddNeighbours(v[4], v[5]), AddNeighbours(v[6], v[7]));
  return LTH_SHUFFLE(low, high, 0, 1, 2, 3, 8, 9, 10, 11) +
         LTH_SHUFFLE(low, high, 4, 5, 6, 7, 12, 13, 14, 15);
}

// A vector's lanes folded to eight.
inline Eight FoldToEight(Vector v) {
#if defined(__AVX512F__)
  return LTH_SHUFFLE(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
         LTH_SHUFFLE(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
#else
  return v;
#endif
}

}  // namespace lth
