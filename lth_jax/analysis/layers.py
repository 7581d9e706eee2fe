"""Layers: their order and density, which one sees the image, which initial weights survive."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from lth_jax.analysis.summary import Stat
from lth_jax.pruning.trees import is_output, natural_order

# (replicate, level) -> layer -> (kept, total).
LayerCounts = Mapping[tuple[int, int], Mapping[str, tuple[int, int]]]
IMAGE_CHANNELS = (1, 3, 4)
BINS = 48


class FirstLayer(NamedTuple):
    """The layer that sees the image.

    Attributes:
      name: of its kernel.
      image: height, width and channels of what a fully connected layer sees; None for a
        convolution, whose kernel `[height, width, channels, units]` is small images itself.
    """

    name: str
    image: tuple[int, int, int] | None


def layer_order(names: Iterable[str], first: str = "") -> list[str]:
    """Sorts layers as the data pass through them, as far as names tell.

    Args:
      names: of kernels; numbers within count as numbers, and `output` comes last.
      first: the one that sees the image, if it is known.
    """
    return sorted(names, key=lambda name: (name != first, is_output(name), natural_order(name)))


def short_name(name: str) -> str:
    """Returns a kernel's layer: `fc1` of `fc1/kernel`."""
    return name.removesuffix("/kernel")


def layer_densities(counts: LayerCounts) -> dict[str, dict[int, Stat]]:
    """Returns layer -> level -> its density over replicates, a fraction."""
    found: dict[str, dict[int, list[float]]] = {}
    for (_, level), layers in sorted(counts.items()):
        for name, (kept, total) in layers.items():
            found.setdefault(name, {}).setdefault(level, []).append(kept / total)
    return {
        name: {level: Stat.of(values) for level, values in levels.items()}
        for name, levels in found.items()
    }


def first_layer(
    kernels: Mapping[str, tuple[int, ...]], image: tuple[int, int, int] | None = None
) -> FirstLayer | None:
    """Finds the layer that sees the image by the kernels' shapes; None where they do not tell.

    Args:
      kernels: name -> shape, of all kernels of the network.
      image: height, width and channels, where they are known; otherwise a square is looked for.
    """
    channels = (image[2],) if image else IMAGE_CHANNELS
    names = layer_order(kernels)
    for name in names:
        if len(kernels[name]) == 4 and kernels[name][2] in channels:
            return FirstLayer(name, None)
    if any(len(shape) == 4 for shape in kernels.values()):
        return None
    for name in names:
        seen = _image_of(kernels[name][0], image) if len(kernels[name]) == 2 else None
        if seen:
            return FirstLayer(name, seen)
    return None


def _image_of(inputs: int, image: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
    """Returns the shape of a flattened image of that many numbers."""
    if image:
        return image if math.prod(image) == inputs else None
    for channels in IMAGE_CHANNELS:
        side = math.isqrt(inputs // channels)
        if side > 1 and side * side * channels == inputs:
            return side, side, channels
    return None


def connections_by_pixel(
    mask: Bool[np.ndarray, "inputs units"], image: tuple[int, int, int]
) -> Int64[np.ndarray, "height width"]:
    """Counts the kept connections of each pixel, channels summed: int64 `[height, width]`.

    Args:
      mask: bool `[height * width * channels, units]`, of a fully connected first layer.
      image: (height, width, channels).
    """
    return mask.sum(axis=1, dtype=np.int64).reshape(image).sum(axis=2)


def kernel_tiles(
    mask: Bool[np.ndarray, "height width channels units"], limit: int
) -> Float[np.ndarray, "rows columns"]:
    """Lays kernels out as tiles of one image, a pixel apart, channels averaged.

    Args:
      mask: bool `[height, width, channels, units]`.
      limit: how many kernels are shown at most.

    Returns:
      Float `[rows, columns]`, the share of the channels that are kept; NaN between tiles.
    """
    height, width, _, units = mask.shape
    shown = min(units, limit)
    columns = math.ceil(math.sqrt(shown))
    rows = -(-shown // columns)
    image = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), math.nan)
    for unit in range(shown):
        top, left = unit // columns * (height + 1), unit % columns * (width + 1)
        image[top : top + height, left : left + width] = mask[..., unit].mean(axis=2)
    return image


class Histograms(NamedTuple):
    """The initial weights of one layer, in bins of equal width from -limit to limit.

    Attributes:
      edges: float64 `[bins + 1]`.
      all: int64 `[bins]`, every weight of the layer.
      kept: level -> int64 `[bins]`, those that are kept there.
    """

    edges: np.ndarray
    all: np.ndarray
    kept: Mapping[int, np.ndarray]

    def shares(self, counts: np.ndarray) -> np.ndarray:
        """Returns counts as a probability density over the edges; zeros where there are none."""
        return counts / (max(int(counts.sum()), 1) * np.diff(self.edges))


def initial_weight_histograms(
    initial: Sequence[np.ndarray], kept: Mapping[int, Sequence[np.ndarray]], bins: int = BINS
) -> Histograms:
    """Returns the histograms of one layer, pooled over replicates (Frankle & Carbin 2019, F.1).

    Args:
      initial: all initial weights of the layer, one array of any shape for each replicate.
      kept: level -> those of them that its masks keep, likewise.
      bins: how many.
    """
    limit = max((float(np.abs(weights).max(initial=0.0)) for weights in initial), default=0.0)
    edges = np.linspace(-(limit or 1.0), limit or 1.0, bins + 1)

    def count(parts: Sequence[np.ndarray]) -> np.ndarray:
        return sum((np.histogram(part, edges)[0] for part in parts), np.zeros(bins, np.int64))

    return Histograms(edges, count(initial), {level: count(part) for level, part in kept.items()})
