"""Branches whose mask moves while they train: when, by which rule, and what becomes of a run then.

Between two pieces of the compiled loop a run is brought to its dense form, its rule is called
(`pruning.moving`), and it goes on in the form of the new mask. Nothing of that depends on where
pieces end or on a resume: a move at step t is of the state after t updates, and happens when update
t is about to be taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from lth_jax.config import BranchSpec, duration_steps
from lth_jax.config.own_fields import with_fields
from lth_jax.lottery.branches import distributed
from lth_jax.lottery.start_points import BranchPoint, StartPoint
from lth_jax.pruning.masks import apply_mask, exact, kept_counts
from lth_jax.pruning.moving import MASK_RULES, Course, MaskRule, Move, next_move
from lth_jax.pruning.trees import PyTree, count_true, named_leaves
from lth_jax.training.states import EarlyStop, LoopState, TrainState, new_loop_state, rewind

# The kinds of branches that start with every weight, as rules need it that prune as they train.
DENSE_STARTS = ("dense", "gmp", "ac_dc")


def rule_name(branch: BranchSpec) -> str:
    """Returns the rule by which masks of a branch move, its kind filled in; '' where they stay."""
    name = branch.rule or (branch.kind if branch.kind in MASK_RULES else "")
    return "" if name == "static" else name


class Moving(NamedTuple):
    """How the mask of a run moves.

    Attributes:
      rule: by which rule.
      course: when, and how many weights are kept.
      key: a typed key [] of its own; each move has one that is folded from it.
    """

    rule: MaskRule
    course: Course
    key: Key[Array, ""]

    def next_move(self, step: int) -> int | None:
        """Returns the first step from `step` on at which the mask moves, None for none."""
        return next_move(self.course, self.rule.starts_dense, step)

    def counts_to_come(self, sizes: Mapping[str, int]) -> dict[int, dict[str, int]]:
        """Returns for the step of each move how many weights each leaf keeps from then on.

        Empty where that is a constant.
        """
        counts, step, found = self.rule.counts, self.next_move(0), {}
        while counts and step is not None:
            found[step] = counts(self.course, sizes, step)
            step = self.next_move(step + 1)
        return found

    def masks(
        self, mask: PyTree, params: PyTree, gradients: PyTree | None, step: int
    ) -> tuple[PyTree, PyTree]:
        """Returns the next mask, and that of the weights that are updated: for most rules, it."""
        key = jax.random.fold_in(self.key, step)
        move = Move(mask, params, gradients, step, key, self.course)
        new = self.rule.move(move)
        return new, self.rule.trained(move) if self.rule.trained else new


def moving_of(
    at: BranchPoint,
    start: StartPoint,
    key: Key[Array, ""],
    *,
    last: int,
    steps_per_epoch: int,
    custom: Mapping[str, Any],
) -> Moving | None:
    """Returns how the mask of a branch's run moves, None where it stays.

    Args:
      at: what the branch starts from; its options have the kind filled in.
      start: where the run starts.
      key: of its moves.
      last: the step at which it ends.
      steps_per_epoch: of the trunk.
      custom: the user's own fields, of which a rule gets those that it takes.

    Raises:
      ValueError: the run starts too late for what the rule has to do, or with too few weights.
    """
    name = rule_name(at.options)
    if not name:
        return None
    rule, counts = MASK_RULES[name], kept_counts(start.mask, at.rates)
    kept = {leaf: some for leaf, (some, _) in counts.items()}
    if rule.starts_dense:
        if any(some < all_of_it for some, all_of_it in counts.values()):
            raise ValueError(f"rule {name} prunes; accepted: a branch that starts with all weights")
        kept = distributed(at)
    course = course_of(at.options, rule, kept, last, steps_per_epoch)
    if rule.starts_dense and start.step >= course.end:
        raise ValueError(
            f"its mask would be done at step {course.end}, and it starts at step {start.step}; "
            "accepted: an earlier rewind.step, or a later end"
        )
    return Moving(rule._replace(move=with_fields(rule.move, custom, given=1)), course, key)


def course_of(
    branch: BranchSpec, rule: MaskRule, kept: Mapping[str, int], last: int, steps_per_epoch: int
) -> Course:
    """Returns when a branch's masks move, in steps, of a run that ends at step `last`."""

    def share(own: float | None, default: float) -> int:
        return int(exact(default if own is None else own) * last)

    if branch.every is not None:
        every = duration_steps(branch.every, steps_per_epoch)
    elif isinstance(rule.every, Fraction):
        every = max(1, int(rule.every * last))
    else:
        every = rule.every
    return Course(
        kept=kept,
        begin=share(branch.begin, rule.begin),
        every=every,
        end=share(branch.end, rule.end),
        fraction=rule.fraction if branch.fraction is None else branch.fraction,
    )


class MaskCounts(NamedTuple):
    """Counts the weights of a mask from a step on, as `store.tables.MaskPoint` has them."""

    step: int
    kept: int
    dropped: int
    grown: int
    ever: int
    prunable: int


@dataclasses.dataclass
class MovingMask:
    """The mask of a run on its way.

    Attributes:
      moving: how it moves.
      mask: as it is now, bool, of the parameters' structure.
      trained: the weights that are updated: for most rules, those of the mask.
      ever: what was kept by any mask so far.
      best: the early stop as it was when the mask moved last, its parameters dense; None before
        the first one. It is of another mask than the state that the loop carries.
      best_mask: the mask that it was trained under.
      history: counts of it where the run starts, and at each move since.
    """

    moving: Moving
    mask: PyTree
    trained: PyTree
    ever: PyTree
    best: EarlyStop | None
    best_mask: PyTree
    history: list[MaskCounts]

    @classmethod
    def at_start(cls, moving: Moving, start: StartPoint) -> MovingMask:
        """Returns the mask of a run that begins."""
        mask = trained = start.mask
        if moving.rule.trained:
            _, trained = moving.masks(mask, start.state.params, None, start.step)
        first = _mask_counts(start.step, mask, mask, mask, moving.course.kept)
        return cls(moving, mask, trained, mask, None, mask, [first])

    def kept(self, dense: LoopState) -> dict[str, PyTree]:
        """Returns what a checkpoint keeps of it beside the run's state."""
        best_mask = self.best_mask if self.is_of_best(dense) else self.mask
        return {
            "mask": self.mask,
            "trained": self.trained,
            "ever": self.ever,
            "best_mask": best_mask,
        }

    def resumed(
        self, kept: Mapping[str, PyTree], best: EarlyStop, history: Sequence[MaskCounts]
    ) -> MovingMask:
        """Returns it as a checkpoint has it, `best` being the early stop there."""
        found = best if int(best.step) >= 0 else None
        return MovingMask(self.moving, **kept, best=found, history=list(history))

    def is_of_best(self, dense: LoopState) -> bool:
        """Returns whether `best` is the early stop of a state: nothing since is better."""
        return self.best is not None and int(self.best.step) == int(dense.best.step)

    def network(self, state: TrainState) -> TrainState:
        """Returns a run's dense state with the weights of its network alone."""
        return state._replace(params=apply_mask(state.params, self.mask))

    def with_best(self, dense: LoopState) -> LoopState:
        """Returns a dense state with the early stop that the run has, of whatever mask it was."""
        # What the loop carries of an earlier mask was brought to the form of a later one.
        return dense._replace(best=self.best) if self.is_of_best(dense) else dense

    def move(
        self, dense: LoopState, gradients: PyTree | None, step: int, optimizer: Any
    ) -> LoopState:
        """Moves the mask, and returns the run's state under it.

        Args:
          dense: the run's state, its parameters dense.
          gradients: for all weights, if the rule needs them.
          step: the updates behind it.
          optimizer: the run's.
        """
        if not self.is_of_best(dense):
            self.best = dense.best if int(dense.best.step) >= 0 else None
            self.best_mask = self.mask
        old = self.mask
        old_trained, params = self.trained, dense.state.params
        self.mask, self.trained = self.moving.masks(old, params, gradients, step)
        state, self.ever = _moved(
            dense.state, (old_trained, self.trained), (self.ever, self.mask), optimizer
        )
        names = self.moving.course.kept
        self.history.append(_mask_counts(step, old, self.mask, self.ever, names))
        if self.moving.rule.trained:  # weights outside of the mask keep their values
            state = state._replace(params=params)
        dense = dense._replace(state=state)
        if self.history[-1].dropped != self.history[-1].grown:
            # The early stop is that of a network with as many weights as the row says.
            self.best, self.best_mask = None, self.mask
            dense = dense._replace(best=new_loop_state(dense.state, 0).best)
        return dense


# One compiled call: eagerly, each leaf of each tree would be one.
@partial(jax.jit, static_argnames="optimizer")
def _moved(
    state: TrainState,
    trained: tuple[PyTree, PyTree],
    masks: tuple[PyTree, PyTree],
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, PyTree]:
    """Returns a state after a move, and what was ever kept; each pair is (before, after)."""
    # What was dropped becomes zero, what is grown begins there.
    both = jax.tree.map(jnp.logical_and, *trained)
    return rewind(state, both, optimizer), jax.tree.map(jnp.logical_or, *masks)


def _mask_counts(
    step: int, old: PyTree, new: PyTree, ever: PyTree, names: Iterable[str]
) -> MaskCounts:
    """Counts the weights of the leaves of these names, in the mask before and in the new one."""
    trees = [named_leaves(tree) for tree in (old, new, ever)]
    counts = [0] * 5
    for name in names:
        before, now, once = (np.asarray(tree[name]) for tree in trees)
        stayed, kept = count_true(before & now), count_true(now)
        found = kept, count_true(before) - stayed, kept - stayed, count_true(once), now.size
        counts = [sum(pair) for pair in zip(counts, found, strict=True)]
    return MaskCounts(step, *counts)
