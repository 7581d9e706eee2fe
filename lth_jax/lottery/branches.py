"""Branches: controls that start from one level's ticket.

A branch is a pure function of a `BranchPoint` that says where its run starts. To add one: the
function, a row in `BRANCHES`, a golden value; the conformance tests cover it by themselves.

Branches that draw or disturb weights do so to the ticket's rewound state, and train from its step;
`reinit` alone draws a whole new network, and trains it from step 0.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from lth_jax.config import BranchSpec
from lth_jax.config.own_fields import with_fields
from lth_jax.errors import shown
from lth_jax.pruning.channels import Channels
from lth_jax.pruning.granularity import WEIGHT, Granularity
from lth_jax.pruning.learning import LEARNED_MASKS
from lth_jax.pruning.masks import exact, kept_counts, ones_mask, with_leaves
from lth_jax.pruning.moving import MASK_RULES
from lth_jax.pruning.schedules import DISTRIBUTIONS, RATIOS
from lth_jax.pruning.selection import prune_to
from lth_jax.pruning.structured import counts_by, prune_by
from lth_jax.pruning.trees import PyTree, map_named, named_leaves
from lth_jax.training.optimizers import at_update
from lth_jax.training.states import TrainState, rewind


class StartPoint(NamedTuple):
    """Where a run starts: a mask, and the state that its survivors start from.

    That of the trunk is the level's ticket, (mask, rewound state).

    Attributes:
      mask: bool, of the parameters' structure.
      state: the training state, pruned weights at zero (save in `freeze_pruned` and `topkast`).
      step: the number of updates behind `state`; training goes on from there.
    """

    mask: PyTree
    state: TrainState
    step: int


class BranchPoint(NamedTuple):
    """What a branch may use.

    Attributes:
      ticket: the start point of the level's ticket.
      point: the whole (dense) state at the rewind step.
      step: the rewind step.
      initial: the parameters at initialization.
      rates: what may be pruned, as `pruning.masks.prunable` gives it.
      optimizer: the experiment's.
      fresh: gives a training state at initialization, drawn from a key.
      dense_scores: gives the criterion's scores of the trained dense network (level 0).
      ranking: gives the scores of the criterion that `options` name as a function of the mask, and
        the number of its rounds.
      pruned_from: gives the state in which the network ended that the mask was pruned from.
      steps_behind: gives the number of updates behind that state.
      trained: gives the state in which the ticket of this level ended.
      donated: gives the mask of another run: of another replicate's ticket, its units in the order
        that `align` names, to `permuted_mask`; of the branch `of`, to `mask_of`.
      source: gives the source's ticket of the same replicate and level, for transfers.
      early_bird: gives the level's mask as it was drawn from the dense network on its way, and the
        state of that network then.
      options: the branch's own, such as `sigma`.
      key: a key of its own for (seed, branch, replicate, level, draw).
      granularity: what the trunk prunes together.
    """

    ticket: StartPoint
    point: TrainState
    step: int
    initial: PyTree
    rates: Mapping[str, Fraction]
    optimizer: optax.GradientTransformation
    fresh: Callable[[jax.Array], TrainState]
    dense_scores: Callable[[], PyTree]
    ranking: Callable[[], tuple[Callable[[PyTree], PyTree], int]]
    pruned_from: Callable[[], TrainState]
    steps_behind: Callable[[], int]
    trained: Callable[[], TrainState]
    donated: Callable[[], PyTree]
    source: Callable[[], StartPoint]
    early_bird: Callable[[], StartPoint]
    options: BranchSpec
    key: Key[Array, ""]
    granularity: Granularity | Channels = WEIGHT


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
        _uniform(at.key, at.ticket.mask, tuple(at.rates)), ones_mask(at.ticket.mask), kept
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


def freeze_pruned(at: BranchPoint) -> StartPoint:
    """Leaves pruned weights at their value at the rewind point, not at zero (Zhou et al. 2019)."""
    rewound = at.ticket.state
    return at.ticket._replace(state=rewound._replace(params=at.point.params))


def reshuffle(at: BranchPoint) -> StartPoint:
    """Permutes the kept weights within their layer (Zhou et al. 2019, §4, "reshuffle")."""
    return _with_weights(at, _shuffled)


def shuffle_filters(at: BranchPoint) -> StartPoint:
    """Permutes the kept weights within each filter (Frankle et al. 2020b).

    A filter is what one output sees: a unit of a dense layer has one as a channel has.
    """
    return _with_weights(at, _shuffled_by_filter)


def reinit_from_ticket(at: BranchPoint) -> StartPoint:
    """Draws the kept weights anew from those of their layer (Frankle & Carbin 2019, F.3).

    It draws with replacement, from the distribution of the ticket's own initial weights.
    """
    return _with_weights(at, _resampled)


def signed_constant(at: BranchPoint) -> StartPoint:
    """Sets kept weights to their sign × σ of the layer's initialization (Zhou et al. 2019, §4)."""
    return _with_weights(at, lambda _key, w, _mask, initial: jnp.sign(w) * jnp.std(initial))


def constant_random_sign(at: BranchPoint) -> StartPoint:
    """Sets kept weights to ±σ of the layer's initialization, signs drawn (Zhou et al. 2019)."""

    def redraw(key: jax.Array, w: jax.Array, _mask: jax.Array, initial: jax.Array) -> jax.Array:
        return jax.random.rademacher(key, w.shape, w.dtype) * jnp.std(initial)

    return _with_weights(at, redraw)


def noise(at: BranchPoint) -> StartPoint:
    """Adds noise of `sigma` × σ of the layer's initialization (Frankle & Carbin 2019, F.7)."""

    def redraw(key: jax.Array, w: jax.Array, _mask: jax.Array, initial: jax.Array) -> jax.Array:
        return w + at.options.sigma * jnp.std(initial) * jax.random.normal(key, w.shape, w.dtype)

    return _with_weights(at, redraw)


def flip_signs(at: BranchPoint) -> StartPoint:
    """Turns the signs of a share of each layer's kept weights: floor(share × kept), drawn."""
    counts = kept_counts(at.ticket.mask, at.rates)
    flipped = {(n,): math.floor(exact(at.options.share) * kept) for n, (kept, _) in counts.items()}
    drawn = _uniform(at.key, at.ticket.mask, tuple(at.rates))
    chosen = named_leaves(prune_to(drawn, at.ticket.mask, flipped))
    return _with_named(at, lambda name, w: jnp.where(chosen[name], -w, w))


def late_signs(at: BranchPoint) -> StartPoint:
    """Gives the ticket's weights the signs that training gave them before they were pruned.

    Magnitudes stay those of the rewind point (Gadhikar & Burkholz 2024).
    """
    late = named_leaves(at.pruned_from().params)
    return _with_named(at, lambda name, w: jnp.copysign(w, late[name]))


def late_magnitudes(at: BranchPoint) -> StartPoint:
    """Gives the ticket's weights the magnitudes that training gave them; their signs stay."""
    late = named_leaves(at.pruned_from().params)
    return _with_named(at, lambda name, w: jnp.copysign(late[name], w))


def signs_of(at: BranchPoint) -> StartPoint:
    """Draws fresh magnitudes for the signs and norm parameters of the level's trained network.

    A sparse solution's signs and norms carry its basin to other magnitudes (Oh et al. 2025). It
    trains from step 0, as `reinit` does.
    """
    fresh, trained = at.fresh(at.key), named_leaves(at.trained().params)
    norms = {name.rpartition("/")[0] for name in trained if name.endswith("scale")}

    def leaf(name: str, w: jax.Array) -> jax.Array:
        if name in at.rates:
            return jnp.copysign(w, trained[name])
        return trained[name] if name.rpartition("/")[0] in norms else w

    mask = at.ticket.mask
    state = fresh._replace(params=map_named(leaf, fresh.params))
    return StartPoint(mask, rewind(state, mask, at.optimizer), 0)


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


def none_drawn() -> StartPoint:
    """Gives no early bird, to a branch of another kind that asks for one.

    Raises:
      ValueError: always.
    """
    raise ValueError("no early bird is drawn for it; accepted: kind early_bird")


def none_donated() -> PyTree:
    """Gives no mask, to a branch of another kind that asks for one of another run.

    Which runs it would wait for, and end with, is known of two kinds alone.

    Raises:
      ValueError: always.
    """
    raise ValueError("no other run's mask is given; accepted: kinds permuted_mask and mask_of")


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


def draw_mask(
    key: jax.Array,
    mask: PyTree,
    rates: Mapping[str, Fraction],
    granularity: Granularity | Channels = WEIGHT,
) -> PyTree:
    """Returns a uniformly random mask that keeps as much of each layer as `mask` does."""
    return keep_as_many(mask, _uniform(key, mask, tuple(rates)), rates, granularity)


def keep_as_many(
    mask: PyTree,
    scores: PyTree,
    rates: Mapping[str, Fraction],
    granularity: Granularity | Channels = WEIGHT,
) -> PyTree:
    """Returns the mask of the highest `scores` that keeps exactly `mask`'s count in each layer."""
    counts = counts_by(granularity, mask, rates)
    return prune_by(granularity, scores, ones_mask(mask), counts)


def _with_weights(at: BranchPoint, redraw: Callable[..., jax.Array]) -> StartPoint:
    """Returns the ticket, its kept weights replaced by `redraw(key, weights, mask, initial)`."""
    keys = dict(zip(at.rates, jax.random.split(at.key, len(at.rates)), strict=True))

    def leaf(name: str, w: jax.Array, mask: jax.Array, initial: jax.Array) -> jax.Array:
        if name not in keys:
            return w
        return jnp.where(mask, redraw(keys[name], w, mask, initial), 0).astype(w.dtype)

    state = at.ticket.state
    params = map_named(leaf, state.params, at.ticket.mask, at.initial)
    return at.ticket._replace(state=state._replace(params=params))


def _with_named(at: BranchPoint, change: Callable[[str, jax.Array], jax.Array]) -> StartPoint:
    """Returns the ticket, its kept weights replaced by `change(name, weights)`."""

    def leaf(name: str, w: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.where(mask, change(name, w), 0).astype(w.dtype) if name in at.rates else w

    state = at.ticket.state
    params = map_named(leaf, state.params, at.ticket.mask)
    return at.ticket._replace(state=state._replace(params=params))


def _shuffled(key: jax.Array, w: jax.Array, mask: jax.Array, _initial: jax.Array) -> jax.Array:
    kept = np.flatnonzero(mask)
    # Found and moved on the host: of each layer at each level another number is kept, and JAX would
    # compile a dozen operations for each number.
    weights = np.array(w).reshape(-1)
    weights[kept] = jax.random.permutation(key, weights[kept])
    return jnp.asarray(weights.reshape(w.shape))


def _shuffled_by_filter(
    key: jax.Array, w: jax.Array, mask: jax.Array, _initial: jax.Array
) -> jax.Array:
    """Permutes the kept weights of each column of [inputs, outputs]."""
    weights, kept = w.reshape(-1, w.shape[-1]), mask.reshape(-1, w.shape[-1])
    # In each column the kept ones come first, once in a drawn order and once in their own: the
    # n-th drawn moves to the n-th place. What is pruned follows, and is masked afterwards.
    drawn = jnp.argsort(jnp.where(kept, jax.random.uniform(key, weights.shape), 2.0), axis=0)
    places = jnp.argsort(~kept, axis=0, stable=True)
    moved = jnp.take_along_axis(weights, drawn, axis=0)
    return jnp.put_along_axis(weights, places, moved, axis=0, inplace=False).reshape(w.shape)


def _resampled(key: jax.Array, w: jax.Array, mask: jax.Array, _initial: jax.Array) -> jax.Array:
    kept = np.ravel(np.asarray(w))[np.flatnonzero(mask)]
    if not kept.size:
        return w
    return jax.random.choice(key, jnp.asarray(kept), w.shape)


@partial(jax.jit, static_argnums=2)
def _uniform(key: jax.Array, mask: PyTree, names: tuple[str, ...]) -> PyTree:
    """Returns uniform scores for the named leaves, zeros for the others."""
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def scores(name: str, leaf: jax.Array) -> jax.Array:
        return jax.random.uniform(keys[name], leaf.shape) if name in keys else jnp.zeros(leaf.shape)

    return map_named(scores, mask)


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


def difference(given: PyTree, wanted: PyTree, dtypes: bool = True) -> str:
    """Returns which leaf of a pytree has another shape, or dtype, than it should; '' for none."""
    if jax.tree.structure(given) != jax.tree.structure(wanted):
        return "another structure"
    named = named_leaves(wanted)
    for (name, like), leaf in zip(named.items(), jax.tree.leaves(given), strict=True):
        found, right = ((jnp.shape(one), jnp.result_type(one)) for one in (leaf, like))
        if found[0] != right[0] or (dtypes and found[1] != right[1]):
            said = [
                f"{dtype.name}[{', '.join(map(str, shape))}]" for shape, dtype in (found, right)
            ]
            return f"{name} is {said[0]}, not {said[1]}"
    return ""
