// Packed convolutions, their shapes and masks from test_sparse_conv.py.
#include "sparse_conv.h"

#include "convolutions.h"

namespace {

using lth::Convolution;

size_t Weights(const Convolution& c) {
  return size_t(c.kernel_height) * c.kernel_width * c.channels * c.features;
}

// A surviving weight: its index in the kernel [row][column][channel][feature], and its entry, as
// (row, column), in the matrix of outputs and in the transposed one.
struct Kept {
  size_t index;
  std::pair<int, int> entry, transposed;
};

Kept KeptOf(const Convolution& c, size_t index) {
  const int feature = int(index % c.features), channel = int(index / c.features % c.channels);
  const int place = int(index / c.features / c.channels);
  const int y = place / c.kernel_width, x = place % c.kernel_width, code = (y << 8) + x;
  const int residue = (channel * c.stride_height + y % c.stride_height) * c.stride_width;
  return {index,
          {feature, (channel << 16) + code},
          {residue + x % c.stride_width, (feature << 16) + code}};
}

// The matrices of a mask, `spare` entries of padding behind them, as
// lth_jax/native/packing.py makes them.
struct Tables {
  Tables(const Convolution& c, const std::vector<bool>& mask, int spare)
      : capacity(std::max(1, int(std::count(mask.begin(), mask.end(), true)) + spare)),
        row_pointers(c.features + 1),
        column_indices(capacity),
        transposed_pointers(c.channels * c.stride_height * c.stride_width + 1),
        transposed_columns(capacity),
        value_indices(capacity) {
    for (size_t i = 0; i < mask.size(); ++i)
      if (mask[i]) kept.push_back(KeptOf(c, i));
    std::vector<Kept> by_input = kept;
    Fill(kept, &Kept::entry, row_pointers, column_indices);
    Fill(by_input, &Kept::transposed, transposed_pointers, transposed_columns);
    std::vector<int> lies(mask.size());
    for (size_t e = 0; e < kept.size(); ++e) lies[kept[e].index] = int(e);
    for (size_t e = 0; e < kept.size(); ++e) value_indices[e] = lies[by_input[e].index];
  }

  static void Fill(std::vector<Kept>& kept, std::pair<int, int> Kept::* entry,
                   const check::Array<int32_t>& row_pointers,
                   const check::Array<int32_t>& column_indices) {
    std::sort(kept.begin(), kept.end(),
              [entry](const Kept& a, const Kept& b) { return a.*entry < b.*entry; });
    for (size_t e = 0; e < kept.size(); ++e) {
      column_indices[e] = (kept[e].*entry).second;
      ++row_pointers[(kept[e].*entry).first + 1];
    }
    for (size_t row = 1; row < row_pointers.size; ++row) row_pointers[row] += row_pointers[row - 1];
  }
  lth::Csr ByOutput() const { return {row_pointers.get(), column_indices.get(), nullptr}; }
  lth::Csr ByInput() const {
    return {transposed_pointers.get(), transposed_columns.get(), value_indices.get()};
  }

  std::vector<Kept> kept;  // in the order of their values
  int capacity;
  check::Array<int32_t> row_pointers, column_indices, transposed_pointers, transposed_columns,
      value_indices;
};

void Check(const std::string& name, const Convolution& c, const std::vector<bool>& mask,
           int spare = 0) {
  const Tables tables(c, mask, spare);
  const size_t in = size_t(c.images) * c.height * c.width * c.channels;
  const size_t out = size_t(c.images) * c.out_height * c.out_width * c.features;
  const auto images = check::Normal(in), given = check::Normal(out);
  const auto values = check::Normal(tables.capacity);
  std::vector<double> kernel(mask.size()), of_kernel(mask.size());
  for (size_t e = 0; e < tables.kept.size(); ++e) kernel[tables.kept[e].index] = values[e];
  std::vector<double> y(out), dx(in), dw(tables.capacity);
  check::Products(c, [&](size_t i, size_t w, size_t o) {
    if (!mask[w]) return;
    y[o] += double{images[i]} * kernel[w];
    dx[i] += double{given[o]} * kernel[w];
    of_kernel[w] += double{given[o]} * images[i];
  });
  for (size_t e = 0; e < tables.kept.size(); ++e) dw[e] = of_kernel[tables.kept[e].index];
  const auto forward = check::Unwritten(out), input = check::Unwritten(in);
  const auto gradient = check::Unwritten(tables.capacity);
  const lth::Plan plan = lth::ForwardPlan(c), transposed = lth::TransposedPlan(c);
  check::WithThreads([&](check::Pool& pool) {
    lth::sparse_conv::Forward(pool, plan, tables.ByOutput(), values.get(), images.get(),
                              forward.get());
  });
  check::WithThreads([&](check::Pool& pool) {
    lth::sparse_conv::Forward(pool, transposed, tables.ByInput(), values.get(), given.get(),
                              input.get());
  });
  check::WithThreads([&](check::Pool& pool) {
    lth::sparse_conv::KernelGradient(pool, plan, tables.ByOutput(), images.get(), given.get(),
                                     tables.capacity, gradient.get());
  });
  check::Agree(name + ", forward", forward, y);
  check::Agree(name + ", input gradient", input, dx);
  check::Agree(name + ", kernel gradient", gradient, dw);
}

std::vector<bool> RandomMask(const Convolution& c, double density) {
  std::bernoulli_distribution kept(density);
  std::vector<bool> mask(Weights(c));
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = kept(check::Random());
  return mask;
}

void Check(const std::string& name, const Convolution& c) { Check(name, c, RandomMask(c, 0.2), 3); }

// Masks of every structure: whole features or channels are empty, or full.
void CheckMasks(const std::string& name, const Convolution& c) {
  for (double density : {1.0, 0.02, 0.0})
    Check(name + " - " + std::to_string(density), c, RandomMask(c, density), 0);
  std::vector<bool> features(Weights(c)), channels(Weights(c)), one(Weights(c));
  for (size_t i = 0; i < one.size(); ++i) {
    features[i] = i % c.features % 2 == 0;
    channels[i] = i / c.features % c.channels % 2 == 1;
  }
  one[one.size() * 2 / 3] = true;
  Check(name + " - half the features", c, features);
  Check(name + " - half the channels", c, channels);
  Check(name + " - one survivor", c, one, 3);
}

}  // namespace

void CheckSparseConv() {
  const auto square = check::Square;
  Check("conv2 first", square(32, 3, 64, 3, 1, 1));
  Check("conv2 second, smaller", square(16, 64, 64, 3, 1, 1));
  Check("conv6 fifth, smaller", square(8, 64, 128, 3, 1, 1));
  Check("lenet5 first", square(28, 1, 6, 5, 1, 0));
  Check("lenet5 second", square(14, 6, 16, 5, 1, 0));
  Check("resnet20", square(32, 16, 16, 3, 1, 1));
  Check("resnet20 strided", square(32, 16, 32, 3, 2, 1));
  Check("resnet20 shortcut", square(32, 16, 32, 1, 2, 0));
  Check("resnet50 stem", square(32, 3, 64, 7, 2, 3));
  Check("resnet50 narrow", square(8, 256, 64, 1, 1, 0));
  Check("vgg last, narrower", square(2, 256, 256, 3, 1, 1));
  Check("vit patches", square(32, 3, 192, 4, 4, 0));
  Check("alexnet last, narrower", square(4, 96, 96, 3, 1, 1));
  Check("no multiple of lanes", square(9, 5, 37, 3, 2, 1));
  Check("one pixel", square(1, 40, 30, 1, 1, 0));
  for (int images : {1, 7, 8, 9, 70}) {
    const std::string name = "small images, " + std::to_string(images);
    Check(name, check::Of(images, 2, 3, 12, 3, 3, 10, 1, 1, 1, 1, 1, 1));
  }
  Check("bands", check::Of(1, 120, 70, 40, 3, 3, 10, 1, 1, 1, 1, 1, 1));
  Check("bands of a strided one", check::Of(1, 224, 224, 3, 7, 7, 4, 2, 2, 3, 3, 2, 2));
  Check("one row", check::Of(3, 1, 3000, 2, 1, 5, 3, 1, 2, 0, 2, 0, 1));
  Check("one column", check::Of(3, 3000, 1, 2, 5, 1, 3, 2, 1, 2, 0, 1, 0));
  CheckMasks("masks", check::Of(2, 10, 9, 20, 3, 3, 24, 1, 1, 1, 0, 1, 2));
  CheckMasks("masks, strided", check::Of(2, 10, 9, 20, 3, 3, 24, 2, 1, 1, 0, 1, 2));
  for (int i = 0; i < 100; ++i) {
    const Convolution c = check::Drawn(20, 20, 20);
    const double density = std::uniform_real_distribution<double>(0, 1)(check::Random());
    Check("drawn " + std::to_string(i), c, RandomMask(c, density));
  }
}
