// The optimizer's step of one leaf in one pass: its gradient, its moments and its weights are read
// once, and written where they lie. It is bound by the memory's traffic where a leaf is larger than
// the caches, and by a square root and a division a weight where it is not.
//
// As in `masked_step` (lth_jax/pruning/masks.py): a pruned weight keeps its value, and the moments
// and the decay see zeros there. Selected, not multiplied: what is pruned may be no number.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "parallel.h"
#include "vectors.h"

namespace lth {
namespace update {

// The arrays of a leaf, each [size]. What Momentum carries is in `first`; it has no `second`.
struct Leaf {
  const float* gradient;
  const uint8_t* mask;
  const float *weights, *first, *second;
  float *new_weights, *new_first, *new_second;
  int64_t size;
};

// The state of some weights in registers, which a rule moves on.
struct Lanes {
  Vector weights, first, second;
};

// Adam (Kingma & Ba 2015), with an L2 penalty that goes through it or a decay beside it.
struct Adam {
  static constexpr bool kHasSecond = true;
  float b1, b2, eps, l2, decay;
  // Of this step: the learning rate, and 1 / (1 - b1^t) and 1 / (1 - b2^t).
  float rate, first_scale, second_scale;

  void Move(Vector gradient, Lanes& lanes) const {
    gradient += lanes.weights * l2;
    lanes.first = gradient * (1 - b1) + lanes.first * b1;
    lanes.second = gradient * gradient * (1 - b2) + lanes.second * b2;
    const Vector deviation = Sqrt(lanes.second * second_scale) + eps;
    lanes.weights -= (lanes.first * first_scale / deviation + lanes.weights * decay) * rate;
  }
};

// SGD with heavy-ball or Nesterov's momentum, with an L2 penalty.
struct Momentum {
  static constexpr bool kHasSecond = false;
  float momentum, l2;
  bool nesterov;
  float rate;  // of this step

  void Move(Vector gradient, Lanes& lanes) const {
    gradient += lanes.weights * l2;
    lanes.first = gradient + lanes.first * momentum;
    lanes.weights -= (nesterov ? gradient + lanes.first * momentum : lanes.first) * rate;
  }
};

// Moves kLanes weights.
template <class Rule>
inline void MoveLanes(const Rule& rule, const Leaf& leaf) {
  Bits kept = KeptLanes(leaf.mask);
  const Vector zero = {}, before = Load<Vector>(leaf.weights);
  Lanes lanes = {kept ? before : zero, Load<Vector>(leaf.first), zero};
  if constexpr (Rule::kHasSecond) lanes.second = Load<Vector>(leaf.second);
  rule.Move(kept ? Load<Vector>(leaf.gradient) : zero, lanes);
  Store(leaf.new_weights, kept ? lanes.weights : before);
  Store(leaf.new_first, lanes.first);
  if constexpr (Rule::kHasSecond) Store(leaf.new_second, lanes.second);
}

// Returns the part of a leaf that begins at weight `begin`.
inline Leaf From(const Leaf& leaf, int64_t begin) {
  const auto at = [=](auto* array) { return array ? array + begin : nullptr; };
  return {at(leaf.gradient),  at(leaf.mask),       at(leaf.weights),
          at(leaf.first),     at(leaf.second),     at(leaf.new_weights),
          at(leaf.new_first), at(leaf.new_second), leaf.size - begin};
}

// Moves the last weights of a leaf, fewer than kLanes, through arrays that are long enough.
template <class Rule>
inline void MoveRest(const Rule& rule, const Leaf& leaf) {
  float gradient[kLanes] = {}, weights[kLanes] = {}, first[kLanes] = {}, second[kLanes] = {};
  uint8_t mask[kLanes] = {};
  std::copy_n(leaf.gradient, leaf.size, gradient);
  std::copy_n(leaf.mask, leaf.size, mask);
  std::copy_n(leaf.weights, leaf.size, weights);
  std::copy_n(leaf.first, leaf.size, first);
  if (leaf.second) std::copy_n(leaf.second, leaf.size, second);
  MoveLanes(rule, {gradient, mask, weights, first, second, weights, first, second, kLanes});
  std::copy_n(weights, leaf.size, leaf.new_weights);
  std::copy_n(first, leaf.size, leaf.new_first);
  if (leaf.new_second) std::copy_n(second, leaf.size, leaf.new_second);
}

constexpr int64_t kTaskWeights = 1 << 14;
// The time of a weight, in multiply-adds: for whether threads share the work.
constexpr int64_t kWeightTime = 8;

// Moves all weights of a leaf.
template <class Pool, class Rule>
void MoveLeaf(Pool& pool, const Rule& rule, const Leaf& leaf) {
  ForEach(pool, static_cast<int>((leaf.size + kTaskWeights - 1) / kTaskWeights), [&](int task) {
    const int64_t end = std::min(leaf.size, (task + 1) * kTaskWeights);
    int64_t at = task * kTaskWeights;
    for (; at + kLanes <= end; at += kLanes) MoveLanes(rule, From(leaf, at));
    if (at < end) MoveRest(rule, From(leaf, at));
  });
}

}  // namespace update
}  // namespace lth
