"""Branches: controls that start from one level's ticket.

A branch is a pure function of a `BranchPoint` that says where its run starts. To add one: the
function, a row in `BRANCHES`, a golden value; the conformance tests cover it by themselves.

Branches that draw or disturb weights do so to the ticket's rewound state, and train from its step;
`reinit` alone draws a whole new network, and trains it from step 0.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax.config import BranchSpec
from lth_jax.config.own_fields import with_fields
from lth_jax.errors import shown
from lth_jax.lottery.start_points import BranchPoint, StartPoint, difference
from lth_jax.lottery.weights import (
    constant_random_sign,
    flip_signs,
    freeze_pruned,
    late_magnitudes,
    late_signs,
    noise,
    reinit_from_ticket,
    reshuffle,
    shuffle_filters,
    signed_constant,
    signs_of,
)
from lth_jax.pruning.channels import Channels
from lth_jax.pruning.drawing import draw_mask, keep_as_many, uniform_scores
from lth_jax.pruning.granularity import WEIGHT
from lth_jax.pruning.learning import LEARNED_MASKS
from lth_jax.pruning.masks import kept_counts, ones_mask, with_leaves
from lth_jax.pruning.moving import MASK_RULES
from lth_jax.pruning.schedules import DISTRIBUTIONS, RATIOS
from lth_jax.pruning.selection import prune_to
from lth_jax.pruning.structured import counts_by, prune_by
from lth_jax.pruning.trees import PyTree, named_leaves
from lth_jax.training.optimizers import at_update
from lth_jax.training.states import TrainState, rewind


def reinit(at: BranchPoint) -> StartPoint:
    """Keeps the ticket's mask and draws fresh random weights (Frankle & Carbin 2019, §2).

    It trains from step 0 for the whole schedule, whatever the rewind step: a network drawn at
    random has no early training to rewind to.
    """
    mask = at.ticket.mask
    return StartPoint(mask, rewind(at.fresh(at.key), mask, at.optimizer), 0)


def random_mask(at: BranchPoint) -> StartPoint:
    """Puts the rewind point under a random mask that keeps the ticket's count in each layer.

    It is random at the granularity at which the ticket was pruned.
    """
    mask = draw_mask(at.key, at.ticket.mask, at.rates, at.granularity)
    return StartPoint(mask, rewind(at.point, mask, at.optimizer), at.step)


def one_shot(at: BranchPoint) -> StartPoint:
    """Prunes the dense network once, to the ticket's count in each layer, and rewinds it."""
    mask = keep_as_many(at.ticket.mask, at.dense_scores(), at.rates, at.granularity)
    return StartPoint(mask, rewind(at.point, mask, at.optimizer), at.step)


def prune(at: BranchPoint) -> StartPoint:
    """Prunes by a criterion of its own to as many weights as the ticket has, and rewinds.

    So SNIP, say, stands beside the ticket at the same counts. What is pruned is the dense network
    that the criterion scores: the rewind point or the trained one. An `ablation` takes away what
    the criterion found, and leaves how much of each layer it keeps (Frankle et al. 2021, §5).
    """
    (scores, rounds), options, full = at.ranking(), at.options, ones_mask(at.ticket.mask)
    granularity = at.granularity
    # Counts of its own need not be those of whole blocks.
    if options.scope != "layerwise" and not isinstance(granularity, Channels):
        granularity = WEIGHT
    wanted = counts_by(granularity, at.ticket.mask, at.rates)
    counts = {name: kept for (name,), kept in wanted.items()}
    if options.scope in RATIOS:
        shapes = {name: leaf.shape for name, leaf in named_leaves(full).items() if name in counts}
        own = RATIOS[options.scope](shapes, sum(counts.values()))
        wanted = {(name,): kept for name, kept in own.items()}
    elif options.scope == "global":
        wanted = {tuple(counts): sum(counts.values())}
    inverted = options.ablation == "invert"
    mask = prune_by(granularity, scores, full, wanted, rounds=rounds, invert=inverted)
    if options.ablation == "shuffle":
        mask = draw_mask(at.key, mask, at.rates, granularity)
    if options.ablation == "reinit":
        return StartPoint(mask, rewind(at.fresh(at.key), mask, at.optimizer), 0)
    return StartPoint(mask, rewind(at.point, mask, at.optimizer), at.step)


def sparse(at: BranchPoint) -> StartPoint:
    """Puts the rewind point under a random mask of as many weights as the ticket has.

    How many of them each layer has is `distribution`'s to say. It is where masks begin that stay or
    move at fixed counts: `static`, `set`, `rigl`.
    """
    kept = {(name,): count for name, count in distributed(at).items()}
    mask = prune_to(
        uniform_scores(at.key, at.ticket.mask, tuple(at.rates)), ones_mask(at.ticket.mask), kept
    )
    return StartPoint(mask, rewind(at.point, mask, at.optimizer), at.step)


def largest(at: BranchPoint) -> StartPoint:
    """Puts the largest weights of the rewind point into the network, and keeps all others beside.

    So masks begin whose weights keep their values outside of them: `topkast`.
    """
    kept = {(name,): count for name, count in distributed(at).items()}
    magnitudes = jax.tree.map(jnp.abs, at.point.params)
    mask = prune_to(magnitudes, ones_mask(at.ticket.mask), kept)
    state = rewind(at.point, mask, at.optimizer)._replace(params=at.point.params)
    return StartPoint(mask, state, at.step)


def distributed(at: BranchPoint) -> dict[str, int]:
    """Returns how many weights each prunable leaf has of the ticket's, as `distribution` says."""
    counts = kept_counts(at.ticket.mask, at.rates)
    kept = {name: some for name, (some, _) in counts.items()}
    if at.options.distribution == "ticket":
        return kept
    leaves = named_leaves(at.ticket.mask)
    shapes = {name: tuple(leaves[name].shape) for name in at.rates}
    return DISTRIBUTIONS[at.options.distribution](shapes, sum(kept.values()))


def dense(at: BranchPoint) -> StartPoint:
    """Trains the dense state at the rewind point, without a mask.

    So begin masks that are pruned as they train: `gmp`, `ac_dc`.
    """
    return StartPoint(ones_mask(at.ticket.mask), at.point, at.step)


def learned(at: BranchPoint) -> StartPoint:
    """Learns a mask of the ticket's count in each layer among the rewind point's weights.

    Scores are trained in place of weights, or beside them (`pruning.learning`).
    """
    return dense(at)


def retrain(at: BranchPoint) -> StartPoint:
    """Trains the ticket itself, with the branch's own training options; without any, once more."""
    return at.ticket


def sibling(at: BranchPoint) -> StartPoint:
    """Trains the ticket itself in a data order of the draw's own (Frankle et al. 2020, §2)."""
    return at.ticket


def cyclic(at: BranchPoint) -> StartPoint:
    """Trains the ticket `cycles` times, each from where it ended (Gadhikar & Burkholz 2024)."""
    return at.ticket


def learning_rate(at: BranchPoint) -> StartPoint:
    """Keeps the weights that were trained before the pruning, and rewinds the rest.

    Learning-rate rewinding (Renda et al. 2020, §2).
    """
    mask, trained = at.ticket.mask, at.pruned_from()
    state = at.point._replace(params=trained.params, model_state=trained.model_state)
    return StartPoint(mask, rewind(state, mask, at.optimizer), at.step)


def finetune(at: BranchPoint) -> StartPoint:
    """Goes on from the trained weights at the learning rate at which their training ended.

    Fine-tuning (Renda et al. 2020, §2). It takes as many updates as the ticket's training. The
    optimizer's moments begin anew: nothing but weights is kept of a trained network.
    """
    mask, trained, step = at.ticket.mask, at.pruned_from(), at.steps_behind()
    fresh = at_update(at.optimizer.init(trained.params), step)
    return StartPoint(mask, rewind(trained._replace(opt_state=fresh), mask, at.optimizer), step)


def permuted_mask(at: BranchPoint) -> StartPoint:
    """Puts the rewind point under the mask of another replicate's ticket (Adnan et al. 2025).

    That mask's units come in this network's order, which is found between the two trained dense
    networks; with `align` none they stay in their own. Replicate 0 takes the mask of replicate 1,
    and every other one that of the replicate before it.
    """
    mask = at.donated()
    return StartPoint(mask, rewind(at.point, mask, at.optimizer), at.step)


def mask_of(at: BranchPoint) -> StartPoint:
    """Puts the rewind point under the mask in which another branch's network of its level ended.

    So a mask that was learned, or that moved, is trained as a ticket is.
    """
    mask = at.donated()
    return StartPoint(mask, rewind(at.point, mask, at.optimizer), at.step)


def early_bird(at: BranchPoint) -> StartPoint:
    """Trains on from where the mask of the dense network was found to stay (You et al. 2020).

    The mask is drawn from the dense network as soon as the masks of a few epochs in a row are
    alike (`distance`, `window`), at the last epoch but one at latest; weights, statistics and
    moments stay as they are there, pruned ones at zero, and training ends where the dense
    network's does.
    """
    return at.early_bird()


def transfer(at: BranchPoint) -> StartPoint:
    """Trains the source's ticket, mask and rewound weights, here (Morcos et al. 2019, §3).

    An output layer of another shape (another number of classes), or with `new_head` any, begins
    as this experiment's own initialization, with a full mask.
    """
    source = at.source()
    heads = new_heads(source.state.params, at.point.params, at.options.new_head)
    new = {name: leaf for name, leaf in named_leaves(at.initial).items() if name in heads}
    mask = with_leaves(source.mask, ones_mask(new))
    params = with_leaves(source.state.params, new)
    state = source.state._replace(params=params)
    fresh = at.optimizer.init(params)
    other_optimizer = jax.tree.structure(state.opt_state) != jax.tree.structure(fresh)
    if heads or source.step == 0 or other_optimizer:
        state = state._replace(opt_state=fresh)
    return StartPoint(mask, state, source.step)


def transfer_reinit(at: BranchPoint) -> StartPoint:
    """Keeps the source's mask and draws fresh random weights; it trains from step 0."""
    mask = transfer(at).mask
    return StartPoint(mask, rewind(at.fresh(at.key), mask, at.optimizer), 0)


def new_heads(source: PyTree, target: PyTree, always: bool = False) -> set[str]:
    """Returns the names of the leaves of `target`'s output layer that a transfer begins anew.

    Raises:
      ValueError: the networks differ elsewhere; names the leaf and both shapes.
    """
    theirs, own = named_leaves(source), named_leaves(target)
    for name in {**theirs, **own}:
        shapes = [leaves[name].shape if name in leaves else None for leaves in (theirs, own)]
        if None in shapes or (shapes[0] != shapes[1] and not name.startswith("output/")):
            said = ["none" if shape is None else "×".join(map(str, shape)) for shape in shapes]
            raise ValueError(
                f"{name} is {said[0]} in the source and {said[1]} here; "
                "accepted: networks that differ in their output layer alone"
            )
    heads = {name for name in own if name.startswith("output/")}
    differs = any(theirs[name].shape != own[name].shape for name in heads)
    return heads if always or differs else set()


BRANCHES: dict[str, Callable[..., StartPoint]] = {
    "reinit": reinit,
    "random_mask": random_mask,
    "reshuffle": reshuffle,
    "reinit_from_ticket": reinit_from_ticket,
    "signed_constant": signed_constant,
    "constant_random_sign": constant_random_sign,
    "freeze_pruned": freeze_pruned,
    "noise": noise,
    "dense": dense,
    "static": sparse,
    "set": sparse,
    "rigl": sparse,
    "gmp": dense,
    "ac_dc": dense,
    "topkast": largest,
    "supermask": learned,
    "edge_popup": learned,
    "continuous_sparsification": learned,
    "one_shot": one_shot,
    "prune": prune,
    "retrain": retrain,
    "sibling": sibling,
    "cyclic": cyclic,
    "learning_rate": learning_rate,
    "finetune": finetune,
    "flip_signs": flip_signs,
    "late_signs": late_signs,
    "late_magnitudes": late_magnitudes,
    "signs_of": signs_of,
    "shuffle_filters": shuffle_filters,
    "permuted_mask": permuted_mask,
    "mask_of": mask_of,
    "early_bird": early_bird,
    "transfer": transfer,
    "transfer_reinit": transfer_reinit,
}
# The kinds of the package, whatever a user adds.
KINDS = frozenset(BRANCHES)
# Branches that train from step 0, whatever the rewind step: a network that is drawn at random has
# no early training to go back to.
FROM_SCRATCH = ("reinit", "transfer_reinit", "signs_of")
# Branches that look at the network that the level's mask was pruned from, and at the dense one.
OF_PRUNED = ("learning_rate", "finetune", "late_signs", "late_magnitudes")
OF_DENSE = ("one_shot", "prune")
# Branches that take of the ticket's mask no more than how many weights it keeps.
OF_COUNTS = ("random_mask", "dense", *MASK_RULES, *LEARNED_MASKS)
# Branches that start once the level's ticket is trained, since they are made of what it became.
OF_TRAINED = ("signs_of",)


def from_scratch(branch: BranchSpec) -> bool:
    """Returns whether a branch, whose kind is filled in, trains from step 0."""
    return branch.kind in FROM_SCRATCH or branch.ablation == "reinit"


def waits_for_ticket(kind: str) -> bool:
    """Returns whether a branch of that kind starts once the level's ticket is trained.

    A user's own does if its function calls `at.trained`.
    """
    if kind in KINDS:
        return kind in OF_TRAINED
    row = BRANCHES[kind]
    code = getattr(getattr(row, "func", row), "__code__", None)  # `func` is that of a partial
    return code is None or _names(code, "trained")


def _names(code: types.CodeType, name: str) -> bool:
    inner = (one for one in code.co_consts if isinstance(one, types.CodeType))
    return name in code.co_names or any(_names(one, name) for one in inner)


def start_of(kind: str, at: BranchPoint, fields: Mapping[str, Any]) -> StartPoint:
    """Returns where a run of a branch of that kind starts.

    Args:
      kind: a row of `BRANCHES`.
      at: what it may use.
      fields: the user's own, of which a custom branch gets those that it takes.

    Raises:
      ValueError: it cannot start, or a custom branch gives no start point of the ticket's shapes.
    """
    start = with_fields(BRANCHES[kind], fields, given=1)(at)
    if kind in KINDS:
        return start
    if not isinstance(start, StartPoint) or not isinstance(start.state, TrainState):
        raise ValueError(f"it gives {type(start).__name__}; accepted: a StartPoint")
    if not isinstance(start.step, int) or start.step < 0:
        raise ValueError(f"it gives step {shown(start.step)}; accepted: an integer from 0 on")
    parts = {"mask": (start.mask, at.ticket.mask)}
    parts |= {
        name: (getattr(start.state, name), getattr(at.ticket.state, name))
        for name in TrainState._fields
    }
    for part, (given, wanted) in parts.items():
        if found := difference(given, wanted):
            raise ValueError(f"its {part} is not shaped like the ticket's: {found}")
    return start
