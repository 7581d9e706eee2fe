"""A mask in Optax's own form: an optimizer whose state holds it, for training loops of any kind."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lth_jax.pruning.masks import apply_mask, mask_optimizer_state, ones_mask
from lth_jax.pruning.trees import PyTree, like, plain


class MaskedState(NamedTuple):
    """The state of a `masked` optimizer.

    Attributes:
      mask: bool, of the parameters' structure; True = kept.
      inner_state: the state of the optimizer within.
    """

    mask: PyTree
    inner_state: optax.OptState


def masked(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Returns `optimizer` such that pruned weights keep their value exactly.

    It takes `optimizer`'s place wherever Optax's transformations go, as in Flax's `TrainState` and
    `nnx.Optimizer`. The mask is in its state, all True at first: `set_mask` puts another there,
    which compiles nothing again. An update does what `masked_step` does: gradients and parameters
    are masked before the optimizer, so that moments, norms and weight decay see live weights alone;
    then what it would do to pruned weights is left out.

    `optax.masked` is another thing: it lets whole leaves by, unchanged.

    Args:
      optimizer: any Optax transformation, a chain with clipping and weight decay among them. What
        is to see live weights alone must stand within.

    Returns:
      A transformation with a `MaskedState`. Its `update` needs the parameters (ValueError without),
      and passes extra arguments on.
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> MaskedState:
        return MaskedState(ones_mask(params), inner.init(params))

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        if params is None:
            raise ValueError("a masked optimizer's update needs the parameters: update(…, params)")
        assert isinstance(state, MaskedState)
        mask = state.mask
        updates, inner_state = inner.update(
            apply_mask(updates, mask), state.inner_state, apply_mask(params, mask), **extra_args
        )
        # A negative zero: added to a pruned weight it gives that weight, were it -0.0.
        updates = jax.tree.map(lambda m, u: jnp.where(m, u, jnp.full_like(u, -0.0)), mask, updates)
        return updates, MaskedState(mask, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def set_mask(
    optimizer: optax.GradientTransformation, opt_state: optax.OptState, mask: PyTree
) -> optax.OptState:
    """Returns the state of a `masked` optimizer with another mask; compiled steps go on with it.

    Moments of pruned weights are set to zero. The parameters are the caller's to mask:
    `apply_mask(params, mask)`.

    Args:
      optimizer: the transformation, `masked` or one that has such within, as a chain may.
      opt_state: its state, that of an `nnx.Optimizer` too; not changed.
      mask: bool, of the parameters' structure. It is copied: the state may be donated.

    Raises:
      ValueError: no optimizer in it is `masked`, or the mask is not of its parameters' structure.
    """
    new = jax.tree.map(lambda leaf: jnp.array(leaf, bool), plain(mask))
    found = []

    def replace(node: Any) -> Any:
        if not isinstance(node, MaskedState):
            return node
        found.append(node)
        shapes, needed = (jax.tree.map(jnp.shape, tree) for tree in (new, node.mask))
        if shapes != needed:
            raise ValueError("set_mask: the mask is not of the optimized parameters' structure")
        return node._replace(mask=new)

    state = jax.tree.map(replace, plain(opt_state), is_leaf=lambda x: isinstance(x, MaskedState))
    if not found:
        raise ValueError("set_mask: no optimizer in this state is lth_jax.masked(optimizer)")
    return like(opt_state, mask_optimizer_state(optimizer, state, new))
