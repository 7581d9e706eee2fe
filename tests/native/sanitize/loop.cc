// What the training loop does besides the network: shapes from test_operations.py.
#include <algorithm>
#include <cstring>

#include "check.h"
#include "gather.h"
#include "order.h"
#include "update.h"

namespace {

void Fail(const std::string& what) {
  std::printf("%s\n", what.c_str());
  ++check::failures;
}

void CheckOrder(int rounds, int count, uint32_t most) {
  std::uniform_int_distribution<uint32_t> any(0, most);
  check::Array<uint32_t> keys(size_t(rounds) * count);
  for (size_t i = 0; i < keys.size; ++i) keys[i] = any(check::Random());
  std::vector<int32_t> expected(count);
  for (int i = 0; i < count; ++i) expected[i] = i;
  for (int round = 0; round < rounds; ++round) {
    std::vector<std::pair<uint32_t, int32_t>> pairs(count);
    for (int i = 0; i < count; ++i) pairs[i] = {keys[size_t(round) * count + i], expected[i]};
    std::stable_sort(pairs.begin(), pairs.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (int i = 0; i < count; ++i) expected[i] = pairs[i].second;
  }
  const check::Array<int32_t> order(count);
  lth::order::EpochOrder(keys.get(), rounds, count, order.get());
  if (!std::equal(expected.begin(), expected.end(), order.get()))
    Fail("an order of " + std::to_string(count) + " is another one");
}

void CheckGather(int rows, int row_bytes, int count) {
  std::uniform_int_distribution<int> any(0, 255);
  check::Array<char> from(size_t(rows) * row_bytes), to(size_t(count) * row_bytes);
  for (size_t i = 0; i < from.size; ++i) from[i] = static_cast<char>(any(check::Random()));
  const check::Array<int32_t> chosen(count);
  for (int i = 0; i < count; ++i) chosen[i] = any(check::Random()) % (rows + 4) - 2;
  lth::gather::GatherRows(from.get(), rows, row_bytes, chosen.get(), count, to.get());
  for (int i = 0; i < count; ++i) {
    const int row = std::min(rows - 1, std::max(0, chosen[i]));
    if (std::memcmp(&to[size_t(i) * row_bytes], &from[size_t(row) * row_bytes], row_bytes))
      Fail("row " + std::to_string(i) + " of a batch is another one");
  }
}

struct Given {
  explicit Given(int size)
      : gradient(check::Normal(size)),
        weights(check::Normal(size)),
        first(check::Normal(size)),
        second(check::Normal(size)),
        mask(size) {
    for (int i = 0; i < size; ++i) {
      second[i] = std::abs(second[i]);
      mask[i] = check::Random()() % 3 > 0;
    }
  }
  lth::update::Leaf InPlace(bool has_second) const {
    float* moments = has_second ? second.get() : nullptr;
    return {gradient.get(), mask.get(),  weights.get(), first.get(), moments,
            weights.get(),  first.get(), moments,       int64_t(mask.size)};
  }
  check::Array<float> gradient, weights, first, second;
  check::Array<uint8_t> mask;
};

void CheckAdam(int size) {
  const lth::update::Adam rule = {0.9f, 0.999f, 1e-8f, 0.03f, 0.2f, 0.01f, 1.5f, 2.5f};
  const Given given(size);
  std::vector<double> weights(size), first(size), second(size);
  for (int i = 0; i < size; ++i) {
    const double w = given.mask[i] ? given.weights[i] : 0;
    const double g = (given.mask[i] ? given.gradient[i] : 0) + w * rule.l2;
    first[i] = given.first[i] * double{rule.b1} + g * (1 - double{rule.b1});
    second[i] = given.second[i] * double{rule.b2} + g * g * (1 - double{rule.b2});
    const double step =
        first[i] * rule.first_scale / (std::sqrt(second[i] * rule.second_scale) + rule.eps) +
        w * rule.decay;
    weights[i] = given.mask[i] ? w - step * rule.rate : given.weights[i];
  }
  check::WithThreads([&](check::Pool& pool) {
    lth::update::MoveLeaf(pool, rule, given.InPlace(true));
  });
  const std::string name = "Adam's step of " + std::to_string(size);
  check::Agree(name + ", weights", given.weights, weights);
  check::Agree(name + ", first moments", given.first, first);
  check::Agree(name + ", second moments", given.second, second);
}

void CheckMomentum(int size, bool nesterov) {
  const lth::update::Momentum rule = {0.9f, 0.03f, nesterov, 0.01f};
  const Given given(size);
  std::vector<double> weights(size), first(size);
  for (int i = 0; i < size; ++i) {
    const double w = given.mask[i] ? given.weights[i] : 0;
    const double g = (given.mask[i] ? given.gradient[i] : 0) + w * rule.l2;
    first[i] = g + given.first[i] * double{rule.momentum};
    const double step = nesterov ? g + first[i] * rule.momentum : first[i];
    weights[i] = given.mask[i] ? w - step * rule.rate : given.weights[i];
  }
  check::WithThreads([&](check::Pool& pool) {
    lth::update::MoveLeaf(pool, rule, given.InPlace(false));
  });
  const std::string name = "momentum's step of " + std::to_string(size);
  check::Agree(name + ", weights", given.weights, weights);
  check::Agree(name + ", trace", given.first, first);
}

}  // namespace

void CheckLoop() {
  for (int count : {0, 1, 2, 50, 5000})
    for (uint32_t most : {3u, ~0u}) CheckOrder(2, count, most);
  CheckGather(1, 1, 3);
  CheckGather(50, 784, 60);
  CheckGather(9, 3072 * 4, 128);
  CheckGather(3, 300'000, 2);
  for (int size : {0, 1, 15, 16, 17, 1000, 3 * (1 << 14) + 5}) {
    CheckAdam(size);
    CheckMomentum(size, false);
    CheckMomentum(size, true);
  }
}
