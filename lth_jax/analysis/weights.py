"""Which initial weights survive: their distribution against all (Frankle & Carbin 2019, F.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

BINS = 48


class Histograms(NamedTuple):
    """Initial weights of one layer, in bins of equal width from -limit to limit.

    Attributes:
      edges: float64 [bins + 1].
      all: int64 [bins], every weight of the layer.
      kept: level -> int64 [bins], those that are kept there.
    """

    edges: np.ndarray
    all: np.ndarray
    kept: Mapping[int, np.ndarray]

    def shares(self, counts: np.ndarray) -> np.ndarray:
        """Counts as a probability density over the edges; zeros where there are none."""
        widths = np.diff(self.edges)
        return counts / (max(int(counts.sum()), 1) * widths)


def initial_weight_histograms(
    initial: Sequence[np.ndarray], kept: Mapping[int, Sequence[np.ndarray]], bins: int = BINS
) -> Histograms:
    """The histograms of one layer, pooled over replicates.

    Args:
      initial: all initial weights of the layer, one array of any shape for each replicate.
      kept: level -> those of them that its masks keep, likewise.
      bins: how many.
    """
    limit = max((float(np.abs(weights).max(initial=0.0)) for weights in initial), default=0.0)
    edges = np.linspace(-(limit or 1.0), limit or 1.0, bins + 1)

    def count(parts: Sequence[np.ndarray]) -> np.ndarray:
        counts = np.zeros(bins, np.int64)
        for part in parts:
            counts += np.histogram(part, edges)[0]
        return counts

    return Histograms(edges, count(initial), {level: count(part) for level, part in kept.items()})
