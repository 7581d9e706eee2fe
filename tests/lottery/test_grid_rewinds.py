"""The grid end to end: rewinds, on real images."""

import numpy as np
import pytest

from lth_jax.errors import Interrupted
from lth_jax.store import RunDirectory, checkpoints
from lth_jax.store.tables import TRUNK, RunId

from ..tiny import StopAt, assert_same_run, experiment, host, results, tiny_spec, train
from .grid_runs import ONE, level, rows_of


def assert_masked(found, wanted, mask):
    """`found` is `wanted` where kept, and zero where pruned, in every leaf, bit for bit."""
    assert found.keys() == wanted.keys()
    for name, leaf in found.items():
        kept = next((m for n, m in mask.items() if name.endswith(n)), np.array(True))
        survivors = np.where(np.broadcast_to(kept, leaf.shape), wanted[name], 0)
        assert leaf.tobytes() == survivors.astype(leaf.dtype).tobytes(), name


@pytest.mark.parametrize("rewind", ["0", "7"])
def test_learning_rate_rewinding_keeps_the_trained_weights(tmp_path, trained_runs, rewind):
    """Renda et al. 2020, §4: schedule, optimizer and data order go back, weights do not."""
    train(tmp_path, tiny_spec(**ONE | {"levels": 2}, rewind__kind="learning_rate",
                              rewind__step=rewind))  # fmt: skip
    e = experiment(tiny_spec(**ONE))
    for number in (1, 2):
        ticket = trained_runs.start(TRUNK, number)
        assert ticket.step == int(rewind)
        mask = host(ticket.mask)
        before = level(tmp_path, number - 1)
        trained = {name: before[f"params/{name}"] for name in mask}
        assert_masked(host(ticket.state.params), trained, mask)
        if rewind == "0":
            point = host(e.optimizer.init(e.initial(0).params))
        else:
            arrays = checkpoints.load(tmp_path / "checkpoints/replicate_0/rewind")[0]
            prefix = "opt_state/"
            point = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        assert_masked(host(ticket.state.opt_state), point, mask)
    assert [row["steps"] for row in results(tmp_path)] == ["12", *[str(12 - int(rewind))] * 2]


@pytest.mark.parametrize(("rewind", "ends"), [("0", [12, 24, 36]), ("7", [12, 17, 22])])
def test_fine_tuning_goes_on_from_the_end_of_the_level_before(tmp_path, trained_runs, rewind, ends):
    """Weights, optimizer and all; each level adds the steps after the rewind point."""
    train(tmp_path, tiny_spec(**ONE | {"levels": 2}, rewind__kind="finetune",
                              rewind__step=rewind))  # fmt: skip
    for number in (1, 2):
        ticket = trained_runs.start(TRUNK, number)
        assert ticket.step == ends[number - 1]
        assert_masked(host(ticket.state), host(trained_runs.ends[RunId(TRUNK, number - 1, 0, 0)]),
                      host(ticket.mask))  # fmt: skip
        adam = ticket.state.opt_state[-1][0]
        assert int(adam.count) == ends[number - 1]
        store = RunDirectory.read(tmp_path)
        points = [point.step for point in store.curve(TRUNK, number)]
        assert (points[0], points[-1]) == (ends[number - 1], ends[number])
    steps = [int(row["steps"]) for row in results(tmp_path)]
    assert steps == [12, *[12 - int(rewind)] * 2]


def test_fine_tuned_in_one_shot_every_level_goes_on_from_level_0(tmp_path, trained_runs):
    train(tmp_path, tiny_spec(**ONE | {"levels": 2}, rewind__kind="finetune",
                              pruning__schedule="one_shot"))  # fmt: skip
    for number in (1, 2):
        ticket = trained_runs.start(TRUNK, number)
        assert ticket.step == 12
        assert_masked(host(ticket.state), host(trained_runs.ends[RunId(TRUNK, 0, 0, 0)]),
                      host(ticket.mask))  # fmt: skip
        assert trained_runs.runs[RunId(TRUNK, number, 0, 0)].last_step == 24


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["learning_rate", "finetune"])
def test_other_rewinds_resume_to_the_same_bits(tmp_path, single_steps, kind):
    spec = tiny_spec(**ONE | {"branches": ("reinit", "freeze_pruned")}, rewind__kind=kind)
    train(tmp_path / "whole", spec)
    for updates in (14, 21):
        with pytest.raises(Interrupted, match="level 1"):
            train(tmp_path / f"{updates}", spec, StopAt(level=1, updates=updates))
        train(tmp_path / f"{updates}", spec)
        assert_same_run(tmp_path / f"{updates}", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["learning_rate", "finetune"])
def test_a_bare_retrain_repeats_the_ticket_under_every_rewind(tmp_path, kind):
    spec = tiny_spec(levels=2, replicates=1, branches=("retrain",), rewind__kind=kind)
    train(tmp_path, spec)
    assert rows_of(tmp_path, "retrain") == rows_of(tmp_path, TRUNK)[1:]


@pytest.mark.slow
@pytest.mark.parametrize("steps", ["6", "20"])
def test_a_retrain_of_other_length_trains_that_long_when_fine_tuning_too(tmp_path, steps):
    spec = tiny_spec(levels=2, replicates=1, branches=("retrain",), rewind__kind="finetune",
                     branch={"retrain": {"steps": steps}})  # fmt: skip
    train(tmp_path, spec)
    assert [row["steps"] for row in rows_of(tmp_path, "retrain")] == [steps, steps]


@pytest.mark.slow
def test_the_branch_of_fine_tuning_trains_as_a_fine_tuned_trunk(tmp_path):
    """With an optimizer that has no moments; these begin anew in the branch."""
    fields = {"replicates": 1, "levels": 1, "train__optimizer": "sgd", "train__learning_rate": 0.5,
              "train__drops": (("6", 0.1),), "rewind__step": "5"}  # fmt: skip
    train(tmp_path / "trunk", tiny_spec(**fields, branches=(), rewind__kind="finetune"))
    train(tmp_path / "branch", tiny_spec(**fields, branches=("finetune",)))
    (row,) = rows_of(tmp_path / "branch", "finetune")
    assert row == rows_of(tmp_path / "trunk", TRUNK)[1]
    assert (row["steps"], row["last_step"]) == ("7", "19")
