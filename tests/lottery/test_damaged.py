"""Checkpoints of a trunk that are damaged or gone."""

import dataclasses
import shutil

import pytest

from lth_jax.errors import Interrupted, StoreError
from lth_jax.store.tables import TRUNK, RunId

from ..tiny import (
    Recorder,
    StopAt,
    assert_same_run,
    curves,
    data_file,
    finished_run,
    flip_byte,
    results,
    tiny_spec,
    train,
)
from .trunk_runs import LATE, SPEC


def grown(path, levels=3):
    recorder = Recorder()
    store = train(path, tiny_spec(levels=levels, replicates=1), observer=recorder)
    return store, recorder


@pytest.fixture
def two(tmp_path):
    """Levels 0 to 2 of `three`; the last is still to come."""
    return finished_run(tiny_spec(levels=2, replicates=1), tmp_path / "run")


@pytest.mark.parametrize(
    ("damaged", "again"),
    [
        ((2,), (2,)),
        pytest.param((1, 2), (1, 2), marks=pytest.mark.slow),
        pytest.param((0, 1, 2), (0, 1, 2), marks=pytest.mark.slow),
        ((0, 1), ()),
    ],
)
def test_a_damaged_level_is_trained_again_only_if_needed(two, three, damaged, again):
    for level in damaged:
        flip_byte(data_file(two / "checkpoints" / "replicate_0" / f"level_{level:02d}"))
    store, recorder = grown(two)
    trained = [run_id for run_id in recorder.trained() if run_id.level < 3]
    assert trained == [RunId(TRUNK, level, 0, 0) for level in again]
    assert [f"level_{level:02d}" in problem for level, problem in
            zip(reversed(again), store.problems, strict=True)] == [True] * len(again)  # fmt: skip
    assert results(two) == results(three)
    assert curves(two) == curves(three)
    if again:
        assert_same_run(two, three)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_damaged_initialization_is_drawn_again_with_the_same_bits(two, three):
    flip_byte(data_file(two / "checkpoints" / "replicate_0" / "initial"))
    store, _ = grown(two)
    assert ["initial" in problem for problem in store.problems] == [True]
    assert_same_run(two, three)


@pytest.mark.slow
@pytest.mark.parametrize("missing", [False, True])
def test_a_damaged_rewind_point_is_trained_again_with_the_same_bits(tmp_path, late, missing):
    finished_run(tiny_spec(rewind__step="7", levels=1), tmp_path)
    rewind = tmp_path / "checkpoints" / "replicate_1" / "rewind"
    if missing:
        shutil.rmtree(rewind)
    else:
        flip_byte(data_file(rewind))
    recorder = Recorder()
    train(tmp_path, LATE, observer=recorder)
    assert [run_id for run_id in recorder.trained() if run_id.level < 2] == [RunId(TRUNK, 0, 1, 0)]
    assert_same_run(tmp_path, late)


@pytest.mark.slow
def test_a_rewind_point_lost_while_its_dense_run_is_under_way_comes_again(
    tmp_path, late, single_steps
):
    with pytest.raises(Interrupted, match="level 0, step 10 of 12"):
        train(tmp_path, LATE, StopAt(level=0, updates=20))
    flip_byte(data_file(tmp_path / "checkpoints" / "replicate_0" / "rewind"))
    train(tmp_path, LATE)
    assert_same_run(tmp_path, late)


def repaired(path, spec):
    recorder = Recorder()
    store = train(path, spec, observer=recorder, repair=True)
    return store, recorder


def test_a_repair_trains_again_what_is_damaged_and_nothing_else(two, tmp_path):
    """A row, a curve, and the checkpoints of two levels; all come out as they were."""
    spec = tiny_spec(levels=2, replicates=1)
    before = shutil.copytree(two, tmp_path / "before")
    file = two / "results.csv"
    file.write_text(file.read_text().replace("random_mask,2,0,", "random_mask,2,0,1"))
    (two / "metrics/reinit/level_01.csv").write_text("")
    flip_byte(data_file(two / "checkpoints" / "replicate_0" / "level_01"))
    flip_byte(data_file(two / "checkpoints" / "replicate_0" / "initial"))
    with pytest.raises(StoreError, match=r"results\.csv is damaged: .*--repair"):
        train(two, spec)
    store, recorder = repaired(two, spec)
    assert recorder.trained() == [
        RunId(TRUNK, 0, 0, 0), RunId(TRUNK, 1, 0, 0), RunId("reinit", 1, 0, 0),
        RunId("random_mask", 2, 0, 0),
    ]  # fmt: skip
    assert recorder.of("note") == []
    assert len(store.problems) == 4
    assert_same_run(two, before)
    store, recorder = repaired(two, spec)
    assert recorder.trained() == store.problems == []


def test_a_repair_that_comes_out_otherwise_says_so(two):
    store = train(two, tiny_spec(levels=2, replicates=1))
    row = store.rows[RunId(TRUNK, 1, 0, 0)]
    store.record([dataclasses.replace(row, final_test_accuracy=0.5, train_seconds=1.0)])
    flip_byte(data_file(two / "checkpoints" / "replicate_0" / "level_01"))
    _, recorder = repaired(two, tiny_spec(levels=2, replicates=1))
    ((note,),) = recorder.of("note")
    assert note.startswith("ticket, level 1, replicate 0 was trained again and is another (final_t")
    assert "was 0.5, is" in note


def test_a_run_that_is_trained_again_keeps_its_curve_until_it_is_finished(two, single_steps):
    flip_byte(data_file(two / "checkpoints" / "replicate_0" / "level_02"))
    before = curves(two)
    with pytest.raises(Interrupted):
        train(two, tiny_spec(levels=3, replicates=1), StopAt(level=2, updates=8))
    assert curves(two) == before
    train(two, tiny_spec(levels=2, replicates=1))  # is not refused


@pytest.mark.slow
def test_a_lost_table_is_trained_again_with_the_same_bits(tmp_path, whole):
    path = finished_run(SPEC, tmp_path / "run")
    (path / "results.csv").unlink()
    train(path, SPEC)
    assert_same_run(path, whole)
