"""Golden value of the whole algorithm: train, prune, rewind, again, as numbers written down."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.config import BranchSpec
from lth_jax.lottery.branches import BRANCHES
from lth_jax.lottery.start_points import BranchPoint, StartPoint
from lth_jax.pruning.criteria import CRITERIA, Scoring
from lth_jax.pruning.masks import kept_counts, ones_mask, prunable
from lth_jax.pruning.selection import prune
from lth_jax.training.keys import derive
from lth_jax.training.loop import Program
from lth_jax.training.parameterization import dense_apply
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import (
    Inputs,
    new_loop_state,
    new_state,
    rewind,
    stack_runs,
    unstack_run,
)

from ..small_networks import CLASSES, SCALE, SHAPE, mlp, optimizer, training_set, validation_set

STEPS, EVERY, REWIND, LEVELS = 60, 5, 5, 3
# Every third label is wrong, so that the network overfits and the early stop comes early.
TRAIN = training_set()._replace(
    targets=training_set().targets.at[::3].set((training_set().targets[::3] + 1) % CLASSES)
)
EXAMPLE = jnp.zeros((1, *SHAPE))

# level: (kept, early-stop step, early-stop loss, accuracy there, sum of |weights| at the end)
GOLDEN = {
    0: (152, 45, 0.452054, 1.0, 79.92811),
    1: (111, 40, 0.473521, 18 / 23, 77.38535),
    2: (81, 55, 0.405743, 1.0, 67.47850),
    3: (61, 55, 0.384543, 1.0, 58.02467),
}
# The same for the branches of the last level; the transfer's source is the ticket itself.
GOLDEN_CONTROLS = {
    "constant_random_sign": (61, 55, 0.462038, 1.0, 47.09516),
    "ac_dc": GOLDEN[0],  # the mask is the runner's to move
    "cyclic": GOLDEN[LEVELS],  # here alone, where nothing gives it more steps
    "dense": GOLDEN[0],  # paired: the same rewind point, batches and schedule
    "finetune": (61, 85, 0.395650, 1.0, 59.11542),
    "flip_signs": (61, 50, 0.445382, 22 / 23, 46.83089),
    "gmp": GOLDEN[0],
    "continuous_sparsification": GOLDEN[0],  # masks are the runner's to learn
    "early_bird": GOLDEN[LEVELS],  # drawn by the runner
    "edge_popup": GOLDEN[0],
    "supermask": GOLDEN[0],
    "freeze_pruned": (61, 60, 0.446477, 18 / 23, 73.59792),
    "late_magnitudes": (61, 55, 0.494229, 1.0, 71.75456),
    "late_signs": (61, 55, 0.387699, 1.0, 57.81374),
    "learning_rate": (61, 15, 0.459102, 1.0, 75.04121),
    "noise": (61, 55, 0.393021, 1.0, 57.48786),
    "one_shot": (61, 60, 0.540333, 19 / 23, 55.55265),
    "mask_of": GOLDEN[LEVELS],
    "permuted_mask": GOLDEN[LEVELS],  # the mask is the runner's to give
    "prune": (61, 60, 0.540333, 19 / 23, 55.55265),
    "random_mask": (61, 60, 0.910121, 14 / 23, 33.88005),
    "reinit": (61, 55, 0.473705, 22 / 23, 41.63126),
    # Both die: no hidden unit is left above zero, and the output's bias is all that learns.
    "reinit_from_ticket": (61, 5, 1.114055, 8 / 23, 34.67396),
    "reshuffle": (61, 5, 1.114055, 8 / 23, 34.37209),
    "retrain": GOLDEN[LEVELS],
    "shuffle_filters": (61, 55, 0.754726, 14 / 23, 43.24166),
    "rigl": (61, 50, 0.556639, 19 / 23, 38.21839),
    "set": (61, 60, 0.925346, 13 / 23, 33.80639),
    "static": (61, 55, 0.577201, 22 / 23, 40.93319),
    "topkast": (61, 60, 0.629976, 18 / 23, 59.48908),
    "sibling": GOLDEN[LEVELS],  # the order of the data is the runner's
    "signed_constant": (61, 55, 0.403077, 1.0, 54.82489),
    "signs_of": (61, 55, 0.376365, 1.0, 39.59980),
    "transfer": GOLDEN[LEVELS],
    "transfer_reinit": (61, 55, 0.471460, 1.0, 49.48629),
}


def test_the_lottery_ticket_loop_gives_its_golden_numbers():
    model, transform = mlp(), optimizer("adam", learning_rate=0.1, weight_decay=0.0)
    program = Program(dense_apply(model.apply), transform, batch_size=10, pixels=Pixels(SCALE))

    def fresh(key):
        return new_state(model.init, transform, key, EXAMPLE)

    def train(state, mask, first):
        last = max(STEPS, first + STEPS - REWIND)
        run = stack_runs([new_loop_state(state, 50)])
        inputs = stack_runs([Inputs(mask, derive(0, "data", 0))])
        for step in range(first, last, EVERY):
            if step == first:
                run, _, _ = program.evaluate(run, validation_set(), first, 0)
            run = program.train(run, inputs, TRAIN, step, step + EVERY)
            run, _, _ = program.evaluate(run, validation_set(), step + EVERY, EVERY)
        return unstack_run(run, 0)

    def numbers(run, mask):
        kept = sum(kept for kept, _ in kept_counts(mask, rates).values())
        weights = sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(run.state.params))
        return kept, int(run.best.step), float(run.best.loss), float(run.best.accuracy), weights

    initial = fresh(derive(0, "init", 0))
    rates = prunable(initial.params, (("output", 0.5),))
    mask = ones_mask(initial.params)
    inputs = stack_runs([Inputs(mask, derive(0, "data", 0))])
    early = program.train(stack_runs([new_loop_state(initial, 50)]), inputs, TRAIN, 0, REWIND)
    point = unstack_run(early, 0).state
    found, controls = {}, {}
    run = train(initial, mask, 0)
    found[0] = numbers(run, mask)
    trained = run.state
    dense_scores = jax.tree.map(jnp.abs, run.state.params)
    for level in range(1, LEVELS + 1):
        scores = CRITERIA["magnitude"].scores(
            Scoring(run.state.params, initial.params, derive(0, "criterion", 0, level))
        )
        mask = prune(scores, mask, 0.3, rates=rates)
        run = train(rewind(point, mask, transform), mask, REWIND)
        found[level] = numbers(run, mask)
        if level == LEVELS:
            for name in sorted(BRANCHES):
                key = derive(0, name, 0, level, 0)
                own = StartPoint(mask, rewind(point, mask, transform), REWIND)
                at = BranchPoint(
                    ticket=own,
                    point=point,
                    step=REWIND,
                    initial=initial.params,
                    rates=rates,
                    optimizer=transform,
                    fresh=fresh,
                    dense_scores=lambda: dense_scores,
                    ranking=lambda: (lambda _mask: dense_scores, 1),
                    pruned_from=lambda: trained,
                    steps_behind=lambda: STEPS,
                    trained=lambda: trained,
                    donated=partial(lambda given: given, mask),
                    source=partial(StartPoint, *own),
                    early_bird=partial(StartPoint, *own),
                    options=BranchSpec(kind=name),
                    key=key,
                )
                ticket = BRANCHES[name](at)
                controls[name] = numbers(train(ticket.state, ticket.mask, ticket.step), ticket.mask)

    for mine, golden in ((found, GOLDEN), (controls, GOLDEN_CONTROLS)):
        assert sorted(mine) == sorted(golden), mine
        for which, values in golden.items():
            assert mine[which][:2] == values[:2], mine
            np.testing.assert_allclose(mine[which], values, rtol=1e-4, err_msg=str(which))
