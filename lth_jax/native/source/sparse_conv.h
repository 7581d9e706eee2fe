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
//
// A tile meets the taps of all outputs, and what they see of all channels is more than the first
// cache holds: 52 kB of 64 channels, where every output would load all of it from the second one.
// So a tile takes one block of channels after another, each for all outputs.
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
// The floats of planes that the taps of a block see from a tile: three quarters of a first cache of
// 32 KiB, whose rest is for sums and taps.
constexpr int kBlockFloats = 6144;
// The entries that a row should have in a block, on average: fewer are not worth a loop.
constexpr int kLeastOfBlock = 10;

// A weight, and where the value that it meets at the first position lies in planes.
struct Tap {
  int32_t offset;
  float value;
};

// Sets out[0] to out[kVectors · lanes - 1] to the sums over all taps, or adds these to it.
template <int kVectors>
inline void ApplyTaps(const Tap* tap, const Tap* end, const float* planes, bool add_to_out,
                      float* out) {
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
    if (add_to_out) sums[0][j] += Load<Vector>(out + j * kLanes);
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
template <int kSlot, class T>
T* PerCall(size_t count) {
  thread_local std::vector<T> storage;
  if (storage.size() < count) storage.resize(count);
  return storage.data();
}

// The entries of a matrix by blocks of the source's channels. Those of row p and block b begin at
// starts[p · count + b], and end where the next ones begin: a row's entries lie by channel.
struct Blocks {
  int count;
  const int32_t* starts;
};

inline Blocks MakeBlocks(const Plan& plan, const Csr& matrix) {
  const PositionGrid& grid = plan.grid;
  const int last = grid.offset(grid.window_height - 1, grid.window_width - 1);
  const int seen = std::min(grid.plane_size(), kMostTile * kLanes + last);
  const int channels = plan.source.channels, targets = plan.target.planes();
  const int fitting = std::max(1, kBlockFloats / (seen * plan.source.residues()));
  const int count = std::clamp(matrix.row_pointers[targets] / (kLeastOfBlock * targets), 1,
                               (channels + fitting - 1) / fitting);
  const int width = (channels + count - 1) / count;
  int32_t* starts = PerCall<1, int32_t>(static_cast<size_t>(targets) * count + 1);
  int entry = 0;
  for (int p = 0; p < targets; ++p) {
    for (int block = 0; block < count; ++block) {
      starts[p * count + block] = entry;
      const int end = (block + 1) * width;
      while (entry < matrix.row_pointers[p + 1] &&
             Plan::ChannelOf(matrix.column_indices[entry]) < end)
        ++entry;
    }
  }
  starts[targets * count] = entry;
  return {count, starts};
}

// Computes the images of the plan's target from those of its source.
template <class Pool>
void Forward(Pool& pool, const Plan& plan, const Csr& matrix, const float* values,
             const float* from, float* to) {
  const PositionGrid& grid = plan.grid;
  const ptrdiff_t plane_size = grid.plane_size(), sums_size = grid.sums_size();
  const int targets = plan.target.planes(), entries = matrix.row_pointers[targets];
  const Blocks blocks = MakeBlocks(plan, matrix);
  Tap* taps = PerCall<0, Tap>(entries);
  for (int e = 0; e < entries; ++e)
    taps[e] = {plan.offset(matrix.column_indices[e]), values[matrix.value_index(e)]};
  ForEach(pool, grid.tasks(), [&](int index) {
    const Task task = TaskAt(grid, index);
    float* planes = Scratch<0>(plane_size * plan.source.planes() + kLanes);
    float* outs = Scratch<1>(sums_size * targets);
    ScatterToPlanes(plan.source, grid, task, task.rows + grid.window_height - 1,
                    grid.seen_columns(), from, plane_size, planes);
    ForEachTile(grid.vectors(task.rows), [&](auto count, int position) {
      for (int block = 0; block < blocks.count; ++block) {
        for (int p = 0; p < targets; ++p) {
          const int32_t* start = blocks.starts + p * blocks.count + block;
          if (block > 0 && start[0] == start[1]) continue;
          ApplyTaps<decltype(count)::value>(taps + start[0], taps + start[1], planes + position,
                                            block > 0, outs + p * sums_size + position);
        }
      }
    });
    GatherFromPlanes(plan.target, grid, task, outs, to);
  });
}

// Adds to part_sums[e] the products of a task's images with the gradient of their outputs. The
// planes of the gradient are zero where positions wrap around, so these add nothing.
inline void AddTaskGradient(const Plan& plan, const Blocks& blocks, const int32_t* offsets,
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
    for (int block = 0; block < blocks.count; ++block) {
      for (int p = 0; p < targets; ++p) {
        const int32_t* start = blocks.starts + p * blocks.count + block;
        GradientRow<decltype(count)::value>(offsets + start[0], start[1] - start[0],
                                            planes + position, d + p * sums_size + position,
                                            part_sums + start[0]);
      }
    }
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
  const Blocks blocks = MakeBlocks(plan, matrix);
  int32_t* offsets = PerCall<0, int32_t>(entries);
  for (int e = 0; e < entries; ++e) offsets[e] = plan.offset(matrix.column_indices[e]);
  float* sums = Scratch<4>(static_cast<size_t>(parts) * entries);
  ForEach(pool, parts, [&](int part) {
    float* part_sums = sums + static_cast<ptrdiff_t>(part) * entries;
    std::fill(part_sums, part_sums + entries, 0.0f);
    const int64_t first = int64_t{tasks} * part / parts, last = int64_t{tasks} * (part + 1) / parts;
    for (int64_t index = first; index < last; ++index)
      AddTaskGradient(plan, blocks, offsets, TaskAt(plan.grid, static_cast<int>(index)), images,
                      out_gradient, part_sums);
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
