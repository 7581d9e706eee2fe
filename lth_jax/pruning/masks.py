"""Masks: bool pytrees of exactly the parameters' structure, True = kept.

Every function takes any parameter pytree; of NNX's variables (`nnx.state(module, nnx.Param)`) it
takes the arrays, and gives variables back. What may be pruned is a plain dict, `rates`: the name of
a prunable leaf -> its multiple of the pruning fraction. Leaves that it does not name stay all True.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lth_jax.pruning.trees import (
    PyTree,
    count_true,
    like,
    map_named,
    name_matches,
    named_leaves,
    plain,
    size,
)


def exact(value: float | str | Fraction) -> Fraction:
    """Returns the decimal that `value` was written as: 0.29 is 29/100, not the nearest double.

    In floats 0.29 × 100 is 28.999…, so that pruning 29% of 100 weights would remove 28.
    """
    return value if isinstance(value, Fraction) else Fraction(str(value))


def is_kernel(name: str, leaf: Any) -> bool:
    """Returns whether a leaf is a kernel: two or more axes, no bias, norm scale or embedding."""
    return jnp.ndim(leaf) >= 2 and not name.endswith(("bias", "scale", "embedding"))


def prunable(
    params: PyTree,
    layer_rates: Sequence[tuple[str, float]] = (),
    predicate: Callable[[str, Any], bool] = is_kernel,
) -> dict[str, Fraction]:
    """Returns which leaves may be pruned, and each one's multiple of the pruning fraction.

    Args:
      params: any pytree of arrays or shapes.
      layer_rates: (pattern, multiple) pairs. The first pattern that matches a leaf's name, or a
        module above it (`output`, `block_*/conv1`), sets its multiple; a leaf that none matches has
        multiple 1. A leaf of multiple 0 is not prunable.
      predicate: says of (name, leaf) whether it may be pruned at all; kernels by default.

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
    """Returns the mask that keeps everything: bool leaves of the parameters' shapes, all True."""
    return jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf), bool), params)


def apply_mask(tree: PyTree, mask: PyTree) -> PyTree:
    """Returns `tree` with exact zeros where `mask` is False, its dtypes kept.

    It selects instead of multiplying, since 0 × NaN is NaN and 0 × -1 is a negative zero.
    """
    return like(tree, _zeroed(plain(tree), plain(mask)))


def _zeroed(tree: PyTree, mask: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, m: jnp.where(m, leaf, jnp.zeros_like(leaf)), tree, mask)


def kept_counts(mask: PyTree, rates: Mapping[str, Fraction]) -> dict[str, tuple[int, int]]:
    """Returns for each prunable leaf, by name, how many weights are kept and how many there are.

    The counts are Python integers: int32 would overflow in a network of two billion weights.
    """
    leaves = named_leaves(mask)
    return {name: (count_true(leaves[name]), size(leaves[name])) for name in rates}


def density(mask: PyTree, rates: Mapping[str, Fraction] | None = None) -> float:
    """Returns kept / prunable over the leaves that `rates` names (by default every kernel)."""
    counts = kept_counts(mask, prunable(mask) if rates is None else rates).values()
    return sum(kept for kept, _ in counts) / sum(total for _, total in counts)


def with_leaves(tree: PyTree, leaves: Mapping[str, Any]) -> PyTree:
    """Returns `tree` with the leaves that `leaves` names replaced."""
    return map_named(lambda name, leaf: leaves.get(name, leaf), tree)


def masked_step(
    optimizer: optax.GradientTransformation,
    grads: PyTree,
    opt_state: optax.OptState,
    params: PyTree,
    mask: PyTree,
) -> tuple[PyTree, optax.OptState]:
    """Takes one step of an optimizer in which pruned weights keep their value exactly.

    Gradients are masked *before* the optimizer, so that its moments, and the norms by which
    gradients are clipped, see live weights alone. Weight decay sees pruned weights as zeros. After
    the optimizer `p = where(mask, p + u, p)`, since momentum or decay would still move a pruned
    weight. With an all-True mask this is Optax's own step.

    Args:
      optimizer: any Optax transformation.
      grads: the loss's gradients, of the parameters' structure.
      opt_state: the optimizer's state.
      params: the parameters. Where `mask` is False they are usually 0.0, but any value stays.
      mask: bool, of the parameters' structure.

    Returns:
      (parameters, optimizer state) after the step.
    """
    weights, kept = plain(params), plain(mask)
    updates, state = optimizer.update(
        _zeroed(plain(grads), kept), plain(opt_state), _zeroed(weights, kept)
    )
    stepped = optax.apply_updates(weights, updates)
    # The optimizer was given zeros for pruned parameters, but these keep the values that they have:
    # a branch may freeze them elsewhere than at zero.
    stepped = jax.tree.map(jnp.where, kept, stepped, weights)
    return like(params, stepped), like(opt_state, state)


def mask_optimizer_state(
    optimizer: optax.GradientTransformation, opt_state: optax.OptState, mask: PyTree
) -> optax.OptState:
    """Returns `opt_state` with zeros at pruned weights in every leaf shaped like the parameters.

    What an optimizer keeps of a parameter in another shape, such as Adafactor its rows' and
    columns' means, stays as it is.
    """

    def masked(leaf: Any, m: Any) -> Any:
        return jnp.where(m, leaf, jnp.zeros_like(leaf)) if jnp.shape(leaf) == m.shape else leaf

    zeroed = map_optimizer_state(optimizer, masked, plain(opt_state), plain(mask))
    return like(opt_state, zeroed)


def map_optimizer_state(
    optimizer: optax.GradientTransformation,
    function: Callable[..., Any],
    opt_state: optax.OptState,
    *rest: PyTree,
) -> optax.OptState:
    """Returns `opt_state` with `function(leaf, *rest)` of each leaf that belongs to a parameter.

    Args:
      optimizer: whose state it is; parts of it may be for some of the parameters alone
        (`optax.masked`, `optax.multi_transform`).
      function: of such a leaf, and of those of `rest` at its parameter.
      opt_state: the state.
      rest: pytrees of the parameters' structure.
    """

    def absent(leaf: Any) -> bool:
        return isinstance(leaf, optax.MaskedNode)

    def mapped(leaf: Any, *others: Any) -> Any:
        return leaf if absent(leaf) else function(leaf, *others)

    return optax.tree_map_params(optimizer, mapped, opt_state, *rest, is_leaf=absent)
