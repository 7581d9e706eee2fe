"""Tickets out of run directories and files: the trunk's own, bit for bit, to be trained again."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from lth_jax import load_ticket, load_trained
from lth_jax.cli import export
from lth_jax.errors import StoreError
from lth_jax.lottery.run import Run
from lth_jax.lottery.runs import RunGroup
from lth_jax.store import RunDirectory
from lth_jax.store.tables import TRUNK, RunId
from lth_jax.training.keys import data_key

from ..small_networks import assert_same_bits
from ..tiny import data_file, experiment, finished_run, flip_byte, tiny_spec, train

REWINDS = {
    "initialization": {},
    "late": {"rewind__step": "5"},
    "learning_rate": {"rewind__kind": "learning_rate", "rewind__step": "5"},
    "finetune": {"rewind__kind": "finetune"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run for each way to rewind, trained when it is first asked for."""
    folder, done = tmp_path_factory.mktemp("tickets"), {}

    def run(kind):
        if kind not in done:
            spec = tiny_spec(replicates=2, branches=(), **REWINDS[kind])
            done[kind] = train(folder / kind, spec)
        return done[kind]

    return run


def exported(store, file, *arguments):
    assert export.main([str(store.path), f"--out={file}", *arguments]) == 0
    return file


@pytest.mark.parametrize("kind", REWINDS)
@pytest.mark.parametrize("file_format", ["safetensors", "npz"])
def test_a_file_gives_the_same_ticket_as_the_run(kind, file_format, runs, tmp_path):
    store = runs(kind)
    arguments = (f"--format={file_format}", "--level=2", "--replicate=1")
    file = exported(store, tmp_path / "ticket", *arguments)
    ticket = load_ticket(file)
    assert_same_bits(ticket, load_ticket(store.path, 2, 1))
    assert_same_bits(ticket, load_ticket(file, level=2, replicate=1))
    assert_same_bits(load_trained(file), load_trained(store.path, 2, 1))
    assert not np.array_equal(
        ticket.mask["fc1"]["kernel"], load_ticket(store.path, 2, 0).mask["fc1"]["kernel"]
    )


@pytest.mark.parametrize("kind", REWINDS)
def test_training_a_ticket_from_a_file_gives_the_trunks_own_result(kind, runs, tmp_path):
    store = runs(kind)
    ticket = load_ticket(exported(store, tmp_path / "x", "--format=safetensors", "--level=2"))
    run_id = RunId(TRUNK, 2, 0, 0)
    last = ticket.step + store.rows[run_id].steps
    run = Run(run_id, ticket, experiment(store.spec()), last, data_key(0, 0))
    group = RunGroup([run], 1, {})
    while group.next_evaluation() is not None:
        group.advance(pauses=(), beside=1)
    (trained,) = group.finish()
    seconds = {"train_seconds": 0.0}
    assert dataclasses.replace(trained.row, **seconds) == dataclasses.replace(
        store.rows[run_id], **seconds
    )
    assert_same_bits(trained.state.params, jax.device_get(load_trained(store.path, 2)[0]))


def test_a_file_of_another_level_or_kind_is_refused(runs, tmp_path):
    store = runs("initialization")
    file = exported(store, tmp_path / "x", "--format=npz", "--level=1")
    with pytest.raises(StoreError, match="x holds level 1 alone, not 2"):
        load_ticket(file, level=2)
    with pytest.raises(StoreError, match="x holds replicate 0 alone, not 1"):
        load_ticket(file, level=1, replicate=1)
    exported(store, file, "--format=torch", "--level=1")
    with pytest.raises(StoreError, match="lth_jax network for PyTorch; accepted here: an lth_jax"):
        load_ticket(file)


def test_what_a_run_does_not_have_is_named(runs, tmp_path):
    path = runs("initialization").path
    having = "accepted: levels 0 to 2 of replicate 0, levels 0 to 2 of replicate 1"
    with pytest.raises(StoreError, match=f"which level. {having}"):
        load_ticket(path)
    with pytest.raises(StoreError, match=f"no level_07 of replicate 0: {having}"):
        load_ticket(path, 7)
    with pytest.raises(StoreError, match=f"no level_01 of replicate 5: {having}"):
        load_trained(path, 1, 5)
    with pytest.raises(StoreError, match="holds no run"):
        load_ticket(tmp_path / "nowhere", 1)


def test_a_lost_rewind_point_is_never_taken_for_initialization(runs, tmp_path):
    path = shutil.copytree(runs("late").path, tmp_path / "copy")
    shutil.rmtree(path / "checkpoints/replicate_0/rewind")
    with pytest.raises(StoreError, match="no rewind of replicate 0"):
        load_ticket(path, 1)


def test_a_damaged_checkpoint_is_never_exported(tmp_path, capsys):
    path = finished_run(tiny_spec(levels=1, replicates=1, branches=()), tmp_path / "run")
    flip_byte(data_file(path / "checkpoints" / "replicate_0" / "level_01"))
    status = export.main([str(path), "--level=1", "--format=npz", f"--out={tmp_path / 'file'}"])
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2
    assert "level_01" in line
    assert "is damaged" in line
    assert not (tmp_path / "file").exists()


@pytest.mark.slow
def test_a_branch_s_network_comes_out_of_run_and_file_alike(tmp_path):
    options = {"random_mask": {"draws": 2, "keep": True}}
    path = finished_run(tiny_spec(levels=1, branches=("random_mask",), branch=options))
    which = {"branch": "random_mask", "draw": 1}
    ticket = load_ticket(path, 1, 0, **which)
    state = load_ticket(path, 1, 0).state
    for name, mask in ticket.mask.items():
        kernel = mask["kernel"]
        assert np.any(kernel != load_ticket(path, 1, 0, branch="random_mask").mask[name]["kernel"])
        shared = kernel & load_ticket(path, 1, 0).mask[name]["kernel"]
        assert np.any(shared)
        for found in (ticket.state, state):
            np.testing.assert_array_equal(
                found.params[name]["kernel"][shared], state.params[name]["kernel"][shared]
            )
    file = tmp_path / "network.npz"
    arguments = ("--format=npz", "--level=1", "--branch=random_mask", "--draw=1")
    exported(RunDirectory.read(path), file, *arguments)
    assert_same_bits(load_ticket(file), ticket)
    assert_same_bits(load_trained(file), load_trained(path, 1, 0, **which))
    with pytest.raises(StoreError, match="has no random_mask_level_01_2 of replicate 0"):
        load_ticket(path, 1, 0, branch="random_mask", draw=2)
