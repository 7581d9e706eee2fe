"""Early-Bird tickets: when they are drawn, from what, and what of the dense network is saved."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_jax.analysis.early_birds import savings
from lth_jax.analysis.methods import compare_methods
from lth_jax.config import from_config
from lth_jax.config.files import load_config
from lth_jax.errors import Interrupted, SpecError
from lth_jax.lottery.branches import BRANCHES
from lth_jax.lottery.checks import check
from lth_jax.lottery.early_bird import drawn_at
from lth_jax.store import RunDirectory
from lth_jax.store.tables import DISTANCES

from ..tiny import StopAt, assert_same_run, data_file, finished_run, flip_byte, tiny_spec, train

# 5 steps an epoch: the dense network has ends of epochs at 5, 10, … 35 before its last step, 38.
OPTIONS = {"early_bird": {"distance": 0.5, "window": 2, "keep": True}}


def early(**fields):
    own = {
        "branches": ("early_bird",),
        "branch": OPTIONS,
        "replicates": 1,
        "levels": 1,
        "model__hidden": (8, 6),
        "train__steps": "38",
        "train__learning_rate": 0.03,
        "pruning__granularity": "channel",
        "pruning__layer_rates": (),
        "pruning__fraction": 0.5,
    }
    return tiny_spec(**own | fields)


def distances(path):
    return RunDirectory.read(path).points(DISTANCES, "ticket", 0)


@given(of=st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.3]), max_size=12), window=st.integers(1, 4))
def test_it_is_drawn_at_the_first_epoch_whose_last_distances_are_all_small(of, window):
    wanted = None
    for end in range(window, len(of) + 1):
        if max(of[end - window : end]) < 0.1:
            wanted = end - 1
            break
    assert drawn_at(of, 0.1, window) == wanted


@pytest.mark.slow
def test_the_ticket_trains_on_from_where_its_mask_stayed():
    path = finished_run(early())
    store, points = RunDirectory.read(path), distances(path)
    assert [point.step for point in points] == [10, 15, 20, 25, 30, 35]
    assert {point.level for point in points} == {1}
    # 4 of 8 and 3 of 6 channels stay, so that those that differ come in pairs of 14.
    assert all((point.distance * 14 / 2).is_integer() for point in points)
    at = drawn_at([point.distance for point in points], 0.5, 2)
    assert at is not None
    (row,) = [row for row in store.rows.values() if row.branch == "early_bird"]
    assert row.last_step == 38
    assert row.steps == 38 - points[at].step
    ticket = next(r for r in store.rows.values() if (r.branch, r.level) == ("ticket", 1))
    assert row.kept == ticket.kept
    drawn, end = store.load(0, "early_bird_drawn_01"), store.load(0, "early_bird_level_01_0")
    # The channels with the largest L1 norms as they were there.
    norms = np.abs(drawn["params/fc1/kernel"].astype(np.float64)).sum(0)
    mask = end["mask/fc1/bias"]
    assert mask.sum() == 4
    assert norms[mask].min() > norms[~mask].max()


@pytest.mark.slow
def test_what_is_saved_is_the_rest_of_the_dense_network_s_training():
    spec = early()
    rows = list(RunDirectory.read(finished_run(spec)).rows.values())
    (level,) = compare_methods(rows, spec)
    cost = {method.branch: method.cost for method in level.methods}
    (row,) = [row for row in rows if row.branch == "early_bird"]
    began = 38 - row.steps
    assert cost["early_bird"].steps == 38
    assert cost["ticket"].steps == 38 + 38
    dense = next(r for r in rows if (r.branch, r.level) == ("ticket", 0))
    assert cost["early_bird"].operations == pytest.approx(
        row.operations + dense.operations * began / 38
    )


@pytest.mark.slow
def test_where_masks_never_stay_it_is_drawn_at_the_last_epoch():
    options = {"early_bird": {"distance": 1e-9, "window": 6}}
    path = finished_run(early(branch=options, train__learning_rate=0.1))
    assert max(point.distance for point in distances(path)) > 0
    (row,) = [r for r in RunDirectory.read(path).rows.values() if r.branch == "early_bird"]
    assert row.steps == 3


@pytest.mark.slow
def test_looking_changes_no_bit_of_the_dense_network():
    with_it, without = (
        RunDirectory.read(finished_run(early(branches=names))).rows
        for names in (("early_bird",), ())
    )
    for run, row in without.items():
        of_both = [
            (one.final_train_loss, one.early_stop_val_loss, one.early_stop_step)
            for one in (row, with_it[run])
        ]
        assert of_both[0] == of_both[1]


@pytest.mark.slow
@pytest.mark.parametrize("updates", [12, 22, 36])
def test_stopped_anywhere_it_ends_with_the_same_bits(tmp_path, monkeypatch, updates):
    spec = early()
    with monkeypatch.context() as patch:
        patch.setattr("lth_jax.lottery.runs.CHUNK_SECONDS", 0.0)
        with pytest.raises(Interrupted):
            train(tmp_path / "run", spec, StopAt(0, updates))
    train(tmp_path / "run", spec)
    assert_same_run(tmp_path / "run", finished_run(spec))


@pytest.mark.slow
def test_added_to_a_finished_trunk_or_damaged_its_dense_network_is_trained_again(tmp_path):
    finished_run(early(branches=()), tmp_path / "run")
    train(tmp_path / "run", early())
    assert_same_run(tmp_path / "run", finished_run(early()))
    store = RunDirectory.read(tmp_path / "run")
    rows = [run for run in store.rows if run.branch == "early_bird"]
    assert len(rows) == 1
    flip_byte(data_file(tmp_path / "run" / "checkpoints" / "replicate_0" / "early_bird_drawn_01"))
    more = early(branch={"early_bird": OPTIONS["early_bird"] | {"draws": 2}})
    train(tmp_path / "run", more)
    assert RunDirectory.read(tmp_path / "run").intact(0, "early_bird_drawn_01")


def test_single_weights_have_early_birds_too():
    options = {"early_bird": {"distance": 0.9, "window": 1}}
    path = finished_run(early(pruning__granularity="weight", branch=options, train__steps="12"))
    (point,) = distances(path)
    assert point.step == 10
    assert 0 < point.distance < 0.9


@pytest.mark.slow
def test_the_preset_on_digits_draws_its_tickets_early(tmp_path):
    config = load_config("configs/sparse/early_bird.py:digits", (), list(BRANCHES))
    config.replicates, config.branches = 1, ("early_bird",)
    spec = from_config(config)
    store = train(tmp_path / "run", spec)
    (saved,) = savings(store.rows.values(), spec)
    assert saved.share > 0.2
    (row,) = [row for row in store.rows.values() if row.branch == "early_bird"]
    assert row.final_test_accuracy > 0.8


def test_a_training_that_is_too_short_is_refused():
    with pytest.raises(SpecError, match="window=5: it takes the masks of one epoch more"):
        check(early(branch={}, train__steps="30"))
    check(early(branch={}, train__steps="31"))
