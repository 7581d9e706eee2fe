"""Criteria: importance scores of weights, higher = keep.

A criterion is a pure function of a `Scoring`; it changes no state. To add one: the function, a row
in `CRITERIA`, a golden value in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lth_jax.trees import PyTree


class Scoring(NamedTuple):
    """What a criterion may look at.

    Attributes:
      final: parameters of the last step of the level before.
      initial: parameters at initialization.
      key: a key of its own for (seed, replicate, level).
    """

    final: PyTree
    initial: PyTree
    key: jax.Array


Criterion = Callable[[Scoring], PyTree]


def magnitude(scoring: Scoring) -> PyTree:
    """|w| of the trained weights (Frankle & Carbin 2019, §2; `large_final` of Zhou et al. 2019)."""
    return jax.tree.map(jnp.abs, scoring.final)


def random(scoring: Scoring) -> PyTree:
    """Uniform in [0, 1), float32, whatever the weights are: the control of a criterion."""
    leaves, structure = jax.tree.flatten(scoring.final)
    keys = jax.random.split(scoring.key, len(leaves))
    draws = [jax.random.uniform(k, jnp.shape(w)) for k, w in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, draws)


CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude,
    "random": random,
}
