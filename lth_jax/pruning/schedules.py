"""Schedules: how many weights each ranked group keeps at each level, before anything is trained.

Levels prune to these counts, so that a criterion, its rounds and its ties decide which weights
survive, never how many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from lth_jax.pruning.masks import exact
from lth_jax.pruning.selection import groups, removal_count
from lth_jax.pruning.trees import is_output, natural_order

# Ranked group (names of its leaves) -> weights that it keeps.
Targets = dict[tuple[str, ...], int]


def fractions_of(densities: Sequence[float]) -> list[Fraction]:
    """Returns the share of the survivors to remove at each level, to reach these densities.

    Raises:
      ValueError: a density is not below the one before it, or not above 0.
    """
    before, fractions = Fraction(1), []
    for density in map(exact, densities):
        if not 0 < density < before:
            raise ValueError(
                f"densities: {float(density)} after {float(before)}; accepted: falling numbers "
                "below 1 and above 0"
            )
        fractions.append(1 - density / before)
        before = density
    return fractions


def targets(
    shapes: Mapping[str, tuple[int, ...]],
    rates: Mapping[str, Fraction],
    fractions: Sequence[float | Fraction],
    *,
    scope: str,
) -> list[Targets]:
    """Returns what each ranked group keeps at levels 0 to `len(fractions)`.

    Of each group, a level removes exactly floor(fraction × multiple × surviving) weights
    (Frankle & Carbin 2019, §2). Under one of `RATIOS` all layers together are cut so, and each
    keeps its share of the rest.

    Args:
      shapes: prunable leaf name -> its shape.
      rates: leaf name -> multiple of the fraction.
      fractions: the share of the survivors that each level removes.
      scope: `layerwise`, `global` or one of `RATIOS`.

    Raises:
      ValueError: an unknown scope, or multiples other than 1 under one of `RATIOS`.
    """
    if scope in RATIOS:
        return _ratio_targets(shapes, rates, fractions, scope)
    members = groups(rates, scope)
    kept = [{names: sum(math.prod(shapes[name]) for name in names) for names, _ in members}]
    for fraction in fractions:
        kept.append({
            names: kept[-1][names] - removal_count(kept[-1][names], fraction, multiple)
            for names, multiple in members
        })  # fmt: skip
    return kept


def erdos_renyi(shapes: Mapping[str, tuple[int, ...]], total: int) -> dict[str, int]:
    """Shares out `total` weights over layers by the Erdős–Rényi-kernel rule (Evci et al. 2020, §3).

    A layer's density is proportional to (sum of its dimensions) / (product of its dimensions),
    at most 1; what full layers cannot take goes to the others. Whole counts by largest remainder.

    Args:
      shapes: leaf name -> kernel shape, such as (3, 3, 16, 32).
      total: weights to share out, at most all of them.
    """
    return _shared_out(_sizes(shapes), {name: sum(shape) for name, shape in shapes.items()}, total)


def uniform(shapes: Mapping[str, tuple[int, ...]], total: int) -> dict[str, int]:
    """Shares out `total` weights over layers so that all have one density."""
    sizes = _sizes(shapes)
    return _shared_out(sizes, sizes, total)


def smart(shapes: Mapping[str, tuple[int, ...]], total: int) -> dict[str, int]:
    """Shares out `total` weights over layers by the smart ratios of Su et al. (2020, §4.2).

    The density of layer l of L goes with (L - l + 1)² + (L - l + 1), so that early layers keep
    more; the output layer keeps 0.3, or all that is left where the others are full. Layers are in
    the order of their names, numbers in these as numbers.
    """
    sizes = _sizes(shapes)
    inner = sorted((name for name in sizes if not is_output(name)), key=natural_order)
    output = {name: sizes[name] for name in sizes if is_output(name)}
    after = {name: len(inner) - place for place, name in enumerate(inner)}
    of_output = min(math.floor(SMART_OUTPUT * sum(output.values())), total)
    of_output = max(of_output, total - sum(sizes[name] for name in inner))
    weights = {name: sizes[name] * (after[name] ** 2 + after[name]) for name in inner}
    return {
        **_shared_out({name: sizes[name] for name in inner}, weights, total - of_output),
        **_shared_out(output, output, of_output),
    }


def erdos_renyi_by_channels(shapes: Mapping[str, tuple[int, ...]], total: int) -> dict[str, int]:
    """Shares out `total` weights over layers as `erdos_renyi` does if all kernels were 1 × 1.

    A convolution's density is that of a dense layer of as many channels (Mocanu et al. 2018, to
    which Evci et al. 2020 add the kernel's height and width).
    """
    weights = {name: math.prod(shape[:-2]) * sum(shape[-2:]) for name, shape in shapes.items()}
    return _shared_out(_sizes(shapes), weights, total)


SMART_OUTPUT = Fraction(3, 10)
Ratio = Callable[[Mapping[str, tuple[int, ...]], int], dict[str, int]]
# Layer ratios that are no ranking: scope -> how all layers' count is shared out.
RATIOS: dict[str, Ratio] = {"erdos_renyi": erdos_renyi, "smart": smart, "uniform": uniform}
# The same of masks that move, by the names that their literature has.
DISTRIBUTIONS: dict[str, Ratio] = {
    "uniform": uniform,
    "erdos_renyi": erdos_renyi_by_channels,
    "erdos_renyi_kernel": erdos_renyi,
}


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    return {name: math.prod(shape) for name, shape in shapes.items()}


def _shared_out(sizes: Mapping[str, int], weights: Mapping[str, int], total: int) -> dict[str, int]:
    """Shares out `total` in proportion to `weights`, at most its size to each layer."""
    full: set[str] = set()
    while True:
        rest = {name: weight for name, weight in weights.items() if name not in full}
        left = total - sum(sizes[name] for name in full)
        scale = Fraction(left, sum(rest.values())) if rest else Fraction(0)
        filled = {name for name, weight in rest.items() if scale * weight >= sizes[name]}
        if not filled:
            break
        full |= filled
    shares = {name: scale * weight for name, weight in rest.items()}
    kept = {name: sizes[name] if name in full else math.floor(shares[name]) for name in sizes}
    by_remainder = sorted(shares, key=lambda name: kept[name] - shares[name])
    for name in by_remainder[: total - sum(kept.values())]:
        kept[name] += 1
    return kept


def _ratio_targets(
    shapes: Mapping[str, tuple[int, ...]],
    rates: Mapping[str, Fraction],
    fractions: Sequence[float | Fraction],
    scope: str,
) -> list[Targets]:
    for name, rate in rates.items():
        if rate != 1:
            raise ValueError(
                f"layer_rates: {name} has multiple {float(rate)}; accepted under scope "
                f"{scope}: 1, or 0 for layers that stay dense"
            )
    shapes = {name: shapes[name] for name in rates}
    kept = [{name: math.prod(shape) for name, shape in shapes.items()}]
    for fraction in fractions:
        before = kept[-1]
        total = sum(before.values())
        total -= removal_count(total, fraction, Fraction(1))
        kept.append(_at_most(RATIOS[scope](shapes, total), before))
    return [{(name,): count for name, count in level.items()} for level in kept]


def _at_most(kept: dict[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """Returns `kept` with no layer above `before`, the excess given to the others.

    Rounding may ask a layer for a weight that an earlier level has removed, and masks are nested.
    """
    excess = sum(max(0, kept[name] - before[name]) for name in kept)
    kept = {name: min(kept[name], before[name]) for name in kept}
    for name in kept:
        take = min(excess, before[name] - kept[name])
        kept[name] += take
        excess -= take
    return kept
