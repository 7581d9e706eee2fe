"""Scores that look at the network's gradients; they leave every state untouched."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lth_jax.pruning.trees import PyTree


class Probe(NamedTuple):
    """A network and the examples to probe it with.

    Attributes:
      apply: (variables, x, train, rngs) -> (logits, new_state), as a model has it.
      model_state: the collections besides the parameters, such as batch statistics.
      images: float32 [n, height, width, channels], as the network sees them.
      labels: int32 [n].
    """

    apply: Callable[..., tuple[jax.Array, PyTree]]
    model_state: PyTree
    images: jax.Array
    labels: jax.Array


def sensitivity(probe: Probe, params: PyTree, key: jax.Array) -> PyTree:
    """|g ⊙ w|, g the gradient of the mean cross-entropy over the probe's examples."""
    return _sensitivity(probe.apply, params, *probe[1:], key)


def gradient_flow(probe: Probe, params: PyTree, key: jax.Array, temperature: float) -> PyTree:
    """w ⊙ Hg, of the mean cross-entropy of logits / `temperature`."""
    return _gradient_flow(probe.apply, params, *probe[1:], key, temperature)


def synaptic_flow(probe: Probe, params: PyTree) -> PyTree:
    """|∂R/∂w ⊙ w| where R sums the logits of an input of ones.

    Every parameter and statistic is replaced by its magnitude, and the network is in evaluation
    mode, so that R is a sum over paths of products of magnitudes.
    """
    return _synaptic_flow(probe.apply, params, probe.model_state, probe.images[:1])


@partial(jax.jit, static_argnums=0)
def _sensitivity(apply, params, model_state, images, labels, key):
    loss = partial(_loss, apply, model_state, images, labels, key, 1.0)
    return jax.tree.map(lambda g, w: jnp.abs(g * w), jax.grad(loss)(params), params)


@partial(jax.jit, static_argnums=0)
def _gradient_flow(apply, params, model_state, images, labels, key, temperature):
    gradient = jax.grad(partial(_loss, apply, model_state, images, labels, key, temperature))
    g = gradient(params)
    _, hessian_gradient = jax.jvp(gradient, (params,), (g,))
    return jax.tree.map(jnp.multiply, params, hessian_gradient)


@partial(jax.jit, static_argnums=0)
def _synaptic_flow(apply, params, model_state, example):
    state = jax.tree.map(jnp.abs, model_state)

    def flow(magnitudes):
        logits, _ = apply({"params": magnitudes, **state}, jnp.ones_like(example), False, {})
        return jnp.sum(logits)

    magnitudes = jax.tree.map(jnp.abs, params)
    return jax.tree.map(lambda g, w: jnp.abs(g * w), jax.grad(flow)(magnitudes), magnitudes)


def _loss(apply, model_state, images, labels, key, temperature, params):
    """Mean cross-entropy in training mode; the state that it would change is dropped."""
    logits, _ = apply({"params": params, **model_state}, images, True, {"dropout": key})
    losses = optax.softmax_cross_entropy_with_integer_labels(logits / temperature, labels)
    return jnp.mean(losses)
