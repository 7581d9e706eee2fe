// The index tables of packed kernels, made by lth_jax/native/packing.py.
#pragma once

#include <cstdint>

namespace lth {

// Entries begins[row · blocks] to begins[(row + 1) · blocks] - 1 are those of a row: what is added to
// one output, or, in the mirrored table, to one input. Those of a block of columns lie together.
struct Table {
  const int32_t *begins, *columns;
  const int32_t* places;  // of the entries' values; null where they lie in the table's own order
  int blocks = 1;

  int place(int entry) const { return places ? places[entry] : entry; }
  int begin(int row, int block = 0) const { return begins[row * blocks + block]; }
  int end(int row, int block) const { return begins[row * blocks + block + 1]; }
};

}  // namespace lth
