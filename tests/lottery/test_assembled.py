"""The invariants of data, rewinding and draws, on an experiment as it is put together.

The functions that keep them are tested where they stand. Here a network with batch norm and dropout
is built and trained as a user's would be, so that what calls them is tested too.
"""

from collections import Counter
from contextlib import contextmanager

import jax
import numpy as np
import pytest

from lth_jax import data
from lth_jax.config import Spec
from lth_jax.lottery.building import build
from lth_jax.lottery.experiment import balanced
from lth_jax.models import MODELS, custom_model
from lth_jax.pruning.trees import named_leaves
from lth_jax.store.tables import TRUNK, RunId

from ..small_networks import NormAndDropout
from ..tiny import TrainedRuns, host, tiny_spec, train
from .trunk_runs import assert_bits, part
from .trunk_runs import load as load_checkpoint

CONTROLS = ("reinit", "random_mask", "reshuffle", "noise")
REPLICATES, DRAWS = (0, 1), (0, 1)


@contextmanager
def trained(path, spec):
    """Trains `spec`; gives every run as it was about to be trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lth_jax.lottery.runner.LevelTrainer", TrainedRuns)
        patch.setattr(TrainedRuns, "runs", {})
        patch.setattr(TrainedRuns, "ends", {})
        train(path, spec)
        yield dict(TrainedRuns.runs)


@pytest.fixture(scope="module")
def normed(tmp_path_factory):
    """A trunk of a batch-norm net with dropout, rewound to step 7; and where every run began."""
    path = tmp_path_factory.mktemp("normed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "normed", custom_model("normed", lambda classes: NormAndDropout()))
        spec = tiny_spec(
            model__name="normed",
            model__hidden=Spec().model.hidden,  # the network takes no option
            data__classes=(0, 1, 2),
            data__labels="remapped",
            rewind__step="7",
            branches=(),
        )
        with trained(path, spec) as runs:
            yield path, runs


@pytest.fixture(scope="module")
def controlled(tmp_path_factory):
    """A trunk with controls of several draws, and a one-shot branch at the second level."""
    path = tmp_path_factory.mktemp("controlled") / "run"
    spec = tiny_spec(
        branches=(*CONTROLS, "one_shot"),
        branch={name: {"draws": len(DRAWS), "levels": (1,)} for name in CONTROLS}
        | {"one_shot": {"levels": (2,)}},
    )
    with trained(path, spec) as runs:
        yield path, runs


def images_of(split):
    """How often each image of a split stands there, by its bytes and label, without the padding."""
    inputs, targets, *rest = (part for part in split if part is not None)
    images, labels = np.asarray(inputs), np.asarray(targets)
    valid = np.asarray(rest[0]) if rest else np.ones(labels.shape, bool)
    shape = images.shape[labels.ndim :]
    flat = zip(images.reshape(-1, *shape), labels.ravel(), valid.ravel(), strict=True)
    return Counter((image.tobytes(), int(label)) for image, label, holds in flat if holds)


def test_each_split_holds_what_its_name_says():
    whole = data.load("digits")
    built = build(tiny_spec(data__train_size=0, data__test_size=0, data__validation_size=40))
    train_split, validation, test = map(images_of, (built.train, built.validation, built.test))
    assert sum(validation.values()) == 40
    assert not train_split & validation
    stored = Counter(
        (image.tobytes(), int(label))
        for image, label in zip(whole.train_images, whole.train_labels, strict=True)
    )
    assert train_split + validation == stored
    assert test == images_of((whole.test_images, whole.test_labels))


def test_criteria_see_training_examples_under_their_own_labels():
    built = build(tiny_spec(pruning__examples=30))
    seen = images_of((built.probe(jax.random.key(3), {}).inputs, np.zeros(30)))
    probe = built.probe(jax.random.key(3), {})
    prepared = (np.asarray(built.pixels.prepared(built.train.inputs)), built.train.targets)
    assert sum(seen.values()) == 30
    assert images_of((probe.inputs, probe.targets)) <= images_of(prepared)


@pytest.mark.parametrize("criterion", ["grasp", "snip"])
def test_a_probe_is_balanced_over_classes_where_the_criterions_authors_have_it_so(criterion):
    built = build(tiny_spec(pruning__examples=35, pruning__criterion=criterion))
    counts = np.bincount(np.asarray(built.probe(jax.random.key(3), {}).targets), minlength=10)
    assert counts.sum() == 35
    assert bool(counts.max() - counts.min() <= 1) is (criterion == "grasp")


def test_a_class_that_is_used_up_leaves_its_turns_to_the_others():
    labels = np.array([2, 2, 0, 2, 1, 2, 0])
    assert balanced(labels).tolist() == [0, 2, 4, 1, 6, 3, 5]


@pytest.mark.parametrize("level", [1, 2])
def test_every_level_goes_back_to_the_whole_state_of_the_rewind_point(normed, level):
    path, runs = normed
    for replicate in REPLICATES:
        point = load_checkpoint(path, replicate, "rewind")
        state = part(point, "model_state/")
        assert any("mean" in name for name in state)
        assert any(np.asarray(leaf).any() for name, leaf in state.items() if "mean" in name)
        ticket = jax.device_get(runs[RunId(TRUNK, level, replicate, 0)].start)
        assert_bits(host(ticket.state.model_state), state)
        survivors = {
            name: np.where(mask, point[f"params/{name}"], np.float32(0))
            for name, mask in host(ticket.mask).items()
        }
        assert_bits(host(ticket.state.params), survivors)


@pytest.mark.parametrize("branch", CONTROLS)
def test_controls_are_drawn_apart_for_every_replicate_and_draw(controlled, branch):
    """What a control draws depends on replicate and draw, beyond what their tickets differ by."""
    _, runs = controlled
    drawn = []
    for replicate in REPLICATES:
        ticket = runs[RunId(TRUNK, 1, replicate, 0)].start
        for draw in DRAWS:
            start = runs[RunId(branch, 1, replicate, draw)].start
            drawn.append(_own_randomness(branch, start, ticket))
    for index, one in enumerate(drawn):
        for other in drawn[index + 1 :]:
            assert np.mean(one[: len(other)] == other[: len(one)]) < 0.9


def test_replicates_begin_apart(controlled):
    path, _ = controlled
    one, other = (part(load_checkpoint(path, r, "initial"), "params/") for r in REPLICATES)
    for name in one:
        if name.endswith("kernel"):
            assert not np.isin(one[name], other[name]).any()


def test_a_ticket_and_its_controls_see_the_same_batches_and_replicates_others(controlled):
    _, runs = controlled
    keys = {replicate: set() for replicate in REPLICATES}
    for run_id, run in runs.items():
        keys[run_id.replicate].add(tuple(np.asarray(jax.random.key_data(run.data_key)).tolist()))
    assert [len(found) for found in keys.values()] == [1, 1]
    assert not keys[0] & keys[1]


def test_a_one_shot_branch_ranks_the_dense_network_at_every_level(controlled):
    path, runs = controlled
    for replicate in REPLICATES:
        dense = part(load_checkpoint(path, replicate, "level_00"), "params/")
        start = runs[RunId("one_shot", 2, replicate, 0)].start
        for name, mask in host(start.mask).items():
            if name.endswith("kernel"):
                weights = np.abs(dense[name])
                assert weights[mask].min() >= weights[~mask].max()


def _own_randomness(branch, start, ticket):
    """What a control of `fc1` drew itself: weights, positions, or noise in units of none."""
    name = "fc1/kernel"
    mask, weights = (np.asarray(named_leaves(tree)[name]) for tree in (start.mask, start.state[0]))
    kept = np.asarray(named_leaves(ticket.mask)[name])
    values = np.asarray(named_leaves(ticket.state.params)[name])
    if branch == "random_mask":
        return mask.ravel()
    if branch == "reshuffle":  # ranks tell a permutation, whatever the values are
        order = np.argsort(values[kept])
        return np.searchsorted(values[kept][order], weights[mask])
    if branch == "noise":
        noise = (weights - values)[mask]
        return np.round(noise / noise.std(), 4)
    return weights[mask]
