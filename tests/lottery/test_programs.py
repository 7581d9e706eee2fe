"""What a trunk compiles, and runs in groups."""

import dataclasses

import jax
import jax.monitoring
import pytest

from lth_jax.errors import Interrupted
from lth_jax.lottery import experiment as experiments
from lth_jax.lottery.observer import Observer
from lth_jax.lottery.runs import RunGroup
from lth_jax.store import RunDirectory
from lth_jax.store.tables import TRUNK
from lth_jax.training.loop import Program

from ..tiny import Recorder, StopAt, experiment, finished_run, results, tiny_spec, train
from .trunk_runs import BIG, SPEC, load, part

# Compilation


@pytest.mark.slow
def test_one_compilation_serves_all_levels_branches_and_chunks(tmp_path, single_steps):
    """Nothing at all is compiled after level 1, and each function of the program once."""
    compiled, after_level = [], {}

    def listen(name, seconds, **details):
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(str(details.get("fun_name")))

    class Watch(Observer):
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
@pytest.mark.parametrize(
    ("rewind", "sizes", "slots"),
    [
        ("0", {6: 1}, 6 * 12),
        # Tickets and random masks start at step 3: a sixth of the steps is done by copies.
        ("3", {6: 1}, 6 * 12),
        # At step 7 it would be more than a third: those pay for themselves alone.
        ("7", {2: 1, 4: 1}, 2 * 12 + 4 * 5),
    ],
)
def test_runs_that_start_at_different_steps_share_a_group_or_pay_for_themselves(
    tmp_path, monkeypatch, rewind, sizes, slots
):
    """Each does its own steps and evaluations, in as few programs as there are lengths."""
    spec = tiny_spec(levels=1, rewind__step=rewind, execution__group_size=6)
    trained, groups = [], []
    train_on, begin = Program.train, RunGroup.begin
    monkeypatch.setattr(
        Program,
        "train",
        lambda self, *a: [trained.append((self, a[-1] - a[-2])), train_on(self, *a)][1],
    )
    monkeypatch.setattr(RunGroup, "begin", lambda self: [groups.append(self), begin(self)])
    recorder = Recorder()
    store = train(tmp_path, spec, observer=recorder)
    level = groups[1:]  # the first one is of level 0
    assert {g.size: len([one for one in level if one.size == g.size]) for g in level} == sizes
    assert all(len(group.runs) == group.size for group in level)
    programs = {program for program, _ in trained}
    assert len(programs) == len({2} | sizes.keys())
    done = sum(p.group_size * steps for p, steps in trained) - 2 * 12
    assert done == slots
    assert sum(steps for level, steps, *_ in recorder.of("advanced")) == sum(
        row.steps for row in store.rows.values()
    )
    assert_alike(tmp_path, finished_run(tiny_spec(levels=1, rewind__step=rewind)))


def assert_alike(path, other):
    """Asserts that runs in groups did the steps and evaluations of runs alone, to rounding."""
    mine, theirs = RunDirectory.read(path), RunDirectory.read(other)
    assert mine.rows.keys() == theirs.rows.keys()
    for run_id, row in mine.rows.items():
        same = theirs.rows[run_id]
        assert (row.kept, row.steps, row.last_step) == (same.kept, same.steps, same.last_step)
        assert row.early_stop_val_loss == pytest.approx(same.early_stop_val_loss, abs=1e-4)
        assert row.final_train_loss == pytest.approx(same.final_train_loss, abs=1e-4)
    for branch in (TRUNK, "reinit", "random_mask"):
        pairs = zip(mine.curve(branch, 1), theirs.curve(branch, 1), strict=True)
        for point, same in pairs:
            assert (point.replicate, point.step) == (same.replicate, same.step)
            assert point.val_loss == pytest.approx(same.val_loss, abs=1e-4)
            assert point.train_loss == pytest.approx(same.train_loss, abs=1e-4, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("updates", [4, 30])
def test_runs_that_have_not_joined_yet_or_have_resume_too(tmp_path, single_steps, updates):
    spec = tiny_spec(levels=1, rewind__step="3", execution__group_size=6)
    with pytest.raises(Interrupted, match="level 1"):
        train(tmp_path, spec, StopAt(level=1, updates=updates))
    train(tmp_path, spec)
    assert_alike(tmp_path, finished_run(tiny_spec(levels=1, rewind__step="3")))


@pytest.mark.slow
def test_runs_in_groups_agree_with_runs_in_sequence_to_tolerance(tmp_path, big):
    spec = dataclasses.replace(BIG, execution=dataclasses.replace(BIG.execution, group_size=3))
    train(tmp_path, spec)
    one, other = RunDirectory.read(big).rows, RunDirectory.read(tmp_path).rows
    assert one.keys() == other.keys()
    for run_id, row in other.items():
        assert (row.kept, row.prunable, row.steps) == (
            one[run_id].kept, one[run_id].prunable, one[run_id].steps
        )  # fmt: skip
        assert row.early_stop_val_loss == pytest.approx(one[run_id].early_stop_val_loss, abs=1e-4)
        assert row.final_train_loss == pytest.approx(one[run_id].final_train_loss, abs=1e-4)
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
        train(tmp_path / "cut", spec, StopAt(level=1, updates=8))
    train(tmp_path / "cut", spec)
    one, other = results(tmp_path / "whole"), results(tmp_path / "cut")
    assert [r["branch"] for r in one] == [r["branch"] for r in other]
    for row, same in zip(one, other, strict=True):
        assert float(row["early_stop_val_loss"]) == pytest.approx(
            float(same["early_stop_val_loss"]), abs=1e-4
        )
