"""An experiment of which everything that has a name is a user's own, from a folder of theirs."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import lth_jax
from lth_jax import cli as commands
from lth_jax.errors import SpecError
from lth_jax.store.checkpoints import load

from ..registries import kept_registries
from ..tiny import results
from .own_rows import CONFIG

ROWS = {
    "model.name": "net", "data.name": "stripes", "pruning.criterion": "power",
    "train.optimizer": "clipped_lion", "train.schedule": "halved",
}  # fmt: skip


@contextlib.contextmanager
def in_folder(folder):
    """As in a process of its own, that was started there."""
    before = Path.cwd()
    os.chdir(folder)
    with kept_registries(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("lth_jax.report.figures.FIGURES", {})
        patch.setattr(sys, "path", list(sys.path))
        try:
            yield
        finally:
            os.chdir(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own_rows")
    (folder / "mine.py").write_text(CONFIG)
    with in_folder(folder):
        assert commands.main(["run", "mine.py", "--config.custom.b1=0.8", "--workdir=run"]) == 0
    return folder


@pytest.fixture
def mine(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "mine")


@pytest.fixture
def call(mine, capsys):
    def call(*arguments):
        with in_folder(mine):
            status = commands.main(list(map(str, arguments)))
        return status, *capsys.readouterr()

    return call


AGAIN = ("run", "mine.py", "--config.custom.b1=0.8", "--workdir=run")


@pytest.mark.slow
def test_all_of_it_is_trained_and_recorded(trained):
    branches = [(row["branch"], row["level"]) for row in results(trained / "run")]
    assert branches == [("ticket", "0"), ("ticket", "1"), ("shrunk", "1")]
    record = json.loads((trained / "run" / "spec.json").read_text())
    assert record["own"]["rows"] == ROWS
    assert record["spec"]["custom"] == {"depth": 2, "b1": 0.8}
    arrays = load(trained / "run" / "checkpoints" / "replicate_0" / "level_01")[0]
    assert "params/fc1/kernel" in arrays  # its depth came to the network
    log = (trained / "log.txt").read_text().splitlines()
    assert log == ["{'b1': 0.8, 'depth': 2} ['ticket 0', 'ticket 1', 'shrunk 1']"]


@pytest.mark.slow
def test_other_own_fields_are_another_experiment(call):
    status, _, err = call(*AGAIN, "--config.custom.depth=1")
    assert (status, err.count("\n")) == (2, 1)
    assert "holds another experiment (custom.depth: 2 there, 1 here)" in err


@pytest.mark.slow
def test_a_branch_is_added_later_with_its_function_and_the_observer_may_fail(mine, call):
    before = results(mine / "run")
    file = mine / "mine.py"
    more = "def same(at, shift=0.0):\n    return at.ticket\n\n\n"
    more += "def late(at):\n    state = at.ticket.state._replace(params=at.trained().params)\n"
    more += "    return at.ticket._replace(state=state)\n\n\nclass Log"
    content = file.read_text().replace("class Log", more)
    content = content.replace(
        '{"shrunk": shrunk}', '{"shrunk": shrunk, "same": same, "late": late}'
    )
    file.write_text(content.replace("if level == 2", "if level"))
    status, _, err = call(*AGAIN, "--config.branches=shrunk,same,late")
    assert status == 0, err
    assert "the observer 'log' failed and is told nothing more (OSError: the network" in err
    after = results(mine / "run")
    assert [row for row in after if row["branch"] not in ("same", "late")] == before
    assert [row["level"] for row in after if row["branch"] == "late"] == ["1"]
    (same,) = [row for row in after if row["branch"] == "same"]
    ticket = next(row for row in before if row["branch"] == "ticket" and row["level"] == "1")
    assert same | {"branch": "ticket"} == ticket


def test_an_edited_branch_is_another_branch_and_an_edited_optimizer_another_experiment(mine, call):
    file = mine / "mine.py"
    file.write_text(CONFIG.replace("factor * w", "-factor * w"))
    status, _, err = call(*AGAIN)
    assert (status, err.count("\n")) == (2, 1)
    assert "holds a branch 'shrunk' with other options" in err
    file.write_text(CONFIG.replace("clip_by_global_norm(1.0)", "clip_by_global_norm(2.0)"))
    status, _, err = call(*AGAIN)
    assert (status, err.count("\n")) == (2, 1)
    assert "mine.py: clipped_lion" in err


def test_the_state_of_a_ticket_needs_its_optimizer_and_nothing_else(mine, call):
    """The ticket trains from step 2, where there is a state of the optimizer."""
    run = mine / "run"
    with in_folder(mine):
        with pytest.raises(SpecError, match="optimizer='clipped_lion' is not the package"):
            lth_jax.load_ticket(run, 1)
        assert lth_jax.load_trained(run, 1)[0].keys() == {"fc0", "fc1", "output"}
    with in_folder(mine):
        by_copy = lth_jax.load_ticket(run, 1, trust=True)
    with in_folder(mine):
        by_file = lth_jax.load_ticket(run, 1, config=str(mine / "mine.py"))
    for one, other in zip(*map(jax.tree.leaves, (by_copy, by_file)), strict=True):
        np.testing.assert_array_equal(one, other)
    export = ("export", run, "--level=1", "--format=npz", "--out=ticket.npz")
    status, _, err = call(*export)
    assert (status, err.count("\n")) == (2, 1)
    assert "accepted: --config=FILE that has it, or --trust" in err
    assert call(*export, "--config=mine.py")[0] == 0
    with in_folder(mine):
        with pytest.raises(SpecError, match="accepted: config=FILE that has it"):
            lth_jax.load_ticket(mine / "ticket.npz")
        from_file = lth_jax.load_ticket(mine / "ticket.npz", config=str(mine / "mine.py"))
    for one, other in zip(*map(jax.tree.leaves, (by_copy, from_file)), strict=True):
        np.testing.assert_array_equal(one, other)
    for command in (["inspect", run, "--level=1"], ["list", mine], ["report", run]):
        assert call(*command)[0] == 0


@pytest.mark.slow
def test_it_runs_from_anywhere_as_a_command(tmp_path):
    """In a process of its own, with JAX's defaults, stopped by nothing."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "mine.py").write_text(CONFIG)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lth_jax",
            "run",
            "a folder/mine.py",
            "--config.levels=0",
            "--workdir=run",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(results(tmp_path / "run")) == 1
    assert "ticket 0" in (tmp_path / "log.txt").read_text()
