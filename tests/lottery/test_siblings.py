"""Networks that part from the dense run or a ticket in a data order of their own, and kept ones."""

import numpy as np
import pytest

from lth_jax.errors import Interrupted, SpecError
from lth_jax.lottery.plan import planned_runs
from lth_jax.store import RunDirectory, checkpoint_name
from lth_jax.store.tables import TRUNK, RunId

from ..tiny import StopAt, assert_same_run, finished_run, results, tiny_spec, train
from .trunk_runs import assert_bits, load, part

SMALL = {"levels": 1, "replicates": 1, "branches": ("sibling",)}
PAIRS = {**SMALL, "branch.sibling.draws": 2, "branch.sibling.at": ("0", "7")}
SPEC = tiny_spec(**PAIRS)


@pytest.fixture
def pairs():
    return finished_run(SPEC)


def network(path, run):
    arrays = load(path, run.replicate, checkpoint_name(run))
    return part(arrays, "params/")


def test_the_dense_network_has_a_pair_at_each_step_and_a_ticket_one(pairs):
    runs = [run for run in planned_runs(SPEC) if run.branch == "sibling"]
    assert [(run.level, run.draw) for run in runs] == [(0, d) for d in range(4)] + [(1, 0), (1, 1)]
    rows = RunDirectory.read(pairs).rows
    # Each trains to the step at which the dense run ends: those that part at 7 for 5 steps.
    assert [rows[run].steps for run in runs] == [12, 5, 12, 5, 12, 12]
    assert {row.last_step for row in rows.values()} == {12}
    assert all(rows[run].density == 1 for run in runs[:4])


def test_siblings_part_from_the_dense_run_s_own_state(pairs, late):
    """What is kept at step 7 is what a rewind to step 7 keeps."""
    assert_bits(load(pairs, 0, "step_7"), load(late, 0, "rewind"))
    curve = {p.draw: p for p in RunDirectory.read(pairs).curve("sibling", 0) if p.step == 7}
    assert curve[1].val_loss == curve[3].val_loss  # both start in it


def test_each_sibling_has_an_order_of_its_own_at_all_levels_and_steps(pairs):
    networks = [network(pairs, RunId("sibling", 0, 0, draw)) for draw in range(4)]
    networks.append(network(pairs, RunId(TRUNK, 0, 0, 0)))
    kernels = [arrays["fc1/kernel"].tobytes() for arrays in networks]
    assert len(set(kernels)) == 5
    again = tiny_spec(**{**PAIRS, "branch.sibling.at": ("0",)})
    assert again.branch_spec("sibling").at == ("0",)


@pytest.mark.slow
def test_more_draws_leave_those_that_there_are_what_they_were(pairs, tmp_path):
    train(tmp_path, tiny_spec(**{**PAIRS, "branch.sibling.draws": 1}))
    rows = RunDirectory.read(tmp_path).rows
    assert len([run for run in rows if run.branch == "sibling"]) == 3
    train(tmp_path, SPEC)
    assert_same_run(tmp_path, pairs)


@pytest.mark.slow
def test_a_kill_between_parting_and_the_end_changes_no_bit(pairs, tmp_path):
    """The second group of level 0 is stopped on its way, after the dense run is done."""
    with pytest.raises(Interrupted):
        train(tmp_path, SPEC, StopAt(level=0, updates=6))
    train(tmp_path, SPEC)
    assert_same_run(tmp_path, pairs)


@pytest.mark.slow
def test_steps_that_are_asked_for_later_train_the_dense_run_once_more(pairs, tmp_path):
    finished_run(tiny_spec(**SMALL | {"branches": ()}), tmp_path)
    before = results(tmp_path)
    train(tmp_path, SPEC)
    assert_same_run(tmp_path, pairs)
    same = [{k: v for k, v in row.items() if k not in ("train_seconds", "checksum")}
            for row in results(tmp_path) if row["branch"] == TRUNK]  # fmt: skip
    assert same == [{k: v for k, v in row.items() if k in same[0]} for row in before]


def test_a_branch_keeps_its_networks_if_asked_and_trains_what_it_lacks(tmp_path):
    fields = {**SMALL, "branches": ("reinit",)}
    finished_run(tiny_spec(**fields), tmp_path)
    before = results(tmp_path)
    run = RunId("reinit", 1, 0, 0)
    assert RunDirectory.read(tmp_path).load(0, checkpoint_name(run)) is None
    train(tmp_path, tiny_spec(**fields, branch__reinit__keep=True))
    kept, ticket = load(tmp_path, 0, checkpoint_name(run)), load(tmp_path, 0, "level_01")
    assert_bits(part(kept, "mask/"), part(ticket, "mask/"))
    assert kept["params/fc1/kernel"].tobytes() != ticket["params/fc1/kernel"].tobytes()
    for old, new in zip(before, results(tmp_path), strict=True):
        assert {k for k in old if old[k] != new[k]} <= {"train_seconds", "checksum"}


@pytest.mark.slow
def test_a_damaged_network_of_a_sibling_is_trained_again(pairs, tmp_path):
    finished_run(SPEC, tmp_path)
    run = RunId("sibling", 0, 0, 3)
    before = network(tmp_path, run)
    for file in RunDirectory(tmp_path).checkpoint(0, checkpoint_name(run)).rglob("*"):
        if file.is_file() and file.stat().st_size > 2:
            file.write_bytes(file.read_bytes()[:-2])
    train(tmp_path, SPEC)
    assert_bits(network(tmp_path, run), before)


def test_a_cycle_is_the_ticket_s_training_and_goes_on_from_its_end(tmp_path):
    """Where the learning rate is constant, its first cycle is the ticket's own training."""
    run = train(tmp_path, tiny_spec(**SMALL | {"branches": ("cyclic",), "branch.cyclic.cycles": 2}))
    row = run.rows[RunId("cyclic", 1, 0, 0)]
    assert (row.steps, row.last_step) == (24, 24)
    ticket = {p.step: p for p in run.curve(TRUNK, 1)}
    cyclic = {p.step: p for p in run.curve("cyclic", 1)}
    assert sorted(cyclic) == [0, 5, 10, 15, 20, 24]
    assert all(cyclic[step] == ticket[step] for step in (5, 10))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"branch.sibling.at": ()}, "branch.sibling.at=()"),
        ({"branch.sibling.at": ("0", "0")}, "each once"),
        ({"branch.sibling.at": ("12",)}, "branch.sibling.at='12'"),
        ({"branches": ("reinit",), "branch.reinit.levels": (0,)}, "branch.reinit.levels=(0,)"),
        ({"branches": ("prune",), "branch.prune.criterion": "snp"}, "branch.prune.criterion='snp'"),
        ({"branch.sibling.cycles": 0}, "branch.sibling.cycles=0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(fields, message, tmp_path):
    from lth_jax.lottery.checks import check

    with pytest.raises(SpecError) as error:
        check(tiny_spec(**{**SMALL, **fields}))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_prune_by_the_levels_own_criterion_is_one_shot(tmp_path):
    """And another criterion has the ticket's counts: by layer, or of all layers together."""
    fields = {
        "branches": ("one_shot", "prune", "snip", "synflow"),
        "branch.snip.kind": "prune", "branch.snip.criterion": "snip",
        "branch.synflow.kind": "prune", "branch.synflow.criterion": "synflow",
        "branch.synflow.scope": "global", "branch.synflow.keep": True,
        "branch.snip.keep": True,
    }  # fmt: skip
    run = train(tmp_path, tiny_spec(**{**SMALL, **fields}))
    rows = {one.branch: one for one in run.rows.values() if one.level == 1}
    assert rows["one_shot"].early_stop_val_loss == rows["prune"].early_stop_val_loss
    assert len({row.kept for row in rows.values()}) == 1
    ticket = part(load(tmp_path, 0, "level_01"), "mask/")
    masks = {
        name: part(load(tmp_path, 0, checkpoint_name(RunId(name, 1, 0, 0))), "mask/")
        for name in ("snip", "synflow")
    }
    counts = {leaf: int(mask.sum()) for leaf, mask in ticket.items()}
    assert {leaf: int(mask.sum()) for leaf, mask in masks["snip"].items()} == counts
    assert any(np.any(ticket[leaf] != masks["snip"][leaf]) for leaf in ticket)
    assert {leaf: int(mask.sum()) for leaf, mask in masks["synflow"].items()} != counts
