"""Parameterizations: the forms in which the training loop may hold a network's parameters.

Everything outside of the loop sees dense parameters, pytrees of whole arrays. Inside, a run may
hold them in another form: a pruned layer as the vector of its surviving weights, or, one day, the
scores of a mask that is learned. The loop knows nothing of a form but what `Parameterization` says.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol, runtime_checkable

import jax
import optax

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
        opt_state=optax.tree_map_params(optimizer, leaf, run.state.opt_state, names),
    )
    best = run.best._replace(params=jax.tree.map(leaf, run.best.params, names))
    return run._replace(state=state, best=best)
