"""One optimizer step under a mask, and the optimizer state under a new one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from lth_jax.pruning.masks import apply_mask
from lth_jax.pruning.trees import PyTree


def masked_step(
    optimizer: optax.GradientTransformation,
    grads: PyTree,
    opt_state: optax.OptState,
    params: PyTree,
    mask: PyTree,
) -> tuple[PyTree, optax.OptState]:
    """One update in which pruned weights keep their value exactly.

    Gradients are masked before the optimizer, so that its moments and norms see live weights
    alone; weight decay sees pruned weights as zeros; after it, `p = where(mask, p + u, p)`. With an
    all-True mask this is Optax's own step.

    Args:
      optimizer: any Optax transformation.
      grads: the loss's gradients, the parameters' structure.
      opt_state: the optimizer's state.
      params: the parameters; where `mask` is False usually 0.0, but any value stays as it is.
      mask: bool, the parameters' structure.

    Returns:
      (parameters, optimizer state) after the step.
    """
    updates, opt_state = optimizer.update(
        apply_mask(grads, mask), opt_state, apply_mask(params, mask)
    )
    stepped = optax.apply_updates(params, updates)
    return jax.tree.map(jnp.where, mask, stepped, params), opt_state


def mask_optimizer_state(
    optimizer: optax.GradientTransformation, opt_state: optax.OptState, mask: PyTree
) -> optax.OptState:
    """`opt_state` with zeros at pruned weights in every leaf shaped like the parameters."""
    return optax.tree_map_params(
        optimizer, lambda leaf, m: jnp.where(m, leaf, jnp.zeros_like(leaf)), opt_state, mask
    )
