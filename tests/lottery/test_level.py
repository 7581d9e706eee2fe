"""The host's side of a level: its events, its chunks, when it saves."""

import math
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lth_jax.errors import Interrupted
from lth_jax.lottery import runs
from lth_jax.store import RunDirectory
from lth_jax.store.tables import TRUNK, RunId
from lth_jax.training import loop as training

from ..tiny import Recorder, StopAt, assert_same_run, experiment, finished_run, tiny_spec, train

SPEC = tiny_spec(levels=1)


def by_level(recorder):
    """The events between each level's start and its end."""
    found, level = {}, None
    for name, *event in recorder.events:
        if name == "level_started":
            level = event[0]
            found[level] = {"started": event, "advanced": []}
        elif name == "advanced":
            assert event[0] == level, "an event outside of its level"
            found[level]["advanced"].append(event)
        elif name == "level_finished":
            assert event[0] == level
            found[level]["finished"] = event
            level = None
    assert level is None
    return found


def test_the_events_of_a_level_add_up(tmp_path):
    recorder = Recorder()
    store = train(tmp_path, SPEC, observer=recorder)
    found = by_level(recorder)
    assert list(found) == [0, 1]
    for level, count in ((0, 2), (1, 6)):
        _, density, started, steps, done = found[level]["started"]
        rows = [row for row in store.rows.values() if row.level == level]
        assert started == count
        assert (steps, done) == (count * 12, 0)
        assert density == pytest.approx(rows[0].density)
        assert sum(event[1] for event in found[level]["advanced"]) == steps
        _, finished, seconds = found[level]["finished"]
        assert finished == rows
        assert 0 < sum(row.train_seconds for row in rows) < seconds


def test_the_events_tell_the_trunk_s_latest_loss_and_accuracy(tmp_path):
    recorder = Recorder()
    store = train(tmp_path, tiny_spec(levels=0, replicates=1, branches=()), observer=recorder)
    told = [event[2:] for event in recorder.of("advanced") if event[2] is not None]
    curve = [(point.val_loss, point.val_accuracy) for point in store.curve(TRUNK, 0)]
    assert told == curve
    assert len(told) == 4


def test_a_level_with_late_rewinding_announces_the_steps_that_it_does(tmp_path):
    recorder = Recorder()
    train(tmp_path, tiny_spec(levels=1, rewind__step="7"), observer=recorder)
    for level, steps in ((0, 2 * 12), (1, 2 * (5 + 12 + 5))):
        events = by_level(recorder)[level]
        assert events["started"][3] == sum(event[1] for event in events["advanced"]) == steps


@pytest.mark.parametrize("every_seconds", [0, 1e6])
def test_it_saves_no_more_often_than_asked(tmp_path, monkeypatch, every_seconds):
    monkeypatch.setattr("lth_jax.lottery.runs.CHUNK_SECONDS", 0.0)
    saves = []
    save = RunDirectory.save_progress
    monkeypatch.setattr(
        RunDirectory, "save_progress", lambda *a: [saves.append(a[2]["level"]), save(*a)]
    )
    spec = tiny_spec(levels=0, replicates=1, branches=(), checkpoint__every_seconds=every_seconds)
    train(tmp_path, spec)
    assert saves == ([0] * 13 if every_seconds == 0 else [])


def test_what_is_saved_is_at_most_one_pause_old(tmp_path, monkeypatch):
    """A run that is killed without warning loses what came after its last save, no more."""
    monkeypatch.setattr("lth_jax.lottery.runs.CHUNK_SECONDS", 0.0)
    fields = {"levels": 0, "replicates": 1, "branches": ()}
    train_chunk = training.Program.train

    def die(self, run, inputs, examples, start, stop):
        if start == 8:
            raise KeyboardInterrupt
        return train_chunk(self, run, inputs, examples, start, stop)

    with monkeypatch.context() as patch:
        patch.setattr(training.Program, "train", die)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", tiny_spec(**fields, checkpoint__every_seconds=0))
    recorder = Recorder()
    train(tmp_path / "cut", tiny_spec(**fields), observer=recorder)
    assert recorder.of("note") == [("level 0 goes on from step 8 of 12",)]
    assert recorder.of("level_started") == [(0, 1.0, 1, 12, 8)]
    assert_same_run(tmp_path / "cut", finished_run(tiny_spec(**fields)))


def test_what_a_checkpoint_keeps_of_a_run_is_all_of_it(tmp_path, monkeypatch):
    """A group that goes on holds what the one that was stopped held, its early stop too."""
    groups = []

    class Noted(runs.RunGroup):
        def begin(self):
            super().begin()
            groups.append(self)
            self.at_start = jax.device_get(self.dense_state(0))

    monkeypatch.setattr("lth_jax.lottery.level.RunGroup", Noted)
    spec = tiny_spec(levels=0, replicates=1, branches=())
    with pytest.raises(Interrupted):
        train(tmp_path, spec, StopAt(level=0, updates=7))
    train(tmp_path, spec)
    stopped, resumed = groups
    ended = jax.device_get(stopped.dense_state(0))
    assert ended.best.step > 0
    for kept in ("state", "best", "loss_sum"):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(resumed.at_start, kept), getattr(ended, kept)
        )
    assert (resumed.step, resumed.evaluated) == (12, [12])


def test_what_was_saved_of_other_runs_is_passed_over(tmp_path, monkeypatch):
    """The last level's state is left by a kill; then a further draw is asked for."""
    fields = {"levels": 1, "replicates": 1, "branches": ("reinit",)}
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "clear_progress", lambda self: None)
        train(tmp_path, tiny_spec(**fields, checkpoint__every_seconds=0))
    recorder = Recorder()
    train(tmp_path, tiny_spec(**fields, branch={"reinit": {"draws": 2}}), observer=recorder)
    assert recorder.of("note") == []
    assert recorder.trained() == [RunId("reinit", 1, 0, 1)]
    assert recorder.of("level_started")[0][3] == 12
    assert RunDirectory.read(tmp_path).progress_checkpoints() == []


def test_a_stop_says_where_it_stands_and_where_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("lth_jax.lottery.runs.CHUNK_SECONDS", 0.0)
    spec = tiny_spec(levels=0, replicates=1, branches=())
    with pytest.raises(Interrupted) as stopped:
        train(tmp_path, spec, StopAt(level=0, updates=7, signum=15))
    assert (stopped.value.signum, stopped.value.where) == (15, "level 0, step 7 of 12")


def test_chunks_grow_to_about_a_second(tmp_path, monkeypatch):
    """One step before anything is known, then as many as a second takes, whatever a step takes."""
    chunks, clock = [], [0.0]
    train_chunk = training.Program.train

    def timed(self, run, inputs, examples, start, stop):
        chunks.append(stop - start)
        clock[0] += (stop - start) / 3.5
        return train_chunk(self, run, inputs, examples, start, stop)

    monkeypatch.setattr(training.Program, "train", timed)
    monkeypatch.setattr(
        runs, "time", SimpleNamespace(perf_counter=lambda: clock[0], monotonic=time.monotonic)
    )
    train(tmp_path, tiny_spec(levels=0, replicates=1, branches=()))
    assert chunks == [1, 3, 1, 3, 2, 2]


def test_the_axis_of_runs_is_as_long_as_asked_and_needed():
    e = experiment(tiny_spec())
    assert [e.group_size(runs) for runs in (1, 5)] == [1, 1]
    grouped = experiment(tiny_spec(execution__group_size=3))
    assert [grouped.group_size(runs) for runs in (1, 2, 3, 4, 5, 7)] == [1, 2, 3, 2, 3, 3]


def test_train_loss_is_the_mean_since_the_evaluation_before(tmp_path, monkeypatch):
    """Evaluated at every step, the losses average to those of fewer evaluations."""
    fields = {"levels": 0, "replicates": 1, "branches": ()}
    often = train(tmp_path / "often", tiny_spec(**fields, eval__every="1")).curve(TRUNK, 0)
    seldom = RunDirectory.read(finished_run(tiny_spec(**fields))).curve(TRUNK, 0)
    assert [point.step for point in often] == list(range(13))
    losses = {point.step: point.train_loss for point in often}
    before = 0
    for point in seldom[1:]:
        mean = math.fsum(losses[s] for s in range(before + 1, point.step + 1)) / (
            point.step - before
        )
        assert point.train_loss == pytest.approx(mean, rel=1e-5)
        before = point.step
