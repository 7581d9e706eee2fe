// Sparse matrices in compressed sparse row format (CSR), as lth_jax/native/packing.py makes them.
#pragma once

#include <cstdint>

namespace lth {

// The positions of the nonzeros of a sparse matrix.
//
// The entries of a row are row_pointers[row * blocks] to row_pointers[(row + 1) * blocks] - 1. They
// are what is added to one output, or, in the transposed matrix, to one input. A row's entries may
// be cut into blocks of columns, so that the part of the input that a block reads stays in L1.
struct Csr {
  const int32_t *row_pointers, *column_indices;
  // Where the values of the entries lie. There is one vector of values, in the order of the forward
  // matrix, so that the optimizer updates it once: the transposed matrix reads it through these
  // indices. Null where the values lie in the matrix's own order.
  const int32_t* value_indices;
  int blocks = 1;

  int value_index(int entry) const { return value_indices ? value_indices[entry] : entry; }
  int begin(int row, int block = 0) const { return row_pointers[row * blocks + block]; }
  int end(int row, int block) const { return row_pointers[row * blocks + block + 1]; }
};

}  // namespace lth
