// The examples of a batch, gathered from a dataset in memory.
//
// Rows lie anywhere, so each is a miss of every cache. One after another they would be waited for;
// here all lines of many rows are asked for first, and arrive together while the first are copied.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace lth {
namespace gather {

constexpr int64_t kLine = 64;
// Bytes that are asked for before any is copied: they must stay in the second cache until then.
constexpr int64_t kAhead = 1 << 18;

// Copies rows `chosen` [count] of `rows` [row_count, row_bytes] to `out` [count, row_bytes]. An
// index outside of the rows takes the nearest.
inline void GatherRows(const char* rows, int64_t row_count, int64_t row_bytes,
                       const int32_t* chosen, int64_t count, char* out) {
  if (row_bytes == 0 || row_count == 0) return;
  const auto row = [=](int64_t i) {
    return rows + std::min<int64_t>(row_count - 1, std::max(0, chosen[i])) * row_bytes;
  };
  const int64_t some = std::max<int64_t>(1, kAhead / row_bytes);
  for (int64_t begin = 0; begin < count; begin += some) {
    const int64_t end = std::min(count, begin + some);
    for (int64_t i = begin; i < end; ++i) {
      const char* from = row(i);
      for (int64_t byte = 0; byte < row_bytes; byte += kLine) __builtin_prefetch(from + byte, 0, 2);
      __builtin_prefetch(from + row_bytes - 1, 0, 2);
    }
    for (int64_t i = begin; i < end; ++i) std::memcpy(out + i * row_bytes, row(i), row_bytes);
  }
}

}  // namespace gather
}  // namespace lth
