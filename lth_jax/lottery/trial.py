"""Trials of a user's own rows before anything is trained: what is wrong with one is said in time.

The package's own rows are not tried: their tests do that. What can be tried without data is among
the `checks`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp

from lth_jax.config import BranchSpec
from lth_jax.config.own_fields import with_fields
from lth_jax.errors import SpecError, in_one_line
from lth_jax.lottery.branches import start_of, waits_for_ticket
from lth_jax.lottery.custom import is_own
from lth_jax.lottery.experiment import Experiment
from lth_jax.lottery.moving import course_of
from lth_jax.lottery.start_points import (
    BranchPoint,
    StartPoint,
    difference,
    none_donated,
    none_drawn,
)
from lth_jax.pruning.granularity import granularity_of
from lth_jax.pruning.learning import LEARNED_MASKS, Layer, LearnedMask
from lth_jax.pruning.masks import kept_counts, ones_mask
from lth_jax.pruning.moving import MASK_RULES, Move
from lth_jax.pruning.structured import prune_by
from lth_jax.pruning.trees import named_leaves
from lth_jax.training import keys
from lth_jax.training.states import TrainState, rewind


def try_rows(e: Experiment) -> None:
    """Calls the user's own criteria, rules and functions of branches, for a network at its start.

    Raises:
      SpecError: one fails, or gives what has other shapes than it should.
    """
    branches = {name: e.spec.branch_spec(name) for name in e.spec.branches if e.spec.levels}
    own = {name: branch for name, branch in branches.items() if is_own("BRANCHES", branch.kind)}
    rules = sorted({one.rule for one in branches.values() if one.rule})
    used = {e.spec.pruning.criterion, *(one.criterion for one in branches.values())} - {None}
    criteria = sorted(str(name) for name in used if is_own("CRITERIA", str(name)))
    rules = [name for name in rules if is_own("MASK_RULES", name)]
    learned = {n: b for n, b in own.items() if b.kind in LEARNED_MASKS}
    if not own and not criteria and not rules:
        return
    point = e.initial(0)
    for name in rules:
        with in_one_line(f"MASK_RULES['{name}']"):
            _try_rule(e, name, point)
    for name in criteria:
        with in_one_line(f"CRITERIA['{name}']"):
            pruning = dataclasses.replace(e.spec.pruning, criterion=name)
            scores = e.scores(point, point.params, jax.random.key(0), pruning)
            if found := difference(scores(ones_mask(point.params)), point.params, dtypes=False):
                raise SpecError(f"its scores are not shaped like the parameters: {found}")
    for name, branch in learned.items():
        with in_one_line(f"LEARNED_MASKS['{branch.kind}']"):
            _try_learned_mask(e, name, point)
    if own:
        _try_branches(e, own, point)


def _try_rule(e: Experiment, name: str, point: TrainState) -> None:
    """Calls a rule as its first move does, for a mask by the weights' magnitudes."""
    magnitudes = jax.tree.map(jnp.abs, point.params)
    granularity = e.channels or granularity_of(e.spec.pruning.granularity)
    mask = prune_by(granularity, magnitudes, ones_mask(point.params), e.targets[1])
    kept = {leaf: some for leaf, (some, _) in kept_counts(mask, e.rates).items()}
    rule, params = MASK_RULES[name], rewind(point, mask, e.optimizer).params
    for branch in e.spec.branches:
        options = e.spec.branch_spec(branch)
        if options.rule == name:
            course = course_of(options, rule, kept, e.steps, e.steps_per_epoch)
            move = with_fields(rule.move, e.spec.under(branch).custom, given=1)
            given = params if rule.needs_gradients else None
            found = move(Move(mask, params, given, 1, jax.random.key(0), course))
            if wrong := difference(found, mask):
                raise SpecError(f"its mask is not shaped like the one before: {wrong}")


def _try_learned_mask(e: Experiment, branch: str, point: TrainState) -> None:
    """Calls the functions of a learned mask as a step of training does, layer by layer."""
    row, custom = LEARNED_MASKS[e.spec.branch_spec(branch).kind], e.spec.under(branch).custom
    of_network, of_scale = (
        with_fields(function, custom, given=given)
        for function, given in ((row.network, 1), (row.scale, 2))
    )
    key, kept = jax.random.key(0), jnp.asarray(1, jnp.int32)

    def tried(weights: jax.Array) -> tuple[jax.Array, ...]:
        scores = row.begin(key, weights, kept)
        seen = of_network(Layer(scores, weights, kept, key, jnp.zeros(())))
        return scores, seen, row.rank(scores), weights * of_scale(weights.size, kept)

    for name, weights in named_leaves(point.params).items():
        if name in e.rates:
            for part, found in zip(
                LearnedMask._fields, jax.eval_shape(tried, weights), strict=False
            ):
                if wrong := difference({name: found}, {name: weights}):
                    raise SpecError(f"{part} is not shaped like the weights: {wrong}")


def _trained(kind: str, ticket: StartPoint) -> TrainState:
    if not waits_for_ticket(kind):
        raise SpecError("accepted: at.trained() in the body of the function itself, to be seen")
    return ticket.state


def _try_branches(e: Experiment, own: Mapping[str, BranchSpec], point: TrainState) -> None:
    """Calls the functions of branches as level 1 does, for a mask by the weights' magnitudes."""
    magnitudes = jax.tree.map(jnp.abs, point.params)
    granularity = e.channels or granularity_of(e.spec.pruning.granularity)
    mask = prune_by(granularity, magnitudes, ones_mask(point.params), e.targets[1])
    ticket = StartPoint(mask, rewind(point, mask, e.optimizer), e.rewind_step)
    for name, branch in own.items():
        at = BranchPoint(
            ticket=ticket,
            point=point,
            step=e.rewind_step,
            initial=point.params,
            rates=e.rates,
            optimizer=e.optimizer,
            fresh=e.fresh,
            dense_scores=lambda: magnitudes,
            ranking=lambda: ((lambda _mask: magnitudes), 1),
            pruned_from=lambda: point,
            steps_behind=lambda: e.steps,
            trained=partial(_trained, branch.kind, ticket),
            donated=none_donated,
            source=lambda: ticket,
            early_bird=none_drawn,
            granularity=granularity,
            options=branch,
            key=keys.branch_key(e.spec.seed, name, 0, 1, 0),
        )
        with in_one_line(f"BRANCHES['{branch.kind}']"):
            start_of(branch.kind, at, e.spec.under(name).custom)
