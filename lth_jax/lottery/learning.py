"""Branches whose mask is learned: what trains instead of weights, and what network it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from lth_jax.config.own_fields import taken
from lth_jax.lottery.branches import distributed
from lth_jax.lottery.start_points import BranchPoint, StartPoint
from lth_jax.pruning.learning import LEARNED_MASKS
from lth_jax.pruning.masks import ones_mask, with_leaves
from lth_jax.pruning.trees import PyTree, map_named, named_leaves
from lth_jax.training.optimizers import at_update
from lth_jax.training.parameterization import Learned, ScoredForm
from lth_jax.training.states import TrainState


class Learning(NamedTuple):
    """How the mask of a run is learned.

    Attributes:
      constants: of its form.
      scores: name of a scored leaf -> its scores at the start.
      step: at which it starts.
    """

    constants: Learned
    scores: Mapping[str, Array]
    step: int

    @property
    def form(self) -> ScoredForm:
        """The form in which the run is trained."""
        return ScoredForm(self.constants)

    @property
    def kept(self) -> int:
        """How many weights its network has."""
        return sum(map(int, self.constants.kept.values()))

    def start(self, state: TrainState, optimizer: optax.GradientTransformation) -> TrainState:
        """Returns the state that training starts from, made of that of the weights.

        The optimizer begins anew, at its place in the schedule: it has known no scores.
        """
        trains_weights = LEARNED_MASKS[self.constants.rule].trains_weights

        def leaf(name: str, weights: Array) -> Array:
            if name not in self.scores:
                return weights
            scores = self.scores[name]
            return jnp.stack([weights, scores]) if trains_weights else scores

        params = map_named(leaf, state.params)
        opt_state = at_update(optimizer.init(params), self.step)
        return state._replace(params=params, opt_state=opt_state)

    def network(self, state: TrainState) -> tuple[TrainState, PyTree]:
        """Returns a state with weights in place of scores, and the mask that these come to."""
        masks, weights = _measured(self.constants, state.params)
        params = with_leaves(state.params, weights)
        mask = with_leaves(ones_mask(params), masks)
        # What the optimizer knows is of scores.
        return state._replace(params=params, opt_state=()), mask


@jax.jit
def _measured(constants: Learned, params: PyTree) -> tuple[dict[str, Array], dict[str, Array]]:
    """Returns the masks of the scored leaves, and their weights."""
    leaves = named_leaves(params)
    found = {name: constants.measured(name, leaves[name]) for name in constants.kept}
    return {n: mask for n, (mask, _) in found.items()}, {n: w for n, (_, w) in found.items()}


def learning_of(
    at: BranchPoint, start: StartPoint, key: Key[Array, ""], *, last: int, custom: Mapping[str, Any]
) -> Learning | None:
    """Returns how the mask of a branch's run is learned, None where it is not.

    Args:
      at: what the branch starts from; its options have the kind filled in.
      start: where the run starts, with every weight.
      key: of where scores begin, and of what training draws.
      last: the step at which it ends.
      custom: the user's own fields, of which the rule gets those that it takes.
    """
    rule = at.options.kind
    if rule not in LEARNED_MASKS:
        return None
    row, leaves = LEARNED_MASKS[rule], named_leaves(start.state.params)
    kept = {name: jnp.asarray(count, jnp.int32) for name, count in distributed(at).items()}
    weights = {name: leaves[name] for name in kept}
    if at.options.weights == "signed_constant":
        first = named_leaves(at.initial)
        weights = {n: jnp.sign(w) * jnp.std(first[n]) for n, w in weights.items()}
    begin_key, own_key = jax.random.split(key)
    keys = dict(zip(kept, jax.random.split(begin_key, len(kept)), strict=True))
    return Learning(
        Learned(
            weights={} if row.trains_weights else weights,
            kept=kept,
            key=own_key,
            step=jnp.asarray(start.step, jnp.int32),
            last=jnp.asarray(last, jnp.int32),
            rule=rule,
            of_network=tuple(taken(row.network, custom, given=1).items()),
            of_scale=tuple(taken(row.scale, custom, given=2).items()),
        ),
        {name: row.begin(keys[name], weights[name], kept[name]) for name in kept},
        start.step,
    )
