// Products with the kernel of a dense layer, and its gradient, over the inputs that are not zero.
//
// An input that is zero in all examples of a group adds nothing to their outputs, and its weights
// have no gradient. Images of digits have many such inputs, and so may layers behind a ReLU. They are
// found first (Live), and all loops run over the others. The rest is a register tile, unpacked:
//
//   Tile          out[R rows, V·lanes outputs]        R = 6, V at most 4
//                 Forward, a row is an example, and a step one of its inputs; for the gradient, a row
//                 is an input, and a step an example. For each step V loads of vectors, which stream
//                 by, R values, each broadcast, and R·V multiply-adds: 10 loads for 24, bound by
//                 arithmetic.
//
// Sums run over steps in order, whatever lies in a tile or a group, so neither changes a bit. The
// gradient of inputs is left to XLA, whose product it is.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "parallel.h"
#include "vectors.h"

namespace lth {

constexpr int kTileRows = 6;
constexpr int kTileVectors = kLanes == 16 ? 4 : 2;
// Examples whose zeros are looked for together, at most.
constexpr int kGroup = 66;
// Examples of a task forward, and inputs of one of the gradient: whole tiles.
constexpr int kTaskExamples = 2 * kTileRows;
constexpr int kTaskInputs = 16 * kTileRows;

// Puts those of `width` inputs, ascending, to `live` that are not zero in all `examples`; gives their
// number.
inline int Live(const float* x, int examples, int width, int* live) {
  thread_local std::vector<uint32_t> bits;
  bits.assign(width, 0);
  for (int n = 0; n < examples; ++n) {
    const float* from = x + static_cast<ptrdiff_t>(n) * width;
    for (int i = 0; i < width; ++i) {
      uint32_t word;
      std::memcpy(&word, from + i, sizeof word);
      bits[i] |= word << 1;  // without the sign: there are two zeros
    }
  }
  int count = 0;
  for (int i = 0; i < width; ++i) {
    live[count] = i;
    count += bits[i] != 0;
  }
  return count;
}

// outs[r] = Σ value(r, step) · vectors(step) over `steps`.
template <int kVectors, class Value, class From>
inline void Tile(int steps, Value value, From from, float* const* outs) {
  Vector sums[kTileRows][kVectors] = {};
  for (int step = 0; step < steps; ++step) {
    const float* begin = from(step);
    Vector w[kVectors];
    for (int v = 0; v < kVectors; ++v) w[v] = Load<Vector>(begin + v * kLanes);
    for (int r = 0; r < kTileRows; ++r) {
      const float x = value(r, step);
      for (int v = 0; v < kVectors; ++v) sums[r][v] += w[v] * x;
    }
  }
  for (int r = 0; r < kTileRows; ++r)
    for (int v = 0; v < kVectors; ++v) Store(outs[r] + v * kLanes, sums[r][v]);
}

// Calls `one(vectors, column)` for panels that cover `outputs` columns, no fewer than kLanes; the
// number of vectors comes as a type. The last panel may go back over columns of the one before.
template <class One>
inline void EachPanel(int outputs, One one) {
  const auto panel = [&](int vectors, int column) {
    if constexpr (kTileVectors == 4) {
      if (vectors == 4) one(std::integral_constant<int, 4>(), column);
      if (vectors == 3) one(std::integral_constant<int, 3>(), column);
    }
    if (vectors == 2) one(std::integral_constant<int, 2>(), column);
    if (vectors == 1) one(std::integral_constant<int, 1>(), column);
  };
  int column = 0;
  for (; column + kTileVectors * kLanes <= outputs; column += kTileVectors * kLanes)
    panel(kTileVectors, column);
  const int vectors = (outputs - column + kLanes - 1) / kLanes;
  if (vectors * kLanes <= outputs) {
    panel(vectors, outputs - vectors * kLanes);
  } else {
    panel(vectors - 1, column);
    panel(1, outputs - kLanes);
  }
}

// Calls `tile(rows)` for tiles of rows that cover `begin` to `end - 1`. The last one goes back over
// rows of the one before, or, if there is none, has its last row more than once.
template <class Tile>
inline void EachTile(int begin, int end, Tile tile) {
  for (int first = begin; first < end; first += kTileRows) {
    const int from = std::max(begin, std::min(first, end - kTileRows));
    int rows[kTileRows];
    for (int r = 0; r < kTileRows; ++r) rows[r] = std::min(from + r, end - 1);
    tile(rows);
  }
}

// out[n, output] = Σ x[n, input] · kernel[input, output], for no fewer than kLanes outputs.
template <class Pool>
void Product(Pool& pool, const float* x, const float* kernel, int examples, int width, int outputs,
             float* out) {
  const int groups = (examples + kGroup - 1) / kGroup;
  const int size = RoundUp((examples + groups - 1) / groups, kTaskExamples);
  const int tasks = (size + kTaskExamples - 1) / kTaskExamples;
  thread_local std::vector<int> room;
  room.resize(static_cast<size_t>(groups) * (width + 1));
  int* const lists = room.data();  // of a group: its number of live inputs, and those
  const auto list = [=](int group) { return lists + static_cast<ptrdiff_t>(group) * (width + 1); };
  const auto end_of = [=](int group) { return std::min(examples, (group + 1) * size); };
  ForEach(pool, groups, [&](int group) {
    const int begin = group * size;
    const float* from = x + static_cast<ptrdiff_t>(begin) * width;
    *list(group) = Live(from, std::max(0, end_of(group) - begin), width, list(group) + 1);
  });
  ForEach(pool, groups * tasks, [&](int task) {
    const int group = task / tasks, begin = group * size + task % tasks * kTaskExamples;
    const int steps = *list(group);
    const int* live = list(group) + 1;
    EachPanel(outputs, [&](auto vectors, int column) {
      EachTile(begin, std::min(end_of(group), begin + kTaskExamples), [&](const int* rows) {
        const float* xs[kTileRows];
        float* outs[kTileRows];
        for (int r = 0; r < kTileRows; ++r) {
          xs[r] = x + static_cast<ptrdiff_t>(rows[r]) * width;
          outs[r] = out + static_cast<ptrdiff_t>(rows[r]) * outputs + column;
        }
        const auto value = [&](int r, int step) { return xs[r][live[step]]; };
        const auto from = [&](int step) {
          return kernel + static_cast<ptrdiff_t>(live[step]) * outputs + column;
        };
        Tile<vectors()>(steps, value, from, outs);
      });
    });
  });
}

// gradient[input, output] = Σ x[n, input] · given[n, output], for no fewer than kLanes outputs.
template <class Pool>
void ProductGradient(Pool& pool, const float* x, const float* given, int examples, int width,
                     int outputs, float* gradient) {
  thread_local std::vector<int> room;
  room.resize(width + 1);
  int* const live = room.data();
  const int count = Live(x, examples, width, live);
  ForEach(pool, (width + kTaskInputs - 1) / kTaskInputs, [=](int task) {
    const int begin = task * kTaskInputs, end = std::min(width, begin + kTaskInputs);
    const auto first = std::lower_bound(live, live + count, begin);
    const auto last = std::lower_bound(first, live + count, end);
    float* const rows_begin = gradient + static_cast<ptrdiff_t>(begin) * outputs;
    if (last - first < end - begin)
      std::fill(rows_begin, gradient + static_cast<ptrdiff_t>(end) * outputs, 0.0f);
    EachPanel(outputs, [&](auto vectors, int column) {
      const auto place = [&](const int* at) { return static_cast<int>(at - live); };
      EachTile(place(first), place(last), [&](const int* rows) {
        const float* xs[kTileRows];
        float* outs[kTileRows];
        for (int r = 0; r < kTileRows; ++r) {
          xs[r] = x + live[rows[r]];
          outs[r] = gradient + static_cast<ptrdiff_t>(live[rows[r]]) * outputs + column;
        }
        const auto value = [&](int r, int n) { return xs[r][static_cast<ptrdiff_t>(n) * width]; };
        const auto from = [&](int n) {
          return given + static_cast<ptrdiff_t>(n) * outputs + column;
        };
        Tile<vectors()>(examples, value, from, outs);
      });
    });
  });
}

}  // namespace lth
