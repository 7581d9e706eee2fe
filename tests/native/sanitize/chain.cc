// Chains of dense layers, some of them packed: shapes from test_chain.py.
#include "chain.h"

#include <deque>

#include "check.h"
#include "packed.h"

namespace {

struct Given {
  Given(int width, int rows, double density, bool packed, bool biased)
      : mask(check::RandomMask(width, rows, packed ? density : 1)),
        tables(mask, width, rows, 3, density > 0.2 ? 2 : 1),
        weights(check::Normal(packed ? tables.capacity : width * rows)),
        bias(check::Normal(rows)),
        weights_gradient(check::Unwritten(weights.size)),
        bias_gradient(check::Unwritten(rows)) {
    for (size_t i = 0; i < weights.size; ++i) weights[i] /= std::sqrt(float(width));
    if (packed)
      for (int i = tables.kept; i < tables.capacity; ++i) weights[i] = 0;
    layer = {width,  rows,  weights.get(), biased ? bias.get() : nullptr, packed, {}, {},
             int(weights.size)};
    if (packed) {
      layer.forward = tables.ByOutput();
      layer.transposed = tables.ByInput();
    }
  }
  // Calls `body(input, output, index of the weight)` for each weight there is.
  template <class Body>
  void ForEachWeight(Body body) const {
    for (int row = 0; row < layer.rows; ++row) {
      if (!layer.packed)
        for (int i = 0; i < layer.width; ++i) body(i, row, size_t(i) * layer.rows + row);
      else
        for (int e = layer.forward.begin(row); e < layer.forward.begin(row + 1); ++e)
          body(tables.column_indices[e], row, size_t(e));
    }
  }
  std::vector<bool> mask;
  check::Tables tables;
  check::Array<float> weights, bias, weights_gradient, bias_gradient;
  lth::chain::Layer layer;
};

template <class Number>
void Check(const std::string& name, const std::vector<int>& widths, std::vector<bool> packed,
           double density, int examples, bool biased) {
  std::deque<Given> layers;
  for (size_t l = 0; l + 1 < widths.size(); ++l)
    layers.emplace_back(widths[l], widths[l + 1], density, packed[l], biased);
  const int classes = widths.back();
  const float scale = 1 / 64.0f;
  check::Array<Number> images(size_t(examples) * widths[0]);
  check::Array<int32_t> labels(examples);
  for (size_t i = 0; i < images.size; ++i) images[i] = Number(check::Random()() % 256);
  for (int n = 0; n < examples; ++n) labels[n] = int(check::Random()() % classes);

  std::vector<std::vector<double>> xs(1);
  for (size_t i = 0; i < images.size; ++i) xs[0].push_back(images[i] * double{scale});
  for (const Given& given : layers) {
    std::vector<double> out(size_t(examples) * given.layer.rows);
    for (int n = 0; n < examples; ++n) {
      double* const to = &out[size_t(n) * given.layer.rows];
      for (int row = 0; row < given.layer.rows && biased; ++row) to[row] = given.bias[row];
      given.ForEachWeight([&](int i, int row, size_t at) {
        to[row] += xs.back()[size_t(n) * given.layer.width + i] * given.weights[at];
      });
    }
    if (&given != &layers.back())
      for (double& value : out) value = std::max(value, 0.0);
    xs.push_back(out);
  }
  std::vector<double> d = xs.back(), losses(1);
  for (int n = 0; n < examples; ++n) {
    double* const z = &d[size_t(n) * classes];
    double sum = 0;
    const double most = *std::max_element(z, z + classes);
    for (int c = 0; c < classes; ++c) sum += std::exp(z[c] - most);
    losses[0] += (std::log(sum) + most - z[labels[n]]) / examples;
    for (int c = 0; c < classes; ++c)
      z[c] = (std::exp(z[c] - most) / sum - (c == labels[n])) / examples;
  }
  std::vector<lth::chain::Layer> chain;
  std::vector<lth::chain::Gradients> to;
  for (const Given& given : layers) {
    chain.push_back(given.layer);
    to.push_back({given.weights_gradient.get(), biased ? given.bias_gradient.get() : nullptr});
  }
  const auto loss = check::Unwritten(1);
  const auto logits = check::Unwritten(size_t(examples) * classes);
  check::WithThreads([&](check::Pool& pool) {
    const lth::chain::Images<Number> seen = {images.get(), scale};
    loss[0] = lth::chain::LossAndGradients(pool, chain, seen, labels.get(), examples, to);
    lth::chain::Logits(pool, chain, seen, examples, logits.get());
  });
  check::Agree(name + ", loss", loss, losses);
  check::Agree(name + ", logits", logits, xs.back());
  for (size_t l = layers.size(); l-- > 0;) {
    const Given& given = layers[l];
    std::vector<double> dw(given.weights.size), db(given.layer.rows), dx(xs[l].size());
    for (int n = 0; n < examples; ++n) {
      const double* const from = &d[size_t(n) * given.layer.rows];
      for (int row = 0; row < given.layer.rows; ++row) db[row] += from[row];
      given.ForEachWeight([&](int i, int row, size_t at) {
        const size_t x = size_t(n) * given.layer.width + i;
        dw[at] += xs[l][x] * from[row];
        if (xs[l][x] > 0) dx[x] += double{given.weights[at]} * from[row];
      });
    }
    check::Agree(name + ", weights of " + std::to_string(l), given.weights_gradient, dw);
    if (biased) check::Agree(name + ", bias of " + std::to_string(l), given.bias_gradient, db);
    d = dx;
  }
}

}  // namespace

void CheckChain() {
  for (double density : {0.3, 0.036, 0.0}) {
    Check<uint8_t>("lenet", {784, 300, 100, 10}, {true, true, false}, density, 60, true);
    Check<float>("lenet, all packed", {784, 300, 100, 10}, {true, true, true}, density, 65, true);
  }
  Check<uint8_t>("shared out", {784, 300, 100, 10}, {true, true, false}, 0.5, 700, true);
  Check<uint8_t>("one layer", {37, 5}, {true}, 0.5, 1, false);
  Check<uint8_t>("nothing is a multiple", {37, 29, 41, 3}, {false, true, false}, 0.5, 199, false);
  Check<float>("one of each", {1, 1, 1}, {true, false}, 1, 3, true);
}
