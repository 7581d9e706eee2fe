// Chains of dense layers, as XLA calls them. Arrays may have leading axes, of runs.
#include "chain.h"

#include "bindings.h"

namespace lth {
namespace chain {
namespace {

// A layer's arrays come one after another: its weights, its bias if it has one, and if it is packed
// its tables, in the order of lth_jax/native/sparse.py. The attributes say of each layer which.
class Arguments {
 public:
  Arguments(ffi::RemainingArgs& arrays, int64_t runs, ffi::Span<const int64_t> biased,
            ffi::Span<const int64_t> packed)
      : arrays_(arrays), runs_(runs), biased_(biased), packed_(packed) {}

  std::vector<Layer> LayersOf(int64_t run) {
    next_ = 0;
    std::vector<Layer> layers(biased_.size());
    for (size_t l = 0; l < layers.size(); ++l) {
      Layer& layer = layers[l];
      const auto weights = arrays_.get<ffi::AnyBuffer>(next_);
      layer.packed = packed_[l];
      layer.weights = Next<float>(run);
      layer.bias = biased_[l] ? Next<float>(run) : nullptr;
      if (layer.packed) {
        const auto cut = TableShape();
        const auto* row_pointers = Next<int32_t>(run);
        layer.forward = {row_pointers, Next<int32_t>(run), nullptr, cut[1]};
        const auto transposed_cut = TableShape();
        const auto* transposed_pointers = Next<int32_t>(run);
        const auto* transposed_columns = Next<int32_t>(run);
        layer.transposed = {transposed_pointers, transposed_columns, Next<int32_t>(run),
                            transposed_cut[1]};
        layer.rows = cut[0] - 1;
        layer.width = transposed_cut[0] - 1;
        layer.capacity = Last<1>(weights->dimensions())[0];
      } else {
        const auto [width, rows] = Last<2>(weights->dimensions());
        layer.width = width;
        layer.rows = rows;
        layer.capacity = width * rows;
      }
    }
    return layers;
  }

 private:
  std::array<int, 2> TableShape() {
    return Last<2>(arrays_.get<ffi::AnyBuffer>(next_)->dimensions());
  }
  template <class T>
  const T* Next(int64_t run) {
    const auto array = arrays_.get<ffi::AnyBuffer>(next_++);
    return static_cast<const T*>(array->untyped_data()) + run * (array->element_count() / runs_);
  }

  ffi::RemainingArgs& arrays_;
  const int64_t runs_;
  const ffi::Span<const int64_t> biased_, packed_;
  size_t next_ = 0;
};

// Calls `body(images)` with those of a run: bytes, or floats.
template <class Body>
void WithImages(ffi::AnyBuffer& images, int64_t run, int64_t runs, float scale, Body body) {
  const ptrdiff_t begin = run * (images.element_count() / runs);
  if (images.element_type() == ffi::U8)
    body(Images<uint8_t>{static_cast<const uint8_t*>(images.untyped_data()) + begin, scale});
  else
    body(Images<float>{static_cast<const float*>(images.untyped_data()) + begin, scale});
}

// Shapes: images [.., n, *image], labels [.., n], loss [..]; gradients as the layers' weights and
// biases, in their order.
ffi::Error LossAndGradientsCall(ffi::ThreadPool pool, ffi::AnyBuffer images, Integers labels,
                                ffi::RemainingArgs arrays, FloatResult loss,
                                ffi::RemainingRets gradients, ffi::Span<const int64_t> biased,
                                ffi::Span<const int64_t> packed, float scale) {
  const int64_t runs = CountRuns(labels.dimensions(), 1);
  const int examples = Last<1>(labels.dimensions())[0];
  Arguments arguments(arrays, runs, biased, packed);
  for (int64_t run = 0; run < runs; ++run) {
    const std::vector<Layer> layers = arguments.LayersOf(run);
    std::vector<Gradients> to;
    size_t next = 0;
    const auto result = [&] {
      auto array = *gradients.get<ffi::AnyBuffer>(next++);
      return static_cast<float*>(array->untyped_data()) + run * (array->element_count() / runs);
    };
    for (const Layer& layer : layers) {
      float* const weights = result();
      to.push_back({weights, layer.bias ? result() : nullptr});
    }
    WithImages(images, run, runs, scale, [&](auto its_images) {
      loss->typed_data()[run] = LossAndGradients(
          pool, layers, its_images, labels.typed_data() + run * examples, examples, to);
    });
  }
  return ffi::Error::Success();
}

// Shapes: images [.., n, *image], logits [.., n, classes].
ffi::Error LogitsCall(ffi::ThreadPool pool, ffi::AnyBuffer images, ffi::RemainingArgs arrays,
                      FloatResult logits, ffi::Span<const int64_t> biased,
                      ffi::Span<const int64_t> packed, float scale) {
  const int64_t runs = CountRuns(logits->dimensions(), 2);
  const auto [examples, classes] = Last<2>(logits->dimensions());
  const int count = examples;
  Arguments arguments(arrays, runs, biased, packed);
  for (int64_t run = 0; run < runs; ++run) {
    const std::vector<Layer> layers = arguments.LayersOf(run);
    float* const to = logits->typed_data() + run * examples * classes;
    WithImages(images, run, runs, scale,
               [&](auto its_images) { Logits(pool, layers, its_images, count, to); });
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace chain
}  // namespace lth

XLA_FFI_DEFINE_HANDLER_SYMBOL(ChainLossAndGradients, lth::chain::LossAndGradientsCall,
                              lth::ffi::Ffi::Bind()
                                  .Ctx<lth::ffi::ThreadPool>()
                                  .Arg<lth::ffi::AnyBuffer>()
                                  .Arg<lth::Integers>()
                                  .RemainingArgs()
                                  .Ret<lth::Floats>()
                                  .RemainingRets()
                                  .Attr<lth::ffi::Span<const int64_t>>("biased")
                                  .Attr<lth::ffi::Span<const int64_t>>("packed")
                                  .Attr<float>("scale"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(ChainLogits, lth::chain::LogitsCall,
                              lth::ffi::Ffi::Bind()
                                  .Ctx<lth::ffi::ThreadPool>()
                                  .Arg<lth::ffi::AnyBuffer>()
                                  .RemainingArgs()
                                  .Ret<lth::Floats>()
                                  .Attr<lth::ffi::Span<const int64_t>>("biased")
                                  .Attr<lth::ffi::Span<const int64_t>>("packed")
                                  .Attr<float>("scale"));
