// The index tables of packed kernels, made by lth_jax/kernels/packing.py.
#pragma once

#include <cstdint>

namespace lth {

// Entries begins[row] to begins[row + 1] - 1 are those of a row: what is added to one output, or,
// in the mirrored table, to one input.
struct Table {
  const int32_t *begins, *columns;
  const int32_t* places;  // of the entries' values; null where they lie in the table's own order

  int place(int entry) const { return places ? places[entry] : entry; }
};

}  // namespace lth
