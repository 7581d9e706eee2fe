// Packed layers as lth_jax/native/packing.py makes them, for the sections that need them.
#pragma once

#include <algorithm>
#include <vector>

#include "check.h"
#include "csr.h"

namespace check {

// The matrices of a mask [width, rows], `spare` entries of padding behind them, columns in so
// many blocks, as lth_jax/native/packing.py makes them.
struct Tables {
  Tables(const std::vector<bool>& mask, int width, int rows, int spare, int blocks)
      : blocks(blocks),
        kept(int(std::count(mask.begin(), mask.end(), true))),
        capacity(std::max(1, kept + spare)),
        row_pointers((rows + 1) * blocks),
        column_indices(capacity),
        transposed_pointers((width + 1) * blocks),
        transposed_columns(capacity),
        value_indices(capacity) {
    std::vector<int> place(mask.size());
    int entry = 0;
    for (int row = 0; row < rows; ++row)
      for (int column = 0; column < width; ++column) {
        Begin(row_pointers, row, column, width, entry);
        if (mask[size_t(column) * rows + row]) {
          place[size_t(column) * rows + row] = entry;
          column_indices[entry++] = column;
        }
      }
    End(row_pointers, rows);
    entry = 0;
    for (int column = 0; column < width; ++column)
      for (int row = 0; row < rows; ++row) {
        Begin(transposed_pointers, column, row, rows, entry);
        if (mask[size_t(column) * rows + row]) {
          value_indices[entry] = place[size_t(column) * rows + row];
          transposed_columns[entry++] = row;
        }
      }
    End(transposed_pointers, width);
  }
  // Where a row's blocks begin that begin at this column; they may be empty.
  void Begin(Array<int32_t>& to, int row, int column, int width, int entry) {
    for (int block = 0; block < blocks; ++block)
      if (width * block / blocks == column) to[row * blocks + block] = entry;
  }
  void End(Array<int32_t>& to, int rows) {
    for (int block = 0; block < blocks; ++block) to[rows * blocks + block] = kept;
  }
  lth::Csr ByOutput() const { return {row_pointers.get(), column_indices.get(), nullptr, blocks}; }
  lth::Csr ByInput() const {
    return {transposed_pointers.get(), transposed_columns.get(), value_indices.get(), blocks};
  }

  int blocks, kept, capacity;
  Array<int32_t> row_pointers, column_indices, transposed_pointers, transposed_columns,
      value_indices;
};

inline std::vector<bool> RandomMask(int width, int rows, double density) {
  std::bernoulli_distribution kept(density);
  std::vector<bool> mask(size_t(width) * rows);
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = kept(Random());
  return mask;
}

}  // namespace check
