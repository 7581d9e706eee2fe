"""Alignment of an experiment's networks: barriers that go away, and what cannot be aligned."""

import dataclasses
import itertools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.analysis.paths import barrier, barriers
from lth_jax.errors import SpecError
from lth_jax.lottery.aligning import Aligner, moved
from lth_jax.lottery.path_meter import PathMeter
from lth_jax.lottery.paths import missing_pairs, points_of, stored_network
from lth_jax.lottery.pending import needed_tickets
from lth_jax.lottery.plan import last_level
from lth_jax.models import Model
from lth_jax.report.stability import stability_said
from lth_jax.store import RunDirectory
from lth_jax.store.tables import TRUNK, RunId
from lth_jax.training.alignment import inverse
from lth_jax.training.states import rewind

from ..small_networks import bits
from ..tiny import TrainedRuns, assert_same_run, experiment, tiny_spec, train

FIELDS = {
    "levels": 0, "branches": (), "model.hidden": (12, 8), "train.steps": "60",
    "paths.pairs": ("replicates",), "paths.points": 5,
}  # fmt: skip
SAME = {
    "pair": "connected", "level": 0, "replicate": 0, "density": 1.0, "first": "ticket:0:0:0",
    "second": "ticket:0:0:0", "parted": -1,
}  # fmt: skip
KINDS = ["weights", "activations"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("aligned") / "run", tiny_spec(**FIELDS)).path


def trained(run, e, replicate=0):
    state = e.initial(0)
    store = RunDirectory.read(run)
    return stored_network(store, RunId(TRUNK, 0, replicate, 0), (state.params, state.model_state))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_barrier_to_the_permuted_self_is_gone_after_alignment(run, kind):
    spec = tiny_spec(**FIELDS, **{"paths.align": kind})
    e = experiment(spec)
    meter, network = PathMeter(e, spec.paths), trained(run, e)
    groups = meter.aligner.groups
    assert [group.units for group in groups] == [12, 8]
    other = moved(network, groups, [np.roll(np.arange(group.units), 1) for group in groups])
    plain, aligned = (points_of(meter, network, other, SAME, a) for a in ("none", kind))
    for split in ("train", "test"):
        before, after = ([getattr(p, f"{split}_error") for p in of] for of in (plain, aligned))
        assert before[0] == before[-1]  # the same function
        assert barrier(before) > 0.05
        assert barrier(after) == pytest.approx(0, abs=1e-12)
    assert plain[0].l2 > 1
    assert aligned[0].l2 == 0


@pytest.mark.parametrize("kind", KINDS)
def test_orders_are_recovered(run, kind):
    e = experiment(tiny_spec(**FIELDS))
    aligner, network = Aligner(e, kind), trained(run, e)
    orders = [np.random.default_rng(3).permutation(group.units) for group in aligner.groups]
    other = moved(network, aligner.groups, orders)
    found = aligner.orders(network, other)
    for one, order in zip(found, inverse(orders), strict=True):
        np.testing.assert_array_equal(one, order)
    assert bits(aligner.aligned(network, other)) == bits(network)


@pytest.mark.slow
def test_activations_of_convolutions_and_streams_recover_a_permutation():
    fields = {"model.name": "resnet20", "model.width": 0.25, "model.hidden": (300, 100)}
    e = experiment(tiny_spec(**fields, levels=0))
    aligner = Aligner(e, "activations")
    aligner.check()
    state = e.initial(0)
    network = state.params, state.model_state
    orders = [np.random.default_rng(3).permutation(group.units) for group in aligner.groups]
    other = moved(network, aligner.groups, orders)
    assert bits(aligner.aligned(network, other)) == bits(network)


def test_aligned_paths_stand_beside_the_plain_ones(run, tmp_path):
    """What is measured stays, an alignment adds its own rows, and ends are the same networks."""
    before = (run / "paths.csv").read_text().splitlines()
    spec = tiny_spec(**FIELDS, **{"paths.align": "weights"})
    pairs, kept = missing_pairs(spec, RunDirectory.read(run))
    assert [pair.aligned for pair in pairs] == ["weights"]
    assert len(kept) == 5
    train(tmp_path, tiny_spec(**FIELDS))
    train(tmp_path, spec)
    points = RunDirectory.read(tmp_path).paths()
    assert [p.aligned for p in points] == ["none"] * 5 + ["weights"] * 5
    assert (tmp_path / "paths.csv").read_text().splitlines()[:6] == before
    plain, aligned = points[:5], points[5:]
    assert (plain[0].test_error, plain[-1].test_error) == (
        aligned[0].test_error, aligned[-1].test_error,
    )  # fmt: skip
    assert aligned[0].l2 < plain[0].l2
    assert [one.aligned for one in barriers(points)] == ["none", "weights"]


def test_what_is_said_of_stability_is_of_plain_paths(run):
    points = [p._replace(pair="siblings", parted=0) for p in RunDirectory.read(run).paths()]
    aligned = [p._replace(aligned="weights", test_error=0.0) for p in points]
    assert stability_said(points + aligned) == stability_said(points)


def bare(e, features):
    """The experiment with a network of no Linen layer, with or without hidden units."""
    shapes = itertools.pairwise((64, *features, 10))
    params = {f"w{index}": jnp.zeros(shape) for index, shape in enumerate(shapes)}

    def init(key, x):
        return {"params": params}

    def apply(variables, x, train, rngs):
        x = x.reshape(len(x), -1)
        for name, w in sorted(variables["params"].items()):
            x = jax.nn.relu(x @ w) if name != f"w{len(features)}" else x @ w
        return x, {}

    return dataclasses.replace(e, model=Model(init, apply))


def test_what_cannot_be_aligned_is_refused_in_one_line():
    e = experiment(tiny_spec(**FIELDS))
    Aligner(bare(e, (5,)), "weights").check()
    with pytest.raises(SpecError, match=r"config\.paths\.align='activations'.*weights or none$"):
        Aligner(bare(e, (5,)), "activations").check()
    with pytest.raises(SpecError, match=r"config\.paths\.align='weights'.*accepted: none$"):
        Aligner(bare(e, ()), "weights").check()


PERMUTED = {
    **FIELDS, "levels": 2, "replicates": 3, "paths.pairs": (),
    "branches": ("permuted_mask", "unaligned"),
    "branch": {"unaligned": {"kind": "permuted_mask", "align": "none"}},
}  # fmt: skip


@pytest.fixture
def permuted_runs(tmp_path, monkeypatch):
    """Where a run of each branch started, and the tickets, by id."""
    monkeypatch.setattr("lth_jax.lottery.runner.LevelTrainer", TrainedRuns)
    monkeypatch.setattr(TrainedRuns, "runs", {})
    train(tmp_path, tiny_spec(**PERMUTED))
    return {run_id: run.start for run_id, run in TrainedRuns.runs.items()}


def test_a_permuted_mask_is_anothers_in_this_networks_order(permuted_runs, tmp_path):
    """Each unit has as many weights as one of the other's ticket, and has them where it is like."""
    e = experiment(tiny_spec(**PERMUTED))
    aligner = Aligner(e, "weights")
    for replicate, giver in ((0, 1), (1, 0), (2, 1)):
        mine, theirs = (trained(tmp_path, e, one) for one in (replicate, giver))
        orders = aligner.orders(mine, theirs)
        for level in (1, 2):
            own, other = (permuted_runs[RunId(TRUNK, level, r, 0)] for r in (replicate, giver))
            moved_mask = permuted_runs[RunId("permuted_mask", level, replicate, 0)]
            plain = permuted_runs[RunId("unaligned", level, replicate, 0)]
            assert bits(plain.mask) == bits(other.mask) != bits(own.mask)
            expected = moved((other.mask, {}), aligner.groups, orders)[0]
            assert bits(moved_mask.mask) == bits(expected) != bits(other.mask)
            for start in (moved_mask, plain):  # the weights are this replicate's own
                assert bits(start.state) == bits(
                    rewind(e.initial(replicate), start.mask, e.optimizer)
                )
                assert start.step == own.step


@pytest.mark.slow
def test_a_giver_that_is_damaged_or_ended_counts(tmp_path):
    spec = tiny_spec(**PERMUTED)
    aligned, plain = RunId("permuted_mask", 2, 2, 0), RunId("unaligned", 2, 2, 0)
    assert needed_tickets(spec, aligned) == {(2, 2), (2, 0), (1, 2), (1, 0)}
    assert needed_tickets(spec, plain) == {(2, 2), (1, 2)}
    assert [last_level(spec, run, {1: 1}) for run in (aligned, aligned._replace(level=1))] == [1, 1]
    assert last_level(spec, RunId("permuted_mask", 2, 1, 0), {2: 0}) == 2
    # The giver's ticket is lost after all was trained, and a level more is asked for.
    store = train(tmp_path, spec)
    shutil.rmtree(store.path / "checkpoints" / "replicate_1" / "level_02")
    train(tmp_path, dataclasses.replace(spec, levels=3))
    whole = train(tmp_path / "whole", dataclasses.replace(spec, levels=3)).path
    assert_same_run(tmp_path, whole)


def test_a_mask_of_another_replicate_needs_one():
    with pytest.raises(SpecError, match=r"config\.replicates=1: accepted: 2 or more with permuted"):
        tiny_spec(**PERMUTED | {"replicates": 1})
    with pytest.raises(SpecError, match=r"config\.branch\.reinit\.align='none'"):
        tiny_spec(branches=("reinit",), branch={"reinit": {"align": "none"}})
