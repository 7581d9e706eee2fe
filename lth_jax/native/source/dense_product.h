// Products of dense layers, and the gradients of their kernels, over the inputs that are not zero.
//
//   Forward          out[n, k]      = Σ_i x[n, i] · kernel[i, k]
//   KernelGradient   gradient[i, k] = Σ_n x[n, i] · out_gradient[n, k]
//
// An input that is zero in all examples of a group adds nothing to their outputs, and its weights
// have no gradient. Images of digits have many such inputs, and a unit behind a ReLU may be one.
// They are found first (NonzeroInputs), and all loops run over the others alone. Both products are
// one register tile, which reads kernels and gradients where they lie:
//
//                V vectors of outputs
//             ┌──────┬──────┬──────┐   V at most 4 (2 with vectors of eight).
//   R = 6     │ sums │ sums │ sums │   Forward: a row is an example, a step is an input.
//   rows      │  …   │  …   │  …   │   KernelGradient: a row is an input, a step is an example.
//             └──────┴──────┴──────┘
//
// A step loads V vectors, broadcasts R values, and makes R·V multiply-adds: 10 loads for 24. So it
// is bound by multiply-adds, as long as the vectors, which no step reads twice, come from L2.
//
// Sums run over steps in order, whatever lies in a tile or a group, so neither changes a bit. The
// gradient of inputs is left to XLA: its operands have no such zeros.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "parallel.h"
#include "vectors.h"

namespace lth {
namespace dense_product {

constexpr int kTileRows = 6;
constexpr int kTileVectors = kLanes == 16 ? 4 : 2;
// Examples whose zeros are looked for together, at most: of more examples, fewer inputs are zero in
// all. LeNet's batch of 60 is one group.
constexpr int kGroup = 66;
// Examples of a task of the forward pass, and inputs of one of the gradient: whole tiles.
constexpr int kTaskExamples = 2 * kTileRows;
constexpr int kTaskInputs = 16 * kTileRows;

// Writes to `nonzero` which of `width` inputs, ascending, are not zero in all `examples`, and
// returns how many these are. NaN counts as not zero: it must spread.
inline int NonzeroInputs(const float* x, int examples, int width, int* nonzero) {
  thread_local std::vector<uint32_t> bits;
  bits.assign(width, 0);
  for (int n = 0; n < examples; ++n) {
    const float* from = x + static_cast<ptrdiff_t>(n) * width;
    for (int i = 0; i < width; ++i) {
      uint32_t word;
      std::memcpy(&word, from + i, sizeof word);
      bits[i] |= word << 1;  // without the sign bit: there are two zeros
    }
  }
  int count = 0;
  for (int i = 0; i < width; ++i) {
    nonzero[count] = i;  // the next one overwrites it if this input is zero
    count += bits[i] != 0;
  }
  return count;
}

// outs[r] = Σ value_at(r, step) · vectors_at(step) over `steps`.
template <int kVectors, class ValueAt, class VectorsAt>
inline void Tile(int steps, ValueAt value_at, VectorsAt vectors_at, float* const* outs) {
  Vector sums[kTileRows][kVectors] = {};
  for (int step = 0; step < steps; ++step) {
    const float* begin = vectors_at(step);
    Vector w[kVectors];
    for (int v = 0; v < kVectors; ++v) w[v] = Load<Vector>(begin + v * kLanes);
    for (int r = 0; r < kTileRows; ++r) {
      const float x = value_at(r, step);
      for (int v = 0; v < kVectors; ++v) sums[r][v] += w[v] * x;
    }
  }
  for (int r = 0; r < kTileRows; ++r)
    for (int v = 0; v < kVectors; ++v) Store(outs[r] + v * kLanes, sums[r][v]);
}

// Calls `body(vectors, column)` for panels that cover `outputs` columns, no fewer than kLanes; the
// number of vectors comes as a type. The last panel may go back over columns of the one before.
template <class Body>
inline void ForEachPanel(int outputs, Body body) {
  const auto panel = [&](int vectors, int column) {
    if constexpr (kTileVectors == 4) {
      if (vectors == 4) body(std::integral_constant<int, 4>(), column);
      if (vectors == 3) body(std::integral_constant<int, 3>(), column);
    }
    if (vectors == 2) body(std::integral_constant<int, 2>(), column);
    if (vectors == 1) body(std::integral_constant<int, 1>(), column);
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
inline void ForEachTile(int begin, int end, Tile tile) {
  for (int first = begin; first < end; first += kTileRows) {
    const int from = std::max(begin, std::min(first, end - kTileRows));
    int rows[kTileRows];
    for (int r = 0; r < kTileRows; ++r) rows[r] = std::min(from + r, end - 1);
    tile(rows);
  }
}

// Computes out [examples, outputs]; there must be no fewer than kLanes outputs.
template <class Pool>
void Forward(Pool& pool, const float* x, const float* kernel, int examples, int width, int outputs,
             float* out) {
  const int groups = (examples + kGroup - 1) / kGroup;
  const int size = RoundUp((examples + groups - 1) / groups, kTaskExamples);
  const int tasks = (size + kTaskExamples - 1) / kTaskExamples;
  thread_local std::vector<int> storage;
  storage.resize(static_cast<size_t>(groups) * (width + 1));
  int* const lists = storage.data();  // of each group: how many inputs are not zero, and which
  const auto list = [=](int group) { return lists + static_cast<ptrdiff_t>(group) * (width + 1); };
  const auto end_of = [=](int group) { return std::min(examples, (group + 1) * size); };
  ForEach(pool, groups, [&](int group) {
    const int begin = group * size;
    const float* from = x + static_cast<ptrdiff_t>(begin) * width;
    *list(group) = NonzeroInputs(from, std::max(0, end_of(group) - begin), width, list(group) + 1);
  });
  ForEach(pool, groups * tasks, [&](int task) {
    const int group = task / tasks, begin = group * size + task % tasks * kTaskExamples;
    const int steps = *list(group);
    const int* nonzero = list(group) + 1;
    ForEachPanel(outputs, [&](auto vectors, int column) {
      ForEachTile(begin, std::min(end_of(group), begin + kTaskExamples), [&](const int* rows) {
        const float* xs[kTileRows];
        float* outs[kTileRows];
        for (int r = 0; r < kTileRows; ++r) {
          xs[r] = x + static_cast<ptrdiff_t>(rows[r]) * width;
          outs[r] = out + static_cast<ptrdiff_t>(rows[r]) * outputs + column;
        }
        const auto value_at = [&](int r, int step) { return xs[r][nonzero[step]]; };
        const auto vectors_at = [&](int step) {
          return kernel + static_cast<ptrdiff_t>(nonzero[step]) * outputs + column;
        };
        Tile<vectors()>(steps, value_at, vectors_at, outs);
      });
    });
  });
}

// Computes gradient [width, outputs]; there must be no fewer than kLanes outputs.
template <class Pool>
void KernelGradient(Pool& pool, const float* x, const float* out_gradient, int examples, int width,
                    int outputs, float* gradient) {
  thread_local std::vector<int> storage;
  storage.resize(width + 1);
  int* const nonzero = storage.data();
  const int count = NonzeroInputs(x, examples, width, nonzero);
  ForEach(pool, (width + kTaskInputs - 1) / kTaskInputs, [=](int task) {
    const int begin = task * kTaskInputs, end = std::min(width, begin + kTaskInputs);
    const auto first = std::lower_bound(nonzero, nonzero + count, begin);
    const auto last = std::lower_bound(first, nonzero + count, end);
    float* const rows_begin = gradient + static_cast<ptrdiff_t>(begin) * outputs;
    if (last - first < end - begin)
      std::fill(rows_begin, gradient + static_cast<ptrdiff_t>(end) * outputs, 0.0f);
    ForEachPanel(outputs, [&](auto vectors, int column) {
      const auto index_of = [&](const int* at) { return static_cast<int>(at - nonzero); };
      ForEachTile(index_of(first), index_of(last), [&](const int* rows) {
        const float* xs[kTileRows];
        float* outs[kTileRows];
        for (int r = 0; r < kTileRows; ++r) {
          xs[r] = x + nonzero[rows[r]];
          outs[r] = gradient + static_cast<ptrdiff_t>(nonzero[rows[r]]) * outputs + column;
        }
        const auto value_at = [&](int r, int n) {
          return xs[r][static_cast<ptrdiff_t>(n) * width];
        };
        const auto vectors_at = [&](int n) {
          return out_gradient + static_cast<ptrdiff_t>(n) * outputs + column;
        };
        Tile<vectors()>(examples, value_at, vectors_at, outs);
      });
    });
  });
}

}  // namespace dense_product
}  // namespace lth
