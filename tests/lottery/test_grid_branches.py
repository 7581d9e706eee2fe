"""The grid end to end: branches, on real images."""

import dataclasses

import numpy as np
import pytest

from lth_jax.config import TRANSFERS
from lth_jax.config.spec.branch import CYCLES
from lth_jax.lottery.branches import BRANCHES
from lth_jax.lottery.building import build
from lth_jax.pruning.learning import LEARNED_MASKS
from lth_jax.store.tables import TRUNK, RunId

from ..tiny import Recorder, TrainedRuns, curves, host, results, tiny_spec, train
from .grid_runs import KERNELS, ONE, level, rows_of

# All that one replicate can train by itself: `test_aligning` and `test_learning` train those that
# take another's mask, `test_early_bird` what is drawn from the dense network on its way.
OTHERS = (*TRANSFERS, "permuted_mask", "mask_of", "early_bird")
CONTROLS = tuple(n for n in BRANCHES if n not in OTHERS)


@pytest.fixture(scope="session")
def all_branches(tmp_path_factory):
    """Every branch of a level, added to a finished trunk; and what that trained."""
    path = tmp_path_factory.mktemp("all") / "run"
    train(path, tiny_spec(levels=1, replicates=1, branches=()))
    before = results(path)
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lth_jax.lottery.runner.LevelTrainer", TrainedRuns)
        spec = tiny_spec(levels=1, replicates=1, branches=CONTROLS)
        train(path, spec, observer=recorder)
    assert [row for row in results(path) if row["branch"] == TRUNK] == before
    return path, recorder, dict(TrainedRuns.runs), dict(TrainedRuns.ends)


@pytest.mark.slow
def test_branches_added_to_a_finished_trunk_do_not_train_it_again(all_branches):
    path, recorder, _, _ = all_branches
    added = [RunId("sibling", 0, 0, 0), *(RunId(name, 1, 0, 0) for name in CONTROLS)]
    assert sorted(recorder.trained()) == sorted(added)
    branches = [(row["branch"], row["level"]) for row in results(path)]
    assert branches == [(TRUNK, "0"), ("sibling", "0"), (TRUNK, "1"), *((n, "1") for n in CONTROLS)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROLS)
def test_every_branch_has_the_ticket_s_density_and_length(all_branches, name):
    path, _, _, _ = all_branches
    row, ticket = rows_of(path, name)[-1], rows_of(path, TRUNK)[1]
    assert int(row["steps"]) == int(ticket["steps"]) * (CYCLES if name == "cyclic" else 1)
    assert row["prunable"] == ticket["prunable"]
    assert row["kept"] == (row["prunable"] if name == "dense" else ticket["kept"])
    if name in ("retrain", "one_shot", "prune"):  # level 1 *is* pruned in one shot
        assert row == ticket
    else:
        assert row["final_train_loss"] != ticket["final_train_loss"]


@pytest.mark.slow
# Of `topkast` weights outside the mask are trained, too, and the network that is left has none;
# where a mask is learned, there is none at the start.
@pytest.mark.parametrize("name", [n for n in CONTROLS if n not in ("topkast", *LEARNED_MASKS)])
def test_pruned_weights_stay_exactly_where_they_were_to_the_end(all_branches, name):
    _, _, runs, ends = all_branches
    run_id = RunId(name, 1, 0, 0)
    start, end = host(runs[run_id].start.state.params), host(ends[run_id].params)
    for leaf, mask in host(runs[run_id].start.mask).items():
        assert end[leaf][~mask].tobytes() == start[leaf][~mask].tobytes()
        assert np.any(end[leaf][~mask]) == (name == "freeze_pruned" and not mask.all())
        assert np.any(end[leaf][mask] != start[leaf][mask])


@pytest.mark.slow
def test_the_dense_branch_repeats_level_0(all_branches):
    path, _, _, _ = all_branches
    (dense,), level_0 = rows_of(path, "dense"), rows_of(path, TRUNK)[0]
    assert {**dense, "level": "0"} == level_0


@pytest.mark.slow
def test_the_retrained_ticket_has_its_curve_too(all_branches):
    path, _, _, _ = all_branches
    found = curves(path)
    assert found["retrain/level_01.csv"] == found["ticket/level_01.csv"]


@pytest.mark.slow
def test_a_one_shot_branch_ranks_the_dense_network(all_branches):
    path, _, runs, _ = all_branches
    mask = host(runs[RunId("one_shot", 1, 0, 0)].start.mask)
    for name in KERNELS:
        weights = np.abs(level(path, 0)[f"params/{name}"])
        assert weights[mask[name]].min() >= weights[~mask[name]].max()


@pytest.mark.slow
def test_branches_keep_their_draws_apart(tmp_path, trained_runs):
    options = {name: {"draws": 2} for name in ("noise", "reshuffle", "constant_random_sign")}
    train(tmp_path, tiny_spec(**ONE | {"branches": tuple(options)}, branch=options))
    for name in options:
        one, other = (host(trained_runs.start(name, 1, draw=d).state.params) for d in (0, 1))
        assert np.any(one["fc1/kernel"] != other["fc1/kernel"])


OVERRIDES = {
    "optimizer": ({"optimizer": "sgd"}, "12"),
    "learning_rate": ({"learning_rate": 0.1}, "12"),
    "batch_size": ({"batch_size": 50}, "12"),
    "weight_decay": ({"weight_decay": 0.5}, "12"),
    "steps": ({"steps": "20"}, "20"),
    "epochs of its own batch": ({"steps": "3ep", "batch_size": 50}, "6"),
    "late rewinding": ({"optimizer": "momentum", "momentum": 0.5}, "5"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERRIDES)
def test_a_retrain_takes_its_own_training_options(tmp_path, trained_runs, name):
    """And starts from the ticket all the same."""
    options, steps = OVERRIDES[name]
    rewind = "7" if name == "late rewinding" else "0"
    spec = tiny_spec(**ONE | {"branches": ("again",)}, rewind__step=rewind,
                     branch={"again": {"kind": "retrain", **options}})  # fmt: skip
    train(tmp_path, spec)
    run_id = RunId("again", 1, 0, 0)
    trained = trained_runs.runs[run_id].experiment.spec.train
    assert trained == dataclasses.replace(spec.train, **options)
    start, ticket = trained_runs.start("again", 1), trained_runs.start(TRUNK, 1)
    assert start.step == ticket.step
    assert {k: v.tobytes() for k, v in host(start.state.params).items()} == {
        k: v.tobytes() for k, v in host(ticket.state.params).items()
    }
    (row,), ticket_row = rows_of(tmp_path, "again"), rows_of(tmp_path, TRUNK)[1]
    assert row["steps"] == steps
    assert row["kept"] == ticket_row["kept"]
    assert row["final_train_loss"] != ticket_row["final_train_loss"]
    end = host(trained_runs.ends[run_id].params)
    for leaf, mask in host(ticket.mask).items():
        assert not end[leaf][~mask].any()


def test_another_number_of_steps_compiles_no_other_program(tmp_path, compilations):
    """Invariant 10: the steps' number is an argument of the program."""
    fields = ONE | {"branches": ("retrain",)}
    train(tmp_path / "a", tiny_spec(**fields))
    compilations.clear()
    train(tmp_path / "b", tiny_spec(**fields, branch={"retrain": {"steps": "31"}}))
    assert compilations == []


@pytest.mark.parametrize(("schedule", "shared"), [("constant", True), ("cosine", False)])
def test_a_branch_of_other_steps_has_its_own_program_where_the_rate_knows_the_end(schedule, shared):
    shorter = {"shorter": {"kind": "retrain", "steps": "6"}}
    spec = tiny_spec(train__schedule=schedule, branches=("shorter",), branch=shorter)
    whole = build(spec)
    half = whole.for_branch("shorter")
    assert (half.program(1) is whole.program(1)) is shared
    assert half.steps == 6
