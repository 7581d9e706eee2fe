"""RigL, written down again in NumPy from its paper: a thousand steps, and the same masks.

Evci et al. (2020), Algorithm 1, save that no update is left out: where their mask moves in place of
an update, ours moves before it, so that a branch has as many updates as the ticket beside it.
"""

import math

import numpy as np
import pytest

from lth_jax.pruning.moving import MASK_RULES
from lth_jax.pruning.trees import named_leaves
from lth_jax.store.tables import RunId

from ..tiny import FIELDS, TrainedRuns, tiny_spec, train
from .recomputed import batches, digits, loss_and_gradient

STEPS, EVERY, ALPHA, END, RATE, BATCH = 1000, 10, 0.3, 0.75, 0.1, 20
SIZES = FIELDS["data.validation_size"], FIELDS["data.train_size"], FIELDS["data.test_size"]


def lowest(values, count):
    return set(np.argsort(values, kind="stable")[:count])


def moved(weights, mask, gradient, share):
    """The mask of one layer, each flat, after the smallest weights went to large gradients."""
    active = np.flatnonzero(mask)
    count = math.floor(share * len(active))
    stayed = set(active) - {active[i] for i in lowest(np.abs(weights[active]), count)}
    others = np.array([i for i in range(len(mask)) if i not in stayed])
    order = np.argsort(np.abs(gradient[others]), kind="stable")
    new = np.zeros_like(mask)
    new[[*stayed, *others[order[len(order) - count :]]]] = True
    return new


def rigl(params, mask):
    """Yields (step, mask) of every move; `params` and `mask` are dicts of float64 and bool."""
    _, (images, labels), _ = digits(*SIZES)
    images, end = images.reshape(len(images), -1), END * STEPS
    for step, batch in enumerate(batches(0, 0, len(labels), BATCH, 0, STEPS)):
        _, gradient = loss_and_gradient(params, images[batch], labels[batch])
        if 0 < step < end and step % EVERY == 0:
            share = ALPHA / 2 * (1 + math.cos(step * math.pi / end))
            for name in params:
                if not name.endswith("kernel"):
                    continue
                flat = (part[name].ravel() for part in (params, mask, gradient))
                new = moved(*flat, share).reshape(mask[name].shape)
                params[name] = np.where(mask[name] & new, params[name], 0)
                mask = {**mask, name: new}
            yield step, mask
            _, gradient = loss_and_gradient(params, images[batch], labels[batch])
        for name, leaf in params.items():
            params[name] = np.where(mask[name], leaf - RATE * gradient[name], leaf)


@pytest.mark.slow
def test_rigl_has_the_masks_of_its_paper_for_a_thousand_steps(tmp_path, monkeypatch):
    row, found = MASK_RULES["rigl"], {}

    def recorded(move):
        new = row.move(move)
        found[move.step] = {name: np.asarray(leaf) for name, leaf in named_leaves(new).items()}
        return new

    monkeypatch.setitem(MASK_RULES, "rigl", row._replace(move=recorded))
    monkeypatch.setattr("lth_jax.lottery.runner.LevelTrainer", TrainedRuns)
    spec = tiny_spec(
        replicates=1, levels=1, branches=("rigl",), branch={"rigl": {"every": str(EVERY)}},
        pruning__fraction=0.8, train__steps=str(STEPS), train__batch_size=BATCH,
        train__optimizer="sgd", train__learning_rate=RATE, eval__every=str(STEPS),
    )  # fmt: skip
    train(tmp_path / "run", spec)
    start = TrainedRuns.start("rigl", 1)
    params = {name: np.float64(leaf) for name, leaf in named_leaves(start.state.params).items()}
    mask = {name: np.asarray(leaf) for name, leaf in named_leaves(start.mask).items()}
    expected = dict(rigl(params, mask))
    assert sorted(found) == sorted(expected) == list(range(EVERY, 750, EVERY))
    for step, masks in expected.items():
        for name, wanted in masks.items():
            np.testing.assert_array_equal(found[step][name], wanted, err_msg=f"{step} {name}")
    ended = named_leaves(TrainedRuns.ends[RunId("rigl", 1, 0, 0)].params)
    for name, leaf in params.items():
        np.testing.assert_allclose(ended[name], leaf, atol=1e-3)
