"""Schedules: how many weights are kept at each level, known before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from lth_jax.pruning.selection import groups, removal_count


def iterative(
    sizes: Mapping[str, int],
    rates: Mapping[str, Fraction],
    fraction: float | Fraction,
    *,
    scope: str,
    levels: int,
) -> list[int]:
    """Weights kept at levels 0 to `levels` when each level removes `fraction` of the survivors.

    The same arithmetic as `prune`, group by group (Frankle & Carbin 2019, §2, iterative pruning).

    Args:
      sizes: prunable leaf name -> number of weights.
      rates: leaf name -> multiple of `fraction`.
      fraction: share of the survivors that a level removes.
      scope: `layerwise` or `global`.
      levels: the number of prunings.
    """
    alive = [
        (sum(sizes[name] for name in names), multiple) for names, multiple in groups(rates, scope)
    ]
    kept = [sum(count for count, _ in alive)]
    for _ in range(levels):
        alive = [(n - removal_count(n, fraction, multiple), multiple) for n, multiple in alive]
        kept.append(sum(count for count, _ in alive))
    return kept
