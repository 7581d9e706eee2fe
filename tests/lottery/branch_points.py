"""The point that branches start from, and all that they are given."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.config import TRANSFERS, BranchSpec
from lth_jax.lottery.branches import BRANCHES
from lth_jax.lottery.start_points import BranchPoint, StartPoint
from lth_jax.pruning.drawing import draw_mask
from lth_jax.pruning.learning import LEARNED_MASKS
from lth_jax.pruning.masks import prunable
from lth_jax.pruning.trees import map_named, named_leaves
from lth_jax.training.states import new_state, rewind

from ..small_networks import norm_and_dropout, optimizer, random_mask

every_branch = pytest.mark.parametrize("name", sorted(BRANCHES))
# What a branch draws at random, and whose mask it has.
DRAWN = {
    "reinit", "random_mask", "reshuffle", "reinit_from_ticket", "constant_random_sign", "noise",
    "transfer_reinit", "flip_signs", "shuffle_filters", "signs_of", "static", "set", "rigl",
}  # fmt: skip
SAME_MASK = set(BRANCHES) - {
    "random_mask", "one_shot", "prune", "dense", "static", "set", "rigl", "gmp", "ac_dc", "topkast",
    "permuted_mask", "mask_of", "early_bird", *LEARNED_MASKS, *TRANSFERS,
}  # fmt: skip
# Those that give the ticket other weights, by what each does to a kept one.
REDRAWS = (
    "reshuffle", "reinit_from_ticket", "signed_constant", "constant_random_sign", "noise",
    "flip_signs", "late_signs", "late_magnitudes", "shuffle_filters",
)  # fmt: skip
STEP, LAST_STEP = 6, 40
MODEL, OPTIMIZER = norm_and_dropout(), optimizer("adam")


def fresh_state(key):
    return new_state(MODEL.init, OPTIMIZER, key, jnp.zeros((1, 4, 4, 1)))


@cache
def trained_looking(seed):
    """A state in which nothing is zero, moments and statistics included."""
    fresh = fresh_state(jax.random.key(77))
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(random.normal(size=leaf.shape).astype(np.float32))
            if leaf.dtype == jnp.float32
            else leaf + STEP
        ),
        fresh,
    )


def point():
    return trained_looking(0)


@cache
def initial():
    """Weights at initialization, of another σ in each layer."""
    return map_named(
        lambda name, leaf: leaf * (3 if name.startswith("output") else 0.5),
        trained_looking(1).params,
    )


def source_ticket():
    """Another experiment's, of the same shapes."""
    mask = random_mask(point().params, seed=5, keep=0.7)
    return StartPoint(mask, rewind(trained_looking(2), mask, OPTIMIZER), STEP)


def early_ticket(ticket):
    """Drawn from the dense network on its way, of the ticket's counts."""
    mask = draw_mask(jax.random.key(11), ticket, prunable(ticket))
    return StartPoint(mask, rewind(trained_looking(6), mask, OPTIMIZER), STEP + 4)


def dense_scores():
    random = np.random.default_rng(3)
    return jax.tree.map(lambda w: jnp.asarray(random.normal(size=w.shape)), point().params)


def branch_point(key=0, **changes):
    params = point().params
    mask = random_mask(params, keep=0.4)
    options = changes.pop("options", {})
    at = BranchPoint(
        ticket=StartPoint(mask, rewind(point(), mask, OPTIMIZER), STEP),
        point=point(),
        step=STEP,
        initial=initial(),
        rates=prunable(params, (("output", 0.5),)),
        optimizer=OPTIMIZER,
        fresh=fresh_state,
        dense_scores=dense_scores,
        ranking=lambda: (lambda _mask: dense_scores(), 1),
        pruned_from=lambda: trained_looking(3),
        steps_behind=lambda: LAST_STEP,
        trained=lambda: trained_looking(4),
        donated=lambda: draw_mask(jax.random.key(9), mask, prunable(params)),
        source=source_ticket,
        early_bird=lambda: early_ticket(mask),
        options=BranchSpec(**options),
        key=jax.random.key(key),
    )
    return at._replace(**changes)


def named(tree):
    return {name: np.asarray(leaf) for name, leaf in named_leaves(jax.device_get(tree)).items()}


def layers(at, ticket):
    """For each prunable leaf: name, the ticket's mask and weights, the branch's, the initial."""
    masks, old = named(at.ticket.mask), named(at.ticket.state.params)
    mine, first = named(ticket.state.params), named(at.initial)
    return [(name, masks[name], old[name], mine[name], first[name]) for name in at.rates]
