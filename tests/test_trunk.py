"""The trunk in its run directory: what is trained, from what, and that nothing changes it."""

import dataclasses
import itertools
import re
import shutil
import signal
from typing import ClassVar

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import (
    Recorder,
    StopAt,
    arrays,
    assert_same_run,
    curves,
    data_file,
    experiment,
    flip_byte,
    host,
    results,
    tiny_spec,
    train,
)

from lth_jax import experiment as experiments
from lth_jax import flights, levels
from lth_jax.errors import Interrupted, RunError
from lth_jax.events import SilentObserver
from lth_jax.plan import planned_runs
from lth_jax.pruning.schedules import iterative
from lth_jax.results import TRUNK, RunId
from lth_jax.store import RunDirectory, checkpoints

SPEC = tiny_spec()
LATE = tiny_spec(rewind__step="7")


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The tiny experiment, never interrupted."""
    path = tmp_path_factory.mktemp("whole") / "run"
    train(path, SPEC)
    return path


@pytest.fixture(scope="session")
def late(tmp_path_factory):
    """The same with late rewinding, to step 7 (of 12, in the second epoch, at no evaluation)."""
    path = tmp_path_factory.mktemp("late") / "run"
    train(path, LATE)
    return path


@pytest.fixture(scope="session")
def three(tmp_path_factory):
    """Four levels of one replicate."""
    path = tmp_path_factory.mktemp("three") / "run"
    train(path, tiny_spec(levels=3, replicates=1))
    return path


@pytest.fixture
def single_steps(monkeypatch):
    """Chunks of one step: a pause after every one, however fast the machine."""
    monkeypatch.setattr(flights, "CHUNK_SECONDS", 0.0)


def load(path, replicate, name):
    return checkpoints.load(path / "checkpoints" / f"replicate_{replicate}" / name)[0]


def part(arrays, prefix):
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def assert_bits(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert found[name].dtype == wanted[name].dtype, name
        assert found[name].tobytes() == wanted[name].tobytes(), name


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
        assert 0 < row.train_seconds < 60


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
    plan = iterative(e.sizes(), e.rates, SPEC.pruning.fraction, scope="layerwise", levels=2)
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


# Rewinding


class Starts(levels.LevelTrainer):
    """Notes where every run starts."""

    seen: ClassVar[dict] = {}

    def train(self, level, jobs):
        for job in jobs:
            self.seen[job.id] = jax.device_get(job.ticket)
        return super().train(level, jobs)


@pytest.fixture
def starts(monkeypatch):
    monkeypatch.setattr(Starts, "seen", {})
    monkeypatch.setattr("lth_jax.trunk.LevelTrainer", Starts)
    return Starts.seen


def test_a_ticket_starts_from_the_stored_initialization_bit_for_bit(tmp_path, starts):
    train(tmp_path, SPEC)
    for replicate in (0, 1):
        initial = part(load(tmp_path, replicate, "initial"), "params/")
        for level in range(3):
            ticket = starts[RunId(TRUNK, level, replicate, 0)]
            assert ticket.step == 0
            masks, params = host(ticket.mask), host(ticket.state.params)
            assert masks.keys() == params.keys() == initial.keys()
            for name, weights in params.items():
                survivors = np.where(masks[name], initial[name], np.float32(0))
                assert weights.tobytes() == survivors.tobytes()
            assert_bits(masks, part(load(tmp_path, replicate, f"level_{level:02d}"), "mask/"))


def test_the_rewind_point_is_the_dense_run_s_whole_state_at_its_step(late):
    """Level 0 trained again to step 7 alone, in one piece, gives the stored state bit for bit."""
    from lth_jax.states import Inputs, new_run, stack_runs, unstack_run

    e = experiment(LATE)
    assert e.rewind_step == 7
    for replicate in (0, 1):
        state = e.initial(replicate)
        mask = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), state.params)
        run = stack_runs([new_run(state, len(e.train.labels))])
        inputs = stack_runs([Inputs(mask, e.run_key(replicate))])
        program = e.program(1)
        trained = unstack_run(program.train(run, inputs, e.train, 0, 7), 0)
        assert_bits(load(late, replicate, "rewind"), host(trained.state))
        assert_bits(part(load(late, replicate, "initial"), "params/"), host(state.params))


def test_late_rewinding_restores_survivors_and_their_moments_bit_for_bit(tmp_path, late, starts):
    train(tmp_path, LATE)
    assert_same_run(tmp_path, late)
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


def test_reinit_keeps_the_mask_and_draws_every_weight_anew(tmp_path, starts):
    train(tmp_path, tiny_spec(branch={"reinit": {"draws": 2}}))
    draws = [starts[RunId("reinit", 1, 0, draw)] for draw in (0, 1)]
    ticket = starts[RunId(TRUNK, 1, 0, 0)]
    for draw in draws:
        assert_bits(host(draw.mask), host(ticket.mask))
    for name, mask in host(ticket.mask).items():
        if name.endswith("kernel"):
            weights = [host(t.state.params)[name][mask] for t in (ticket, *draws)]
            assert all((a != b).all() for a, b in [weights[:2], weights[1:], weights[::2]])


def test_random_mask_keeps_the_counts_and_the_initial_weights(tmp_path, starts):
    train(tmp_path, SPEC)
    initial = part(load(tmp_path, 1, "initial"), "params/")
    ticket, control = (starts[RunId(branch, 2, 1, 0)] for branch in (TRUNK, "random_mask"))
    for name, mask in host(control.mask).items():
        kept = host(ticket.mask)[name]
        assert mask.sum() == kept.sum()
        assert kept.all() or (mask != kept).any()
        assert (host(control.state.params)[name][mask] == initial[name][mask]).all()


# Interrupted and resumed


def stopped_at(path, spec, poll):
    """Trains in chunks of one step until that poll; gives the interruption, None at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flights, "CHUNK_SECONDS", 0.0)
        try:
            train(path, spec, StopAt(poll))
        except Interrupted as stopped:
            return stopped
    return None


@pytest.mark.slow
@pytest.mark.parametrize(("rewind", "first"), [("0", 1), ("7", 30)])
def test_stopped_at_any_moment_and_resumed_is_bit_for_bit_the_same(
    tmp_path, whole, late, rewind, first
):
    """Stopped after any single step; what comes then is trained in chunks of many."""
    reference = late if rewind == "7" else whole
    spec = tiny_spec(rewind__step=rewind)
    for poll in itertools.count(first, 61):
        path = tmp_path / f"{poll}"
        stopped = stopped_at(path, spec, poll)
        if stopped:
            assert stopped.signum == signal.SIGINT
            assert re.fullmatch(r"level \d, step \d+ of 12", stopped.where)
            train(path, spec)
        assert_same_run(path, reference)
        assert not list(path.glob("checkpoints/progress_*"))
        if not stopped:
            break
    assert poll > 240, "it was stopped a few times only"


@pytest.mark.slow
def test_when_checkpoints_fall_changes_nothing(tmp_path, single_steps):
    """A checkpoint after every step, with and without a stop, or none at all."""
    fields = {"levels": 1, "replicates": 1, "branches": (), "rewind__step": "7"}
    spec = tiny_spec(**fields, checkpoint__every_seconds=0)
    train(tmp_path / "none", tiny_spec(**fields))
    train(tmp_path / "all", spec)
    assert_same_run(tmp_path / "all", tmp_path / "none")
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", spec, StopAt(21))
    train(tmp_path / "cut", spec)
    assert_same_run(tmp_path / "cut", tmp_path / "none")


@pytest.mark.slow
def test_stopped_again_and_again_it_still_arrives(tmp_path):
    """Each start gets a pause further: there is progress, and nothing of it is lost."""
    spec = tiny_spec(levels=1, replicates=1, branches=(), rewind__step="7")
    train(tmp_path / "whole", spec)
    stops = 0
    while True:
        try:
            train(tmp_path / "cut", spec, StopAt(2))
        except Interrupted:
            stops += 1
            assert stops < 100, "no progress"
        else:
            break
    assert stops > 5
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_a_start_that_goes_on_repeats_nothing(tmp_path, whole, single_steps):
    before, after = Recorder(), Recorder()
    with pytest.raises(Interrupted, match="level 1, step 8 of 12"):
        train(tmp_path, SPEC, StopAt(164), before)
    train(tmp_path, SPEC, observer=after)
    steps = [sum(event[1] for event in r.of("advanced")) for r in (before, after)]
    assert sum(steps) == len(planned_runs(SPEC)) * 12
    assert before.trained() == [RunId(TRUNK, 0, 0, 0), RunId(TRUNK, 0, 1, 0)]
    assert [level for level, *_ in after.of("level_started")] == [1, 2]
    assert after.of("note") == [("level 1 goes on from step 8 of 12",)]
    assert_same_run(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flip", "manifest", "remove", "all"])
def test_a_damaged_progress_is_said_and_not_used(tmp_path, whole, single_steps, damage):
    with pytest.raises(Interrupted):
        train(tmp_path, SPEC, StopAt(120))
    (progress,) = tmp_path.glob("checkpoints/progress_*")
    if damage == "flip":
        flip_byte(data_file(progress))
    elif damage == "manifest":
        flip_byte(progress / "manifest.json")
    elif damage == "remove":
        data_file(progress).unlink()
    else:
        shutil.rmtree(progress)
    recorder = Recorder()
    store = train(tmp_path, SPEC, observer=recorder)
    assert [progress.name in problem for problem in store.problems] == [True] * (damage != "all")
    assert recorder.of("note") == []
    assert_same_run(tmp_path, whole)


def test_a_kill_between_a_level_s_rows_and_its_end_repeats_nothing(tmp_path, three, monkeypatch):
    """The rows are written, the running level's state is still there."""
    spec = tiny_spec(levels=3, replicates=1, checkpoint__every_seconds=0.0)

    def die(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "clear_progress", die)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, spec)
    recorder = Recorder()
    train(tmp_path, dataclasses.replace(spec, checkpoint=SPEC.checkpoint), observer=recorder)
    assert [level for level, *_ in recorder.of("level_started")] == [1, 2, 3]
    assert recorder.of("note") == []
    assert_same_run(tmp_path, three)


# Side by side


def side_by_side(**fields):
    return tiny_spec(execution__workers=3, **fields)


def test_runs_side_by_side_give_the_same_bits(tmp_path, late, single_steps):
    train(tmp_path, side_by_side(rewind__step="7"))
    assert_same_run(tmp_path, late)


@pytest.mark.parametrize(
    "poll", [3, *(pytest.param(poll, marks=pytest.mark.slow) for poll in (20, 55))]
)
def test_side_by_side_stopped_and_resumed_is_bit_for_bit_the_same(
    tmp_path, late, single_steps, poll
):
    with pytest.raises(Interrupted):
        train(tmp_path, side_by_side(rewind__step="7"), StopAt(poll))
    assert len(list(tmp_path.glob("checkpoints/progress_*"))) == 1
    train(tmp_path, side_by_side(rewind__step="7"))
    assert_same_run(tmp_path, late)


# Growing


def test_a_finished_experiment_trains_nothing(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "run")
    before = (tmp_path / "run" / "results.csv").read_bytes()
    recorder = Recorder()
    train(tmp_path / "run", SPEC, observer=recorder)
    assert recorder.events == []
    assert (tmp_path / "run" / "results.csv").read_bytes() == before


SMALL = {"levels": 1, "replicates": 1, "branches": ("reinit",)}
BIG = tiny_spec(levels=2, replicates=3, branch={"random_mask": {"draws": 2}})


@pytest.fixture(scope="session")
def big(tmp_path_factory):
    path = tmp_path_factory.mktemp("big") / "run"
    train(path, BIG)
    return path


@pytest.mark.parametrize(
    "order",
    [
        ["levels", "replicates", "branches", "draws"],
        ["draws", "branches", "replicates", "levels"],
        pytest.param(["replicates", "draws", "levels", "branches"], marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_grown_step_by_step_is_the_same_as_at_once(tmp_path, big, order):
    """Levels, replicates, branches and draws; old rows stay to the byte, seconds too."""
    fields = dict(SMALL)
    train(tmp_path, tiny_spec(**fields))
    growth = {
        "levels": {"levels": 2},
        "replicates": {"replicates": 3},
        "branches": {"branches": ("reinit", "random_mask")},
        "draws": {"branch": {"random_mask": {"draws": 2}}},
    }
    for what in order:
        fields |= growth[what]
        spec = tiny_spec(**fields)
        old = (tmp_path / "results.csv").read_text().splitlines()
        known = set(RunDirectory.read(tmp_path).rows)
        kept = {
            folder: (folder / "manifest.json").read_bytes()
            for folder in tmp_path.glob("checkpoints/replicate_*/*")
        }
        recorder = Recorder()
        train(tmp_path, spec, observer=recorder)
        new = (tmp_path / "results.csv").read_text().splitlines()
        assert [line for line in new if line in set(old)] == old
        assert recorder.trained() == [id for id in planned_runs(spec) if id not in known]
        for folder, manifest in kept.items():
            assert (folder / "manifest.json").read_bytes() == manifest
    assert_same_run(tmp_path, big)


def test_more_replicates_at_once_change_nothing_of_the_first(whole, big):
    """Bit for bit the same with two replicates and one draw beside it, or three and two."""
    wanted = results(whole)
    found = [row for row in results(big) if row["replicate"] in "01" and row["draw"] == "0"]
    assert found == wanted
    mine, others = arrays(whole), arrays(big)
    assert [name for name in mine if mine[name] != others[name]] == []


def test_asking_for_less_deletes_nothing(tmp_path, whole):
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    train(path, tiny_spec(**SMALL))
    assert_same_run(path, whole)
    assert (path / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


def test_a_branch_at_chosen_levels_only(tmp_path, whole):
    spec = tiny_spec(branches=("random_mask",), branch={"random_mask": {"levels": (2,)}})
    train(tmp_path, spec)
    assert results(tmp_path) == [
        row
        for row in results(whole)
        if row["branch"] == TRUNK or (row["branch"], row["level"]) == ("random_mask", "2")
    ]


# Damaged checkpoints of the trunk


def grown(path, levels=3):
    recorder = Recorder()
    store = train(path, tiny_spec(levels=levels, replicates=1), observer=recorder)
    return store, recorder


@pytest.fixture
def two(tmp_path):
    """Levels 0 to 2 of `three`; the last is still to come."""
    path = tmp_path / "run"
    train(path, tiny_spec(levels=2, replicates=1))
    return path


@pytest.mark.parametrize(
    ("damaged", "again"), [((2,), (2,)), ((1, 2), (1, 2)), ((0, 1, 2), (0, 1, 2)), ((0, 1), ())]
)
def test_a_damaged_level_is_trained_again_only_if_needed(two, three, damaged, again):
    for level in damaged:
        flip_byte(data_file(two / "checkpoints" / "replicate_0" / f"level_{level:02d}"))
    store, recorder = grown(two)
    trained = [id for id in recorder.trained() if id.level < 3]
    assert trained == [RunId(TRUNK, level, 0, 0) for level in again]
    assert [f"level_{level:02d}" in problem for level, problem in
            zip(reversed(again), store.problems, strict=True)] == [True] * len(again)  # fmt: skip
    assert results(two) == results(three)
    assert curves(two) == curves(three)
    if again:
        assert_same_run(two, three)


def test_a_missing_level_is_trained_again_if_a_new_branch_needs_it(two, three):
    shutil.rmtree(two / "checkpoints" / "replicate_0" / "level_01")
    recorder = Recorder()
    spec = tiny_spec(replicates=1, branch={"reinit": {"draws": 2}})
    train(two, spec, observer=recorder)
    assert recorder.trained() == [
        RunId(TRUNK, 1, 0, 0), RunId("reinit", 1, 0, 1), RunId("reinit", 2, 0, 1)
    ]  # fmt: skip
    old = [row for row in results(three) if row["level"] != "3"]
    assert [row for row in results(two) if row["draw"] == "0"] == old


def test_a_damaged_initialization_is_drawn_again_with_the_same_bits(two, three):
    flip_byte(data_file(two / "checkpoints" / "replicate_0" / "initial"))
    store, _ = grown(two)
    assert ["initial" in problem for problem in store.problems] == [True]
    assert_same_run(two, three)


@pytest.mark.parametrize("missing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_damaged_rewind_point_is_trained_again_with_the_same_bits(tmp_path, late, missing):
    train(tmp_path, tiny_spec(rewind__step="7", levels=1))
    rewind = tmp_path / "checkpoints" / "replicate_1" / "rewind"
    if missing:
        shutil.rmtree(rewind)
    else:
        flip_byte(data_file(rewind))
    recorder = Recorder()
    train(tmp_path, LATE, observer=recorder)
    assert [id for id in recorder.trained() if id.level < 2] == [RunId(TRUNK, 0, 1, 0)]
    assert_same_run(tmp_path, late)


def test_a_rewind_point_lost_while_its_dense_run_is_under_way_comes_again(
    tmp_path, late, single_steps
):
    with pytest.raises(Interrupted, match="level 0, step 10 of 12"):
        train(tmp_path, LATE, StopAt(44))
    flip_byte(data_file(tmp_path / "checkpoints" / "replicate_0" / "rewind"))
    train(tmp_path, LATE)
    assert_same_run(tmp_path, late)


def test_a_lost_table_is_trained_again_with_the_same_bits(tmp_path, whole):
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    (path / "results.csv").unlink()
    train(path, SPEC)
    assert_same_run(path, whole)


# Compilation


@pytest.mark.slow
def test_one_compilation_serves_all_levels_branches_and_chunks(tmp_path, single_steps):
    """Nothing at all is compiled after level 1, and each function of the program once."""
    compiled, after_level = [], {}

    def listen(name, seconds, **details):
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(str(details.get("fun_name")))

    class Watch(SilentObserver):
        def level_finished(self, level, rows, seconds):
            after_level[level] = len(compiled)

    spec = tiny_spec(levels=4, model__hidden=(9,))  # shapes that no other test has
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        train(tmp_path, spec, observer=Watch())
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert after_level[0] > 0, "the listener hears nothing"
    assert compiled[after_level[1] :] == []
    assert len([name for name in compiled if "sequential" in name]) == 3  # train, evaluate, test


def test_a_group_size_is_compiled_once_too(tmp_path):
    e = dataclasses.replace(experiment(SPEC), programs={})
    calls = []

    class Counted(experiments.Program):
        def __init__(self, *args, **kwargs):
            calls.append(kwargs["group_size"])
            super().__init__(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "Program", Counted)
        assert e.program(2) is e.program(2)
        assert e.program(1) is not e.program(2)
    assert calls == [2, 1]


# Groups


@pytest.mark.slow
def test_runs_in_groups_agree_with_runs_in_sequence_to_tolerance(tmp_path, big):
    spec = dataclasses.replace(BIG, execution=dataclasses.replace(BIG.execution, group_size=3))
    train(tmp_path, spec)
    one, other = RunDirectory.read(big).rows, RunDirectory.read(tmp_path).rows
    assert one.keys() == other.keys()
    for id, row in other.items():
        assert (row.kept, row.prunable, row.steps) == (
            one[id].kept, one[id].prunable, one[id].steps
        )  # fmt: skip
        assert row.early_stop_val_loss == pytest.approx(one[id].early_stop_val_loss, abs=1e-4)
        assert row.final_train_loss == pytest.approx(one[id].final_train_loss, abs=1e-4)
    for replicate in range(3):
        for level in range(3):
            mine, theirs = (load(p, replicate, f"level_{level:02d}") for p in (tmp_path, big))
            for name, array in part(mine, "mask/").items():
                assert (array != theirs[f"mask/{name}"]).mean() < 0.02
            for name, array in part(mine, "params/").items():
                assert not array[~mine[f"mask/{name}"]].any()


@pytest.mark.slow
def test_groups_with_idle_runs_resume_too(tmp_path, single_steps):
    spec = tiny_spec(levels=1, replicates=1, execution__group_size=2)  # of 3 runs at level 1
    train(tmp_path / "whole", spec)
    with pytest.raises(Interrupted, match="level 1"):
        train(tmp_path / "cut", spec, StopAt(40))
    train(tmp_path / "cut", spec)
    one, other = results(tmp_path / "whole"), results(tmp_path / "cut")
    assert [r["branch"] for r in one] == [r["branch"] for r in other]
    for row, same in zip(one, other, strict=True):
        assert float(row["early_stop_val_loss"]) == pytest.approx(
            float(same["early_stop_val_loss"]), abs=1e-4
        )


# Divergence


def test_a_run_that_diverges_stops_with_a_clear_error_and_keeps_what_was_done(tmp_path):
    spec = tiny_spec(train__learning_rate=1e30)
    with pytest.raises(RunError) as error:
        train(tmp_path, spec)
    message = str(error.value)
    assert error.value.exit_status == 1
    assert re.search(r"replicate \d .*level 0", message)
    assert "diverged" in message
    assert "learning_rate" in message
    assert "\n" not in message
    assert [row["level"] for row in results(tmp_path)] == ["0", "0"]
    assert "ticket/level_00.csv" in curves(tmp_path)
    with pytest.raises(RunError):
        train(tmp_path, spec)


def test_only_diverged_evaluations_are_an_error_too(tmp_path, monkeypatch):
    """Where not even the first validation loss is finite, there is no early stop."""
    spec = tiny_spec(levels=0, branches=())
    initial = experiments.Experiment.initial

    def broken(self, replicate):
        state = initial(self, replicate)
        return state._replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, state.params))

    monkeypatch.setattr(experiments.Experiment, "initial", broken)
    with pytest.raises(RunError, match=r"ticket, level 0, replicate 0: .*learning_rate"):
        train(tmp_path, spec)
