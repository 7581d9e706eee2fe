// The loss of a chain of dense layers, and its gradients, in one call.
//
//   x → dense → ReLU → dense → ReLU → … → dense → logits → softmax cross-entropy, mean of the batch
//
// Between layers nothing leaves the tiles of 64 examples (sparse_product.h) that packed layers
// compute in: each layer by itself would transpose its inputs and its outputs, and XLA would add the
// bias, take the ReLU and sum over examples in passes of their own. Images stay bytes: a quarter of
// the traffic, and what a byte counts (1/255) is multiplied into sums instead of into pixels.
//
//   inputs of layer    ┌────┬────┬──┐ 64 examples      a row of a tile is an input, or an output;
//   (width rows)       │    │    │  │                  a weight takes one row and adds to another
//                      └────┴────┴──┘
//
// A layer is packed, or dense and then small: it is not worth more than registers for the sums of
// four outputs. Work is cut by shapes alone, and each sum is one task's, in one order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "csr.h"
#include "parallel.h"
#include "sparse_product.h"
#include "transpose.h"
#include "vectors.h"

namespace lth {
namespace chain {

using sparse_product::CountTiles;
using sparse_product::kTaskRows;
using sparse_product::kTileExamples;
using sparse_product::kVectors;

struct Layer {
  int width, rows;       // inputs and outputs
  const float* weights;  // [capacity] of a packed layer, else [width, rows]
  const float* bias;     // [rows], or null for none
  bool packed;
  Csr forward, transposed;  // of a packed layer
  int capacity;             // the length of `weights`
};

// Where a layer's gradients go.
struct Gradients {
  float *weights, *bias;
};

// Images [examples, width] of bytes or floats, each of which counts `scale`.
template <class Number>
struct Images {
  const Number* numbers;
  float scale;
};

inline const float* Row(const float* tile, int row) {
  return tile + static_cast<ptrdiff_t>(row) * kTileExamples;
}
inline float* Row(float* tile, int row) {
  return tile + static_cast<ptrdiff_t>(row) * kTileExamples;
}
inline const uint8_t* Row(const uint8_t* tile, int row) {
  return tile + static_cast<ptrdiff_t>(row) * kTileExamples;
}

inline int64_t WorkOf(const Layer& layer, int examples) {
  return int64_t{layer.capacity} * CountTiles(examples) * kTileExamples;
}

// Below this work a second thread gains less than it costs: a run's step has several phases that
// each would wait for it, and other runs want the cores.
template <class Pool, class Body>
void WithChainPool(Pool& pool, int64_t work, Body body) {
  WithPool(pool, work / 4, body);
}

// --- Images to tiles -----------------------------------------------------------------------

inline void ImagesToTile(const float* images, int examples, int width, int tile, float* to) {
  sparse_product::TransposeToTile(images, examples, width, tile, 0, width, to);
}

// Lanes without an example are zero.
inline void ImagesToTile(const uint8_t* images, int examples, int width, int tile, uint8_t* to) {
  thread_local std::vector<uint8_t> black;
  black.assign(width, 0);
  for (int lane = 0; lane < kTileExamples; lane += 16) {
    const uint8_t* rows[16];
    for (int i = 0; i < 16; ++i) {
      const int example = tile * kTileExamples + lane + i;
      rows[i] =
          example < examples ? images + static_cast<ptrdiff_t>(example) * width : black.data();
    }
    int column = 0;
    for (; column + 16 <= width; column += 16) {
      TransposeSixteenBytes(rows, to + static_cast<ptrdiff_t>(column) * kTileExamples + lane,
                            kTileExamples);
      for (auto& row : rows) row += 16;
    }
    for (int rest = 0; column + rest < width; ++rest)
      for (int i = 0; i < 16; ++i)
        to[static_cast<ptrdiff_t>(column + rest) * kTileExamples + lane + i] = rows[i][rest];
  }
}

// --- One tile through one layer -------------------------------------------------------------

// Outputs whose sums are in registers at once, of a dense layer.
constexpr int kSums = kLanes == 16 ? 4 : 1;

// out[r] = Σ_i weights[r · row_stride + i · stride] · x[i] for rows `begin` to `end - 1`, i < width.
template <class Number>
inline void MultiplyDense(const float* weights, ptrdiff_t row_stride, ptrdiff_t stride, int width,
                          const Number* x, int begin, int end, float* out) {
  for (int first = begin; first < end; first += kSums) {
    const int count = std::min(kSums, end - first);
    Vector sums[kSums][kVectors] = {};
    const float* from[kSums];
    for (int r = 0; r < kSums; ++r)
      from[r] = weights + (first + std::min(r, count - 1)) * row_stride;
    for (int i = 0; i < width; ++i) {
      Vector lanes[kVectors];
      for (int j = 0; j < kVectors; ++j) lanes[j] = LoadNumbers(Row(x, i) + j * kLanes);
      for (int r = 0; r < kSums; ++r) {
        const float weight = from[r][i * stride];
        for (int j = 0; j < kVectors; ++j) sums[r][j] += lanes[j] * weight;
      }
    }
    for (int r = 0; r < count; ++r)
      for (int j = 0; j < kVectors; ++j) Store(Row(out, first + r) + j * kLanes, sums[r][j]);
  }
}

// Blocks are for tiles of floats: of bytes a whole tile stays in the first cache, or nearly so, and
// a row's blocks lie one after another.
inline void MultiplyPacked(const float* values, const Csr& matrix, const float* x, int begin,
                           int end, float* out) {
  for (int block = 0; block < matrix.blocks; ++block)
    for (int row = begin; row < end; ++row)
      sparse_product::MultiplyRow(values, matrix, row, block, x, Row(out, row));
}
inline void MultiplyPacked(const float* values, const Csr& matrix, const uint8_t* x, int begin,
                           int end, float* out) {
  for (int row = begin; row < end; ++row)
    sparse_product::MultiplyEntries(values, matrix, matrix.begin(row), matrix.begin(row + 1), false,
                                    x, Row(out, row));
}

// Computes outputs `begin` to `end - 1` of a tile, with bias and, but for the last layer, ReLU.
template <class Number>
inline void ForwardRows(const Layer& layer, const Number* x, float scale, bool relu, int begin,
                        int end, float* out) {
  if (layer.packed)
    MultiplyPacked(layer.weights, layer.forward, x, begin, end, out);
  else
    MultiplyDense(layer.weights, 1, layer.rows, layer.width, x, begin, end, out);
  const Vector zero = {};
  for (int row = begin; row < end; ++row) {
    const float bias = layer.bias ? layer.bias[row] : 0;
    for (int j = 0; j < kVectors; ++j) {
      const Vector sum = Load<Vector>(Row(out, row) + j * kLanes) * scale + bias;
      // NaN compares False, and so stays.
      Store(Row(out, row) + j * kLanes, relu ? (sum < zero ? zero : sum) : sum);
    }
  }
}

// Computes gradients of inputs `begin` to `end - 1` of a tile, which a ReLU made: where it gave zero
// there is none.
inline void BackwardRows(const Layer& layer, const float* x, const float* out_gradient, int begin,
                         int end, float* x_gradient) {
  if (layer.packed)
    MultiplyPacked(layer.weights, layer.transposed, out_gradient, begin, end, x_gradient);
  else
    MultiplyDense(layer.weights, layer.rows, 1, layer.rows, out_gradient, begin, end, x_gradient);
  const Vector zero = {};
  for (int row = begin; row < end; ++row)
    for (int j = 0; j < kVectors; ++j) {
      float* to = Row(x_gradient, row) + j * kLanes;
      Store(to, Load<Vector>(Row(x, row) + j * kLanes) > zero ? Load<Vector>(to) : zero);
    }
}

// Calls `product(i)`, a vector, for i < count, and adds up the lanes of each to sums[i]: without
// `add`, sets it.
template <class Product>
inline void SumLanes(int count, bool add, Product product, float* sums) {
  for (int first = 0; first < count; first += 8) {
    const int some = std::min(8, count - first);
    Eight products[8] = {};
    for (int i = 0; i < some; ++i) products[i] = FoldToEight(product(first + i));
    const Eight found = Sums(products);
    for (int i = 0; i < some; ++i) sums[first + i] = found[i] + (add ? sums[first + i] : 0);
  }
}

// Adds a tile's gradients of a dense layer's weights, those of inputs `begin` to `end - 1`.
template <class Number>
inline void DenseGradientRows(const Layer& layer, const Number* x, float scale,
                              const float* out_gradient, int begin, int end, bool add,
                              float* gradient) {
  for (int i = begin; i < end; ++i) {
    Vector lanes[kVectors];
    for (int j = 0; j < kVectors; ++j) lanes[j] = LoadNumbers(Row(x, i) + j * kLanes) * scale;
    const auto product = [&](int row) {
      const float* d = Row(out_gradient, row);
      Vector sum = lanes[0] * Load<Vector>(d);
      for (int j = 1; j < kVectors; ++j) sum += lanes[j] * Load<Vector>(d + j * kLanes);
      return sum;
    };
    SumLanes(layer.rows, add, product, gradient + static_cast<ptrdiff_t>(i) * layer.rows);
  }
}

// Adds a tile's gradients of a packed layer's weights, those of outputs `begin` to `end - 1`.
inline void PackedGradientRows(const Csr& matrix, const float* x, float scale,
                               const float* out_gradient, int begin, int end, bool add,
                               float* gradient) {
  for (int block = 0; block < matrix.blocks; ++block)
    for (int row = begin; row < end; ++row)
      sparse_product::GradientEntries(matrix, matrix.begin(row, block), matrix.end(row, block), x,
                                      Row(out_gradient, row), scale, add, gradient);
}
inline void PackedGradientRows(const Csr& matrix, const uint8_t* x, float scale,
                               const float* out_gradient, int begin, int end, bool add,
                               float* gradient) {
  for (int row = begin; row < end; ++row)
    sparse_product::GradientEntries(matrix, matrix.begin(row), matrix.begin(row + 1), x,
                                    Row(out_gradient, row), scale, add, gradient);
}

// --- One layer, all tiles ---------------------------------------------------------------------

// The numbers of a tile; tiles lie one after another.
inline ptrdiff_t TileSize(int rows) { return static_cast<ptrdiff_t>(rows) * kTileExamples; }

// Runs `task(tile, begin, end)` for parts of `rows` of each tile.
template <class Pool, class Task>
void ForEachPart(Pool& pool, int tiles, int rows, const Task& task) {
  const int parts = (rows + kTaskRows - 1) / kTaskRows;
  ForEach(pool, tiles * parts, [&](int index) {
    const int begin = index % parts * kTaskRows;
    task(index / parts, begin, std::min(rows, begin + kTaskRows));
  });
}

template <class Pool, class Number>
void Forward(Pool& pool, const Layer& layer, const Number* x, float scale, bool relu, int tiles,
             float* out) {
  ForEachPart(pool, tiles, layer.rows, [&](int tile, int begin, int end) {
    ForwardRows(layer, x + tile * TileSize(layer.width), scale, relu, begin, end,
                out + tile * TileSize(layer.rows));
  });
}

template <class Pool>
void Backward(Pool& pool, const Layer& layer, const float* x, const float* out_gradient, int tiles,
              float* x_gradient) {
  ForEachPart(pool, tiles, layer.width, [&](int tile, int begin, int end) {
    BackwardRows(layer, x + tile * TileSize(layer.width),
                 out_gradient + tile * TileSize(layer.rows), begin, end,
                 x_gradient + tile * TileSize(layer.width));
  });
}

// Threads share out rows, never tiles: each gradient is one sum, over tiles in order.
template <class Pool, class Number>
void WeightGradients(Pool& pool, const Layer& layer, const Number* x, float scale,
                     const float* out_gradient, int tiles, const Gradients& to) {
  ForEachPart(pool, 1, layer.packed ? layer.rows : layer.width, [&](int, int begin, int end) {
    for (int tile = 0; tile < tiles; ++tile) {
      const Number* its_x = x + tile * TileSize(layer.width);
      const float* d = out_gradient + tile * TileSize(layer.rows);
      if (!layer.packed) {
        DenseGradientRows(layer, its_x, scale, d, begin, end, tile > 0, to.weights);
        continue;
      }
      PackedGradientRows(layer.forward, its_x, scale, d, begin, end, tile > 0, to.weights);
    }
  });
  if (layer.packed)
    std::fill(to.weights + layer.forward.begin(layer.rows), to.weights + layer.capacity, 0.0f);
  if (!to.bias) return;
  for (int tile = 0; tile < tiles; ++tile) {
    const auto lanes_of = [&](int row) {
      const float* d = Row(out_gradient + tile * TileSize(layer.rows), row);
      Vector sum = Load<Vector>(d);
      for (int j = 1; j < kVectors; ++j) sum += Load<Vector>(d + j * kLanes);
      return sum;
    };
    SumLanes(layer.rows, tile > 0, lanes_of, to.bias);
  }
}

// --- The loss ---------------------------------------------------------------------------------

// Replaces a tile's logits by the gradients of the mean cross-entropy of `examples`, and returns the
// sum of the tile's losses. A label that is no class makes the loss NaN.
inline double CrossEntropy(const int32_t* labels, int classes, int count, int examples,
                           float* logits) {
  alignas(64) float largest[kTileExamples], normalizer[kTileExamples], true_logit[kTileExamples];
  for (int n = 0; n < count; ++n)
    true_logit[n] =
        labels[n] >= 0 && labels[n] < classes ? Row(logits, labels[n])[n] : std::nanf("");
  for (int lane = 0; lane < kTileExamples; lane += kLanes) {
    Vector most = Load<Vector>(logits + lane), sum = {};
    for (int c = 1; c < classes; ++c) {
      const Vector logit = Load<Vector>(Row(logits, c) + lane);
      most = logit > most ? logit : most;
    }
    for (int c = 0; c < classes; ++c) {
      const Vector power = Exp(Load<Vector>(Row(logits, c) + lane) - most);
      Store(Row(logits, c) + lane, power);
      sum += power;  // NaN if any logit is, though it may not be found to be the largest
    }
    Store(largest + lane, most);
    Store(normalizer + lane, sum);
    const Vector share = (Vector{} + 1.0f / examples) / sum;
    for (int c = 0; c < classes; ++c)
      Store(Row(logits, c) + lane, Load<Vector>(Row(logits, c) + lane) * share);
  }
  double loss = 0;
  for (int n = 0; n < count; ++n) {
    loss += double{std::log(normalizer[n])} + (double{largest[n]} - true_logit[n]);
    if (labels[n] >= 0 && labels[n] < classes) Row(logits, labels[n])[n] -= 1.0f / examples;
  }
  for (int c = 0; c < classes && count < kTileExamples; ++c)
    std::fill(Row(logits, c) + count, Row(logits, c) + kTileExamples, 0.0f);
  return loss;
}

// --- The chain ----------------------------------------------------------------------------------

// Computes the mean loss of a batch, and the gradients of all layers. There is at least one layer.
template <class Pool, class Number>
float LossAndGradients(Pool& pool, const std::vector<Layer>& layers, Images<Number> images,
                       const int32_t* labels, int examples, const std::vector<Gradients>& to) {
  const int tiles = CountTiles(examples), last = static_cast<int>(layers.size()) - 1;
  // Outputs of each layer, and two buffers for gradients of outputs and of inputs.
  std::vector<ptrdiff_t> begins;
  ptrdiff_t room = 0, most = 0;
  for (const Layer& layer : layers) {
    begins.push_back(room);
    const ptrdiff_t size = tiles * TileSize(layer.rows);
    room += size;
    most = std::max(most, size);
  }
  float* const outputs = Scratch<7>(room + 2 * most);
  float *out_gradient = outputs + begins[last], *x_gradient = outputs + room;
  float* spare = x_gradient + most;
  const size_t bytes = tiles * TileSize(layers[0].width) * sizeof(Number);
  void* const first_tiles = Scratch<6>((bytes + sizeof(float) - 1) / sizeof(float));
  Number* const x0 = static_cast<Number*>(first_tiles);
  const auto output_of = [&](int l) { return outputs + begins[l]; };

  WithChainPool(pool, tiles * TileSize(layers[0].width), [&](auto& chosen) {
    ForEach(chosen, tiles, [&](int tile) {
      ImagesToTile(images.numbers, examples, layers[0].width, tile,
                   x0 + tile * TileSize(layers[0].width));
    });
  });
  for (int l = 0; l <= last; ++l)
    WithChainPool(pool, WorkOf(layers[l], examples), [&](auto& chosen) {
      if (l == 0)
        Forward(chosen, layers[l], x0, images.scale, l < last, tiles, output_of(l));
      else
        Forward(chosen, layers[l], output_of(l - 1), 1.0f, l < last, tiles, output_of(l));
    });
  double loss = 0;
  for (int tile = 0; tile < tiles; ++tile)
    loss += CrossEntropy(labels + tile * kTileExamples, layers[last].rows,
                         std::min(kTileExamples, examples - tile * kTileExamples), examples,
                         out_gradient + tile * TileSize(layers[last].rows));
  for (int l = last; l >= 0; --l) {
    WithChainPool(pool, WorkOf(layers[l], examples), [&](auto& chosen) {
      if (l == 0) {
        WeightGradients(chosen, layers[l], x0, images.scale, out_gradient, tiles, to[l]);
        return;
      }
      WeightGradients(chosen, layers[l], output_of(l - 1), 1.0f, out_gradient, tiles, to[l]);
      Backward(chosen, layers[l], output_of(l - 1), out_gradient, tiles, x_gradient);
    });
    out_gradient = x_gradient;
    std::swap(x_gradient, spare);
  }
  return static_cast<float>(loss / examples);
}

// Computes logits [examples, classes]. Tiles are shared out one by one, and each goes through all
// layers while it is in the cache.
template <class Pool, class Number>
void Logits(Pool& pool, const std::vector<Layer>& layers, Images<Number> images, int examples,
            float* logits) {
  int widest = 0;
  int64_t work = 0;
  for (const Layer& layer : layers) {
    widest = std::max(widest, layer.rows);
    work += WorkOf(layer, examples);
  }
  WithPool(pool, work, [&](auto& chosen) {
    ForEach(chosen, CountTiles(examples), [&](int tile) {
      const size_t bytes = TileSize(layers[0].width) * sizeof(Number);
      void* const room = Scratch<6>((bytes + sizeof(float) - 1) / sizeof(float));
      Number* const x0 = static_cast<Number*>(room);
      float *out = Scratch<7>(2 * TileSize(widest)), *x = out + TileSize(widest);
      ImagesToTile(images.numbers, examples, layers[0].width, tile, x0);
      for (size_t l = 0; l < layers.size(); ++l) {
        const bool relu = l + 1 < layers.size();
        if (l == 0)
          ForwardRows(layers[l], x0, images.scale, relu, 0, layers[l].rows, out);
        else
          ForwardRows(layers[l], x, 1.0f, relu, 0, layers[l].rows, out);
        std::swap(out, x);
      }
      const int classes = layers.back().rows;
      const int count = std::min(kTileExamples, examples - tile * kTileExamples);
      Transpose(x, kTileExamples, classes, count, logits + tile * kTileExamples * classes, classes);
    });
  });
}

}  // namespace chain
}  // namespace lth
