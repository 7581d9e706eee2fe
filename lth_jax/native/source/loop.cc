// What the training loop does besides the network, as XLA calls it. Arrays may have leading axes, of
// runs.
#include "bindings.h"
#include "gather.h"
#include "order.h"
#include "update.h"

namespace lth {
namespace {

using Words = ffi::Buffer<ffi::U32>;
using IntegerResult = ffi::ResultBuffer<ffi::S32>;

// Shapes: keys [.., rounds, count], order [.., count].
ffi::Error EpochOrderCall(Words keys, IntegerResult order) {
  const auto [rounds, count] = Last<2>(keys.dimensions());
  for (int64_t run = 0; run < CountRuns(order->dimensions(), 1); ++run)
    order::EpochOrder(keys.typed_data() + run * rounds * count, rounds, count,
                      order->typed_data() + run * count);
  return ffi::Error::Success();
}

// Shapes: rows [.., n, *row], chosen [.., batch], out [.., batch, *row]. Leading axes of `rows` or
// `chosen` are 1 where all runs share them.
ffi::Error GatherRowsCall(ffi::AnyBuffer rows, Integers chosen, ffi::Result<ffi::AnyBuffer> out,
                          int64_t row_rank) {
  const size_t rank = static_cast<size_t>(row_rank) + 1;
  const int64_t sets = CountRuns(rows.dimensions(), rank);
  const int64_t lists = CountRuns(chosen.dimensions(), 1);
  const int64_t count = rows.dimensions()[rows.dimensions().size() - rank];
  const int64_t batch = Last<1>(chosen.dimensions())[0];
  const int64_t set_bytes = sets ? static_cast<int64_t>(rows.size_bytes()) / sets : 0;
  const int64_t row_bytes = count ? set_bytes / count : 0;
  const auto* from = static_cast<const char*>(rows.untyped_data());
  auto* to = static_cast<char*>(out->untyped_data());
  for (int64_t run = 0; run < CountRuns(out->dimensions(), rank); ++run)
    gather::GatherRows(from + (sets > 1 ? run * set_bytes : 0), count, row_bytes,
                       chosen.typed_data() + (lists > 1 ? run * batch : 0), batch,
                       to + run * batch * row_bytes);
  return ffi::Error::Success();
}

// Moves leaves by a rule that `rule_of(scalars of the run)` gives. Arguments, after the scalars
// [.., n]: of each leaf gradient, mask, weights and moments; results: weights and moments.
template <class RuleOf>
ffi::Error UpdateLeaves(ffi::ThreadPool& pool, Floats scalars, ffi::RemainingArgs arrays,
                        ffi::RemainingRets results, RuleOf rule_of) {
  using Rule = decltype(rule_of(scalars.typed_data()));
  constexpr size_t kMoments = Rule::kHasSecond ? 2 : 1;
  constexpr size_t kArrays = 3 + kMoments, kResults = 1 + kMoments;
  const int64_t scalar_count = Last<1>(scalars.dimensions())[0];
  const int64_t runs = CountRuns(scalars.dimensions(), 1);
  for (size_t i = 0; i < results.size() / kResults; ++i) {
    const auto array = [&](size_t which) {
      return static_cast<const float*>(
          arrays.get<ffi::AnyBuffer>(kArrays * i + which)->untyped_data());
    };
    const auto result = [&](size_t which) {
      return static_cast<float*>(
          (*results.get<ffi::AnyBuffer>(kResults * i + which))->untyped_data());
    };
    const auto mask = arrays.get<ffi::AnyBuffer>(kArrays * i + 1);
    const int64_t size = runs ? static_cast<int64_t>(mask->element_count()) / runs : 0;
    const update::Leaf leaf = {
        array(0),  static_cast<const uint8_t*>(mask->untyped_data()), array(2),
        array(3),  Rule::kHasSecond ? array(2 + kMoments) : nullptr,  result(0),
        result(1), Rule::kHasSecond ? result(kMoments) : nullptr,     size};
    for (int64_t run = 0; run < runs; ++run) {
      const Rule rule = rule_of(scalars.typed_data() + run * scalar_count);
      update::Leaf its = update::From(leaf, run * size);
      its.size = size;
      WithPool(pool, size * update::kWeightTime,
               [&](auto& chosen) { update::MoveLeaf(chosen, rule, its); });
    }
  }
  return ffi::Error::Success();
}

// The scalars are the learning rate, and what the first and the second moments are multiplied by.
ffi::Error AdamCall(ffi::ThreadPool pool, Floats scalars, ffi::RemainingArgs arrays,
                    ffi::RemainingRets results, float b1, float b2, float eps, float l2,
                    float decay) {
  return UpdateLeaves(pool, scalars, arrays, results, [=](const float* now) {
    return update::Adam{b1, b2, eps, l2, decay, now[0], now[1], now[2]};
  });
}

// The scalar is the learning rate.
ffi::Error MomentumCall(ffi::ThreadPool pool, Floats scalars, ffi::RemainingArgs arrays,
                        ffi::RemainingRets results, float momentum, float l2, bool nesterov) {
  return UpdateLeaves(pool, scalars, arrays, results, [=](const float* now) {
    return update::Momentum{momentum, l2, nesterov, now[0]};
  });
}

}  // namespace
}  // namespace lth

XLA_FFI_DEFINE_HANDLER_SYMBOL(EpochOrder, lth::EpochOrderCall,
                              lth::ffi::Ffi::Bind().Arg<lth::Words>().Ret<lth::Integers>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(GatherRows, lth::GatherRowsCall,
                              lth::ffi::Ffi::Bind()
                                  .Arg<lth::ffi::AnyBuffer>()
                                  .Arg<lth::Integers>()
                                  .Ret<lth::ffi::AnyBuffer>()
                                  .Attr<int64_t>("row_rank"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(UpdateByAdam, lth::AdamCall,
                              lth::ffi::Ffi::Bind()
                                  .Ctx<lth::ffi::ThreadPool>()
                                  .Arg<lth::Floats>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<float>("b1")
                                  .Attr<float>("b2")
                                  .Attr<float>("eps")
                                  .Attr<float>("l2")
                                  .Attr<float>("decay"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(UpdateByMomentum, lth::MomentumCall,
                              lth::ffi::Ffi::Bind()
                                  .Ctx<lth::ffi::ThreadPool>()
                                  .Arg<lth::Floats>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<float>("momentum")
                                  .Attr<float>("l2")
                                  .Attr<bool>("nesterov"));
