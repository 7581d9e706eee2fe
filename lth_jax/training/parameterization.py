"""Parameterizations: the forms in which the training loop may hold a network's parameters.

Everything outside of the loop sees dense parameters, pytrees of whole arrays. Inside, a run may
hold them in another form: a pruned layer as the vector of its surviving weights, or, one day, the
scores of a mask that is learned. The loop knows nothing of a form but what `Parameterization` says.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax

from lth_jax.pruning.masks import map_optimizer_state
from lth_jax.pruning.trees import PyTree, map_named
from lth_jax.training.states import LoopState

# (constants, variables, x, train, rngs) -> (outputs, new_state): a network's `apply` for parameters
# in some form, which comes after the constants that this form needs.
Apply = Callable[[PyTree, PyTree, jax.Array, bool, dict[str, jax.Array]], tuple[jax.Array, PyTree]]


@runtime_checkable
class Parameterization(Protocol):
    """The form of one run's parameters. Leaves are known by their names, such as `fc1/kernel`.

    Methods take and give leaves on the host or the device; they are not traced.
    """

    @property
    def form(self) -> Hashable:
        """What the compiled program depends on: runs of one form can train in one group."""
        ...

    @property
    def constants(self) -> PyTree:
        """The arrays that `Apply` needs besides the parameters; training does not change them."""
        ...

    def mask(self, name: str, mask: Any) -> Any:
        """Returns the mask of a leaf in this form, bool, from the mask of the dense leaf."""
        ...

    def from_dense(self, name: str, leaf: Any) -> Any:
        """Returns a dense leaf in this form."""
        ...

    def to_dense(self, name: str, leaf: Any) -> Any:
        """Returns the dense leaf of one in this form: the inverse of `from_dense`."""
        ...


class Dense:
    """The form that changes nothing: whole arrays, pruned weights being zeros among them."""

    form: Hashable = ()
    constants: PyTree = ()

    def mask(self, name: str, mask: Any) -> Any:
        """Returns the mask as it is."""
        del name
        return mask

    def from_dense(self, name: str, leaf: Any) -> Any:
        """Returns the leaf as it is."""
        del name
        return leaf

    to_dense = from_dense


DENSE = Dense()


class Forward(NamedTuple):
    """The constants of `ForwardMasked`: the network's masks, of the parameters' structure."""

    mask: PyTree

    def network(self, params: PyTree) -> PyTree:
        """Returns the parameters that the network computes with; gradients reach all."""
        return jax.tree.map(_forward, params, self.mask)


@jax.custom_vjp
def _forward(w: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.where(mask, w, jnp.zeros_like(w))


_forward.defvjp(lambda w, mask: (_forward(w, mask), None), lambda _, gradient: (gradient, None))


class ForwardMasked(Dense):
    """The form whose network computes with a part of the weights alone, while more are trained.

    A weight outside of the network's mask keeps its value, and gets the gradient that it would have
    in the network (Jayakumar et al. 2020, §2.1). Which weights are updated is the loop's mask.

    Args:
      mask: of the network, bool, of the parameters' structure.
    """

    form: Hashable = ("forward masked",)

    def __init__(self, mask: PyTree):
        self.constants = Forward(mask)


def through_forms(apply: Apply) -> Apply:
    """Returns `apply` for runs whose form says what the network computes with, and all others."""

    def applied(constants: PyTree, variables: PyTree, *rest: Any) -> tuple[jax.Array, PyTree]:
        if isinstance(constants, Forward):
            variables = {**variables, "params": constants.network(variables["params"])}
            constants = DENSE.constants
        return apply(constants, variables, *rest)

    return applied


def dense_apply(apply: Callable[..., tuple[jax.Array, PyTree]]) -> Apply:
    """Returns `apply(variables, x, train, rngs)` as the loop calls it, for dense parameters."""
    return lambda _constants, *arguments: apply(*arguments)


def from_dense(
    state: LoopState, form: Parameterization, optimizer: optax.GradientTransformation
) -> LoopState:
    """Returns a run's dense state in `form`: parameters, those of its early stop, and moments."""
    return _map_params(state, form.from_dense, optimizer)._replace(constants=form.constants)


def to_dense(
    state: LoopState, form: Parameterization, optimizer: optax.GradientTransformation
) -> LoopState:
    """Returns the dense state of a run that is in `form`: the inverse of `from_dense`."""
    return _map_params(state, form.to_dense, optimizer)._replace(constants=())


def _map_params(
    run: LoopState, function: Callable[[str, Any], Any], optimizer: optax.GradientTransformation
) -> LoopState:
    """Returns the state with `function(name, leaf)` of each leaf shaped like a parameter."""
    names = map_named(lambda name, _: name, run.state.params)

    def leaf(value: Any, name: str) -> Any:
        return function(name, value)

    state = run.state._replace(
        params=jax.tree.map(leaf, run.state.params, names),
        opt_state=map_optimizer_state(optimizer, leaf, run.state.opt_state, names),
    )
    best = run.best._replace(params=jax.tree.map(leaf, run.best.params, names))
    return run._replace(state=state, best=best)
