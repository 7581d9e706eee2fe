// Convolutions of NHWC images by sparse kernels, with any stride and any border of zeros.
//
// Images are dealt to planes over which a window moves by as many floats for every position: see
// planes.h. So a weight of the kernel is a tap, an offset in planes and a value, and meets
// positions that lie side by side:
//
//   Row           out[V·lanes positions] = Σ value[e] · planes[offset of e + positions]    V ≤ 8
//                 Sums stay in registers; for each weight one broadcast, V loads and as many
//                 multiply-adds. One load for each multiply-add, seldom aligned: bound by loads.
//   GradientRow   gradient[e] += planes[offset of e + positions] · given[positions]
//                 `given` stays in registers: the same walk with a dot product for each weight.
//
// The gradient of the input is Row over the mirrored table and planes of the output's gradient.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "parallel.h"
#include "planes.h"
#include "table.h"
#include "vectors.h"

namespace lth {

constexpr int kMostTile = 8;  // vectors of positions that a weight meets at once
// The sums of a kernel's gradient, added in order at the end.
constexpr int kParts = 16;

// A weight: where what it meets lies in planes, before the position is added.
struct Tap {
  int32_t offset;
  float value;
};

template <int kVectors>
inline void Row(const Tap* tap, const Tap* end, const float* planes, float* out) {
  constexpr int kChains = kVectors > 4 ? 1 : 2;  // in flight, to hide the latency of multiply-adds
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

// Adds to gradient[0] to gradient[count - 1].
template <int kVectors>
inline void GradientRow(const int32_t* offsets, int count, const float* planes, const float* given,
                        float* gradient) {
  Vector d[kVectors];
  for (int j = 0; j < kVectors; ++j) d[j] = Load<Vector>(given + j * kLanes);
  for (int entry = 0; entry < count; entry += 8) {
    const int some = std::min(8, count - entry);
    Eight products[8] = {};
    for (int e = 0; e < some; ++e) {
      const float* x = planes + offsets[entry + e];
      Vector sum = Load<Vector>(x) * d[0];
      for (int j = 1; j < kVectors; ++j) sum += Load<Vector>(x + j * kLanes) * d[j];
      products[e] = Fold(sum);
    }
    const Eight sums = Sums(products);
    if (some == 8) {
      Store(gradient + entry, Load<Eight>(gradient + entry) + sums);
    } else {
      for (int e = 0; e < some; ++e) gradient[entry + e] += sums[e];
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

// Cuts a task's positions into tiles of nearly the same size: `body(V, first position)`.
template <class Body>
inline void EachTile(int vectors, Body body) {
  const int tiles = (vectors + kMostTile - 1) / kMostTile;
  for (int tile = 0; tile < tiles; ++tile) {
    const int begin = vectors * tile / tiles, end = vectors * (tile + 1) / tiles;
    WithVectors(end - begin, [&](auto some) { body(some, begin * kLanes); });
  }
}

// Room for what a call makes of a table; its tasks, which read it, have slots of their own.
template <class T>
T* Room(size_t count) {
  thread_local std::vector<T> room;
  if (room.size() < count) room.resize(count);
  return room.data();
}

// Images of the plan's target, plane by plane the sums of those of its source, for a table with the
// plan's codes as columns.
template <class Pool>
void Convolve(Pool& pool, const Plan& plan, const Table& table, const float* values,
              const float* from, float* to) {
  const Walk& walk = plan.walk;
  const ptrdiff_t plane = walk.plane(), sums = walk.sums();
  const int targets = plan.target.planes(), entries = table.begins[targets];
  Tap* taps = Room<Tap>(entries);
  for (int e = 0; e < entries; ++e)
    taps[e] = {plan.offset(table.columns[e]), values[table.place(e)]};
  ForEach(pool, walk.tasks(), [&](int index) {
    const Task task = TaskOf(walk, index);
    float* planes = Scratch<0>(plane * plan.source.planes() + kLanes);
    float* outs = Scratch<1>(sums * targets);
    ToPlanes(plan.source, walk, task, task.rows + walk.reach_height - 1, walk.seen(), from, plane,
             planes);
    EachTile(walk.vectors(task.rows), [&](auto some, int position) {
      for (int p = 0; p < targets; ++p)
        Row<decltype(some)::value>(taps + table.begins[p], taps + table.begins[p + 1],
                                   planes + position, outs + p * sums + position);
    });
    ToImages(plan.target, walk, task, outs, to);
  });
}

// Adds to own[e] the products of a task's images with the gradient of what became of them.
inline void AddTask(const Plan& plan, const int32_t* begins, const int32_t* offsets,
                    const Task& task, const float* images, const float* given, float* own) {
  const Walk& walk = plan.walk;
  const ptrdiff_t plane = walk.plane(), sums = walk.sums();
  const int targets = plan.target.planes();
  float* planes = Scratch<0>(plane * plan.source.planes() + kLanes);
  float* d = Scratch<1>(sums * targets + kLanes);
  ToPlanes(plan.source, walk, task, task.rows + walk.reach_height - 1, walk.seen(), images, plane,
           planes);
  ToPlanes(plan.target, walk, task, task.rows, walk.columns, given, sums, d);
  EachTile(walk.vectors(task.rows), [&](auto some, int position) {
    for (int p = 0; p < targets; ++p)
      GradientRow<decltype(some)::value>(offsets + begins[p], begins[p + 1] - begins[p],
                                         planes + position, d + p * sums + position,
                                         own + begins[p]);
  });
}

// gradient[e] of the forward table's entries, from images and the gradient of what they were
// convolved to; zero behind the last entry.
//
// Tasks are shared out in a fixed number of parts, whose sums are added in order.
template <class Pool>
void TapGradient(Pool& pool, const Plan& plan, const Table& table, const float* images,
                 const float* given, int capacity, float* gradient) {
  const int entries = table.begins[plan.target.planes()], tasks = plan.walk.tasks();
  const int parts = std::min(kParts, tasks);
  int32_t* offsets = Room<int32_t>(entries);
  for (int e = 0; e < entries; ++e) offsets[e] = plan.offset(table.columns[e]);
  float* sums = Scratch<4>(static_cast<size_t>(parts) * entries);
  ForEach(pool, parts, [&](int part) {
    float* own = sums + static_cast<ptrdiff_t>(part) * entries;
    std::fill(own, own + entries, 0.0f);
    const int64_t first = int64_t{tasks} * part / parts, last = int64_t{tasks} * (part + 1) / parts;
    for (int64_t index = first; index < last; ++index)
      AddTask(plan, table.begins, offsets, TaskOf(plan.walk, static_cast<int>(index)), images,
              given, own);
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

}  // namespace lth
