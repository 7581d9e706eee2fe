"""Checkpoints of a trunk that are damaged or gone."""

import shutil

import pytest

from lth_jax.errors import Interrupted
from lth_jax.store.tables import TRUNK, RunId

from ..tiny import (
    Recorder,
    StopAt,
    assert_same_run,
    curves,
    data_file,
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
    trained = [run_id for run_id in recorder.trained() if run_id.level < 3]
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
    assert [run_id for run_id in recorder.trained() if run_id.level < 2] == [RunId(TRUNK, 0, 1, 0)]
    assert_same_run(tmp_path, late)


def test_a_rewind_point_lost_while_its_dense_run_is_under_way_comes_again(
    tmp_path, late, single_steps
):
    with pytest.raises(Interrupted, match="level 0, step 10 of 12"):
        train(tmp_path, LATE, StopAt(level=0, updates=20))
    flip_byte(data_file(tmp_path / "checkpoints" / "replicate_0" / "rewind"))
    train(tmp_path, LATE)
    assert_same_run(tmp_path, late)


def test_a_lost_table_is_trained_again_with_the_same_bits(tmp_path, whole):
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    (path / "results.csv").unlink()
    train(path, SPEC)
    assert_same_run(path, whole)
