"""Runs that diverge: their rows are marked, their replicate's ticket ends, and nothing else."""

import contextlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.errors import Interrupted, RunError
from lth_jax.lottery import starts
from lth_jax.lottery.pending import pending_runs
from lth_jax.lottery.plan import ended_tickets, planned_runs, reachable_runs
from lth_jax.lottery.rows import diverged_since
from lth_jax.pruning.criteria import CRITERIA, Criterion
from lth_jax.store import RunDirectory
from lth_jax.store.tables import CurvePoint, RunId

from ..tiny import Recorder, StopAt, assert_same_run, finished_run, results, tiny_spec, train

SPEC = tiny_spec(replicates=3, branches=("reinit",))


def broken(state):
    return state._replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, state.params))


@contextlib.contextmanager
def one_breaks():
    """Replicate 1 starts level 1 with weights that are NaN."""
    rewind = starts.Starts.rewind

    def breaking(self, replicate, level, mask):
        start = rewind(self, replicate, level, mask)
        return start._replace(state=broken(start.state)) if (replicate, level) == (1, 1) else start

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starts.Starts, "rewind", breaking)
        yield


def marks(store):
    return {run_id: row.diverged for run_id, row in store.rows.items() if row.diverged >= 0}


# One run


def points(*losses):
    return [CurvePoint(0, 0, 5 * index, loss, 0.5, math.nan) for index, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "params", "step"),
    [
        ((1.0, 0.5), 1.0, -1),
        ((1.0, math.nan, math.nan), math.nan, 5),
        ((1.0, math.nan, math.inf), 1.0, 5),  # batch statistics, say, that are not finite
        ((1.0, math.nan, 0.5), 1.0, -1),  # it came back
        ((math.nan, 1.0, math.nan), math.nan, 10),
        ((math.nan, math.inf), math.nan, 0),
        ((1.0, 0.5), -math.inf, 5),  # the network hides it, from a ReLU on
    ],
)
def test_a_run_diverged_since_its_loss_stayed_without_a_value(losses, params, step):
    assert diverged_since(points(*losses), {"w": np.array([0.0, params])}) == step


# One of three replicates


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    seen = Recorder()
    with one_breaks():
        return train(tmp_path_factory.mktemp("ended") / "run", SPEC, observer=seen), seen


def test_the_others_go_on_and_count(ended):
    store, _ = ended
    assert marks(store) == {RunId("ticket", 1, 1, 0): 0}
    gone = {run for run in planned_runs(SPEC) if run.replicate == 1 and run.level > 1}
    assert set(store.rows) == set(planned_runs(SPEC)) - gone
    row = store.rows[RunId("ticket", 1, 1, 0)]
    assert row.early_stop_step == -1
    assert math.isnan(row.early_stop_val_loss)
    assert math.isnan(row.early_stop_test_accuracy)
    assert row.steps == 12


def test_its_end_is_said_in_one_line_and_its_steps_are_taken_off(ended):
    _, seen = ended
    (note,) = [line for (line,) in seen.of("note") if "diverged" in line]
    assert note == (
        "ticket, level 1, replicate 1, diverged: no finite loss from step 0 on; the ticket of "
        "replicate 1 ends there"
    )
    assert seen.of("shortened") == [(2 * 12,)]


def test_what_is_not_reachable_is_not_pending(ended):
    store, _ = ended
    assert pending_runs(SPEC, store, 0) == []
    grown = tiny_spec(replicates=4, branches=("reinit",), levels=3)
    left = {run.replicate for run in pending_runs(grown, store, 0)}
    assert left == {0, 2, 3}
    assert {run.level for run in pending_runs(grown, store, 0) if run.replicate == 0} == {3}


def test_the_others_have_the_bits_that_they_have_without_it(ended):
    store, _ = ended
    alone = finished_run(tiny_spec(replicates=1, branches=("reinit",)))
    mine = [row for row in results(store.path) if row["replicate"] == "0"]
    assert mine == results(alone)


@pytest.mark.slow
def test_a_killed_run_goes_on_the_same(ended, tmp_path):
    store, _ = ended
    with one_breaks():
        for level, updates in ((1, 20), (2, 10)):
            with pytest.raises(Interrupted):
                train(tmp_path, SPEC, StopAt(level, updates))
        train(tmp_path, SPEC)
    assert_same_run(store.path, tmp_path)


def test_in_one_shot_schedules_only_the_dense_network_ends_a_ticket(ended):
    store, _ = ended
    one_shot = tiny_spec(replicates=3, pruning__schedule="one_shot")
    assert ended_tickets(SPEC, store.rows.values()) == {1: 1}
    assert ended_tickets(one_shot, store.rows.values()) == {}


# Branches, transfers


@pytest.mark.slow
def test_a_branch_that_diverges_late_is_marked_and_ends_nothing(tmp_path):
    spec = tiny_spec(
        replicates=1, branches=("retrain",), branch={"retrain": {"learning_rate": 1e30}}
    )
    store = train(tmp_path, spec)
    assert marks(store) == {RunId("retrain", level, 0, 0): 5 for level in (1, 2)}
    assert store.rows[RunId("retrain", 1, 0, 0)].early_stop_step == 0
    assert set(store.rows) == set(planned_runs(spec))


@pytest.mark.slow
def test_a_ticket_that_ended_in_the_source_is_none_here(ended, tmp_path):
    source = ended[0].path
    spec = tiny_spec(replicates=3, branches=("transfer",), source={"data.part": "1/2"})
    found = reachable_runs(spec, (), source)
    assert set(planned_runs(spec)) - set(found) == {RunId("transfer", 2, 1, 0)}
    train(tmp_path, spec, source=source)
    assert set(RunDirectory.read(tmp_path).rows) == set(found)


def test_nothing_starts_from_a_dense_network_of_the_source_that_diverged(tmp_path, monkeypatch):
    spec = tiny_spec(replicates=2, levels=0, branches=())
    initial = starts.Starts._initial

    def breaking(self, replicate):
        state = initial(self, replicate)
        return broken(state) if replicate == 1 else state

    monkeypatch.setattr(starts.Starts, "_initial", breaking)
    train(tmp_path, spec)
    pretrained = tiny_spec(pretrain=True, source={"data.part": "1/2"}, branches=())
    assert {run.replicate for run in reachable_runs(pretrained, (), tmp_path)} == {0}


# What has no ranking, though it did not diverge


def test_weights_without_a_ranking_end_their_replicate_after_all_else_is_done(
    tmp_path, monkeypatch
):
    """Such as those of a run of an earlier version, whose rows have no mark."""
    calls = []

    def scores(scoring):
        calls.append(None)
        bad = len(calls) == 1
        return jax.tree.map(lambda w: jnp.abs(w) * (jnp.nan if bad else 1.0), scoring.final)

    monkeypatch.setitem(CRITERIA, "fickle", Criterion(scores))
    spec = tiny_spec(pruning__criterion="fickle", branches=(), replicates=2)
    with pytest.raises(RunError, match=r"^replicate 0 cannot be pruned after level 0: "):
        train(tmp_path, spec)
    rows = RunDirectory.read(tmp_path).rows
    assert {run.level for run in rows if run.replicate == 1} == {0, 1, 2}
    train(tmp_path, spec)  # where the next start finds a ranking, it goes on
    assert set(RunDirectory.read(tmp_path).rows) == set(planned_runs(spec))
