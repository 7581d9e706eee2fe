"""The boundary of the core: a model is a pair of pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax

from lth_jax.native.dispatch import intercept

PyTree = Any

Variables = Mapping[str, PyTree]


class Model(NamedTuple):
    """A network as two pure functions.

    Attributes:
      init: (key, x) -> variables: `{"params": …}` and further collections such as `batch_stats`.
      apply: (variables, x, train, rngs) -> (outputs, new_state). `x` is float [batch, height,
        width, channels], and outputs are logits [batch, classes]; for other datasets and tasks
        they are what these say. `new_state` holds the collections besides `params`, changed only
        where `train` is True.
    """

    init: Callable[[jax.Array, jax.Array], Variables]
    apply: Callable[[Variables, jax.Array, bool, dict[str, jax.Array]], tuple[jax.Array, PyTree]]


def from_linen(module: nn.Module) -> Model:
    """Returns the pair of functions of a Flax Linen module whose `__call__` takes `(x, train)`.

    Its layers are computed as `native.dispatch` says: at least, the gradients of its convolutions
    are fast inside a compiled loop.
    """

    def init(key: jax.Array, x: jax.Array) -> Variables:
        with nn.intercept_methods(intercept):
            return module.init(key, x, train=False)

    def apply(
        variables: Variables, x: jax.Array, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[jax.Array, PyTree]:
        state = {name: tree for name, tree in variables.items() if name != "params"}
        with nn.intercept_methods(intercept):
            if not train or not state:
                return cast(jax.Array, module.apply(variables, x, train=train, rngs=rngs)), state
            return cast(
                tuple[jax.Array, PyTree],
                module.apply(variables, x, train=train, rngs=rngs, mutable=list(state)),
            )

    return Model(init, apply)
