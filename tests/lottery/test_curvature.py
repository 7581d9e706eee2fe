"""The curvature of the loss, measured in an experiment while its runs train."""

import dataclasses
import sys

import jax
import pytest

from lth_jax.cli.directory import read_directory
from lth_jax.config import CurvatureSpec
from lth_jax.errors import Interrupted, SpecError
from lth_jax.lottery.checks import check
from lth_jax.pruning.masks import ones_mask
from lth_jax.pruning.trees import to_device
from lth_jax.store import RunDirectory
from lth_jax.store.checkpoints import fill
from lth_jax.store.tables import CURVATURE
from lth_jax.training.curvature import sharpness

from ..tiny import StopAt, assert_same_run, curves, experiment, finished_run, tiny_spec, train

STEPS = ("0", "3", "1ep", "12")  # an epoch is 5 steps


def measured(**fields):
    return tiny_spec(
        levels=1, replicates=1, branches=("static", "set"), curvature__steps=STEPS,
        branch__set={"every": "3"}, curvature__examples=50, curvature__iterations=5, **fields,
    )  # fmt: skip


def curvature(path, *of):
    return RunDirectory.read(path).points(CURVATURE, *of)


@pytest.mark.slow
def test_every_run_is_measured_at_the_chosen_steps():
    path = finished_run(measured())
    for branch, level in (("ticket", 0), ("ticket", 1), ("static", 1), ("set", 1)):
        points = curvature(path, branch, level)
        assert [point.step for point in points] == [0, 3, 5, 12]
        # 50 examples are two whole batches of 20.
        assert {(point.examples, point.iterations) for point in points} == {(40, 5)}
        assert all(point.eigenvalue > point.residual >= 0 for point in points)


@pytest.mark.slow
def test_it_is_that_of_the_network_that_was_trained():
    spec = measured()
    built, path = experiment(spec), finished_run(spec)
    store = RunDirectory.read(path)
    (last,) = [p for p in store.points(CURVATURE, "ticket", 1) if p.step == 12]
    state = built.initial(0)
    like = {"params": state.params, "mask": ones_mask(state.params)}
    kept = to_device(fill(like, store.load(0, "level_01")))

    def loss(params, _, inputs, targets):
        outputs, _ = built.model.apply({"params": params}, built.pixels.prepared(inputs), True, {})
        return built.objective.train_loss(outputs, targets).mean()

    batches = tuple(
        array[:40].reshape(2, 20, *array.shape[1:])
        for array in (built.train.inputs, built.train.targets)
    )
    found = sharpness(
        loss, kept["params"], kept["mask"], batches, None, jax.random.key(0), iterations=5
    )
    assert found.eigenvalue == pytest.approx(last.eigenvalue, rel=1e-5)


@pytest.mark.slow
def test_measuring_changes_no_bit_of_a_run(tmp_path):
    spec = measured()
    plain = finished_run(dataclasses.replace(spec, curvature=CurvatureSpec()))
    more = {name for name in curves(finished_run(spec)) if "curvature" in name}
    assert len(more) == 4
    copy = finished_run(spec, tmp_path / "run")
    for name in more:
        (copy / "metrics" / name).unlink()
    assert_same_run(plain, copy)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 3, 4])
def test_stopped_anywhere_it_ends_with_the_same_table(tmp_path, monkeypatch, steps):
    spec = measured()
    with monkeypatch.context() as patch:
        patch.setattr("lth_jax.lottery.runs.CHUNK_SECONDS", 0.0)
        stop = StopAt(1, 3 * steps)
        with pytest.raises(Interrupted):
            train(tmp_path / "run", spec, stop)
    train(tmp_path / "run", spec)
    assert_same_run(tmp_path / "run", finished_run(spec))
    for branch in ("ticket", "set"):
        assert curvature(tmp_path / "run", branch, 1) == curvature(finished_run(spec), branch, 1)


def test_a_damaged_table_is_named(tmp_path):
    path = finished_run(measured(), tmp_path / "run")
    file = path / CURVATURE.file("set", 1)
    file.write_text(file.read_text().splitlines(keepends=True)[0])
    assert read_directory(path).problems == [
        "metrics/set/curvature_01.csv is damaged: it has no rows"
    ]


def test_a_step_past_the_end_and_a_missing_library_are_said_before_training(monkeypatch):
    with pytest.raises(SpecError, match=r"curvature.steps=.*training ends at step 12"):
        check(tiny_spec(curvature__steps=("13",)))
    check(tiny_spec(curvature__steps=("12",)))
    monkeypatch.setitem(sys.modules, "matfree", None)
    with pytest.raises(SpecError, match="matfree, which is not installed; pip install"):
        check(tiny_spec(curvature__steps=("12",)))
