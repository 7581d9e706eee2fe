// Products of dense layers by sparse kernels, 64 examples at a time.
//
//   Forward          out[n, k]   = Σ_e values[e] · x[n, column of e], over the entries e of row k
//   KernelGradient   gradient[e] = Σ_n x[n, column of e] · out_gradient[n, k]
//   InputGradient    is Forward with the transposed matrix, which reads the same values.
//
// The weights of a row lie at any inputs, so vectors over inputs or outputs would need a gather.
// Vectors are over examples instead: examples are transposed to tiles [width][64], and a weight
// meets 64 of them at once:
//
//               64 examples
//             ┌──────┬──────┬──────┬──────┐   MultiplyRow: for each entry of a row,
//             │ sums │ sums │ sums │ sums │   sums += value of e · tile[column of e]
//             └──────┴──────┴──────┴──────┘
//
// Sums stay in registers. An entry takes one broadcast, four loads and four multiply-adds (eight
// with vectors of eight): one load for each, so it is bound by loads from L1 and L2. GradientRow
// keeps out_gradient[64] in the registers instead, and takes a dot product with tile[column of e]
// for each entry, by the same loads.
//
// Denser matrices are cut into blocks of columns, whose part of a tile stays in L1 while some rows
// pass over it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "csr.h"
#include "parallel.h"
#include "transpose.h"
#include "vectors.h"

namespace lth {
namespace sparse_product {

constexpr int kTileExamples = 64;
constexpr int kVectors = kTileExamples / kLanes;
// Independent sums for each vector of a tile. Four vectors with one sum each would wait for the
// latency of multiply-adds; eight vectors (of eight) hide it by themselves.
constexpr int kChains = kLanes == 16 ? 2 : 1;
// Rows of a task. Its sums [row][example] are transposed to the output while they are in the cache.
constexpr int kTaskRows = 32;
// From so many tiles on, a task is a whole tile: see `Forward`.
constexpr int kManyTiles = 8;

// Adds entries `entry` to `end - 1`, of one row, to out[64], or, without `add`, sets it. A tile is
// of floats or of bytes.
template <class Number>
inline void MultiplyEntries(const float* values, const Csr& matrix, int entry, int end, bool add,
                            const Number* tile, float* out) {
  Vector sums[kChains][kVectors] = {};
  if (add)
    for (int j = 0; j < kVectors; ++j) sums[0][j] = Load<Vector>(out + j * kLanes);
  const auto add_entry = [&](int entry, Vector* sum) {
    const float value = values[matrix.value_index(entry)];
    const Number* x = tile + static_cast<ptrdiff_t>(matrix.column_indices[entry]) * kTileExamples;
    for (int j = 0; j < kVectors; ++j) sum[j] += LoadNumbers(x + j * kLanes) * value;
  };
  for (; entry + kChains <= end; entry += kChains)
    for (int chain = 0; chain < kChains; ++chain) add_entry(entry + chain, sums[chain]);
  for (; entry < end; ++entry) add_entry(entry, sums[0]);
  for (int j = 0; j < kVectors; ++j) {
    for (int chain = 1; chain < kChains; ++chain) sums[0][j] += sums[chain][j];
    Store(out + j * kLanes, sums[0][j]);
  }
}

// Adds a row's entries of a block to out[64], or, for the first block, sets out[64].
inline void MultiplyRow(const float* values, const Csr& matrix, int row, int block,
                        const float* tile, float* out) {
  MultiplyEntries(values, matrix, matrix.begin(row, block), matrix.end(row, block), block > 0, tile,
                  out);
}

// Adds to gradient[e] for entries `entry` to `end - 1`, of one row, or, without `add`, sets it.
// Eight at once, since the lanes of eight vectors are summed as fast as those of one (transpose.h);
// the vectors of a whole eight stay in registers. The tile's numbers count `scale` each.
template <class Number>
inline void GradientEntries(const Csr& matrix, int entry, int end, const Number* tile,
                            const float* out_gradient, float scale, bool add, float* gradient) {
  Vector d[kVectors];
  for (int j = 0; j < kVectors; ++j) d[j] = Load<Vector>(out_gradient + j * kLanes) * scale;
  const auto product = [&](int e) {
    const Number* x = tile + static_cast<ptrdiff_t>(matrix.column_indices[e]) * kTileExamples;
    Vector sum = LoadNumbers(x) * d[0];
    for (int j = 1; j < kVectors; ++j) sum += LoadNumbers(x + j * kLanes) * d[j];
    return FoldToEight(sum);
  };
  for (; entry + 8 <= end; entry += 8) {
    const Eight products[8] = {product(entry),     product(entry + 1), product(entry + 2),
                               product(entry + 3), product(entry + 4), product(entry + 5),
                               product(entry + 6), product(entry + 7)};
    Eight sums = Sums(products);
    if (add) sums += Load<Eight>(gradient + entry);
    Store(gradient + entry, sums);
  }
  if (entry == end) return;
  Eight products[8] = {};
  for (int e = 0; entry + e < end; ++e) products[e] = product(entry + e);
  const Eight sums = Sums(products);
  for (int e = 0; entry + e < end; ++e)
    gradient[entry + e] = sums[e] + (add ? gradient[entry + e] : 0);
}

// The same for a row's entries of a block.
inline void GradientRow(const Csr& matrix, int row, int block, const float* tile,
                        const float* out_gradient, bool add, float* gradient) {
  GradientEntries(matrix, matrix.begin(row, block), matrix.end(row, block), tile, out_gradient,
                  1.0f, add, gradient);
}

inline int CountTiles(int examples) { return (examples + kTileExamples - 1) / kTileExamples; }

// Transposes columns `begin` to `end - 1` of a tile's examples, of [examples, width], to `to`
// [width][64]. Lanes without an example are zero, so that they add nothing to gradients.
inline void TransposeToTile(const float* x, int examples, int width, int tile, int begin, int end,
                            float* to) {
  const int count = std::min(kTileExamples, examples - tile * kTileExamples);
  Transpose(x + static_cast<ptrdiff_t>(tile) * kTileExamples * width + begin, width, count,
            end - begin, to + static_cast<ptrdiff_t>(begin) * kTileExamples, kTileExamples);
  for (int column = begin; count < kTileExamples && column < end; ++column) {
    float* lanes = to + static_cast<ptrdiff_t>(column) * kTileExamples;
    std::fill(lanes + count, lanes + kTileExamples, 0.0f);
  }
}

// Transposes examples [examples, width] to tiles [tile][width][64].
template <class Pool>
void TransposeToTiles(Pool& pool, const float* x, int examples, int width, float* tiles) {
  constexpr int kColumns = 256;
  const int parts = (width + kColumns - 1) / kColumns;
  ForEach(pool, CountTiles(examples) * parts, [&](int task) {
    const int tile = task / parts, begin = task % parts * kColumns;
    TransposeToTile(x, examples, width, tile, begin, std::min(width, begin + kColumns),
                    tiles + static_cast<ptrdiff_t>(tile) * width * kTileExamples);
  });
}

// Computes out[n, row] for rows `begin` to `end - 1`, at most kTaskRows, and `count` examples.
// Blocks are the outer loop: all rows read one block's part of the tile before the next part is
// needed.
inline void MultiplyRows(const float* values, const Csr& matrix, const float* tile, int count,
                         int begin, int end, int rows, float* out) {
  float* sums = Scratch<2>(kTaskRows * kTileExamples);
  for (int block = 0; block < matrix.blocks; ++block)
    for (int row = begin; row < end; ++row)
      MultiplyRow(values, matrix, row, block, tile, sums + (row - begin) * kTileExamples);
  Transpose(sums, kTileExamples, end - begin, count, out + begin, rows);
}

// Computes out [examples, rows]. The examples' tiles are left in `tiles`, where the kernel's
// gradient needs them; null where it does not.
//
// A few tiles are shared out by rows: there would be too few tasks otherwise. Many, as in
// evaluation, are shared out one by one, and each is used while it is in the cache.
template <class Pool>
void Forward(Pool& pool, const float* values, const Csr& matrix, const float* x, int examples,
             int width, int rows, float* tiles, float* out) {
  const ptrdiff_t size = static_cast<ptrdiff_t>(width) * kTileExamples;
  const int tile_count = CountTiles(examples), parts = (rows + kTaskRows - 1) / kTaskRows;
  const auto multiply = [&](int tile, int part, const float* from) {
    MultiplyRows(values, matrix, from, std::min(kTileExamples, examples - tile * kTileExamples),
                 part * kTaskRows, std::min(rows, (part + 1) * kTaskRows), rows,
                 out + static_cast<ptrdiff_t>(tile) * kTileExamples * rows);
  };
  if (tile_count < kManyTiles) {
    if (!tiles) tiles = Scratch<3>(tile_count * size);
    TransposeToTiles(pool, x, examples, width, tiles);
    ForEach(pool, tile_count * parts,
            [&](int task) { multiply(task / parts, task % parts, tiles + task / parts * size); });
    return;
  }
  ForEach(pool, tile_count, [&](int tile) {
    float* its_tile = tiles ? tiles + tile * size : Scratch<3>(size);
    TransposeToTile(x, examples, width, tile, 0, width, its_tile);
    for (int part = 0; part < parts; ++part) multiply(tile, part, its_tile);
  });
}

// Computes gradient [capacity] of a kernel with `rows` outputs; zero behind the last entry. Threads
// share out rows, never examples, so that each entry has one sum in one order.
template <class Pool>
void KernelGradient(Pool& pool, const Csr& matrix, const float* tiles, const float* out_gradient,
                    int examples, int width, int rows, int capacity, float* gradient) {
  const int parts = (rows + kTaskRows - 1) / kTaskRows;
  ForEach(pool, parts, [&](int part) {
    const int begin = part * kTaskRows, end = std::min(rows, begin + kTaskRows);
    for (int tile = 0; tile < CountTiles(examples); ++tile) {
      const float* x = tiles + static_cast<ptrdiff_t>(tile) * width * kTileExamples;
      const float* d = out_gradient + static_cast<ptrdiff_t>(tile) * rows * kTileExamples;
      for (int block = 0; block < matrix.blocks; ++block)
        for (int row = begin; row < end; ++row)
          GradientRow(matrix, row, block, x, d + static_cast<ptrdiff_t>(row) * kTileExamples,
                      tile > 0, gradient);
    }
  });
  std::fill(gradient + matrix.begin(rows), gradient + capacity, 0.0f);
}

}  // namespace sparse_product
}  // namespace lth
