"""Masks that are learned: scores are trained, and the highest of a layer say what it keeps.

A row of `LEARNED_MASKS` says where scores begin, what the network computes with while it trains,
and by what scores are ranked in the end. All of it is traced and pure, a layer at a time. Whenever
a network is measured, and in the end, a layer has exactly as many weights as it is to keep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lth_jax.pruning.selection import keep_highest
from lth_jax.pruning.trees import size

SPREAD = 0.01  # of scores that begin alike: ties would be broken by position
CORRECTIONS = 4  # of a threshold; in as many a layer of equal scores comes to its share exactly


class Layer(NamedTuple):
    """A layer of a network whose mask is learned, at a step.

    Attributes:
      scores: float32, of the layer's shape.
      weights: float32, of the same shape.
      kept: int32 [], how many weights it keeps in the end.
      key: a typed key [] of its own for the run, the layer and the step.
      progress: float32 [], the share of the training that is over, from 0 to 1.
    """

    scores: Float[Array, ...]
    weights: Float[Array, ...]
    kept: Int[Array, ""]
    key: Key[Array, ""]
    progress: Float[Array, ""]


class LearnedMask(NamedTuple):
    """A row of the registry.

    Attributes:
      begin: (key, weights, kept) -> the scores at the start.
      network: from a `Layer` to the weights that the network computes with in a step of training;
        the scores get their gradient through them. What it has beside it are own fields.
      rank: scores -> what the mask keeps the highest of.
      scale: (number of weights, kept) -> what kept weights are multiplied by when a network is
        measured, and in the end.
      trains_weights: whether weights are trained beside their scores, as biases and the like are
        then; if not, they stay what they were.
    """

    begin: Callable[[Key[Array, ""], Array, Array], Array]
    network: Callable[..., Array]
    rank: Callable[[Array], Array] = lambda scores: scores
    scale: Callable[..., Array | float] = lambda _size, _kept: 1.0
    trains_weights: bool = False


@jax.custom_jvp
def _straight_through(hard: Array, soft: Array) -> Array:
    """Returns `hard`, and gives the gradient to `soft` as if it were that."""
    del soft
    return hard


@_straight_through.defjvp
def _straight_through_jvp(primals: tuple, tangents: tuple) -> tuple:
    return _straight_through(*primals), tangents[1]


def edge_popup_begin(key: Key[Array, ""], weights: Array, kept: Array) -> Array:
    """Draws scores as Kaiming's uniform initialization does with a = √5: in ±1/√(inputs)."""
    del kept
    bound = (size(weights) // weights.shape[-1]) ** -0.5
    return jax.random.uniform(key, weights.shape, weights.dtype, -bound, bound)


def edge_popup(layer: Layer, rescale: bool = True) -> Array:
    """Keeps the weights of the largest |score|, with a straight-through gradient.

    A score gets the gradient that its weight would have, times the weight (Ramanujan et al. 2020,
    §3). With `rescale` what is kept has the variance that the layer had (their "scaled" Kaiming
    initialization).
    """
    soft = jnp.abs(layer.scores)
    hard = keep_highest(jax.lax.stop_gradient(soft), layer.kept).astype(layer.weights.dtype)
    scale = edge_popup_scale(size(hard), layer.kept, rescale)
    return layer.weights * _straight_through(hard, soft) * scale


def edge_popup_scale(total: int, kept: Array, rescale: bool = True) -> Array | float:
    """Returns the root of a layer's number of weights over that of its kept ones."""
    return jnp.sqrt(total / jnp.maximum(kept, 1)) if rescale else 1.0


def even_begin(key: Key[Array, ""], weights: Array, kept: Array) -> Array:
    """Begins with all scores alike, nearly."""
    del kept
    return jax.random.uniform(key, weights.shape, weights.dtype, -SPREAD, SPREAD)


def supermask(layer: Layer, rescale: bool = True) -> Array:
    """Draws each weight's place in the mask by its chance, a sigmoid (Zhou et al. 2019, §5).

    The gradient passes through the draw. With `rescale` the weights of a layer are multiplied by
    what their number is of the kept ones' (their "dynamic weight rescaling"). Theirs keep as many
    weights as come about; here chances add up to the layer's count, see `chances`.
    """
    chance = chances(layer.scores, layer.kept)
    hard = jax.random.bernoulli(layer.key, chance).astype(layer.weights.dtype)
    scale = supermask_scale(size(hard), layer.kept, rescale)
    return layer.weights * _straight_through(hard, chance) * scale


def supermask_scale(total: int, kept: Array, rescale: bool = True) -> Array | float:
    """Returns the number of a layer's weights over that of its kept ones."""
    return total / jnp.maximum(kept, 1) if rescale else 1.0


def continuous_sparsification(layer: Layer, temperature: float = 200.0) -> Array:
    """Multiplies weights by a sigmoid of β score, β growing from 1 (Savarese et al. 2020, §3).

    Both are trained. β is `temperature` to the power of the share of the training that is over.
    Where theirs punishes the sum of the sigmoids, here it is the layer's count, see `chances`.
    """
    beta = jnp.asarray(temperature, jnp.float32) ** layer.progress
    return layer.weights * chances(beta * layer.scores, layer.kept)


def chances(scores: Array, kept: Array) -> Array:
    """Returns sigmoid(score - t), t such that the chances add up to `kept`, nearly.

    So what a network trains with has as many weights as what is measured of it: those of the
    highest scores. No gradient passes through t.
    """
    share = jnp.clip(kept / size(scores), 1e-6, 1 - 1e-6).astype(scores.dtype)

    def odds(p: Array) -> Array:
        return jnp.log(p) - jnp.log1p(-p)

    def nearer(_: int, threshold: Array) -> Array:
        mean = jnp.mean(jax.nn.sigmoid(still - threshold))
        return threshold + odds(jnp.clip(mean, 1e-6, 1 - 1e-6)) - odds(share)

    # From the lowest score that is kept: where scores lie far apart, that is the threshold.
    still = jax.lax.stop_gradient(scores)
    lowest = jnp.min(jnp.where(keep_highest(still, kept), still, jnp.inf))
    lowest = jnp.where(jnp.isfinite(lowest), lowest, jnp.max(still))
    threshold = jax.lax.fori_loop(0, CORRECTIONS, nearer, lowest)
    return jax.nn.sigmoid(scores - threshold)


LEARNED_MASKS: dict[str, LearnedMask] = {
    "supermask": LearnedMask(even_begin, supermask, scale=supermask_scale),
    "edge_popup": LearnedMask(edge_popup_begin, edge_popup, rank=jnp.abs, scale=edge_popup_scale),
    "continuous_sparsification": LearnedMask(
        even_begin, continuous_sparsification, trains_weights=True
    ),
}
