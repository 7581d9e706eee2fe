// Dense layers, their shapes from test_dense_product.py.
#include "dense_product.h"

#include "check.h"

namespace {

void Check(const std::string& name, int examples, int width, int outputs, double live) {
  const auto x = check::Normal(size_t(examples) * width),
             kernel = check::Normal(size_t(width) * outputs);
  const auto given = check::Normal(size_t(examples) * outputs);
  std::bernoulli_distribution some(live);
  for (int i = 0; i < width; ++i)
    if (!some(check::Random()))
      for (int n = 0; n < examples; ++n) x[size_t(n) * width + i] = n % 2 ? 0.0f : -0.0f;
  std::vector<double> y(given.size), dw(kernel.size);
  for (int n = 0; n < examples; ++n)
    for (int i = 0; i < width; ++i)
      for (int o = 0; o < outputs; ++o) {
        const size_t in = size_t(n) * width + i, out = size_t(n) * outputs + o;
        y[out] += double{x[in]} * kernel[size_t(i) * outputs + o];
        dw[size_t(i) * outputs + o] += double{x[in]} * given[out];
      }
  const auto forward = check::Unwritten(y.size()), gradient = check::Unwritten(dw.size());
  check::WithThreads([&](check::Pool& pool) {
    lth::dense_product::Forward(pool, x.get(), kernel.get(), examples, width, outputs,
                                forward.get());
    lth::dense_product::KernelGradient(pool, x.get(), given.get(), examples, width, outputs,
                                       gradient.get());
  });
  check::Agree(name + ", forward", forward, y);
  check::Agree(name + ", kernel gradient", gradient, dw);
}

}  // namespace

void CheckDenseProduct() {
  for (double live : {1.0, 0.6, 0.0}) {
    const std::string share = ", " + std::to_string(live);
    Check("lenet first" + share, 60, 784, 300, live);
    Check("lenet second" + share, 60, 300, 100, live);
    Check("conv2 second" + share, 128, 256, 256, live);
    Check("one of each" + share, 1, 1, 16, live);
    Check("less than a tile" + share, 5, 3, 17, live);
    Check("no multiples" + share, 67, 97, 33, live);
    Check("many groups" + share, 573, 70, 47, live);
  }
  for (int outputs = 16; outputs <= 140; ++outputs) Check("outputs", 13, 20, outputs, 0.7);
  for (int examples = 1; examples <= 140; ++examples) Check("examples", examples, 20, 20, 0.7);
  for (int width = 1; width <= 220; ++width) Check("inputs", 7, width, 20, 0.9);
}
