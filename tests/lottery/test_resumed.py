"""A trunk that is stopped and goes on, alone or side by side: the same bits."""

import dataclasses
import re
import shutil
import signal

import pytest

from lth_jax.errors import Interrupted
from lth_jax.lottery.plan import planned_runs
from lth_jax.store import RunDirectory
from lth_jax.store.tables import TRUNK, RunId

from ..tiny import Recorder, StopAt, assert_same_run, data_file, flip_byte, tiny_spec, train
from .trunk_runs import SPEC

# Interrupted and resumed


def stopped_at(path, spec, level, updates):
    """Trains in chunks of one step until so many are done; gives the interruption, or None."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lth_jax.lottery.runs.CHUNK_SECONDS", 0.0)
        try:
            train(path, spec, StopAt(level, updates))
        except Interrupted as stopped:
            return stopped
    return None


@pytest.mark.slow
@pytest.mark.parametrize("rewind", ["0", "7"])
def test_stopped_at_any_moment_and_resumed_is_bit_for_bit_the_same(tmp_path, whole, late, rewind):
    """Stopped after any single step; what comes then is trained in chunks of many."""
    reference = late if rewind == "7" else whole
    spec = tiny_spec(rewind__step=rewind)
    for level, updates in ((0, 1), (0, 16), (1, 0), (1, 29), (2, 13), (2, 40)):
        path = tmp_path / f"{level}_{updates}"
        stopped = stopped_at(path, spec, level, updates)
        assert stopped is not None
        assert stopped.signum == signal.SIGINT
        assert re.fullmatch(rf"level {level}, step \d+ of 12", stopped.where)
        train(path, spec)
        assert_same_run(path, reference)
        assert not list(path.glob("checkpoints/progress_*"))


@pytest.mark.slow
def test_when_checkpoints_fall_changes_nothing(tmp_path, single_steps):
    """A checkpoint after every step, with and without a stop, or none at all."""
    fields = {"levels": 1, "replicates": 1, "branches": (), "rewind__step": "7"}
    spec = tiny_spec(**fields, checkpoint__every_seconds=0)
    train(tmp_path / "none", tiny_spec(**fields))
    train(tmp_path / "all", spec)
    assert_same_run(tmp_path / "all", tmp_path / "none")
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", spec, StopAt(level=0, updates=9))
    train(tmp_path / "cut", spec)
    assert_same_run(tmp_path / "cut", tmp_path / "none")


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "replicates"), [(1, 1), (0, 2)])
def test_stopped_again_and_again_it_still_arrives(tmp_path, levels, replicates):
    """Each start gets a pause further: there is progress, and nothing of it is lost."""
    spec = tiny_spec(levels=levels, replicates=replicates, branches=(), rewind__step="7")
    train(tmp_path / "whole", spec)
    stops = 0
    while True:
        try:
            train(tmp_path / "cut", spec, StopAt(level=0))
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
        train(tmp_path, SPEC, StopAt(level=1, updates=50), before)
    train(tmp_path, SPEC, observer=after)
    steps = [sum(event[1] for event in r.of("advanced")) for r in (before, after)]
    assert sum(steps) == len(planned_runs(SPEC)) * 12
    assert before.trained() == [RunId(TRUNK, 0, 0, 0), RunId(TRUNK, 0, 1, 0)]
    assert [level for level, *_ in after.of("level_started")] == [1, 2]
    assert after.of("note") == [("level 1 goes on from step 8 of 12",)]
    assert_same_run(tmp_path, whole)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The tiny experiment, stopped within level 1."""
    path = tmp_path_factory.mktemp("stopped")
    assert stopped_at(path, SPEC, 1, 28) is not None
    return path


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flip", "manifest", "remove", "all"])
def test_a_damaged_progress_is_said_and_not_used(tmp_path, stopped, whole, damage):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
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


@pytest.mark.slow
def test_runs_side_by_side_give_the_same_bits(tmp_path, late, single_steps):
    train(tmp_path, side_by_side(rewind__step="7"))
    assert_same_run(tmp_path, late)


@pytest.mark.slow
@pytest.mark.parametrize("point", [(0, 1), (0, 17), (1, 23)])
def test_side_by_side_stopped_and_resumed_is_bit_for_bit_the_same(
    tmp_path, late, single_steps, point
):
    with pytest.raises(Interrupted):
        train(tmp_path, side_by_side(rewind__step="7"), StopAt(*point))
    assert len(list(tmp_path.glob("checkpoints/progress_*"))) == 1
    train(tmp_path, side_by_side(rewind__step="7"))
    assert_same_run(tmp_path, late)
