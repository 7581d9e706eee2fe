"""How masks move while networks train: what is left, what a move exchanges, what was ever kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from lth_jax.store.tables import MaskPoint


class MaskCourse(NamedTuple):
    """The masks of a branch at a level by step: means over runs, float64 `[steps]`, fractions.

    Attributes:
      steps: int64, where the runs start, and where masks move.
      density: kept / prunable weights from a step on.
      moved: the share of the mask, of the larger of two, that a move at the step exchanged.
      ever: the share of the prunable weights that were kept at any time so far: in-time
        over-parameterization (Liu et al. 2021).
    """

    steps: np.ndarray
    density: np.ndarray
    moved: np.ndarray
    ever: np.ndarray


def mask_course(points: Iterable[MaskPoint]) -> MaskCourse:
    """Returns the means over the runs that have a step."""
    by_step: dict[int, list[tuple[float, float, float]]] = {}
    for point in points:
        by_step.setdefault(point.step, []).append(_shares(point))
    steps = sorted(by_step)
    means = np.array([np.mean(by_step[step], axis=0) for step in steps]).reshape(-1, 3)
    return MaskCourse(np.array(steps, np.int64), *means.T)


def _shares(point: MaskPoint) -> tuple[float, float, float]:
    before = point.kept + point.dropped - point.grown
    moved = max(point.dropped, point.grown) / max(point.kept, before, 1)
    return point.kept / point.prunable, moved, point.ever / point.prunable
