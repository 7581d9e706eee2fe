// Convolutions with sparse kernels as XLA calls them; arrays may have leading axes of runs.
#include "sparse_conv.h"

#include <vector>

#include "bindings.h"

namespace lth {
namespace {

using Pair = ffi::Span<const int64_t>;

// Shapes: images [.., n, h, w, c], out [.., n, oh, ow, k].
Sliding SlidingOf(Dimensions images, Dimensions out, Pair sides, Pair strides, Pair pads) {
  const auto x = Last<4>(images), y = Last<4>(out);
  const auto of = [](Pair pair, int axis) { return static_cast<int>(pair[axis]); };
  return {x[0], x[1], x[2], x[3], of(sides, 0), of(sides, 1), y[3], of(strides, 0),
          of(strides, 1), of(pads, 0), of(pads, 1), y[1], y[2]};
}

// An index table's entry, as `layers.py` makes it: a channel, and a place under the window.
struct Entry {
  int channel, row, column;
};

Entry EntryOf(int32_t code) { return {code >> 16, code >> 8 & 255, code & 255}; }

// The images as windows see them, and the outputs, with the walk from these to those.
struct Plan {
  Deal source, target;
  Walk walk;
};

Plan ForwardPlan(const Sliding& s) {
  const Deal source{s.height, s.width, s.channels, s.stride_height, s.stride_width,
                    std::min(s.stride_height, s.kernel_height),
                    std::min(s.stride_width, s.kernel_width), s.pad_height, s.pad_width};
  const Deal target{s.out_height, s.out_width, s.features, 1, 1, 1, 1, 0, 0};
  return {source, target,
          WalkOf(source, s.images, s.out_height, s.out_width, s.reach_height(), s.reach_width(),
                 target.planes())};
}

// Pixels whose (y + pad) leaves the rest a under division by the stride see the kernel's rows a,
// a + stride, …, mirrored: (y + pad) / stride rows down in the output's gradient, and above.
Plan MirroredPlan(const Sliding& s) {
  const Deal source{s.out_height, s.out_width, s.features, 1, 1, 1, 1, s.reach_height() - 1,
                    s.reach_width() - 1};
  const Deal target{s.height, s.width, s.channels, s.stride_height, s.stride_width,
                    s.stride_height, s.stride_width, s.pad_height, s.pad_width};
  const int rows = (s.height - 1 + s.pad_height) / s.stride_height + 1;
  const int columns = (s.width - 1 + s.pad_width) / s.stride_width + 1;
  return {source, target,
          WalkOf(source, s.images, rows, columns, s.reach_height(), s.reach_width(),
                 target.planes())};
}

int32_t ForwardOffset(const Sliding& s, const Plan& plan, int32_t code) {
  const Entry entry = EntryOf(code);
  const Deal& source = plan.source;
  const int rest =
      entry.row % s.stride_height * source.rests_width + entry.column % s.stride_width;
  return (entry.channel * source.rests() + rest) * plan.walk.plane() +
         plan.walk.shift(entry.row / s.stride_height, entry.column / s.stride_width);
}

int32_t MirroredOffset(const Sliding& s, const Plan& plan, int32_t code) {
  const Entry entry = EntryOf(code);
  return entry.channel * plan.walk.plane() +
         plan.walk.shift(s.reach_height() - 1 - entry.row / s.stride_height,
                         s.reach_width() - 1 - entry.column / s.stride_width);
}

// Room for a call's taps or offsets; its tasks have slots of their own.
template <class T>
T* Room(size_t count) {
  thread_local std::vector<T> room;
  if (room.size() < count) room.resize(count);
  return room.data();
}

int64_t Work(const Walk& walk, int entries) {
  return int64_t{entries} * walk.images * walk.rows * walk.columns;
}

// Shapes: values and codes [.., capacity], begins [.., k + 1], images [.., n, h, w, c],
// out [.., n, oh, ow, k].
ffi::Error ForwardCall(ffi::ThreadPool pool, Floats values, Integers begins, Integers codes,
                       Floats images, FloatResult out, Pair sides, Pair strides, Pair pads) {
  const auto dims = out->dimensions();
  const Sliding s = SlidingOf(images.dimensions(), dims, sides, strides, pads);
  const Plan plan = ForwardPlan(s);
  const int64_t capacity = Last<1>(codes.dimensions())[0];
  for (int64_t run = 0; run < Runs(dims, 4); ++run) {
    const int32_t* rows = begins.typed_data() + run * (s.features + 1);
    const int32_t* of_run = codes.typed_data() + run * capacity;
    const float* weights = values.typed_data() + run * capacity;
    const int entries = rows[s.features];
    Tap* taps = Room<Tap>(entries);
    for (int e = 0; e < entries; ++e) taps[e] = {ForwardOffset(s, plan, of_run[e]), weights[e]};
    Shared(pool, Work(plan.walk, entries), [&](auto& chosen) {
      Convolve(chosen, plan.walk, plan.source, plan.target, rows, taps,
               images.typed_data() + run * s.images * plan.source.size(),
               out->typed_data() + run * s.images * plan.target.size());
    });
  }
  return ffi::Error::Success();
}

// The mirrored table: begins [.., c · strides + 1], codes and places [.., capacity];
// given [.., n, oh, ow, k], images [.., n, h, w, c].
ffi::Error InputGradientCall(ffi::ThreadPool pool, Floats values, Integers begins, Integers codes,
                             Integers places, Floats given, FloatResult images, Pair sides,
                             Pair strides, Pair pads) {
  const auto dims = images->dimensions();
  const Sliding s = SlidingOf(dims, given.dimensions(), sides, strides, pads);
  const Plan plan = MirroredPlan(s);
  const int64_t capacity = Last<1>(codes.dimensions())[0];
  for (int64_t run = 0; run < Runs(dims, 4); ++run) {
    const int32_t* rows = begins.typed_data() + run * (plan.target.planes() + 1);
    const int32_t* of_run = codes.typed_data() + run * capacity;
    const int32_t* lie = places.typed_data() + run * capacity;
    const float* weights = values.typed_data() + run * capacity;
    const int entries = rows[plan.target.planes()];
    Tap* taps = Room<Tap>(entries);
    for (int e = 0; e < entries; ++e)
      taps[e] = {MirroredOffset(s, plan, of_run[e]), weights[lie[e]]};
    Shared(pool, Work(plan.walk, entries), [&](auto& chosen) {
      Convolve(chosen, plan.walk, plan.source, plan.target, rows, taps,
               given.typed_data() + run * s.images * plan.source.size(),
               images->typed_data() + run * s.images * plan.target.size());
    });
  }
  return ffi::Error::Success();
}

// Shapes: as in the forward call, given [.., n, oh, ow, k], gradient [.., capacity].
ffi::Error KernelGradientCall(ffi::ThreadPool pool, Integers begins, Integers codes, Floats images,
                              Floats given, FloatResult gradient, Pair sides, Pair strides,
                              Pair pads) {
  const auto dims = given.dimensions();
  const Sliding s = SlidingOf(images.dimensions(), dims, sides, strides, pads);
  const Plan plan = ForwardPlan(s);
  const int64_t capacity = Last<1>(codes.dimensions())[0];
  for (int64_t run = 0; run < Runs(dims, 4); ++run) {
    const int32_t* rows = begins.typed_data() + run * (s.features + 1);
    const int32_t* of_run = codes.typed_data() + run * capacity;
    float* to = gradient->typed_data() + run * capacity;
    const int entries = rows[s.features];
    int32_t* offsets = Room<int32_t>(entries);
    for (int e = 0; e < entries; ++e) offsets[e] = ForwardOffset(s, plan, of_run[e]);
    Shared(pool, Work(plan.walk, entries), [&](auto& chosen) {
      TapGradient(chosen, plan.walk, plan.source, plan.target, rows, offsets,
                  images.typed_data() + run * s.images * plan.source.size(),
                  given.typed_data() + run * s.images * plan.target.size(), to);
    });
    std::fill(to + entries, to + capacity, 0.0f);
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace lth

#define LTH_BIND lth::ffi::Ffi::Bind().Ctx<lth::ffi::ThreadPool>()
#define LTH_WINDOW Attr<lth::Pair>("sides").Attr<lth::Pair>("strides").Attr<lth::Pair>("pads")

XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseConvForward, lth::ForwardCall,
                              LTH_BIND.Arg<lth::Floats>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>()
                                  .LTH_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseConvInputGradient, lth::InputGradientCall,
                              LTH_BIND.Arg<lth::Floats>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>()
                                  .LTH_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(SparseConvKernelGradient, lth::KernelGradientCall,
                              LTH_BIND.Arg<lth::Integers>()
                                  .Arg<lth::Integers>()
                                  .Arg<lth::Floats>()
                                  .Arg<lth::Floats>()
                                  .Ret<lth::Floats>()
                                  .LTH_WINDOW);
