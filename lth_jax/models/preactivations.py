"""What the hidden layers of a network give, before any nonlinearity: to be looked at or changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from lth_jax.models.base import PyTree, Variables

# (layer's name, its output [..., units]) -> what goes on instead.
Change = Callable[[str, jax.Array], jax.Array]
Apply = Callable[[Variables, jax.Array, bool, dict[str, jax.Array]], tuple[jax.Array, PyTree]]


def on_preactivations(apply: Apply, change: Change) -> Apply:
    """Returns a network in which `change` is put after every Dense and Conv of Linen but `output`.

    A network that is none of Linen's has no such layers, and stays as it is. Native code that
    computes a layer is not met: it is for what the model itself gives.
    """

    def intercept(
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        out, module = method(*args, **kwargs), context.module
        is_layer = isinstance(module, nn.Dense | nn.Conv) and context.method_name == "__call__"
        if not is_layer or module.path[-1:] == ("output",):
            return out
        return change("/".join(module.path), out)

    def changed(
        variables: Variables, x: jax.Array, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[jax.Array, PyTree]:
        with nn.intercept_methods(intercept):
            return apply(variables, x, train, rngs)

    return changed
