// Products with the sparse kernel of a dense layer, 64 examples at a time.
//
// Examples are transposed to tiles [width][64], so that a weight meets 64 of them at once:
//
//   Row           out[64] += Σ values[e] · tile[column of e][64]
//                 Sums stay in registers; for each weight one broadcast, 64/lanes loads and as many
//                 multiply-adds. One load for each multiply-add: bound by loads from L1 and L2.
//   GradientRow   gradient[e] = tile[column of e][64] · given[64]
//                 `given` stays in registers: the same walk with a dot product for each weight.
//
// Fuller tables are cut into blocks of columns, whose part of a tile stays in L1 while some rows pass
// over it. The gradient of the input is Row over the transposed index table, whose `places` say where
// the values lie.
#pragma once

#include <algorithm>
#include <cstdint>

#include "parallel.h"
#include "table.h"
#include "transpose.h"
#include "vectors.h"

namespace lth {

constexpr int kTile = 64;
constexpr int kPerTile = kTile / kLanes;
// Sums in flight for each vector of a tile, to hide the latency of multiply-adds.
constexpr int kChains = kLanes == 16 ? 2 : 1;
// Rows of a task: what it leaves in a tile is transposed while it is in the cache.
constexpr int kRows = 32;
// Tiles that are shared out whole.
constexpr int kManyTiles = 8;

// Adds a row's entries of a block to out[64], or, for the first block, sets it.
inline void Row(const float* values, const Table& table, int row, int block, const float* tile,
                float* out) {
  Vector sums[kChains][kPerTile] = {};
  if (block > 0)
    for (int j = 0; j < kPerTile; ++j) sums[0][j] = Load<Vector>(out + j * kLanes);
  const int end = table.end(row, block);
  const auto add = [&](int entry, Vector* sum) {
    const float value = values[table.place(entry)];
    const float* x = tile + static_cast<ptrdiff_t>(table.columns[entry]) * kTile;
    for (int j = 0; j < kPerTile; ++j) sum[j] += Load<Vector>(x + j * kLanes) * value;
  };
  int entry = table.begin(row, block);
  for (; entry + kChains <= end; entry += kChains)
    for (int chain = 0; chain < kChains; ++chain) add(entry + chain, sums[chain]);
  for (; entry < end; ++entry) add(entry, sums[0]);
  for (int j = 0; j < kPerTile; ++j) {
    for (int chain = 1; chain < kChains; ++chain) sums[0][j] += sums[chain][j];
    Store(out + j * kLanes, sums[0][j]);
  }
}

// Adds to gradient[a row's entries of a block], or sets it.
inline void GradientRow(const Table& table, int row, int block, const float* tile,
                        const float* given, bool add, float* gradient) {
  Vector d[kPerTile];
  for (int j = 0; j < kPerTile; ++j) d[j] = Load<Vector>(given + j * kLanes);
  const int end = table.end(row, block);
  for (int entry = table.begin(row, block); entry < end; entry += 8) {
    const int some = std::min(8, end - entry);
    Eight products[8] = {};
    for (int e = 0; e < some; ++e) {
      const float* x = tile + static_cast<ptrdiff_t>(table.columns[entry + e]) * kTile;
      Vector sum = Load<Vector>(x) * d[0];
      for (int j = 1; j < kPerTile; ++j) sum += Load<Vector>(x + j * kLanes) * d[j];
      products[e] = Fold(sum);
    }
    Eight sums = Sums(products);
    if (some == 8) {
      if (add) sums += Load<Eight>(gradient + entry);
      Store(gradient + entry, sums);
    } else {
      for (int e = 0; e < some; ++e)
        gradient[entry + e] = sums[e] + (add ? gradient[entry + e] : 0);
    }
  }
}

inline int TilesOf(int examples) { return (examples + kTile - 1) / kTile; }

// Columns `begin` to `end - 1` of a tile's examples, of [examples, width], to `to` [width][64]; lanes
// without an example are zero.
inline void ToTile(const float* x, int examples, int width, int tile, int begin, int end,
                   float* to) {
  const int some = std::min(kTile, examples - tile * kTile);
  Transpose(x + static_cast<ptrdiff_t>(tile) * kTile * width + begin, width, some, end - begin,
            to + static_cast<ptrdiff_t>(begin) * kTile, kTile);
  for (int column = begin; some < kTile && column < end; ++column) {
    float* lanes = to + static_cast<ptrdiff_t>(column) * kTile;
    std::fill(lanes + some, lanes + kTile, 0.0f);
  }
}

// Examples [examples, width] to tiles [tile][width][64].
template <class Pool>
void ToTiles(Pool& pool, const float* x, int examples, int width, float* tiles) {
  constexpr int kColumns = 256;
  const int parts = (width + kColumns - 1) / kColumns;
  ForEach(pool, TilesOf(examples) * parts, [&](int task) {
    const int tile = task / parts, begin = task % parts * kColumns;
    ToTile(x, examples, width, tile, begin, std::min(width, begin + kColumns),
           tiles + static_cast<ptrdiff_t>(tile) * width * kTile);
  });
}

// out[n, row] = Σ values · tile, for rows `begin` to `end - 1`, at most kRows, and `some` examples.
inline void MultiplyRows(const float* values, const Table& table, const float* tile, int some,
                         int begin, int end, int rows, float* out) {
  float* sums = Scratch<2>(kRows * kTile);
  for (int block = 0; block < table.blocks; ++block)
    for (int row = begin; row < end; ++row)
      Row(values, table, row, block, tile, sums + (row - begin) * kTile);
  Transpose(sums, kTile, end - begin, some, out + begin, rows);
}

// out[n, row] = Σ values · x[n, ·], for `rows` rows of the table. The examples' tiles stay in `tiles`,
// unless it is null.
//
// A few tiles are shared out by rows; many, as in evaluation, one by one, each used while it is in the
// cache.
template <class Pool>
void Multiply(Pool& pool, const float* values, const Table& table, const float* x, int examples,
              int width, int rows, float* tiles, float* out) {
  const ptrdiff_t size = static_cast<ptrdiff_t>(width) * kTile;
  const int count = TilesOf(examples), parts = (rows + kRows - 1) / kRows;
  const auto multiply = [&](int tile, int part, const float* from) {
    MultiplyRows(values, table, from, std::min(kTile, examples - tile * kTile), part * kRows,
                 std::min(rows, (part + 1) * kRows), rows,
                 out + static_cast<ptrdiff_t>(tile) * kTile * rows);
  };
  if (count < kManyTiles) {
    if (!tiles) tiles = Scratch<3>(count * size);
    ToTiles(pool, x, examples, width, tiles);
    ForEach(pool, count * parts, [&](int task) {
      multiply(task / parts, task % parts, tiles + task / parts * size);
    });
    return;
  }
  ForEach(pool, count, [&](int tile) {
    float* own = tiles ? tiles + tile * size : Scratch<3>(size);
    ToTile(x, examples, width, tile, 0, width, own);
    for (int part = 0; part < parts; ++part) multiply(tile, part, own);
  });
}

// gradient[entry] of a kernel with `rows` outputs, zero behind the last entry.
template <class Pool>
void SparseGradient(Pool& pool, const Table& table, const float* tiles, const float* given,
                    int examples, int width, int rows, int capacity, float* gradient) {
  const int parts = (rows + kRows - 1) / kRows;
  ForEach(pool, parts, [&](int part) {
    const int begin = part * kRows, end = std::min(rows, begin + kRows);
    for (int tile = 0; tile < TilesOf(examples); ++tile) {
      const float* x = tiles + static_cast<ptrdiff_t>(tile) * width * kTile;
      const float* d = given + static_cast<ptrdiff_t>(tile) * rows * kTile;
      for (int block = 0; block < table.blocks; ++block)
        for (int row = begin; row < end; ++row)
          GradientRow(table, row, block, x, d + static_cast<ptrdiff_t>(row) * kTile, tile > 0,
                      gradient);
    }
  });
  std::fill(gradient + table.begin(rows), gradient + capacity, 0.0f);
}

}  // namespace lth
