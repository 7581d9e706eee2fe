"""Student's t: intervals of a mean, and p-values, from a few independent replicates.

What they cover is the randomness of training (initialization, batch order, draws) on one split of
one dataset. Another test set would give other numbers, and no interval here knows of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import stdtr, stdtrit


def standard_error(
    values: Float[np.ndarray, "*many replicates"], resolution: float = 0.0
) -> np.ndarray | np.floating:
    """Returns the standard error of the mean over the last axis; NaN for one replicate.

    Args:
      values: independent values, one for each replicate.
      resolution: the step in which the values are measured, such as one image of a test set. Each
        value is known to half a step, so that a difference of two has a deviation of at least
        resolution / √6, even where a few replicates happen to agree.
    """
    count = values.shape[-1]
    if count < 2:
        return np.full(values.shape[:-1], np.nan)
    deviation = np.maximum(np.std(values, axis=-1, ddof=1), resolution / math.sqrt(6))
    return deviation / math.sqrt(count)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Returns the two-sided t-interval of the mean of independent values; NaN for one of them."""
    array = np.asarray(values, np.float64)
    half = t_quantile(len(array), (1 + confidence) / 2) * float(standard_error(array))
    mean = math.fsum(values) / len(values)
    return mean - half, mean + half


def one_sided(
    values: Float[np.ndarray, "*many replicates"], confidence: float, resolution: float = 0.0
) -> tuple[np.ndarray | np.floating, np.ndarray | np.floating]:
    """Returns (lower, upper) ends of two one-sided intervals of the mean over the last axis.

    The mean lies above the lower end with `confidence`, and below the upper end with as much; both
    at once hold with 2 × `confidence` - 1.
    """
    mean = np.mean(values, axis=-1)
    half = t_quantile(values.shape[-1], confidence) * standard_error(values, resolution)
    return mean - half, mean + half


def p_above(values: Sequence[float], bound: float = 0.0, resolution: float = 0.0) -> float:
    """Returns the one-sided p-value of the mean being above `bound`; 1 for one replicate."""
    array = np.asarray(values, np.float64)
    error = float(standard_error(array, resolution))
    distance = float(np.mean(array)) - bound
    if math.isnan(error):
        return 1.0
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return float(stdtr(len(array) - 1, -distance / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values of several questions, corrected so that one may pick among the answers.

    Each is compared with 1 - confidence as before; the chance of any wrong "yes" among them is then
    at most that (Holm 1979).
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def t_quantile(count: int, probability: float) -> float:
    """Returns Student's quantile for the mean of `count` values; NaN for one of them."""
    return float(stdtrit(count - 1, probability)) if count > 1 else math.nan
