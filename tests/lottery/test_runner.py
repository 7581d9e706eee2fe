"""The trunk in its run directory: what is trained, and from what."""

import itertools
from typing import ClassVar

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.lottery import level as levels
from lth_jax.lottery.plan import planned_runs
from lth_jax.store import RunDirectory
from lth_jax.store.tables import TRUNK, RunId
from lth_jax.training.keys import data_key

from ..tiny import assert_same_run, curves, experiment, host, results, tiny_spec, train
from .trunk_runs import LATE, SPEC, assert_bits, load, part

# What is trained


def test_every_planned_run_has_one_row_in_the_promised_order(whole):
    ids = [RunId(r["branch"], int(r["level"]), int(r["replicate"]), int(r["draw"]))
           for r in results(whole)]  # fmt: skip
    assert ids == planned_runs(SPEC)
    order = {TRUNK: 0, "reinit": 1, "random_mask": 2}
    assert ids == sorted(ids, key=lambda i: (i.level, order[i.branch], i.replicate, i.draw))
    assert len(ids) == len(set(ids)) == 2 * (1 + 2 * 3)
    assert not [i for i in ids if i.level == 0 and i.branch != TRUNK]


def test_the_rows_say_what_the_curves_say(whole):
    """The early stop is the smallest validation loss, the last row the last evaluation."""
    store = RunDirectory.read(whole)
    for row in store.rows.values():
        points = [
            point
            for point in store.curve(row.branch, row.level)
            if (point.replicate, point.draw) == (row.replicate, row.draw)
        ]
        assert [point.step for point in points] == [0, 5, 10, 12]
        best = min(points, key=lambda point: point.val_loss)
        assert row.early_stop_step == best.step
        assert row.early_stop_val_loss == best.val_loss
        assert row.early_stop_val_accuracy == best.val_accuracy
        assert row.final_val_accuracy == points[-1].val_accuracy
        assert row.final_train_loss == points[-1].train_loss
        assert np.isnan(points[0].train_loss)
        assert row.steps == 12
        assert row.train_seconds > 0


def test_a_branch_that_ends_where_it_starts_is_measured_untrained(tmp_path):
    """As masks of Zhou et al. (2019, §5) are, over weights that were never trained."""
    untrained = {"kind": "prune", "criterion": "magnitude", "steps": "0", "keep": True}
    spec = tiny_spec(levels=1, branches=("untrained",), branch__untrained=untrained)
    store = train(tmp_path, spec)
    for replicate in range(2):
        row = store.rows[RunId("untrained", 1, replicate, 0)]
        (point,) = (p for p in store.curve("untrained", 1) if p.replicate == replicate)
        assert (row.steps, row.early_stop_step, point.step) == (0, 0, 0)
        assert row.early_stop_test_accuracy == row.final_test_accuracy
        assert row.final_val_accuracy == point.val_accuracy
        assert np.isnan(row.final_train_loss)
        assert not row.censored
        ticket = store.rows[RunId(TRUNK, 1, replicate, 0)]
        assert (row.kept, row.prunable) == (ticket.kept, ticket.prunable)
        # The mask of the trained dense network's largest weights, on the initial ones.
        first = next(p for p in store.curve(TRUNK, 1) if (p.replicate, p.step) == (replicate, 0))
        assert (point.val_loss, point.val_accuracy) == (first.val_loss, first.val_accuracy)


def test_training_learns(tmp_path):
    """With enough steps the tiny network is far above chance: the loop trains what it measures."""
    spec = tiny_spec(levels=0, replicates=1, branches=(), train__steps="100ep")
    row = train(tmp_path, spec).rows[RunId(TRUNK, 0, 0, 0)]
    assert row.steps == 500
    assert row.final_val_accuracy > 0.7
    assert row.final_test_accuracy > 0.7
    assert row.final_train_loss < 0.3


def test_replicates_differ(whole):
    rows = [row for row in results(whole) if row["branch"] == TRUNK and row["level"] == "0"]
    assert len({row["early_stop_val_loss"] for row in rows}) == 2


# Masks


def test_masks_are_nested_with_the_schedule_s_exact_counts(whole):
    e = experiment(SPEC)
    plan = [sum(kept.values()) for kept in e.targets[:3]]
    for replicate in (0, 1):
        masks = [part(load(whole, replicate, f"level_{n:02d}"), "mask/") for n in range(3)]
        assert [sum(int(mask[name].sum()) for name in e.rates) for mask in masks] == plan
        for before, after in itertools.pairwise(masks):
            for name in before:
                assert before[name].dtype == np.bool_
                assert not (after[name] & ~before[name]).any(), f"{name} came back"
        for name in masks[-1].keys() - e.rates.keys():
            assert masks[-1][name].all(), f"{name} may not be pruned"
    for row in results(whole):
        assert int(row["kept"]) == plan[int(row["level"])]
        assert int(row["prunable"]) == plan[0]
        assert row["density"] == repr(plan[int(row["level"])] / plan[0])


def test_the_smallest_weights_of_each_layer_go(whole):
    e = experiment(SPEC)
    for level in (0, 1):
        before, after = (load(whole, 0, f"level_{n:02d}") for n in (level, level + 1))
        for name in e.rates:
            alive, kept = before[f"mask/{name}"], after[f"mask/{name}"]
            weights = np.abs(before[f"params/{name}"])
            assert weights[alive & ~kept].max() <= weights[kept].min()


def test_pruned_weights_are_zero_in_what_is_kept_of_every_level(whole):
    for level in range(3):
        kept = load(whole, 1, f"level_{level:02d}")
        for name, mask in part(kept, "mask/").items():
            assert not kept[f"params/{name}"][~mask].any()


def test_a_row_is_written_once_what_later_levels_need_is_there(tmp_path, monkeypatch):
    record = RunDirectory.record

    def checked(self, rows):
        rows = list(rows)
        for row in rows:
            if row.branch == TRUNK:
                assert self.intact(row.replicate, f"level_{row.level:02d}")
        record(self, rows)

    monkeypatch.setattr(RunDirectory, "record", checked)
    assert len(train(tmp_path, tiny_spec(replicates=1, branches=())).rows) == 3


# Rewinding


class Starts(levels.LevelTrainer):
    """Notes where every run starts."""

    seen: ClassVar[dict] = {}

    def train(self, level, runs):
        for run in runs:
            self.seen[run.run_id] = jax.device_get(run.start)
        return super().train(level, runs)


def started(path, spec):
    """Trains `spec`; gives the path, and where every run started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Starts, "seen", {})
        patch.setattr("lth_jax.lottery.runner.LevelTrainer", Starts)
        train(path, spec)
        return path, Starts.seen


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The tiny experiment with two draws of `reinit`."""
    return started(tmp_path_factory.mktemp("watched"), tiny_spec(branch={"reinit": {"draws": 2}}))


def test_a_ticket_starts_from_the_stored_initialization_bit_for_bit(watched):
    path, starts = watched
    for replicate in (0, 1):
        initial = part(load(path, replicate, "initial"), "params/")
        for level in range(3):
            ticket = starts[RunId(TRUNK, level, replicate, 0)]
            assert ticket.step == 0
            masks, params = host(ticket.mask), host(ticket.state.params)
            assert masks.keys() == params.keys() == initial.keys()
            for name, weights in params.items():
                survivors = np.where(masks[name], initial[name], np.float32(0))
                assert weights.tobytes() == survivors.tobytes()
            assert_bits(masks, part(load(path, replicate, f"level_{level:02d}"), "mask/"))


def test_the_rewind_point_is_the_dense_run_s_whole_state_at_its_step(late):
    """Level 0 trained again to step 7 alone, in one piece, gives the stored state bit for bit."""
    from lth_jax.training.states import Inputs, new_loop_state, stack_runs, unstack_run

    e = experiment(LATE)
    assert e.rewind_step == 7
    for replicate in (0, 1):
        state = e.initial(replicate)
        mask = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), state.params)
        run = stack_runs([new_loop_state(state, len(e.train.targets))])
        inputs = stack_runs([Inputs(mask, data_key(0, replicate))])
        program = e.program(1)
        trained = unstack_run(program.train(run, inputs, e.train, 0, 7), 0)
        assert_bits(load(late, replicate, "rewind"), host(trained.state))
        assert_bits(part(load(late, replicate, "initial"), "params/"), host(state.params))


def test_late_rewinding_restores_survivors_and_their_moments_bit_for_bit(tmp_path, late):
    path, starts = started(tmp_path, LATE)
    assert_same_run(path, late)
    for replicate in (0, 1):
        point = load(late, replicate, "rewind")
        for level in (1, 2):
            ticket = starts[RunId(TRUNK, level, replicate, 0)]
            assert ticket.step == 7
            masks, state = host(ticket.mask), host(ticket.state)
            assert state.keys() == point.keys()
            pruned = 0
            for name, found in state.items():
                mask = next((m for n, m in masks.items() if name.endswith(n)), np.array(True))
                mask = np.broadcast_to(mask, found.shape)
                pruned += int((~mask).sum())
                assert found[mask].tobytes() == point[name][mask].tobytes(), name
                assert not found[~mask].any(), name
            # Parameters, and both of Adam's moments.
            assert pruned == 3 * sum(int((~m).sum()) for m in masks.values()) > 0
    rows = {(r["branch"], r["level"]): r for r in results(late)}
    assert rows[TRUNK, "0"]["steps"] == "12"
    assert rows[TRUNK, "1"]["steps"] == "5"
    assert rows["random_mask", "1"]["steps"] == "5"
    assert rows["reinit", "1"]["steps"] == "12"
    steps = [p.step for p in RunDirectory.read(late).curve(TRUNK, 1) if p.replicate == 0]
    assert steps == [7, 10, 12]


def test_the_dense_run_is_the_same_whatever_is_rewound_to(whole, late):
    """Level 0 is the uninterrupted dense run: capturing a state changes no bit of it."""
    dense = [[row for row in results(path) if row["level"] == "0"] for path in (whole, late)]
    assert dense[0] == dense[1]
    assert curves(whole)["ticket/level_00.csv"] == curves(late)["ticket/level_00.csv"]
    for replicate in (0, 1):
        assert_bits(load(whole, replicate, "level_00"), load(late, replicate, "level_00"))


# Branches


def test_reinit_keeps_the_mask_and_draws_every_weight_anew(watched):
    _, starts = watched
    draws = [starts[RunId("reinit", 1, 0, draw)] for draw in (0, 1)]
    ticket = starts[RunId(TRUNK, 1, 0, 0)]
    for draw in draws:
        assert_bits(host(draw.mask), host(ticket.mask))
    for name, mask in host(ticket.mask).items():
        if name.endswith("kernel"):
            weights = [host(t.state.params)[name][mask] for t in (ticket, *draws)]
            assert all((a != b).all() for a, b in [weights[:2], weights[1:], weights[::2]])


def test_random_mask_keeps_the_counts_and_the_initial_weights(watched):
    path, starts = watched
    initial = part(load(path, 1, "initial"), "params/")
    ticket, control = (starts[RunId(branch, 2, 1, 0)] for branch in (TRUNK, "random_mask"))
    for name, mask in host(control.mask).items():
        kept = host(ticket.mask)[name]
        assert mask.sum() == kept.sum()
        assert kept.all() or (mask != kept).any()
        assert (host(control.state.params)[name][mask] == initial[name][mask]).all()
