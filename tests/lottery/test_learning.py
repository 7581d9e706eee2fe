"""Branches whose masks are learned: exact counts, what trains and what stays, resume, groups."""

import shutil

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax.errors import Interrupted, SpecError
from lth_jax.lottery.checks import check
from lth_jax.lottery.pending import levels_behind
from lth_jax.pruning.learning import LEARNED_MASKS
from lth_jax.pruning.moving import MASK_RULES
from lth_jax.pruning.trees import map_named
from lth_jax.store import RunDirectory
from lth_jax.store.tables import RunId
from lth_jax.training.parameterization import at_step

from ..small_networks import bits
from ..tiny import (
    Recorder,
    StopAt,
    TrainedRuns,
    arrays,
    assert_same_run,
    experiment,
    host,
    results,
    tiny_spec,
    train,
)

RULES = tuple(LEARNED_MASKS)
# At this rate the scores of a dozen steps change places.
OPTIONS = {name: {"keep": True, "learning_rate": 0.1} for name in RULES}


def learned(**fields):
    own = {"branches": RULES, "branch": OPTIONS, "model__hidden": (8, 6), **fields}
    return tiny_spec(levels=1, replicates=1, **own)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run with a branch for each rule, the runs as they were trained, and where they ended."""
    path = tmp_path_factory.mktemp("learned") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lth_jax.lottery.runner.LevelTrainer", TrainedRuns)
        train(path, learned())
    return path, dict(TrainedRuns.runs), dict(TrainedRuns.ends)


def kept_of(path, name):
    """Leaf -> (mask, weights) of a branch's network, as its checkpoint has it."""
    stored = RunDirectory.read(path).load(0, f"{name}_level_01_0")
    leaves = {n.removeprefix("mask/"): a for n, a in stored.items() if n.startswith("mask/")}
    return {leaf: (mask, stored[f"params/{leaf}"]) for leaf, mask in leaves.items()}


@pytest.mark.parametrize("name", RULES)
def test_each_layer_keeps_as_many_weights_as_the_tickets(run, name):
    path, _, _ = run
    rows = {(row["branch"], row["level"]): row for row in results(path)}
    assert rows[name, "1"]["kept"] == rows["ticket", "1"]["kept"]
    ticket = RunDirectory.read(path).load(0, "level_01")
    for leaf, (mask, weights) in kept_of(path, name).items():
        assert mask.sum() == ticket[f"mask/{leaf}"].sum()
        assert not np.any(weights[~mask])
        assert np.all(weights[mask]) or "bias" in leaf


@pytest.mark.parametrize("name", RULES)
def test_its_mask_is_of_its_own_and_was_learned(run, name):
    path, runs, _ = run
    learning = runs[RunId(name, 1, 0, 0)].learning
    state = runs[RunId(name, 1, 0, 0)].start.state
    _, first = learning.network(learning.start(state, experiment(learned()).optimizer))
    ticket = RunDirectory.read(path).load(0, "level_01")
    for leaf, (mask, _) in kept_of(path, name).items():
        if "kernel" in leaf and "output" not in leaf:
            assert np.any(mask != ticket[f"mask/{leaf}"])
            assert np.any(mask != host(first)[leaf])


@pytest.mark.parametrize("name", ["supermask", "edge_popup"])
def test_where_scores_alone_train_weights_are_those_of_the_start(run, name):
    path, runs, _ = run
    start = host(runs[RunId(name, 1, 0, 0)].start.state.params)
    for leaf, (mask, weights) in kept_of(path, name).items():
        share = mask.size / mask.sum() if "kernel" in leaf else 1.0
        scale = share if name == "supermask" else share**0.5
        np.testing.assert_allclose(weights, np.where(mask, start[leaf] * scale, 0), rtol=1e-6)


def test_a_supermask_is_drawn_anew_in_each_step_and_measured_alike(run):
    learning = run[1][RunId("supermask", 1, 0, 0)].learning
    params = learning.start(run[1][RunId("supermask", 1, 0, 0)].start.state, optax.sgd(1.0)).params

    def network(step, train):
        constants = at_step(learning.constants, jnp.int32(step))
        return bits(constants.network(params, train))

    assert network(3, True) == network(3, True) != network(4, True)
    assert network(3, False) == network(4, False)


def test_where_weights_train_too_they_and_the_biases_have_moved(run):
    path, runs, _ = run
    start = host(runs[RunId("continuous_sparsification", 1, 0, 0)].start.state.params)
    for leaf, (mask, weights) in kept_of(path, "continuous_sparsification").items():
        assert np.any(weights[mask] != start[leaf][mask])


@pytest.mark.parametrize("name", RULES)
def test_the_row_is_of_the_network_that_is_kept(run, name):
    path, _, _ = run
    (row,) = [row for row in results(path) if row["branch"] == name]
    built = experiment(learned())
    params = {leaf: weights for leaf, (_, weights) in kept_of(path, name).items()}
    tree = map_named(lambda leaf, _: params[leaf], built.initial(0).params)
    found = built.program(1).measure(tree, {}, built.test)
    assert float(found.accuracy) == pytest.approx(float(row["final_test_accuracy"]))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [4, pytest.param(9, marks=pytest.mark.slow)])
def test_stopped_on_its_way_it_ends_with_the_same_bits(run, tmp_path, monkeypatch, steps):
    with monkeypatch.context() as patch:
        patch.setattr("lth_jax.lottery.runs.CHUNK_SECONDS", 0.0)
        with pytest.raises(Interrupted):
            train(tmp_path / "run", learned(), StopAt(1, 4 * steps))
    train(tmp_path / "run", learned())
    assert_same_run(tmp_path / "run", run[0])


@pytest.mark.slow
def test_beside_packed_layers_they_compute_with_whole_ones(run, tmp_path):
    train(tmp_path / "run", learned(train__kernel="sparse"))
    kernels = {row["branch"]: row["kernel"] for row in results(tmp_path / "run")}
    assert kernels == {"ticket": "sparse", **dict.fromkeys(RULES, "native")}
    for row, plain in zip(results(tmp_path / "run"), results(run[0]), strict=True):
        if row["branch"] in RULES:
            loss = float(plain["final_train_loss"])
            assert float(row["final_train_loss"]) == pytest.approx(loss, rel=0.05)


@pytest.mark.slow
def test_in_one_group_they_train_as_alone(run, tmp_path):
    """Two draws of one branch in one `vmap`; there, bits are another program's."""
    options = {name: {**OPTIONS[name], "draws": 2} for name in RULES}
    train(tmp_path / "run", learned(branch=options, execution__group_size=2))
    alone = {row["branch"]: row for row in results(run[0])}
    for row in results(tmp_path / "run"):
        if row["branch"] in RULES and row["draw"] == "0":
            loss = float(alone[row["branch"]]["final_train_loss"])
            assert float(row["final_train_loss"]) == pytest.approx(loss, rel=0.05)


@pytest.mark.slow
def test_draws_differ_and_signed_constants_are_chosen_among(tmp_path):
    options = {"edge_popup": {**OPTIONS["edge_popup"], "draws": 2, "weights": "signed_constant"}}
    path = tmp_path / "run"
    train(path, learned(branches=("edge_popup",), branch=options))
    found = arrays(path)
    one, other = (f"replicate_0/edge_popup_level_01_{draw}/mask/fc1/kernel" for draw in (0, 1))
    assert found[one] != found[other]
    mask, weights = kept_of(path, "edge_popup")["fc1/kernel"]
    assert len(np.unique(np.abs(weights[mask]))) == 1
    assert len(np.unique(np.sign(weights[mask]))) == 2


def taking():
    """The run's, with branches that train what two of them found."""
    options = {
        **OPTIONS,
        "again": {"kind": "mask_of", "of": "edge_popup", "draws": 2},
        "moved": {"kind": "set", "every": "3"},
        "still": {"kind": "mask_of", "of": "moved"},
    }
    return learned(branches=(*RULES, "again", "moved", "still"), branch=options)


def test_a_mask_that_was_found_is_trained_from_the_rewind_point(run, tmp_path, monkeypatch):
    path, recorder = tmp_path / "run", Recorder()
    shutil.copytree(run[0], path)
    monkeypatch.setattr("lth_jax.lottery.runner.LevelTrainer", TrainedRuns)
    train(path, taking(), observer=recorder)
    trained = [str(run) for run in recorder.trained()]
    # `moved` has its network kept, since another needs it; what is there already stays.
    assert sorted(trained[:1]) == ["moved, level 1, replicate 0"]
    assert sorted(trained[1:]) == [
        "again, level 1, replicate 0",
        "again, level 1, replicate 0, draw 1",
        "still, level 1, replicate 0",
    ]
    first = host(RunDirectory.read(path).load(0, "initial"))
    for name, of in (("again", "edge_popup"), ("still", "moved")):
        start = TrainedRuns.runs[RunId(name, 1, 0, 0)].start
        found = kept_of(path, of)
        for leaf, mask in host(start.mask).items():
            np.testing.assert_array_equal(mask, found[leaf][0])
            wanted = np.where(mask, first[f"params/{leaf}"], 0)
            np.testing.assert_array_equal(host(start.state.params)[leaf], wanted)
    assert levels_behind(taking(), RunId("again", 1, 0, 0)) == []


@pytest.mark.slow
def test_what_found_a_mask_is_trained_again_where_its_network_was_not_kept(tmp_path):
    path, recorder = tmp_path / "run", Recorder()
    options = {"edge_popup": {"learning_rate": 0.1}}
    train(path, learned(branches=("edge_popup",), branch=options))
    options["again"] = {"kind": "mask_of", "of": "edge_popup"}
    train(path, learned(branches=("edge_popup", "again"), branch=options), observer=recorder)
    assert [run.branch for run in recorder.trained()] == ["edge_popup", "again"]


@pytest.mark.parametrize("name", [*MASK_RULES, *RULES, "random_mask"])
def test_what_takes_counts_alone_is_made_of_no_training_of_the_trunk(name):
    """So methods do not cost the ticket's levels, of which they are told numbers."""
    spec = tiny_spec(levels=2, branches=(name, "reinit"))
    assert levels_behind(spec, RunId(name, 2, 0, 0)) == []
    assert levels_behind(spec, RunId("reinit", 2, 0, 0)) == [0, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "supermask", "rule": "rigl"}, "the mask of supermask is learned"),
        ({"kind": "static", "weights": "signed_constant"}, "edge_popup or supermask"),
        ({"kind": "static", "of": "b"}, "'' save in a branch of the kind mask_of"),
        ({"kind": "mask_of"}, "another branch"),
        ({"kind": "mask_of", "of": "b"}, "another branch, no mask_of"),
        ({"kind": "mask_of", "of": "static"}, "another branch, no mask_of"),
    ],
)
def test_what_does_not_go_together_is_refused(options, said):
    with pytest.raises(SpecError, match=said):
        check(tiny_spec(branches=("b",), branch={"b": options}))
