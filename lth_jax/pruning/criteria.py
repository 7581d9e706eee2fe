"""Criteria: importance scores of weights, higher = keep.

A criterion is a pure function of a `Scoring`; it changes no state, so that a network is the same
before and after it is scored. To add one: the function, a row in `CRITERIA`, a golden value in the
tests.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, Shaped

from lth_jax.pruning.trees import PyTree, map_named


class Probe(NamedTuple):
    """A network, and the examples on which a criterion takes gradients.

    Attributes:
      apply: (variables, x, train, rngs) -> (outputs, new_state), as a model has it.
      model_state: the collections besides the parameters, such as batch statistics.
      inputs: [n, …], as the network sees them: images are float32 [n, height, width, channels].
      targets: int32 labels [n], or whatever the loss compares outputs with, [n, …].
      loss: (outputs, targets) -> float [n], the task's; a module's own function, since a program is
        compiled for each.
    """

    apply: Callable[..., tuple[jax.Array, PyTree]]
    model_state: PyTree
    inputs: Shaped[Array, "n ..."]
    targets: Shaped[Array, "n ..."]
    loss: Callable[[jax.Array, jax.Array], jax.Array] = (
        optax.softmax_cross_entropy_with_integer_labels
    )


class Scoring(NamedTuple):
    """What a criterion may look at. Parameters have zeros where the mask so far is False.

    Attributes:
      final: the parameters to be scored: those of the last step of the level before, or, for a
        criterion that scores at the rewind point, the rewound ones.
      initial: the parameters at the rewind point.
      key: a key of its own for (seed, replicate, level).
      probe: the network and a batch of training examples, for criteria that need gradients.
      alpha: the factor of the trained magnitude in `large_init_large_final`.
      temperature: what logits are divided by in `grasp`; 1 where outputs are no logits.
      train: whether gradients are those of training, with dropout and the batch's own statistics,
        or of evaluation; None is what the criterion's authors do.
      hessian_of: the names of the parameters whose Hessian `grasp` takes; None is all.
    """

    final: PyTree
    initial: PyTree
    key: Key[Array, ""]
    probe: Probe | None = None
    alpha: float = 1.0
    temperature: float = 200.0
    train: bool | None = None
    hessian_of: frozenset[str] | None = None


class Criterion(NamedTuple):
    """A row of the registry.

    Attributes:
      scores: from a `Scoring` to importances of the parameters' structure.
      at_rewind: whether it scores the network at the rewind point instead of the trained one.
      needs_training: whether it is void where the trained weights *are* the initial ones.
      needs_probe: whether it needs `Scoring.probe`.
      rounds: how many times a level scores and prunes, if the spec does not say.
    """

    scores: Callable[[Scoring], PyTree]
    at_rewind: bool = False
    needs_training: bool = False
    needs_probe: bool = False
    rounds: int = 1


def magnitude(scoring: Scoring) -> PyTree:
    """|w| of the trained weights (Frankle & Carbin 2019, §2; `large_final` of Zhou et al. 2019)."""
    return jax.tree.map(jnp.abs, scoring.final)


def random(scoring: Scoring) -> PyTree:
    """Uniform in [0, 1), float32, whatever the weights are: the control of a criterion."""
    leaves, structure = jax.tree.flatten(scoring.final)
    keys = jax.random.split(scoring.key, len(leaves))
    draws = [jax.random.uniform(k, jnp.shape(w)) for k, w in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, draws)


def small_final(scoring: Scoring) -> PyTree:
    """-|w| of the trained weights (Zhou et al. 2019, §3)."""
    return jax.tree.map(lambda w: -jnp.abs(w), scoring.final)


def large_init(scoring: Scoring) -> PyTree:
    """|w| of the initial weights (Zhou et al. 2019, §3)."""
    return jax.tree.map(jnp.abs, scoring.initial)


def small_init(scoring: Scoring) -> PyTree:
    """-|w| of the initial weights (Zhou et al. 2019, §3)."""
    return jax.tree.map(lambda w: -jnp.abs(w), scoring.initial)


def large_init_large_final(scoring: Scoring) -> PyTree:
    """min(α |w_final|, |w_initial|) (Zhou et al. 2019, §3)."""
    return _both(
        lambda final, initial: jnp.minimum(scoring.alpha * jnp.abs(final), jnp.abs(initial)),
        scoring,
    )


def magnitude_increase(scoring: Scoring) -> PyTree:
    """|w_final| - |w_initial| (Zhou et al. 2019, §3)."""
    return _both(lambda final, initial: jnp.abs(final) - jnp.abs(initial), scoring)


def movement(scoring: Scoring) -> PyTree:
    """|w_final - w_initial| (Zhou et al. 2019, §3)."""
    return _both(lambda final, initial: jnp.abs(final - initial), scoring)


def large_final_same_sign(scoring: Scoring) -> PyTree:
    """sign(w_initial) · w_final: |w_final|, negative where the sign flipped.

    Zhou et al. (2019, §3) cut the negative ones off at 0; left as they are, those that went
    furthest to the other side go first, instead of being tied.
    """
    return _both(lambda final, initial: jnp.sign(initial) * final, scoring)


def snip(scoring: Scoring) -> PyTree:
    """|g ⊙ w|: connection sensitivity (Lee et al. 2019, eq. 5, without its normalization).

    Its authors take the gradient in evaluation mode, as do Tanaka et al. (2020).
    """
    train = bool(scoring.train)
    return _sensitivity(*_probe(scoring), scoring.final, scoring.key, train=train)


def grasp(scoring: Scoring) -> PyTree:
    """+w ⊙ Hg, of the loss at a temperature (Wang et al. 2020, §4).

    The paper's S = -w ⊙ Hg marks what to *remove*; higher = keep turns its sign. Its authors take
    the gradient in training mode, and g and H of the prunable kernels alone: elsewhere g counts as
    0.
    """
    return _gradient_flow(
        *_probe(scoring),
        scoring.final,
        scoring.key,
        scoring.temperature,
        train=scoring.train is not False,
        of=scoring.hessian_of,
    )


def synflow(scoring: Scoring) -> PyTree:
    """|∂R/∂w ⊙ w|, R the summed logits of an input of ones (Tanaka et al. 2020, eq. 5).

    Every parameter and statistic is replaced by its magnitude, and the network is in evaluation
    mode, so that R is a sum over paths of products of magnitudes.
    """
    probe = _probe(scoring)
    return _synaptic_flow(probe.apply, probe.model_state, probe.inputs[:1], scoring.final)


def _both(function: Callable[[jax.Array, jax.Array], jax.Array], scoring: Scoring) -> PyTree:
    return jax.tree.map(function, scoring.final, scoring.initial)


def _probe(scoring: Scoring) -> Probe:
    if scoring.probe is None:
        raise ValueError("this criterion needs gradients: Scoring.probe is None")
    return scoring.probe


# Compiled once for a network: a function made anew in every call would be compiled in every level.


@partial(jax.jit, static_argnums=(0, 4), static_argnames="train")
def _sensitivity(apply, model_state, inputs, targets, loss_of, params, key, *, train):
    loss = partial(_loss, apply, model_state, inputs, targets, loss_of, key, train, 1.0)
    return jax.tree.map(lambda g, w: jnp.abs(g * w), jax.grad(loss)(params), params)


@partial(jax.jit, static_argnums=(0, 4), static_argnames=("train", "of"))
def _gradient_flow(
    apply, model_state, inputs, targets, loss_of, params, key, temperature, *, train, of
):
    probed = apply, model_state, inputs, targets, loss_of
    gradient = jax.grad(partial(_loss, *probed, key, train, temperature))
    g = gradient(params)
    if of is not None:
        # Hg along a direction that is 0 elsewhere is, in these rows, the Hessian of these alone.
        g = map_named(lambda name, leaf: leaf if name in of else jnp.zeros_like(leaf), g)
    _, hessian_gradient = jax.jvp(gradient, (params,), (g,))
    return jax.tree.map(jnp.multiply, params, hessian_gradient)


@partial(jax.jit, static_argnums=0)
def _synaptic_flow(apply, model_state, example, params):
    state = jax.tree.map(jnp.abs, model_state)

    def flow(magnitudes):
        logits, _ = apply({"params": magnitudes, **state}, jnp.ones_like(example), False, {})
        return jnp.sum(logits)

    magnitudes = jax.tree.map(jnp.abs, params)
    return jax.tree.map(lambda g, w: jnp.abs(g * w), jax.grad(flow)(magnitudes), magnitudes)


def _loss(apply, model_state, inputs, targets, loss_of, key, train, temperature, params):
    """Returns the mean loss; the state that it changes in training mode is dropped."""
    rngs = {"dropout": key} if train else {}
    outputs, _ = apply({"params": params, **model_state}, inputs, train, rngs)
    return jnp.mean(loss_of(outputs / temperature, targets))


CRITERIA: dict[str, Criterion] = {
    "magnitude": Criterion(magnitude),
    "random": Criterion(random),
    "small_final": Criterion(small_final),
    "large_init": Criterion(large_init),
    "small_init": Criterion(small_init),
    "large_init_large_final": Criterion(large_init_large_final, needs_training=True),
    "magnitude_increase": Criterion(magnitude_increase, needs_training=True),
    "movement": Criterion(movement, needs_training=True),
    "large_final_same_sign": Criterion(large_final_same_sign, needs_training=True),
    "snip": Criterion(snip, at_rewind=True, needs_probe=True),
    "grasp": Criterion(grasp, at_rewind=True, needs_probe=True),
    "synflow": Criterion(synflow, at_rewind=True, needs_probe=True, rounds=100),
}
