// Convolutions of NHWC images by dense 3×3 kernels with stride one, by fewer multiplications than
// their definition has: Winograd's minimal filtering, as in Lavin & Gray (2016).
//
// A tile of m × m outputs depends on a window of n × n pixels, n = m + 2. With fixed matrices,
//
//   Forward          outputs = Outᵀ [ (Ker · kernel · Kerᵀ) ⊙ (In · window · Inᵀ) ] Out
//   KernelGradient   gradient = Kerᵀ [ (Out · given · Outᵀ) ⊙ (In · window · Inᵀ) ] Ker
//   InputGradient    is Forward's computation on the output's gradient, with flipped kernels.
//
// where ⊙ multiplies position by position, n² of them. Sums over channels, and in the kernel's
// gradient over tiles, come between: so each position is a product of matrices, and nearly all time
// goes into these. Tiles of 4 × 4 outputs need 36 multiply-adds where the definition needs 144,
// tiles of 2 × 2 need 16 of 36; images that tiles of four cover badly have tiles of two.
//
// Three things follow, each with its place below:
//
// 1. Rounding. The matrices evaluate polynomials at n − 1 points, whose powers magnify errors. At
//    0, ±5/8 and ±3/2 these are a quarter of those at the usual 0, ±1 and ±2, and hardly more than
//    a direct sum's; the squares of these points are exact. Sums begin at zero in registers, and a
//    sum that is continued is added to memory at the end.
// 2. Cache. Transformed windows are 2.25 times as many numbers as their pixels. So tiles are taken
//    in chunks, whose transforms, products and outputs follow one another in a core's own cache.
// 3. Threads. Forward, chunks are independent. In the kernel's gradient all tiles add to the same
//    n² matrices: small ones each part of the tiles has for itself, added in order at the end, as
//    in dense_conv.h; of large ones, each thread has some of the n rows of positions, for all tiles.
//
// A number that is not finite may make all outputs undefined of the tiles whose windows it is in.
// Where all of a window is zero, so are the outputs, exactly.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "convolution.h"
#include "parallel.h"
#include "transpose.h"
#include "vectors.h"

#if defined(__clang__)
#define LTH_UNROLL _Pragma("unroll")
#else
#define LTH_UNROLL _Pragma("GCC unroll 16")
#endif

namespace lth {
namespace winograd_conv {

// The matrices above, for tiles of kOut × kOut outputs: each function multiplies a column by one.
template <int kOut>
struct Matrices;

template <>
struct Matrices<2> {  // points 0, 1, −1 and infinity
  static void In(const Vector* d, Vector* v) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[1] - d[3];
  }
  static void Kernel(const Vector* g, Vector* u) {
    const Vector even = (g[0] + g[2]) * 0.5f, odd = g[1] * 0.5f;
    u[0] = g[0];
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = g[2];
  }
  static void KernelTransposed(const Vector* u, Vector* g) {
    const Vector even = (u[1] + u[2]) * 0.5f;
    g[0] = u[0] + even;
    g[1] = (u[1] - u[2]) * 0.5f;
    g[2] = even + u[3];
  }
  static void Out(const Vector* o, Vector* m) {
    m[0] = o[0];
    m[1] = o[0] + o[1];
    m[2] = o[0] - o[1];
    m[3] = -o[1];
  }
  static void OutTransposed(const Vector* m, Vector* o) {
    o[0] = m[0] + m[1] + m[2];
    o[1] = m[1] - m[2] - m[3];
  }
};

template <>
struct Matrices<4> {  // points 0, a, −a, b, −b and infinity
  static constexpr float a = 0.625f, b = 1.5f, a2 = a * a, b2 = b * b, a3 = a2 * a, b3 = b2 * b;
  // By Lagrange: one over the product of each point's differences from the others.
  static constexpr float at_0 = 1 / (a2 * b2), at_a = 1 / (2 * a2 * (a2 - b2)),
                         at_b = 1 / (2 * b2 * (b2 - a2));
  static void In(const Vector* d, Vector* v) {
    const Vector even_a = d[4] - b2 * d[2], odd_a = d[3] - b2 * d[1];
    const Vector even_b = d[4] - a2 * d[2], odd_b = d[3] - a2 * d[1];
    v[0] = a2 * b2 * d[0] + (even_a - a2 * d[2]);
    v[1] = even_a + a * odd_a;
    v[2] = even_a - a * odd_a;
    v[3] = even_b + b * odd_b;
    v[4] = even_b - b * odd_b;
    v[5] = (d[5] - b2 * d[3]) - a2 * odd_a;
  }
  static void Kernel(const Vector* g, Vector* u) {
    const Vector even_a = (g[0] + a2 * g[2]) * at_a, odd_a = g[1] * (a * at_a);
    const Vector even_b = (g[0] + b2 * g[2]) * at_b, odd_b = g[1] * (b * at_b);
    u[0] = g[0] * at_0;
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = g[2];
  }
  static void KernelTransposed(const Vector* u, Vector* g) {
    const Vector even_a = (u[1] + u[2]) * at_a, odd_a = (u[1] - u[2]) * (a * at_a);
    const Vector even_b = (u[3] + u[4]) * at_b, odd_b = (u[3] - u[4]) * (b * at_b);
    g[0] = u[0] * at_0 + (even_a + even_b);
    g[1] = odd_a + odd_b;
    g[2] = a2 * even_a + b2 * even_b + u[5];
  }
  static void Out(const Vector* o, Vector* m) {
    const Vector even_a = o[0] + a2 * o[2], odd_a = a * o[1] + a3 * o[3];
    const Vector even_b = o[0] + b2 * o[2], odd_b = b * o[1] + b3 * o[3];
    m[0] = o[0];
    m[1] = even_a + odd_a;
    m[2] = even_a - odd_a;
    m[3] = even_b + odd_b;
    m[4] = even_b - odd_b;
    m[5] = o[3];
  }
  static void OutTransposed(const Vector* m, Vector* o) {
    const Vector sum_a = m[1] + m[2], difference_a = m[1] - m[2];
    const Vector sum_b = m[3] + m[4], difference_b = m[3] - m[4];
    o[0] = m[0] + (sum_a + sum_b);
    o[1] = a * difference_a + b * difference_b;
    o[2] = a2 * sum_a + b2 * sum_b;
    o[3] = a3 * difference_a + (b3 * difference_b + m[5]);
  }
};

// Calls `store(i, j, value)` with rows kFirst to kFirst + kRows − 1 of L · D · Lᵀ, where D is the
// kFrom × kFrom matrix of `load(i, j)`, and `multiply` a function above: by L, kTo × kFrom.
template <int kFrom, int kTo, int kFirst = 0, int kRows = kTo, class From, class To>
inline void Transform(void (*multiply)(const Vector*, Vector*), From load, To store) {
  Vector half[kRows][kFrom];
  LTH_UNROLL for (int j = 0; j < kFrom; ++j) {
    Vector column[kFrom], product[kTo];
    LTH_UNROLL for (int i = 0; i < kFrom; ++i) column[i] = load(i, j);
    multiply(column, product);
    LTH_UNROLL for (int i = 0; i < kRows; ++i) half[i][j] = product[kFirst + i];
  }
  LTH_UNROLL for (int i = 0; i < kRows; ++i) {
    Vector product[kTo];
    multiply(half[i], product);
    LTH_UNROLL for (int j = 0; j < kTo; ++j) store(i, j, product[j]);
  }
}

// Features are cut into blocks of 4, 2 or 1 vectors, the last of which goes back over features of
// the one before rather than beyond their end; fewer features than a vector has are filled up.
struct Block {
  int begin, vectors;
  ptrdiff_t offset;  // the floats of the blocks before it
  int width() const { return vectors * kLanes; }
};

#if defined(__AVX512F__)
constexpr int kMostVectors = 4;
#else
constexpr int kMostVectors = 2;
#endif

// `size(vectors)` are the floats of a block.
template <class Size>
std::vector<Block> MakeBlocks(int features, Size size) {
  std::vector<Block> blocks;
  ptrdiff_t offset = 0;
  for (int done = 0; done < features;) {
    int vectors = 1;
    while (vectors < kMostVectors && done + vectors * kLanes < features &&
           2 * vectors * kLanes <= features)
      vectors *= 2;
    const int width = vectors * kLanes;
    blocks.push_back({std::max(0, std::min(done, features - width)), vectors, offset});
    offset += size(vectors);
    done += width;
  }
  return blocks;
}

// Calls `body(V)` with V an integral constant, the number of vectors of a block.
template <class Body>
inline void WithVectors(int vectors, Body body) {
  if (vectors == 1) return body(std::integral_constant<int, 1>());
  if (vectors == 2) return body(std::integral_constant<int, 2>());
  if constexpr (kMostVectors >= 4) body(std::integral_constant<int, 4>());
}

// Between rows of a matrix, so that those of several positions do not all fall on the same lines of
// the cache.
constexpr int kApart = 16;

// The tiles of a batch of images.
template <int kOut>
struct Tiles {
  explicit Tiles(const Convolution& conv)
      : down(RoundUp(conv.out_height, kOut) / kOut),
        along(RoundUp(conv.out_width, kOut) / kOut),
        count(conv.images * down * along) {}
  struct Tile {
    int image, y, x;  // of its first output
  };
  Tile operator[](int index) const {
    const int in_image = index % (down * along);
    return {index / (down * along), in_image / along * kOut, in_image % along * kOut};
  }
  int down, along, count;
};

// Pixels of which (i, j) begins at data + i · pitch + j · step.
struct Pixels {
  const float* data;
  ptrdiff_t pitch, step;
  Vector at(int i, int j, int channel) const {
    return Load<Vector>(data + i * pitch + j * step + channel);
  }
};

// Returns `side × side` pixels from (y, x) on of an image, with zeros outside of it. They are the
// image's own where all lie within, and are copied to `room` elsewhere; there a pixel has a whole
// vector at least.
inline Pixels PixelsAt(const float* image, int height, int width, int channels, int y, int x,
                       int side, float* room) {
  const ptrdiff_t line = static_cast<ptrdiff_t>(width) * channels;
  if (y >= 0 && x >= 0 && y + side <= height && x + side <= width && channels >= kLanes)
    return {image + y * line + static_cast<ptrdiff_t>(x) * channels, line, channels};
  const int step = std::max(channels, kLanes);
  const ptrdiff_t pitch = static_cast<ptrdiff_t>(side) * step;
  std::fill(room, room + side * pitch, 0.0f);
  const int left = std::max(0, -x), right = std::min(side, width - x);
  for (int i = std::max(0, -y); i < std::min(side, height - y) && left < right; ++i) {
    const float* from = image + (y + i) * line + static_cast<ptrdiff_t>(x + left) * channels;
    float* to = room + i * pitch + left * step;
    if (step == channels) {
      std::copy_n(from, static_cast<ptrdiff_t>(right - left) * channels, to);
    } else {
      for (int j = left; j < right; ++j, from += channels, to += step)
        std::copy_n(from, channels, to);
    }
  }
  return {room, pitch, step};
}

// Calls `body(channel)` for each vector of channels; the last goes back over those before it.
template <class Body>
inline void ForEachVector(int channels, Body body) {
  for (int c = 0; c < channels; c += kLanes) body(std::max(0, std::min(c, channels - kLanes)));
}

// The convolution that the input's gradient is, of the output's gradient by the flipped kernel.
inline Convolution Flipped(const Convolution& conv) {
  return {conv.images,
          conv.out_height,
          conv.out_width,
          conv.features,
          3,
          3,
          conv.channels,
          1,
          1,
          2 - conv.pad_height,
          2 - conv.pad_width,
          conv.height,
          conv.width};
}

// The floats of a block's transformed kernels, [position][channel][lanes of the block], and from a
// position to the next.
inline ptrdiff_t PositionPitch(int channels, int vectors) {
  return static_cast<ptrdiff_t>(channels) * vectors * kLanes + kApart;
}

// Sets `to` to the transformed kernels of all blocks. `kernel` is [3, 3, channels, features], or
// [3, 3, features, channels] and flipped.
template <int kOut, bool kFlipped, class Pool>
void TransformKernels(Pool& pool, const std::vector<Block>& blocks, int channels, int features,
                      const float* kernel, float* to) {
  constexpr int kIn = kOut + 2, kGroup = 16;
  const int groups = RoundUp(channels, kGroup) / kGroup;
  ForEach(pool, groups * static_cast<int>(blocks.size()), [&](int index) {
    const Block block = blocks[index / groups];
    const int first = index % groups * kGroup, some = std::min(kGroup, channels - first);
    const int width = block.width(), count = std::min(width, features - block.begin);
    float* group = Scratch<0>(9 * kGroup * width);  // [row, column][channel][lanes]
    if (count < width) std::fill(group, group + 9 * kGroup * width, 0.0f);
    for (int r = 0; r < 9; ++r) {
      float* into = group + r * kGroup * width;
      if (kFlipped) {
        Transpose(
            kernel + (static_cast<ptrdiff_t>(8 - r) * features + block.begin) * channels + first,
            channels, count, some, into, width);
        continue;
      }
      const float* from =
          kernel + (static_cast<ptrdiff_t>(r) * channels + first) * features + block.begin;
      for (int c = 0; c < some; ++c) std::copy_n(from + c * features, count, into + c * width);
    }
    const ptrdiff_t pitch = PositionPitch(channels, block.vectors);
    float* out = to + block.offset + static_cast<ptrdiff_t>(first) * width;
    for (int lane = 0; lane < some * width; lane += kLanes)
      Transform<3, kIn>(
          Matrices<kOut>::Kernel,
          [&](int i, int j) { return Load<Vector>(group + (i * 3 + j) * kGroup * width + lane); },
          [&](int i, int j, Vector u) { Store(out + (i * kIn + j) * pitch + lane, u); });
  });
}

// As many tiles as their sums, a step's weights and a broadcast value leave registers for: 32 of
// sixteen lanes, or 16 of eight.
#if defined(__AVX512F__)
constexpr int TilesPerProduct(int vectors) { return vectors == 4 ? 6 : vectors == 2 ? 12 : 16; }
#else
constexpr int TilesPerProduct(int vectors) { return vectors == 2 ? 6 : 12; }
#endif

constexpr int kMostTiles = 16;

// Computes one position of `kTiles` tiles and `kVectors` vectors of features: `windows` times
// `weights` [channels][kVectors · lanes].
template <int kTiles, int kVectors>
inline void ProductTile(const float* windows, ptrdiff_t pitch, int channels, const float* weights,
                        float* to, ptrdiff_t to_pitch) {
  Vector sums[kTiles][kVectors] = {};
  for (int c = 0; c < channels; ++c, weights += kVectors * kLanes) {
    Vector w[kVectors];
    LTH_UNROLL for (int v = 0; v < kVectors; ++v) w[v] = Load<Vector>(weights + v * kLanes);
    LTH_UNROLL for (int t = 0; t < kTiles; ++t) {
      const float x = windows[t * pitch + c];
      LTH_UNROLL for (int v = 0; v < kVectors; ++v) sums[t][v] += w[v] * x;
    }
  }
  LTH_UNROLL for (int t = 0; t < kTiles; ++t) LTH_UNROLL for (int v = 0; v < kVectors; ++v)
      Store(to + t * to_pitch + v * kLanes, sums[t][v]);
}

// The floats that a chunk's arrays may have: half of a small L2, and in the kernel's gradient, where
// sums are beside them, a quarter. But weights, or sums, are loaded once for each chunk: it has some
// tiles even if these need more.
constexpr ptrdiff_t kForwardFloats = 1 << 17, kGradientFloats = 1 << 16;
constexpr int kLeastProducts = 4, kLeastSummed = 64;

// Returns how many tiles a chunk has: equally many, and a multiple of `step`.
inline int TilesPerChunk(int tiles, ptrdiff_t most, int least, int step) {
  most = std::max<ptrdiff_t>(most, least);
  const int chunks = static_cast<int>((tiles + most - 1) / most);
  return RoundUp((tiles + chunks - 1) / chunks, step);
}

// Fetches the pixels under a tile's outputs. Most of its window's others are its neighbours'.
template <int kOut>
inline void PrefetchPixels(const Convolution& conv, const typename Tiles<kOut>::Tile& tile,
                           const float* images) {
  constexpr int kLine = 16;
  const int rows = std::min(kOut, conv.height - tile.y);
  const int floats = std::min(kOut, conv.width - tile.x) * conv.channels;
  for (int i = 0; i < rows; ++i) {
    const ptrdiff_t y = static_cast<ptrdiff_t>(tile.image) * conv.height + tile.y + i;
    const float* from = images + (y * conv.width + tile.x) * conv.channels;
    for (int c = 0; c < floats; c += kLine) __builtin_prefetch(from + c);
  }
}
constexpr int kAhead = 2;  // tiles

// The tiles of a chunk: transformed windows [tile][position][channel], and products of one block
// [tile][position][lanes].
struct Chunk {
  int first, count;
  float *windows, *products;
  ptrdiff_t window_pitch, product_pitch;  // from a tile to the next
};

template <int kOut>
void TransformWindows(const Convolution& conv, const Tiles<kOut>& tiles, const Chunk& chunk,
                      const float* images) {
  constexpr int kIn = kOut + 2;
  const int channels = std::max(conv.channels, kLanes);
  const ptrdiff_t size = static_cast<ptrdiff_t>(conv.height) * conv.width * conv.channels;
  float* room = Scratch<2>(static_cast<size_t>(kIn) * kIn * channels);
  for (int t = 0; t < chunk.count; ++t) {
    const auto tile = tiles[chunk.first + t];
    const Pixels pixels =
        PixelsAt(images + tile.image * size, conv.height, conv.width, conv.channels,
                 tile.y - conv.pad_height, tile.x - conv.pad_width, kIn, room);
    float* to = chunk.windows + t * chunk.window_pitch;
    if (chunk.first + t + kAhead < tiles.count)
      PrefetchPixels<kOut>(conv, tiles[chunk.first + t + kAhead], images);
    ForEachVector(conv.channels, [&](int c) {
      Transform<kIn, kIn>(
          Matrices<kOut>::In, [&](int i, int j) { return pixels.at(i, j, c); },
          [&](int i, int j, Vector v) { Store(to + (i * kIn + j) * channels + c, v); });
    });
  }
}

// Computes a block's outputs from a chunk's products.
template <int kOut>
void TransformProducts(const Convolution& conv, const Tiles<kOut>& tiles, const Chunk& chunk,
                       const Block& block, float* out) {
  constexpr int kIn = kOut + 2;
  const int width = block.width(), features = conv.features;
  const ptrdiff_t line = static_cast<ptrdiff_t>(conv.out_width) * features;
  float* room = Scratch<3>(static_cast<size_t>(kOut) * kOut * width);
  for (int t = 0; t < chunk.count; ++t) {
    const auto tile = tiles[chunk.first + t];
    const int rows = std::min(kOut, conv.out_height - tile.y);
    const int columns = std::min(kOut, conv.out_width - tile.x);
    float* outputs = out + (static_cast<ptrdiff_t>(tile.image) * conv.out_height + tile.y) * line +
                     static_cast<ptrdiff_t>(tile.x) * features + block.begin;
    const bool whole = rows == kOut && columns == kOut && features >= width;
    float* to = whole ? outputs : room;
    const ptrdiff_t pitch = whole ? line : kOut * width, step = whole ? features : width;
    const float* from = chunk.products + t * chunk.product_pitch;
    for (int lane = 0; lane < width; lane += kLanes)
      Transform<kIn, kOut>(
          Matrices<kOut>::OutTransposed,
          [&](int i, int j) { return Load<Vector>(from + (i * kIn + j) * width + lane); },
          [&](int i, int j, Vector o) { Store(to + i * pitch + j * step + lane, o); });
    if (whole) continue;
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j)
        std::copy_n(room + (i * kOut + j) * width, std::min(width, features),
                    outputs + i * line + j * features);
  }
}

// Computes a chunk's outputs from its images.
template <int kOut>
void ConvolveChunk(const Convolution& conv, const Tiles<kOut>& tiles,
                   const std::vector<Block>& blocks, const Chunk& chunk, const float* images,
                   const float* kernels, float* out) {
  constexpr int kIn = kOut + 2;
  const int channels = std::max(conv.channels, kLanes);
  TransformWindows(conv, tiles, chunk, images);
  for (const Block& block : blocks) {
    const ptrdiff_t pitch = PositionPitch(conv.channels, block.vectors);
    WithVectors(block.vectors, [&](auto vectors) {
      constexpr int kVectors = decltype(vectors)::value, kTiles = TilesPerProduct(kVectors);
      for (int q = 0; q < kIn * kIn; ++q)
        // The last product may be of more tiles than there are: there is room for it.
        for (int t = 0; t < chunk.count; t += kTiles)
          ProductTile<kTiles, kVectors>(
              chunk.windows + t * chunk.window_pitch + q * channels, chunk.window_pitch,
              conv.channels, kernels + block.offset + q * pitch,
              chunk.products + t * chunk.product_pitch + q * block.width(), chunk.product_pitch);
    });
    TransformProducts(conv, tiles, chunk, block, out);
  }
}

// Computes outputs [images, out_height, out_width, features], by a kernel or a flipped one.
template <int kOut, bool kFlipped, class Pool>
void Convolve(Pool& pool, const Convolution& conv, const float* images, const float* kernel,
              float* out) {
  constexpr int kPositions = (kOut + 2) * (kOut + 2);
  const Tiles<kOut> tiles(conv);
  const auto blocks = MakeBlocks(conv.features, [&](int vectors) {
    return kPositions * PositionPitch(conv.channels, vectors);
  });
  const Block& last = blocks.back();
  float* kernels =
      Scratch<4>(last.offset + kPositions * PositionPitch(conv.channels, last.vectors));
  TransformKernels<kOut, kFlipped>(pool, blocks, conv.channels, conv.features, kernel, kernels);
  const int vectors = blocks.front().vectors;  // the first block is the largest
  const int channels = std::max(conv.channels, kLanes);
  const ptrdiff_t window_pitch = kPositions * channels + kApart;
  const ptrdiff_t product_pitch = kPositions * vectors * kLanes + kApart;
  const int at_once = TilesPerProduct(vectors);
  const int most = TilesPerChunk(tiles.count, kForwardFloats / (window_pitch + product_pitch),
                                 kLeastProducts * at_once, at_once);
  const int room = most + kMostTiles;  // that the last product of a chunk writes to
  ForEach(pool, (tiles.count + most - 1) / most, [&](int index) {
    const int first = index * most;
    const Chunk chunk{first,
                      std::min(most, tiles.count - first),
                      Scratch<0>(room * window_pitch),
                      Scratch<1>(room * product_pitch),
                      window_pitch,
                      product_pitch};
    ConvolveChunk(conv, tiles, blocks, chunk, images, kernels, out);
  });
}

// As many channels as registers hold the sums of, with a block's vectors.
#if defined(__AVX512F__)
constexpr int ChannelsPerSum(int vectors) { return vectors == 4 ? 4 : vectors == 2 ? 8 : 16; }
#else
constexpr int ChannelsPerSum(int vectors) { return vectors == 2 ? 4 : 8; }
#endif

// Adds `tiles` tiles' products at one position to `sums` [kChannels][kVectors · lanes], or sets
// these where they are `fresh`.
template <int kChannels, int kVectors>
inline void SumTile(const float* windows, ptrdiff_t pitch, int tiles, const float* given,
                    float* sums, bool fresh) {
  Vector s[kChannels][kVectors] = {};
  for (int t = 0; t < tiles; ++t, windows += pitch, given += kVectors * kLanes) {
    Vector d[kVectors];
    LTH_UNROLL for (int v = 0; v < kVectors; ++v) d[v] = Load<Vector>(given + v * kLanes);
    LTH_UNROLL for (int c = 0; c < kChannels; ++c) {
      const float x = windows[c];
      LTH_UNROLL for (int v = 0; v < kVectors; ++v) s[c][v] += d[v] * x;
    }
  }
  LTH_UNROLL for (int c = 0; c < kChannels; ++c) {
    LTH_UNROLL for (int v = 0; v < kVectors; ++v) {
      float* to = sums + (c * kVectors + v) * kLanes;
      Store(to, fresh ? s[c][v] : Load<Vector>(to) + s[c][v]);
    }
  }
}

// The kernel's gradient as its tasks see it. A task has some of the tiles, of the n rows of
// positions and of the blocks. Sums are [part of the tiles][block][position][channel][lanes].
struct GradientPlan {
  Convolution conv;
  std::vector<Block> blocks;
  int parts, most_tiles;  // most_tiles: of a chunk
  ptrdiff_t sums_size;    // of a part
};

// The floats from a position's sums to the next one's.
inline ptrdiff_t SumsPitch(int channels, int vectors) {
  return PositionPitch(RoundUp(channels, ChannelsPerSum(vectors)), vectors);
}

// Adds what a chunk of tiles contributes to `kRows` rows of positions, from row kFirst on.
template <int kOut, int kFirst, int kRows>
void AddChunk(const GradientPlan& plan, const Tiles<kOut>& tiles, int first, int count,
              int first_block, int last_block, const float* images, const float* given, float* sums,
              bool fresh) {
  constexpr int kIn = kOut + 2;
  const Convolution& conv = plan.conv;
  const int channels = std::max(conv.channels, kLanes), features = std::max(conv.features, kLanes);
  const ptrdiff_t size = static_cast<ptrdiff_t>(conv.height) * conv.width * conv.channels;
  const ptrdiff_t out_size =
      static_cast<ptrdiff_t>(conv.out_height) * conv.out_width * conv.features;
  const ptrdiff_t pitch = RoundUp(channels, 16) + kApart;           // of tiles
  const ptrdiff_t window_pitch = plan.most_tiles * pitch + kApart;  // of positions
  float* windows = Scratch<0>(kRows * kIn * window_pitch);
  float* room = Scratch<2>(static_cast<size_t>(kIn) * kIn * std::max(channels, features));
  for (int t = 0; t < count; ++t) {
    const auto tile = tiles[first + t];
    const Pixels pixels =
        PixelsAt(images + tile.image * size, conv.height, conv.width, conv.channels,
                 tile.y - conv.pad_height, tile.x - conv.pad_width, kIn, room);
    float* to = windows + t * pitch;
    ForEachVector(conv.channels, [&](int c) {
      Transform<kIn, kIn, kFirst, kRows>(
          Matrices<kOut>::In, [&](int i, int j) { return pixels.at(i, j, c); },
          [&](int i, int j, Vector v) { Store(to + (i * kIn + j) * window_pitch + c, v); });
    });
  }
  for (int b = first_block; b < last_block; ++b) {
    const Block& block = plan.blocks[b];
    const int width = block.width();
    const ptrdiff_t given_pitch = static_cast<ptrdiff_t>(plan.most_tiles) * width + kApart;
    float* transformed = Scratch<1>(kRows * kIn * given_pitch);
    for (int t = 0; t < count; ++t) {
      const auto tile = tiles[first + t];
      const Pixels pixels = PixelsAt(given + tile.image * out_size, conv.out_height, conv.out_width,
                                     conv.features, tile.y, tile.x, kOut, room);
      float* to = transformed + static_cast<ptrdiff_t>(t) * width;
      for (int lane = 0; lane < width; lane += kLanes)
        Transform<kOut, kIn, kFirst, kRows>(
            Matrices<kOut>::Out, [&](int i, int j) { return pixels.at(i, j, block.begin + lane); },
            [&](int i, int j, Vector m) { Store(to + (i * kIn + j) * given_pitch + lane, m); });
    }
    WithVectors(block.vectors, [&](auto vectors) {
      constexpr int kVectors = decltype(vectors)::value, kChannels = ChannelsPerSum(kVectors);
      const ptrdiff_t sums_pitch = SumsPitch(conv.channels, kVectors);
      float* to = sums + block.offset + kFirst * kIn * sums_pitch;
      for (int q = 0; q < kRows * kIn; ++q)
        for (int c = 0; c < conv.channels; c += kChannels)
          SumTile<kChannels, kVectors>(
              windows + q * window_pitch + c, pitch, count, transformed + q * given_pitch,
              to + q * sums_pitch + static_cast<ptrdiff_t>(c) * width, fresh);
    });
  }
}

// Calls `body(R)` with R an integral constant, `row`.
template <int kRows, class Body>
inline void WithRow(int row, Body body) {
  if constexpr (kRows > 1) {
    if (row < kRows - 1) return WithRow<kRows - 1>(row, body);
  }
  body(std::integral_constant<int, kRows - 1>());
}

// Writes the gradient, from the parts' sums added in order.
template <int kOut, class Pool>
void TransformSums(Pool& pool, const GradientPlan& plan, const float* sums, float* out) {
  constexpr int kIn = kOut + 2, kGroup = 8;
  const int channels = plan.conv.channels, features = plan.conv.features;
  ForEach(pool, RoundUp(channels, kGroup) / kGroup, [&](int group) {
    for (const Block& block : plan.blocks) {
      const ptrdiff_t pitch = SumsPitch(channels, block.vectors);
      const int width = block.width(), count = std::min(width, features);
      for (int c = group * kGroup; c < std::min(channels, (group + 1) * kGroup); ++c) {
        for (int lane = 0; lane < width; lane += kLanes) {
          const float* from = sums + block.offset + static_cast<ptrdiff_t>(c) * width + lane;
          float* to = out + static_cast<ptrdiff_t>(c) * features + block.begin + lane;
          Transform<kIn, 3>(
              Matrices<kOut>::KernelTransposed,
              [&](int i, int j) {
                const float* at = from + (i * kIn + j) * pitch;
                Vector sum = Load<Vector>(at);
                for (int part = 1; part < plan.parts; ++part)
                  sum += Load<Vector>(at + part * plan.sums_size);
                return sum;
              },
              [&](int i, int j, Vector g) {
                std::memcpy(to + (i * 3 + j) * static_cast<ptrdiff_t>(channels) * features, &g,
                            std::min(kLanes, count) * sizeof(float));
              });
        }
      }
    }
  });
}

// A part's sums have so many floats at most where tiles are shared out in parts: they stay in L2
// beside a chunk.
constexpr ptrdiff_t kPartFloats = 1 << 16;
constexpr int kMostParts = 8;

// Returns into how many groups rows of positions and blocks of features are cut, for so many
// threads: those that leave the fewest idle. No bit depends on it.
struct Groups {
  int rows, blocks;
};

inline Groups MakeGroups(int threads, int rows, int blocks) {
  Groups best{1, 1};
  double least = 2;
  for (int b = 1; b <= blocks; ++b) {
    for (int r = 1; r <= rows; ++r) {
      if (rows % r != 0) continue;
      const double time = static_cast<double>((r * b + threads - 1) / threads) / (r * b);
      if (time < least - 1e-9) best = {r, b}, least = time;
    }
  }
  return best;
}

// Computes the gradient of the kernel [3, 3, channels, features].
template <int kOut, class Pool>
void SumGradient(Pool& pool, const Convolution& conv, const float* images, const float* given,
                 float* out) {
  constexpr int kIn = kOut + 2;
  const Tiles<kOut> tiles(conv);
  GradientPlan plan{conv, {}, 1, 0, 0};
  plan.blocks = MakeBlocks(
      conv.features, [&](int vectors) { return kIn * kIn * SumsPitch(conv.channels, vectors); });
  const Block& last = plan.blocks.back();
  plan.sums_size = last.offset + kIn * kIn * SumsPitch(conv.channels, last.vectors);
  const bool small = plan.sums_size <= kPartFloats;
  if (small) plan.parts = std::min(kMostParts, tiles.count);
  const int rows = small ? kIn : 1;
  const ptrdiff_t floats = static_cast<ptrdiff_t>(rows) * kIn *
                           (std::max(conv.channels, kLanes) + plan.blocks.front().width() + kApart);
  const int part_tiles = (tiles.count + plan.parts - 1) / plan.parts;
  plan.most_tiles = TilesPerChunk(part_tiles, kGradientFloats / floats, kLeastSummed, 1);
  float* sums = Scratch<4>(plan.sums_size * plan.parts);
  const int block_count = static_cast<int>(plan.blocks.size());
  const auto add = [&](int part, int first_row, int last_row, int first_block, int last_block) {
    const int begin = static_cast<int>(int64_t{part} * tiles.count / plan.parts);
    const int end = static_cast<int>((int64_t{part} + 1) * tiles.count / plan.parts);
    float* part_sums = sums + part * plan.sums_size;
    for (int first = begin; first < end; first += plan.most_tiles) {
      const int count = std::min(plan.most_tiles, end - first);
      const bool fresh = first == begin;
      if (small) {
        AddChunk<kOut, 0, kIn>(plan, tiles, first, count, 0, block_count, images, given, part_sums,
                               fresh);
        continue;
      }
      for (int row = first_row; row < last_row; ++row)
        WithRow<kIn>(row, [&](auto which) {
          AddChunk<kOut, decltype(which)::value, 1>(plan, tiles, first, count, first_block,
                                                    last_block, images, given, part_sums, fresh);
        });
    }
  };
  if (small) {
    ForEach(pool, plan.parts, [&](int part) { add(part, 0, kIn, 0, block_count); });
  } else {
    const Groups groups = MakeGroups(static_cast<int>(pool.num_threads()), kIn, block_count);
    ForEach(pool, groups.rows * groups.blocks, [&](int index) {
      const int r = index % groups.rows, b = index / groups.rows;
      add(0, kIn * r / groups.rows, kIn * (r + 1) / groups.rows, block_count * b / groups.blocks,
          block_count * (b + 1) / groups.blocks);
    });
  }
  TransformSums<kOut>(pool, plan, sums, out);
}

// Returns whether tiles of 2 × 2 outputs take fewer multiplications than tiles of 4 × 4.
inline bool HasSmallTiles(const Convolution& conv) {
  const auto count = [&](int side) {
    return RoundUp(conv.out_height, side) / side * (RoundUp(conv.out_width, side) / side);
  };
  return count(2) * 16 < count(4) * 36;
}

// Computes the outputs [images, out_height, out_width, features].
template <class Pool>
void Forward(Pool& pool, const Convolution& conv, const float* images, const float* kernel,
             float* out) {
  HasSmallTiles(conv) ? Convolve<2, false>(pool, conv, images, kernel, out)
                      : Convolve<4, false>(pool, conv, images, kernel, out);
}

// Computes the gradient of the images [images, height, width, channels] from that of the outputs.
template <class Pool>
void InputGradient(Pool& pool, const Convolution& conv, const float* kernel, const float* gradient,
                   float* out) {
  const Convolution flipped = Flipped(conv);
  HasSmallTiles(flipped) ? Convolve<2, true>(pool, flipped, gradient, kernel, out)
                         : Convolve<4, true>(pool, flipped, gradient, kernel, out);
}

// Computes the gradient of the kernel [3, 3, channels, features] from that of the outputs.
template <class Pool>
void KernelGradient(Pool& pool, const Convolution& conv, const float* images, const float* gradient,
                    float* out) {
  HasSmallTiles(conv) ? SumGradient<2>(pool, conv, images, gradient, out)
                      : SumGradient<4>(pool, conv, images, gradient, out);
}

}  // namespace winograd_conv
}  // namespace lth
