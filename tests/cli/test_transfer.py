"""Transfers from the command line: the source first, the target from its tickets, safely."""

import jax
import numpy as np
import pytest

from lth_jax import load_ticket
from lth_jax.cli import run
from lth_jax.export.tickets import load_trained
from lth_jax.lottery import building
from lth_jax.store import RunDirectory, checkpoints
from lth_jax.store.tables import TRUNK, RunId

from ..tiny import StopAtPause, TrainedRuns, arguments, assert_same_run, host, results
from .transfers import CLASSES, HALVES, SMALL, SOURCE, assert_same_ticket, trunk_rows

# --- The whole of it ------------------------------------------------------------------------


def test_the_source_is_trained_first_and_its_tickets_on_the_target(main, tmp_path, trained_runs):
    status, out, err = main(*HALVES, *SOURCE, "--workdir=x")
    assert status == 0, err
    source, target = tmp_path / "x" / "source", tmp_path / "x"
    assert [row["branch"] for row in results(source)] == [TRUNK, TRUNK]
    assert [row["branch"] for row in results(target)] == [
        TRUNK, TRUNK, "transfer", "transfer_reinit"
    ]  # fmt: skip
    assert err.index("(source)") < err.rindex("lenet_digits")
    assert "transfer" in out
    # The halves share no training example, so their tickets differ.
    assert trunk_rows(source) != trunk_rows(target)
    ticket = load_ticket(source, 1)
    assert_same_ticket(trained_runs.start("transfer", 1), jax.device_get(ticket))
    reinit = trained_runs.start("transfer_reinit", 1)
    assert_same_ticket(reinit._replace(state=ticket.state), ticket)
    assert np.any(
        host(reinit.state.params)["fc1/kernel"] != host(ticket.state.params)["fc1/kernel"]
    )
    spec = RunDirectory.read(source).spec()
    assert (spec.data.part, spec.branches, dict(spec.source)) == ("1/2", (), {})


@pytest.mark.slow
def test_the_source_is_an_experiment_of_its_own(main, tmp_path):
    """Trained by itself it has the same bits, and the target's trunk is that of a plain run."""
    assert main(*HALVES, *SOURCE, "--workdir=x")[0] == 0
    plain = SMALL | {"branches": "()"}
    assert main(*arguments(**plain, data__part="1/2"), "--workdir=y")[0] == 0
    assert_same_run(tmp_path / "x" / "source", tmp_path / "y")
    assert main(*arguments(**plain, data__part="2/2"), "--workdir=z")[0] == 0
    assert trunk_rows(tmp_path / "x") == trunk_rows(tmp_path / "z")


@pytest.mark.slow
def test_a_second_start_trains_nothing(main, tmp_path, monkeypatch):
    status, first, _ = main(*HALVES, *SOURCE, "--workdir=x")
    assert status == 0
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.csv")}
    monkeypatch.setattr(building, "build", None)
    assert main(*HALVES, *SOURCE, "--workdir=x") == (0, first, "")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.csv")} == before


@pytest.mark.slow
def test_transfers_added_to_a_finished_trunk_train_the_source_alone(main, tmp_path, monkeypatch):
    plain = SMALL | {"branches": "()"}
    assert main(*arguments(**plain, data__part="2/2"), "--workdir=x")[0] == 0
    before = trunk_rows(tmp_path / "x")
    monkeypatch.setattr(TrainedRuns, "runs", {})
    monkeypatch.setattr("lth_jax.lottery.runner.LevelTrainer", TrainedRuns)
    assert main(*HALVES, *SOURCE, "--workdir=x")[0] == 0
    assert trunk_rows(tmp_path / "x") == before
    # The trunk's ids are those of the source.
    assert sorted(TrainedRuns.runs) == sorted([
        RunId(TRUNK, 0, 0, 0), RunId(TRUNK, 1, 0, 0), RunId("transfer", 1, 0, 0),
        RunId("transfer_reinit", 1, 0, 0),
    ])  # fmt: skip
    assert TrainedRuns.runs[RunId(TRUNK, 0, 0, 0)].experiment.spec.data.part == "1/2"


@pytest.mark.slow
def test_interrupted_in_the_source_and_in_the_target_it_ends_with_the_same_bits(
    main, tmp_path, monkeypatch
):
    monkeypatch.setattr("lth_jax.lottery.runs.CHUNK_SECONDS", 0.0)
    assert main(*HALVES, *SOURCE, "--workdir=whole")[0] == 0

    def stopped_at(pause):
        class Signals:
            def __enter__(self):
                return StopAtPause(pause)

            def __exit__(self, *_):
                pass

        with monkeypatch.context() as patch:
            patch.setattr(run, "listening", Signals)
            status, _, err = main(*HALVES, *SOURCE, "--workdir=cut")
        assert status == 130
        return next(line for line in err.splitlines() if "to go on" in line)

    source, target = tmp_path / "cut" / "source", tmp_path / "cut"
    assert "level 1" in stopped_at(20)
    assert (len(results(source)), target.joinpath("results.csv").exists()) == (1, False)
    # The source's other pauses, then the target: a signal is asked for again in each.
    assert "level 1" in stopped_at(35) if len(results(source)) == 2 else stopped_at(20)
    assert main(*HALVES, *SOURCE, "--workdir=cut")[0] == 0
    assert_same_run(target, tmp_path / "whole")
    assert_same_run(source, tmp_path / "whole" / "source")


# --- What differs ---------------------------------------------------------------------------


@pytest.mark.slow
def test_other_classes_remapped_take_the_whole_ticket(main, tmp_path, trained_runs):
    status, _, err = main(*CLASSES, "--config.source.data.classes=(0,1,2,3,4)", "--workdir=x")
    assert status == 0, err
    assert_same_ticket(
        trained_runs.start("transfer", 1), jax.device_get(load_ticket(tmp_path / "x/source", 1))
    )
    assert "output layer" not in err


@pytest.mark.slow
def test_another_number_of_classes_is_said_and_has_its_own_head(main, tmp_path, trained_runs):
    status, _, err = main(*CLASSES, "--config.source.data.classes=(0,1,2)", "--workdir=x")
    assert status == 0, err
    assert err.count("the source has another output layer: output/bias, output/kernel of tr") == 1
    start, source = trained_runs.start("transfer", 1), load_ticket(tmp_path / "x/source", 1)
    assert host(start.mask)["output/kernel"].shape == (8, 5)
    assert host(start.mask)["output/kernel"].all()
    initial = checkpoints.load(tmp_path / "x/checkpoints/replicate_0/initial")[0]
    found = host(start.state.params)
    for name in ("output/kernel", "output/bias"):
        assert found[name].tobytes() == initial[f"params/{name}"].tobytes()
    assert (host(start.mask)["fc1/kernel"] == host(source.mask)["fc1/kernel"]).all()
    assert found["fc1/kernel"].tobytes() == host(source.state.params)["fc1/kernel"].tobytes()
    (row,) = [row for row in results(tmp_path / "x") if row["branch"] == "transfer"]
    assert int(row["kept"]) == int(host(start.mask)["fc1/kernel"].sum()) + 40


@pytest.mark.slow
def test_another_optimizer_with_late_rewinding_works(main, tmp_path, trained_runs):
    """The source's moments are of no use to it."""
    given = arguments(**SMALL, rewind__step="7")
    status, _, err = main(*given, "--config.source.train.optimizer=sgd", "--workdir=x")
    assert status == 0, err
    assert_same_ticket(
        trained_runs.start("transfer", 1), jax.device_get(load_ticket(tmp_path / "x/source", 1))
    )
    (row,) = [row for row in results(tmp_path / "x") if row["branch"] == "transfer"]
    assert row["steps"] == "5"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["learning_rate", "finetune"])
def test_a_ticket_of_another_rewind_is_what_the_trunk_trained(main, tmp_path, trained_runs, kind):
    given = arguments(levels=2, replicates=1, branches="()", rewind__kind=kind)
    assert main(*given, "--workdir=x")[0] == 0
    for level in (0, 1, 2):
        found, wanted = load_ticket(tmp_path / "x", level), trained_runs.start(TRUNK, level)
        assert_same_ticket(jax.device_get(found), wanted)
        one, other = host(found.state.opt_state), host(wanted.state.opt_state)
        assert [leaf.tobytes() for leaf in one.values()] == [x.tobytes() for x in other.values()]


# --- Pre-training ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("classes", [None, pytest.param("(0,1,2)", marks=pytest.mark.slow)])
def test_pre_training_begins_with_the_source_s_trained_dense_network(main, tmp_path, classes):
    plain = SMALL | {"branches": "()"}
    if classes:
        given = arguments(**plain, data__train_size=0, data__classes=(5, 6, 7, 8, 9))
        source = [f"--config.source.data.classes={classes}"]
    else:
        given, source = arguments(**plain, data__part="2/2"), SOURCE
    given = [*given, *source, "--config.pretrain=True"]
    status, _, err = main(*given, "--workdir=x")
    assert status == 0, err
    assert [row["level"] for row in results(tmp_path / "x" / "source")] == ["0"]
    trained = host(load_trained(tmp_path / "x" / "source", 0)[0])
    initial = checkpoints.load(tmp_path / "x/checkpoints/replicate_0/initial")[0]
    for name, leaf in trained.items():
        own = initial[f"params/{name}"]
        if classes and name.startswith("output/"):
            assert own.shape != leaf.shape
        else:
            assert own.tobytes() == leaf.tobytes()
    # Tickets rewind to it, and a second start finds it.
    ticket = load_ticket(tmp_path / "x", 1)
    kernel, mask = host(ticket.state.params)["fc1/kernel"], host(ticket.mask)["fc1/kernel"]
    assert (kernel[mask] == trained["fc1/kernel"][mask]).all()
    before = results(tmp_path / "x")
    assert main(*given, "--workdir=x")[0] == 0
    assert results(tmp_path / "x") == before
