"""Branches whose mask moves while they train: the same bits however they are stopped and cut."""

import itertools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.cli.directory import read_directory
from lth_jax.errors import Interrupted, SpecError, StoreError
from lth_jax.lottery.checks import check
from lth_jax.lottery.moving import Moving, MovingMask
from lth_jax.lottery.observer import Observer
from lth_jax.lottery.start_points import StartPoint
from lth_jax.pruning.masks import kept_counts, ones_mask, prunable
from lth_jax.pruning.moving import MASK_RULES, Course
from lth_jax.pruning.trees import named_leaves
from lth_jax.store import RunDirectory
from lth_jax.store.tables import MASKS, RunId
from lth_jax.training.states import new_loop_state, new_state, rewind

from ..small_networks import SHAPE, assert_same_bits, mlp, optimizer, random_mask
from ..tiny import (
    Recorder,
    StopAt,
    TrainedRuns,
    arrays,
    assert_same_run,
    host,
    results,
    tiny_spec,
    train,
)

RULES = ("static", "set", "rigl", "gmp", "ac_dc", "topkast")
# Of 12 steps: masks move at 3 and 6, between two evaluations and one step after one.
OPTIONS = {name: {"every": "3", "keep": True, "end": 0.75} for name in RULES}


def moving(**fields):
    given = {"branches": RULES, "branch": OPTIONS, "levels": 1, "replicates": 1, **fields}
    return tiny_spec(**given)


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A run of all rules, never interrupted; and what was trained."""
    path = tmp_path_factory.mktemp("moving") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lth_jax.lottery.runner.LevelTrainer", TrainedRuns)
        patch.setattr(TrainedRuns, "runs", {})
        patch.setattr(TrainedRuns, "ends", {})
        train(path, moving())
        return path, dict(TrainedRuns.runs), dict(TrainedRuns.ends)


def test_each_rule_ends_at_the_tickets_counts(moved):
    path, _, _ = moved
    rows = {row["branch"]: row for row in results(path)}
    counts = {rows[name]["kept"] for name in ("ticket", *RULES) if rows[name]["level"] == "1"}
    assert counts == {rows["ticket"]["kept"]}
    found = arrays(path)
    for name in RULES:
        masks = {n: a for n, a in found.items() if f"/{name}_level" in n and "/mask/" in n}
        for leaf, (dtype, content) in masks.items():
            mask = np.frombuffer(content, dtype)
            weights = np.frombuffer(*reversed(found[leaf.replace("/mask/", "/params/")]))
            assert not np.any(weights[~mask]), leaf
            if "kernel" in leaf:
                ticket = found[f"replicate_0/level_01/mask/{leaf.split('/mask/')[1]}"]
                assert mask.sum() == np.frombuffer(ticket[1], bool).sum()


def test_they_all_move_but_the_static_one(moved):
    path, runs, _ = moved
    for name in RULES:
        start = named_leaves(runs[RunId(name, 1, 0, 0)].start.mask)
        ended = {
            leaf.split("/mask/")[1]: np.frombuffer(*reversed(content))
            for leaf, content in arrays(path).items()
            if f"/{name}_level" in leaf and "/mask/" in leaf
        }
        same = all(np.array_equal(np.ravel(start[leaf]), mask) for leaf, mask in ended.items())
        assert same == (name == "static")


def test_each_move_is_counted_beside_the_curves(moved):
    path, runs, _ = moved
    store = RunDirectory.read(path)
    for row in results(path):
        name = row["branch"]
        points = store.points(MASKS, name, int(row["level"]))
        if row["level"] == "0" or name in ("ticket", "static"):
            assert points == []
            continue
        steps = [0, *(at for at in range(1, 13) if moving_of(runs, name).next_move(at) == at)]
        assert [point.step for point in points] == steps
        assert (points[0].dropped, points[0].grown) == (0, 0)
        assert points[-1].kept == int(row["kept"])
        assert {point.prunable for point in points} == {int(row["prunable"])}
        for before, now in itertools.pairwise(points):
            assert now.kept == before.kept - now.dropped + now.grown
            # At most what was grown is new.
            assert max(before.ever, now.kept) <= now.ever <= before.ever + now.grown
        if name in ("gmp", "ac_dc"):
            assert points[-1].ever == points[0].prunable


def test_operations_are_those_of_the_weights_that_there_are_at_each_step(moved):
    """Six for a weight of a dense layer, a step and an example of its batch."""
    path, _, _ = moved
    store = RunDirectory.read(path)
    for row in store.rows.values():
        found = store.points(MASKS, row.branch, row.level)
        kept = {0: row.kept} | {point.step: point.kept for point in found}
        ends = [*[*kept][1:], 12]
        weights = sum(kept[at] * (end - at) for at, end in zip(kept, ends, strict=True))
        # Top-KAST updates more weights than it keeps: nothing is said of it.
        assert row.operations == (0 if row.branch == "topkast" else 6 * 20 * weights)


def test_damaged_masks_are_named_refused_and_made_again(moved, tmp_path):
    whole, copy = moved[0], tmp_path / "run"
    shutil.copytree(whole, copy)
    file = copy / "metrics" / "gmp" / "masks_01.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))  # a row is lost
    wrong = "it does not end with the mask of gmp, level 1, replicate 0 in results.csv"
    assert read_directory(copy).problems == [f"metrics/gmp/masks_01.csv is damaged: {wrong}"]
    with pytest.raises(StoreError, match=rf"masks_01\.csv is damaged: {wrong}.*--repair"):
        train(copy, moving())
    emptied = copy / "metrics" / "rigl" / "masks_01.csv"
    emptied.write_text(emptied.read_text().splitlines(keepends=True)[0])
    recorder = Recorder()
    train(copy, moving(), observer=recorder, repair=True)
    assert recorder.trained() == [RunId("rigl", 1, 0, 0), RunId("gmp", 1, 0, 0)]
    assert read_directory(copy).problems == []
    assert_same_run(copy, whole)


def moving_of(runs, name):
    return runs[RunId(name, 1, 0, 0)].moving


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 4, 6, 9])
def test_stopped_at_a_move_or_between_it_ends_with_the_same_bits(
    moved, tmp_path, monkeypatch, steps
):
    """In chunks of one step until it is stopped, in as long ones as there are from then on."""
    with monkeypatch.context() as patch:
        patch.setattr("lth_jax.lottery.runs.CHUNK_SECONDS", 0.0)
        stop = StopAt(1, 7 * steps)
        with pytest.raises(Interrupted):
            train(tmp_path / "run", moving(), stop)
    train(tmp_path / "run", moving())
    assert_same_run(tmp_path / "run", moved[0])


@pytest.mark.slow
def test_neither_checkpoints_nor_chunks_nor_other_runs_change_a_bit(moved, tmp_path, monkeypatch):
    monkeypatch.setattr("lth_jax.lottery.runs.CHUNK_SECONDS", 0.0)
    fields = {"checkpoint__every_seconds": 0.0, "execution__workers": 2}
    train(tmp_path / "often", moving(branches=("rigl", "gmp"), **fields))
    some = [row for row in results(moved[0]) if row["branch"] in ("ticket", "rigl", "gmp")]
    assert results(tmp_path / "often") == some


class Watch(Observer):
    """Notes how much was compiled when each run of a level has trained so many steps."""

    def __init__(self, compilations):
        self.compilations, self.seen = compilations, []

    def level_started(self, level, density, runs, steps, done):
        self.seen = []

    def advanced(self, level, steps, loss, val_accuracy):
        self.seen += [len(self.compilations)] * steps


@pytest.mark.slow
def test_no_move_but_a_rules_first_compiles_anything(tmp_path, compilations):
    """Programs of the layouts that a schedule comes to are compiled before the first step."""
    options = {name: {"every": "2", "end": 0.9} for name in ("rigl", "set", "gmp", "ac_dc")}
    for name in options:
        watch = Watch(compilations)
        spec = moving(
            branches=(name,), branch=options, train__kernel="sparse", model__hidden=(11,),
            pruning__fraction=0.9, train__steps="20",
        )  # fmt: skip
        train(tmp_path / name, spec, observer=watch)
        # The ticket trains first, then the branch, whose first move is at 2 at the latest.
        assert len(watch.seen) == 40, "a step was not told"
        assert watch.seen[23] == watch.seen[-1], f"{name} compiles on its way"
        kernels = {row["branch"]: row["kernel"] for row in results(tmp_path / name)}
        assert kernels[name] == "sparse"


@pytest.mark.slow
def test_packed_masks_move_alike_and_survive_a_stop(tmp_path, monkeypatch):
    """Of a network whose layers are packed, tables are made anew; bits do not depend on stops."""
    some = ("rigl", "gmp", "topkast")
    fields = {"branches": some, "eval__every": "2"}
    spec = moving(train__kernel="sparse", **fields)
    train(tmp_path / "whole", spec)
    kernels = {row["branch"]: row["kernel"] for row in results(tmp_path / "whole")}
    assert kernels == {"ticket": "sparse", "rigl": "sparse", "gmp": "sparse", "topkast": "native"}
    for steps in (3, 7):
        with monkeypatch.context() as patch:
            patch.setattr("lth_jax.lottery.runs.CHUNK_SECONDS", 0.0)
            with pytest.raises(Interrupted):
                train(tmp_path / str(steps), spec, StopAt(1, 4 * steps))
        train(tmp_path / str(steps), spec)
        assert_same_run(tmp_path / str(steps), tmp_path / "whole")
    train(tmp_path / "xla", moving(train__kernel="xla", **fields))
    for mine, other in zip(results(tmp_path / "whole"), results(tmp_path / "xla"), strict=True):
        assert (mine["branch"], mine["kept"]) == (other["branch"], other["kept"])
        for column in ("early_stop_val_loss", "final_train_loss"):
            assert float(mine[column]) == pytest.approx(float(other[column]), rel=1e-3)
        assert mine["early_stop_step"] == other["early_stop_step"]


@pytest.mark.slow
def test_the_early_stop_of_an_earlier_mask_is_measured_under_that_mask(tmp_path):
    """Packed, what the loop carries of it lies in the order of a later mask."""
    fields = {
        "branches": ("rigl",), "eval__every": "1", "train__learning_rate": 0.01,
        "branch": {"rigl": {"every": "2", "fraction": 1.0, "end": 1.0}},
    }  # fmt: skip
    rows = {}
    for kernel in ("xla", "sparse"):
        train(tmp_path / kernel, moving(train__kernel=kernel, **fields))
        rows[kernel] = next(r for r in results(tmp_path / kernel) if r["branch"] == "rigl")
    for column in ("early_stop_step", "early_stop_test_accuracy", "final_test_accuracy"):
        assert rows["xla"][column] == rows["sparse"][column]


@pytest.mark.slow
def test_runs_that_train_in_one_vmap_move_their_masks_alike(moved, tmp_path):
    train(tmp_path / "run", moving(branches=("set", "rigl"), execution__group_size=3))
    there = {row["branch"]: row for row in results(moved[0]) if row["level"] == "1"}
    for mine in results(tmp_path / "run")[1:]:
        alone = there[mine["branch"]]
        assert (mine["branch"], mine["kept"]) == (alone["branch"], alone["kept"])
        loss, other = (float(row["final_train_loss"]) for row in (mine, alone))
        assert loss == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("name", ["gmp", "set"])
def test_an_early_stop_is_of_a_network_with_as_many_weights_as_its_row_says(name):
    """It is forgotten where a mask comes down to fewer weights, else kept with its mask."""
    model, transform = mlp(), optimizer("adam")
    state = new_state(model.init, transform, jax.random.key(0), jnp.zeros((1, *SHAPE)))
    rule = MASK_RULES[name]
    mask = ones_mask(state.params) if rule.starts_dense else random_mask(state.params)
    state = rewind(state, mask, transform)
    kept = {leaf: 10 if rule.starts_dense else some for leaf, (some, _) in counts(mask).items()}
    moving = Moving(rule, Course(kept, 0, 10, 50, 0.3), jax.random.key(0))
    moved = MovingMask.at_start(moving, StartPoint(mask, state, 0))
    before = new_loop_state(state, 50)
    best = before.best._replace(loss=jnp.float32(0.5), step=jnp.int32(5), params=state.params)
    after = moved.move(before._replace(best=best), None, 20, transform)
    if name == "gmp":
        assert int(after.best.step) == -1
        assert np.isinf(after.best.loss)
        assert not moved.is_of_best(after)
    else:
        assert int(after.best.step) == 5
        assert moved.is_of_best(after)
        assert_same_bits(moved.best_mask, mask)
        assert_same_bits(moved.with_best(after).best, best)
    assert counts(moved.mask) != counts(mask) or name == "set"
    # Survivors are the same bit for bit; the others are zero with their moments.
    adam = after.state.opt_state[-1][0]
    for leaf, old in named_leaves(state.params).items():
        both = np.asarray(named_leaves(mask)[leaf] & named_leaves(moved.mask)[leaf])
        new = np.asarray(named_leaves(after.state.params)[leaf])
        assert new[both].tobytes() == np.asarray(old)[both].tobytes()
        for tree in (after.state.params, adam.mu, adam.nu):
            assert not np.any(np.asarray(named_leaves(tree)[leaf])[~both])


def counts(mask):
    return kept_counts(mask, prunable(mask))


def test_a_ticket_s_own_mask_can_move(tmp_path, monkeypatch):
    monkeypatch.setattr("lth_jax.lottery.runner.LevelTrainer", TrainedRuns)
    options = {"moved": {"kind": "retrain", "rule": "rigl", "every": "3"}}
    train(tmp_path / "run", moving(branches=("moved",), branch=options))
    mine, ticket = (TrainedRuns.start(name, 1) for name in ("moved", "ticket"))
    assert_same_bits(mine, ticket)
    rows = {row["branch"]: row for row in results(tmp_path / "run")}
    assert rows["moved"]["kept"] == rows["ticket"]["kept"]
    assert rows["moved"]["final_train_loss"] != rows["ticket"]["final_train_loss"]


@pytest.mark.parametrize("distribution", ["uniform", "erdos_renyi", "erdos_renyi_kernel"])
def test_weights_are_shared_out_over_layers_as_asked(tmp_path, monkeypatch, distribution):
    monkeypatch.setattr("lth_jax.lottery.runner.LevelTrainer", TrainedRuns)
    options = {"rigl": {"distribution": distribution, "every": "3"}}
    train(tmp_path / "run", moving(branches=("rigl",), branch=options))
    start, ticket = (host(TrainedRuns.start(name, 1).mask) for name in ("rigl", "ticket"))
    kept = {name: int(leaf.sum()) for name, leaf in start.items() if name.endswith("kernel")}
    total = sum(int(ticket[name].sum()) for name in kept)
    assert sum(kept.values()) == total
    # 64 × 8 and 8 × 10 weights: Erdős–Rényi gives them in the ratio of 72 to 18, 80 at most.
    output = {"uniform": round(total * 80 / 592)}.get(distribution, 80)
    assert abs(kept["output/kernel"] - output) <= 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kind": "reinit", "rule": "gmp"}, "config.branch.b.rule='gmp'"),
        ({"kind": "freeze_pruned", "rule": "rigl"}, "config.branch.b.rule='rigl'"),
        ({"kind": "rigl", "rule": "riggl"}, "config.branch.b.rule='riggl'"),
        ({"kind": "rigl", "begin": 0.8}, "config.branch.b.begin=0.8"),
        ({"kind": "gmp", "end": 1.0}, "config.branch.b.end=1.0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(options, named):
    with pytest.raises(SpecError) as refused:
        check(tiny_spec(branches=("b",), branch={"b": options}))
    assert str(refused.value).startswith(named)
    assert "accepted: " in str(refused.value)
    assert len(str(refused.value)) < 200
