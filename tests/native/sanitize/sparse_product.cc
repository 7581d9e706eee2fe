// Packed dense layers, their shapes and masks from test_sparse_product.py.
#include "sparse_product.h"

#include "check.h"
#include "packed.h"

namespace {

using check::RandomMask;
using check::Tables;

void Check(const std::string& name, int width, int rows, int examples,
           const std::vector<bool>& mask, int spare, int blocks) {
  const Tables tables(mask, width, rows, spare, blocks);
  const auto values = check::Normal(tables.capacity), x = check::Normal(size_t(examples) * width);
  const auto given = check::Normal(size_t(examples) * rows);
  std::vector<double> y(given.size), dx(x.size), dw(tables.capacity);
  for (int row = 0; row < rows; ++row)
    for (int entry = tables.ByOutput().begin(row); entry < tables.ByOutput().begin(row + 1);
         ++entry)
      for (int n = 0; n < examples; ++n) {
        const size_t in = size_t(n) * width + tables.column_indices[entry],
                     out = size_t(n) * rows + row;
        y[out] += double{x[in]} * values[entry];
        dx[in] += double{given[out]} * values[entry];
        dw[entry] += double{given[out]} * x[in];
      }
  const size_t lanes =
      size_t(lth::sparse_product::CountTiles(examples)) * lth::sparse_product::kTileExamples;
  const auto seen = check::Unwritten(lanes * width), d = check::Unwritten(lanes * rows);
  const auto forward = check::Unwritten(y.size()), input = check::Unwritten(dx.size());
  const auto gradient = check::Unwritten(dw.size());
  check::WithThreads([&](check::Pool& pool) {
    lth::sparse_product::Forward(pool, values.get(), tables.ByOutput(), x.get(), examples, width,
                                 rows, seen.get(), forward.get());
    lth::sparse_product::TransposeToTiles(pool, given.get(), examples, rows, d.get());
    lth::sparse_product::KernelGradient(pool, tables.ByOutput(), seen.get(), d.get(), examples,
                                        width, rows, tables.capacity, gradient.get());
    lth::sparse_product::Forward(pool, values.get(), tables.ByInput(), given.get(), examples, rows,
                                 width, nullptr, input.get());
  });
  check::Agree(name + ", forward", forward, y);
  check::Agree(name + ", kernel gradient", gradient, dw);
  check::Agree(name + ", input gradient", input, dx);
}

void CheckMasks(const std::string& name, int width, int rows, int examples) {
  const std::string dash = name + " - ";
  for (double density : {1.0, 0.5, 0.036, 0.0})
    Check(dash + std::to_string(density), width, rows, examples, RandomMask(width, rows, density),
          density == 0.5 ? 5 : 0, density >= 0.5 ? 3 : 1);
  auto mask = RandomMask(width, rows, 0.5);
  for (int column = 0; column < width; ++column)
    for (int row = 0; row < rows; ++row)
      if (row % 3 == 0 || row == rows - 1 || column % 4 == 0 || column == width - 1)
        mask[size_t(column) * rows + row] = false;
  Check(dash + "empty inputs and outputs", width, rows, examples, mask, 0, 2);
  std::fill(mask.begin(), mask.end(), false);
  mask[mask.size() - 1] = true;
  Check(dash + "one survivor", width, rows, examples, mask, 0, 2);
}

}  // namespace

void CheckSparseProduct() {
  CheckMasks("lenet first", 784, 300, 60);
  CheckMasks("lenet first, full tiles", 784, 300, 128);
  CheckMasks("lenet second", 300, 100, 60);
  CheckMasks("lenet output", 100, 10, 60);
  CheckMasks("conv2 first, smaller", 1024, 256, 100);
  CheckMasks("conv2 second", 256, 256, 65);
  CheckMasks("conv2 output", 256, 10, 199);
  CheckMasks("many tiles", 70, 40, 573);
  CheckMasks("one example", 300, 100, 1);
  CheckMasks("one weight", 1, 1, 3);
  CheckMasks("no multiple of lanes", 37, 29, 63);
}
