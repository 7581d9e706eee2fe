"""REPAIR: networks between two others, their hidden units brought back to life.

On the line between two networks units agree less, and their variance collapses layer by layer
(Jordan et al. 2023). So after each layer every unit is scaled and shifted, until its mean and its
standard deviation over examples lie where those of the two ends put them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lth_jax.models.preactivations import Apply, on_preactivations
from lth_jax.pruning.trees import PyTree


class Moments(NamedTuple):
    """The mean and the standard deviation of each unit of a layer, float [units]."""

    mean: Float[Array, " units"]
    std: Float[Array, " units"]


class Correction(NamedTuple):
    """What each unit of a layer is multiplied by, and what is added then; float [units]."""

    scale: Float[Array, " units"]
    shift: Float[Array, " units"]


def moments_of(
    apply: Apply, params: PyTree, model_state: PyTree, inputs: jax.Array
) -> dict[str, Moments]:
    """Returns the moments of every hidden layer's units on these inputs, as the network sees them.

    It is empty for a network whose layers are none of Linen's.
    """
    found: dict[str, Moments] = {}

    def look(name: str, out: jax.Array) -> jax.Array:
        found[name] = _moments(out)
        return out

    on_preactivations(apply, look)({"params": params, **model_state}, inputs, False, {})
    return found


def corrections(
    apply: Apply,
    params: PyTree,
    model_state: PyTree,
    wanted: dict[str, Moments],
    inputs: jax.Array,
) -> dict[str, Correction]:
    """Returns what gives each hidden layer the wanted moments on these inputs, layer after layer.

    A unit that is the same for all inputs has no deviation to be scaled, and is shifted alone.
    """
    found: dict[str, Correction] = {}

    def correct(name: str, out: jax.Array) -> jax.Array:
        now, aim = _moments(out), wanted[name]
        scale = jnp.where(now.std > 0, aim.std / jnp.where(now.std > 0, now.std, 1), 1)
        found[name] = Correction(scale, aim.mean - scale * now.mean)
        return _corrected(out, found[name])

    on_preactivations(apply, correct)({"params": params, **model_state}, inputs, False, {})
    return found


def repaired(apply: Apply, by_layer: dict[str, Correction]) -> Apply:
    """Returns a network whose hidden layers are corrected."""
    return on_preactivations(apply, lambda name, out: _corrected(out, by_layer[name]))


def _corrected(out: jax.Array, correction: Correction) -> jax.Array:
    scale, shift = (jnp.broadcast_to(part, out.shape) for part in correction)
    return (out * scale + shift).astype(out.dtype)


def _moments(out: jax.Array) -> Moments:
    axes = tuple(range(out.ndim - 1))
    wide = out.astype(jnp.promote_types(out.dtype, jnp.float32))
    return Moments(jnp.mean(wide, axes), jnp.std(wide, axes))
