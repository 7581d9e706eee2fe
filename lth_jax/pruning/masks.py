"""Masks: bool pytrees of exactly the parameters' structure, True = kept.

Every function takes any parameter pytree. What may be pruned is a plain dict, `rates`: prunable
leaf name -> its multiple of the pruning fraction; leaves that it does not name stay all True.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax.pruning.trees import PyTree, count_true, map_named, name_matches, named_leaves, size


def exact(value: float | str | Fraction) -> Fraction:
    """The decimal that `value` was written as: 0.29 is 29/100, not the nearest double."""
    return value if isinstance(value, Fraction) else Fraction(str(value))


def is_kernel(name: str, leaf: Any) -> bool:
    """Whether a leaf is a kernel: two or more dimensions, and no bias, norm scale or embedding."""
    return jnp.ndim(leaf) >= 2 and not name.endswith(("bias", "scale", "embedding"))


def prunable(
    params: PyTree,
    layer_rates: Sequence[tuple[str, float]] = (),
    predicate: Callable[[str, Any], bool] = is_kernel,
) -> dict[str, Fraction]:
    """Which leaves may be pruned, and each one's multiple of the pruning fraction.

    Args:
      params: any pytree of arrays or shapes.
      layer_rates: (pattern, multiple) pairs; the first pattern that matches a leaf's name or a
        module above it (`output`, `block_*/conv1`) sets its multiple, leaves that none matches
        have 1. A multiple of 0 makes a leaf not prunable.
      predicate: of (name, leaf), says what may be pruned at all; kernels by default.

    Returns:
      Leaf name -> multiple > 0, in `jax.tree.leaves` order.

    Raises:
      ValueError: a pattern matches no prunable leaf, or nothing is prunable.
    """
    names = [name for name, leaf in named_leaves(params).items() if predicate(name, leaf)]
    for pattern, _ in layer_rates:
        if not any(name_matches(name, pattern) for name in names):
            raise ValueError(
                f"layer_rates: pattern '{pattern}' matches no prunable layer; "
                f"the layers are {', '.join(names) or 'none'}"
            )
    rates = {name: _rate(name, layer_rates) for name in names}
    if not any(rates.values()):
        raise ValueError("nothing is prunable: no kernel, or every layer's rate is 0")
    return {name: rate for name, rate in rates.items() if rate}


def _rate(name: str, layer_rates: Sequence[tuple[str, float]]) -> Fraction:
    matching = (rate for pattern, rate in layer_rates if name_matches(name, pattern))
    return exact(next(matching, 1))


def ones_mask(params: PyTree) -> PyTree:
    """The mask that keeps everything: bool leaves of the parameters' shapes, all True."""
    return jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf), bool), params)


def apply_mask(tree: PyTree, mask: PyTree) -> PyTree:
    """`tree` with exact zeros where `mask` is False, dtypes kept.

    Selects instead of multiplying: a product would let NaN and infinity through.
    """
    return jax.tree.map(lambda leaf, m: jnp.where(m, leaf, jnp.zeros_like(leaf)), tree, mask)


def kept_counts(mask: PyTree, rates: Mapping[str, Fraction]) -> dict[str, tuple[int, int]]:
    """Prunable leaf name -> (kept, total), as Python integers."""
    leaves = named_leaves(mask)
    return {name: (count_true(leaves[name]), size(leaves[name])) for name in rates}


def density(mask: PyTree, rates: Mapping[str, Fraction] | None = None) -> float:
    """kept / prunable, over the leaves that `rates` names (by default every kernel of `mask`)."""
    counts = kept_counts(mask, prunable(mask) if rates is None else rates).values()
    return sum(kept for kept, _ in counts) / sum(total for _, total in counts)


def with_leaves(tree: PyTree, leaves: Mapping[str, Any]) -> PyTree:
    """`tree` with the leaves that `leaves` names replaced."""
    return map_named(lambda name, leaf: leaves.get(name, leaf), tree)
