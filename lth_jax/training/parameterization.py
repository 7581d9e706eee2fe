"""Parameterizations: the forms in which the training loop may hold a network's parameters.

Everything outside of the loop sees dense parameters, pytrees of whole arrays. Inside, a run may
hold them in another form: a pruned layer as the vector of its surviving weights, or the scores of a
mask that is learned. The loop knows nothing of a form but what `Parameterization` says.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax

from lth_jax.pruning.learning import LEARNED_MASKS, Layer
from lth_jax.pruning.masks import map_optimizer_state
from lth_jax.pruning.selection import keep_highest
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

    def state_from_dense(self, name: str, leaf: Any) -> Any:
        """Returns in this form a dense leaf of the model's other collections, such as statistics.

        Its name begins with the collection's: `batch_stats/norm1/mean`.
        """
        ...

    def state_to_dense(self, name: str, leaf: Any) -> Any:
        """Returns the dense leaf of one of the model's other collections."""
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

    to_dense = state_from_dense = state_to_dense = from_dense


DENSE = Dense()


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Widths:
    """The constants of a narrow network: they tell its program from those of other widths.

    Attributes:
      left: group of channels -> how many are left, as pairs.
    """

    left: tuple[tuple[str, int], ...]


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


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("weights", "kept", "key", "step", "last"),
    meta_fields=("rule", "of_network", "of_scale"),
)
@dataclasses.dataclass(frozen=True)
class Learned:
    """The constants of `ScoredForm`.

    Attributes:
      weights: name of a scored leaf -> its weights, where these are not trained.
      kept: name of a scored leaf -> int32 [], how many weights it keeps.
      key: a typed key [] of the run.
      step: int32 [], the updates behind the network.
      last: int32 [], the step at which training ends.
      rule: a row of `LEARNED_MASKS`.
      of_network, of_scale: the own fields that its two functions take, as pairs.
    """

    weights: Mapping[str, jax.Array]
    kept: Mapping[str, jax.Array]
    key: jax.Array
    step: jax.Array
    last: jax.Array
    rule: str
    of_network: tuple[tuple[str, Any], ...] = ()
    of_scale: tuple[tuple[str, Any], ...] = ()

    def network(self, params: PyTree, train: bool) -> PyTree:
        """Returns the parameters that the network computes with: those of its mask, to measure."""

        def leaf(name: str, leaf: jax.Array) -> jax.Array:
            if name not in self.kept:
                return leaf
            if not train:
                return self.measured(name, leaf)[1]
            key = jax.random.fold_in(self.key, zlib.crc32(name.encode()))
            progress = self.step.astype(jnp.float32) / self.last
            layer = Layer(
                *self._parts(name, leaf), self.kept[name], jax.random.fold_in(key, self.step),
                progress,
            )  # fmt: skip
            return LEARNED_MASKS[self.rule].network(layer, **dict(self.of_network))

        return map_named(leaf, params)

    def measured(self, name: str, leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns a scored leaf's mask, bool, and its weights with zeros outside of it."""
        row, kept = LEARNED_MASKS[self.rule], self.kept[name]
        scores, weights = self._parts(name, leaf)
        mask = keep_highest(row.rank(scores), kept)
        scale = row.scale(mask.size, kept, **dict(self.of_scale))
        return mask, jnp.where(mask, weights * scale, 0).astype(weights.dtype)

    def _parts(self, name: str, leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns a scored leaf's scores and weights."""
        if LEARNED_MASKS[self.rule].trains_weights:
            return leaf[1], leaf[0]
        return leaf, self.weights[name]


class ScoredForm(Dense):
    """The form in which the scores of a mask are trained in place of the weights, or beside them.

    A scored leaf is its scores; where weights are trained too, both, stacked on a first axis: the
    weights, then the scores. What is dense about it is that checkpoints hold it as it is.

    Args:
      constants: of the run.
    """

    def __init__(self, constants: Learned):
        self.constants = constants
        self.form = "scored", constants.rule, constants.of_network, constants.of_scale

    def mask(self, name: str, mask: Any) -> Any:
        """Returns which numbers are trained: a scored leaf's all, others' if weights are."""
        trains_weights = LEARNED_MASKS[self.constants.rule].trains_weights
        if name not in self.constants.kept:
            return jnp.full(jnp.shape(mask), trains_weights)
        return jnp.ones((2, *jnp.shape(mask)) if trains_weights else jnp.shape(mask), bool)


def at_step(constants: PyTree, step: jax.Array) -> PyTree:
    """Returns the constants of a form whose network in training is another at each step."""
    if not isinstance(constants, Learned):
        return constants
    return dataclasses.replace(constants, step=step)


def through_forms(apply: Apply) -> Apply:
    """Returns `apply` for runs whose form says what the network computes with, and all others."""

    def applied(constants: PyTree, variables: PyTree, *rest: Any) -> tuple[jax.Array, PyTree]:
        if isinstance(constants, Forward):
            variables = {**variables, "params": constants.network(variables["params"])}
            constants = DENSE.constants
        if isinstance(constants, Widths):  # layers are as wide as what they are given
            constants = DENSE.constants
        if isinstance(constants, Learned):
            params = constants.network(variables["params"], rest[1])
            variables, constants = {**variables, "params": params}, DENSE.constants
        return apply(constants, variables, *rest)

    return applied


def dense_apply(apply: Callable[..., tuple[jax.Array, PyTree]]) -> Apply:
    """Returns `apply(variables, x, train, rngs)` as the loop calls it, for dense parameters."""
    return lambda _constants, *arguments: apply(*arguments)


def from_dense(
    state: LoopState, form: Parameterization, optimizer: optax.GradientTransformation
) -> LoopState:
    """Returns a run's dense state in `form`: parameters, those of its early stop, and moments."""
    found = _map_leaves(state, form.from_dense, form.state_from_dense, optimizer)
    return found._replace(constants=form.constants)


def to_dense(
    state: LoopState, form: Parameterization, optimizer: optax.GradientTransformation
) -> LoopState:
    """Returns the dense state of a run that is in `form`: the inverse of `from_dense`."""
    found = _map_leaves(state, form.to_dense, form.state_to_dense, optimizer)
    return found._replace(constants=())


def _map_leaves(
    run: LoopState,
    function: Callable[[str, Any], Any],
    of_state: Callable[[str, Any], Any],
    optimizer: optax.GradientTransformation,
) -> LoopState:
    """Returns the state with `function(name, leaf)` of each leaf shaped like a parameter.

    `of_state` is applied to the leaves of the model's other collections.
    """
    names = map_named(lambda name, _: name, run.state.params)

    def leaf(value: Any, name: str) -> Any:
        return function(name, value)

    state = run.state._replace(
        params=jax.tree.map(leaf, run.state.params, names),
        model_state=map_named(of_state, run.state.model_state),
        opt_state=map_optimizer_state(optimizer, leaf, run.state.opt_state, names),
    )
    best = run.best._replace(
        params=jax.tree.map(leaf, run.best.params, names),
        model_state=map_named(of_state, run.best.model_state),
    )
    return run._replace(state=state, best=best)
