// Convolutions of NHWC images by sparse kernels, with any stride and any border of zeros.
//
//   Forward          out[n, y, x, k] = Σ_e values[e] · pixel(n, y, x; e), over the entries of row k
//   KernelGradient   gradient[e]     = Σ_{n, y, x} pixel(n, y, x; e) · out_gradient[n, y, x, k]
//   InputGradient    is Forward with the transposed matrix, on planes of the output's gradient.
//
// where pixel(n, y, x; e) is the value that the weight e meets when the window is at (y, x). Images
// are scattered to planes, in which the window moves by the same number of floats for every
// position: planes.h says how, and why. So a weight is a tap, an offset in planes and a value, and
// meets positions that lie side by side:
//
//               V ≤ 8 vectors of positions
//             ┌──────┬──────┬──────┐   ApplyTaps: for each tap of an output plane,
//             │ sums │ sums │  …   │   sums += value · planes[offset + positions]
//             └──────┴──────┴──────┘
//
// Sums stay in registers. A tap takes one broadcast, V loads and V multiply-adds: one load for
// each, seldom aligned, so it is bound by loads. GradientRow keeps out_gradient[positions] in the
// registers instead, and takes a dot product with planes[offset + positions] for each entry, by the
// same loads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "csr.h"
#include "parallel.h"
#include "planes.h"
#include "vectors.h"

namespace lth {
namespace sparse_conv {

constexpr int kMostTile = 8;  // vectors of positions that a weight meets at once
// The parts in which tasks add up a kernel's gradient: more would give each thread more sums to
// clear and to add, fewer would not share out evenly.
constexpr int kMostParts = 16;

// A weight, and where the value that it meets at the first position lies in planes.
struct Tap {
  int32_t offset;
  float value;
};

// Sets out[0] to out[kVectors · lanes - 1] to the sums over all taps.
template <int kVectors>
inline void ApplyTaps(const Tap* tap, const Tap* end, const float* planes, float* out) {
  // Independent sums for each vector: few vectors would wait for the latency of multiply-adds.
  constexpr int kChains = kVectors > 4 ? 1 : 2;
  Vector sums[kChains][kVectors] = {};
  const auto add = [&](const Tap& one, Vector* sum) {
    const float* x = planes + one.offset;
    for (int j = 0; j < kVectors; ++j) sum[j] += Load<Vector>(x + j * kLanes) * one.value;
  };
  for (; tap + kChains <= end; tap += kChains)
    for (int chain = 0; chain < kChains; ++chain) add(tap[chain], sums[chain]);
  for (; tap < end; ++tap) add(*tap, sums[0]);
  for (int j = 0; j < kVectors; ++j) {
    for (int chain = 1; chain < kChains; ++chain) sums[0][j] += sums[chain][j];
    Store(out + j * kLanes, sums[0][j]);
  }
}

// Adds to gradient[0] to gradient[entries - 1]. Eight dot products at once: the sums of the lanes
// of eight vectors cost as much as that of one (transpose.h).
template <int kVectors>
inline void GradientRow(const int32_t* offsets, int entries, const float* planes,
                        const float* out_gradient, float* gradient) {
  Vector d[kVectors];
  for (int j = 0; j < kVectors; ++j) d[j] = Load<Vector>(out_gradient + j * kLanes);
  for (int entry = 0; entry < entries; entry += 8) {
    const int count = std::min(8, entries - entry);
    Eight products[8] = {};
    for (int e = 0; e < count; ++e) {
      const float* x = planes + offsets[entry + e];
      Vector sum = Load<Vector>(x) * d[0];
      for (int j = 1; j < kVectors; ++j) sum += Load<Vector>(x + j * kLanes) * d[j];
      products[e] = FoldToEight(sum);
    }
    const Eight sums = Sums(products);
    if (count == 8) {
      Store(gradient + entry, Load<Eight>(gradient + entry) + sums);
    } else {
      for (int e = 0; e < count; ++e) gradient[entry + e] += sums[e];
    }
  }
}

// Calls `body(V)` with V an integral constant of that value, 1 to `kMostTile`.
template <int kVectors = kMostTile, class Body>
inline void WithVectors(int vectors, Body body) {
  if constexpr (kVectors > 1) {
    if (vectors < kVectors) return WithVectors<kVectors - 1>(vectors, body);
  }
  body(std::integral_constant<int, kVectors>());
}

// Cuts a task's positions into tiles of nearly the same size, since a last tile of one vector would
// be slow: `body(V, first position)`.
template <class Body>
inline void ForEachTile(int vectors, Body body) {
  const int tiles = (vectors + kMostTile - 1) / kMostTile;
  for (int tile = 0; tile < tiles; ++tile) {
    const int begin = vectors * tile / tiles, end = vectors * (tile + 1) / tiles;
    WithVectors(end - begin, [&](auto count) { body(count, begin * kLanes); });
  }
}

// Returns room for what a call makes of a matrix before its tasks, on any thread, read it. Not
// `Scratch`, whose slots the tasks use.
template <class T>
T* PerCall(size_t count) {
  thread_local std::vector<T> storage;
  if (storage.size() < count) storage.resize(count);
  return storage.data();
}

// Computes the images of the plan's target from those of its source.
template <class Pool>
void Forward(Pool& pool, const Plan& plan, const Csr& matrix, const float* values,
             const float* from, float* to) {
  const PositionGrid& grid = plan.grid;
  const ptrdiff_t plane_size = grid.plane_size(), sums_size = grid.sums_size();
  const int targets = plan.target.planes(), entries = matrix.row_pointers[targets];
  Tap* taps = PerCall<Tap>(entries);
  for (int e = 0; e < entries; ++e)
    taps[e] = {plan.offset(matrix.column_indices[e]), values[matrix.value_index(e)]};
  ForEach(pool, grid.tasks(), [&](int index) {
    const Task task = TaskAt(grid, index);
    float* planes = Scratch<0>(plane_size * plan.source.planes() + kLanes);
    float* outs = Scratch<1>(sums_size * targets);
    ScatterToPlanes(plan.source, grid, task, task.rows + grid.window_height - 1,
                    grid.seen_columns(), from, plane_size, planes);
    ForEachTile(grid.vectors(task.rows), [&](auto count, int position) {
      for (int p = 0; p < targets; ++p)
        ApplyTaps<decltype(count)::value>(taps + matrix.row_pointers[p],
                                          taps + matrix.row_pointers[p + 1], planes + position,
                                          outs + p * sums_size + position);
    });
    GatherFromPlanes(plan.target, grid, task, outs, to);
  });
}

// Adds to part_sums[e] the products of a task's images with the gradient of their outputs. The
// planes of the gradient are zero where positions wrap around, so these add nothing.
inline void AddTaskGradient(const Plan& plan, const int32_t* row_pointers, const int32_t* offsets,
                            const Task& task, const float* images, const float* out_gradient,
                            float* part_sums) {
  const PositionGrid& grid = plan.grid;
  const ptrdiff_t plane_size = grid.plane_size(), sums_size = grid.sums_size();
  const int targets = plan.target.planes();
  float* planes = Scratch<0>(plane_size * plan.source.planes() + kLanes);
  float* d = Scratch<1>(sums_size * targets + kLanes);
  ScatterToPlanes(plan.source, grid, task, task.rows + grid.window_height - 1, grid.seen_columns(),
                  images, plane_size, planes);
  ScatterToPlanes(plan.target, grid, task, task.rows, grid.columns, out_gradient, sums_size, d);
  ForEachTile(grid.vectors(task.rows), [&](auto count, int position) {
    for (int p = 0; p < targets; ++p)
      GradientRow<decltype(count)::value>(
          offsets + row_pointers[p], row_pointers[p + 1] - row_pointers[p], planes + position,
          d + p * sums_size + position, part_sums + row_pointers[p]);
  });
}

// Computes gradient [capacity] of the forward matrix's entries; zero behind the last entry.
//
// All tasks add to the same gradient. They are shared out in a number of parts that depends on
// shapes alone, and the parts' sums are added in order: so no bit depends on the number of threads.
template <class Pool>
void KernelGradient(Pool& pool, const Plan& plan, const Csr& matrix, const float* images,
                    const float* out_gradient, int capacity, float* gradient) {
  const int entries = matrix.row_pointers[plan.target.planes()], tasks = plan.grid.tasks();
  const int parts = std::min(kMostParts, tasks);
  int32_t* offsets = PerCall<int32_t>(entries);
  for (int e = 0; e < entries; ++e) offsets[e] = plan.offset(matrix.column_indices[e]);
  float* sums = Scratch<4>(static_cast<size_t>(parts) * entries);
  ForEach(pool, parts, [&](int part) {
    float* part_sums = sums + static_cast<ptrdiff_t>(part) * entries;
    std::fill(part_sums, part_sums + entries, 0.0f);
    const int64_t first = int64_t{tasks} * part / parts, last = int64_t{tasks} * (part + 1) / parts;
    for (int64_t index = first; index < last; ++index)
      AddTaskGradient(plan, matrix.row_pointers, offsets,
                      TaskAt(plan.grid, static_cast<int>(index)), images, out_gradient, part_sums);
  });
  const int chunk = 1 << 14;
  ForEach(pool, (entries + chunk - 1) / chunk, [&](int index) {
    for (int e = index * chunk; e < std::min(entries, (index + 1) * chunk); ++e) {
      float sum = sums[e];
      for (int part = 1; part < parts; ++part)
        sum += sums[static_cast<ptrdiff_t>(part) * entries + e];
      gradient[e] = sum;
    }
  });
  std::fill(gradient + entries, gradient + capacity, 0.0f);
}

}  // namespace sparse_conv
}  // namespace lth
