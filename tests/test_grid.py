"""The grid end to end: criteria × scopes × schedules × rewinds × branches, on real images."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from tiny import (
    Jobs,
    Recorder,
    StopAt,
    assert_same_run,
    curves,
    data_file,
    experiment,
    flip_byte,
    host,
    results,
    tiny_spec,
    train,
)

from lth_jax import flights
from lth_jax.branches import BRANCHES
from lth_jax.build import build
from lth_jax.errors import Interrupted
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.pruning.schedules import fractions_of, targets
from lth_jax.results import TRUNK, RunId
from lth_jax.spec import TRANSFERS
from lth_jax.store import RunDirectory, checkpoints

ONE = {"levels": 1, "replicates": 1, "branches": ()}
KERNELS = {"fc1/kernel": (64, 8), "output/kernel": (8, 10)}


@pytest.fixture
def jobs(monkeypatch):
    """Every job that is trained, and its end."""
    monkeypatch.setattr(Jobs, "jobs", {})
    monkeypatch.setattr(Jobs, "ends", {})
    monkeypatch.setattr("lth_jax.trunk.LevelTrainer", Jobs)
    return Jobs


@pytest.fixture
def single_steps(monkeypatch):
    monkeypatch.setattr(flights, "CHUNK_SECONDS", 0.0)


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """A finished trunk of two levels, one replicate."""
    path = tmp_path_factory.mktemp("plain") / "run"
    train(path, tiny_spec(levels=2, replicates=1, branches=()))
    return path


def level(path, number, replicate=0):
    folder = path / "checkpoints" / f"replicate_{replicate}" / f"level_{number:02d}"
    return checkpoints.load(folder)[0]


def mask_of(path, number):
    arrays = level(path, number)
    return {name: arrays[f"mask/{name}"] for name in KERNELS}


def rows_of(path, branch):
    """Rows of one branch without its name."""
    return [
        {k: v for k, v in row.items() if k != "branch"}
        for row in results(path)
        if row["branch"] == branch
    ]


# --- Criteria, scopes, schedules ------------------------------------------------------------


@pytest.mark.parametrize(
    "criterion",
    [
        name if name == "synflow" else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(CRITERIA)
    ],
)
def test_every_criterion_prunes_to_exactly_the_schedule_s_counts(tmp_path, criterion, plain):
    """Invariant 13, and level 0 is trained under every criterion, the same."""
    spec = tiny_spec(**ONE | {"levels": 2}, pruning__criterion=criterion)
    train(tmp_path, spec)
    masks = [mask_of(tmp_path, number) for number in range(3)]
    wanted = experiment(spec).targets
    for number, mask in enumerate(masks):
        for names, kept in wanted[number].items():
            assert sum(int(mask[name].sum()) for name in names) == kept
    for before, after in itertools.pairwise(masks):
        assert not any((after[name] & ~before[name]).any() for name in KERNELS)
    assert results(tmp_path)[0] == results(plain)[0]
    same = all((masks[1][n] == mask_of(plain, 1)[n]).all() for n in KERNELS)
    assert same is (criterion == "magnitude"), "it prunes as magnitude does"


@pytest.mark.slow
@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_criteria_at_the_rewind_point_are_blind_to_training(tmp_path, criterion):
    """Twice as many steps at level 0 change the mask of level 1 only where it looks at them."""
    masks = []
    for steps in ("12", "24"):
        spec = tiny_spec(**ONE, pruning__criterion=criterion, train__steps=steps)
        train(tmp_path / steps, spec)
        masks.append(mask_of(tmp_path / steps, 1))
    same = all((masks[0][name] == masks[1][name]).all() for name in KERNELS)
    blind = {"random", "large_init", "small_init", "snip", "grasp", "synflow"}
    assert same is (criterion in blind)


@pytest.mark.slow
def test_magnitude_at_the_rewind_point_is_large_init(tmp_path):
    train(tmp_path / "at", tiny_spec(**ONE, pruning__at="rewind"))
    train(tmp_path / "init", tiny_spec(**ONE, pruning__criterion="large_init"))
    assert_same_run(tmp_path / "at", tmp_path / "init")


@pytest.mark.slow
def test_snip_of_the_trained_network_is_another_one(tmp_path):
    for at in ("trained", "rewind", ""):
        train(tmp_path / f"x{at}", tiny_spec(**ONE, pruning__criterion="snip", pruning__at=at))
    masks = [mask_of(tmp_path / f"x{at}", 1)["fc1/kernel"] for at in ("trained", "rewind", "")]
    assert (masks[0] != masks[1]).any()
    assert (masks[1] == masks[2]).all()


@pytest.mark.parametrize("scope", ["global", pytest.param("erdos_renyi", marks=pytest.mark.slow)])
def test_every_scope_prunes_to_its_targets(tmp_path, scope):
    spec = tiny_spec(**ONE | {"levels": 2}, pruning__scope=scope, pruning__criterion="random",
                     pruning__layer_rates=(), pruning__densities=(0.4, 0.1))  # fmt: skip
    train(tmp_path, spec)
    rates = experiment(spec).rates
    wanted = targets(KERNELS, rates, fractions_of((0.4, 0.1)), scope=scope)
    for number in range(3):
        mask = mask_of(tmp_path, number)
        found = {names: sum(int(mask[name].sum()) for name in names) for names in wanted[number]}
        assert found == wanted[number]
    assert [row["kept"] for row in results(tmp_path)] == ["592", "237", "60"]


@pytest.mark.parametrize("rewind", ["0", "7"])
def test_a_one_shot_schedule_prunes_every_level_from_the_dense_network(tmp_path, rewind):
    spec = tiny_spec(**ONE | {"levels": 2}, pruning__schedule="one_shot", rewind__step=rewind)
    train(tmp_path, spec)
    weights = {name: np.abs(level(tmp_path, 0)[f"params/{name}"]) for name in KERNELS}
    for number in (1, 2):
        mask = mask_of(tmp_path, number)
        for names, kept in experiment(spec).targets[number].items():
            (name,) = names
            assert mask[name].sum() == kept
            assert weights[name][mask[name]].min() >= weights[name][~mask[name]].max()


@pytest.mark.slow
def test_a_one_shot_level_stands_on_level_0_alone(tmp_path):
    fields = ONE | {"pruning__schedule": "one_shot"}
    train(tmp_path, tiny_spec(**fields))
    flip_byte(data_file(tmp_path / "checkpoints" / "replicate_0" / "level_01"))
    recorder = Recorder()
    train(tmp_path, tiny_spec(**fields | {"levels": 2}), observer=recorder)
    assert recorder.trained() == [RunId(TRUNK, 2, 0, 0)]


# --- Rewinds --------------------------------------------------------------------------------


def assert_masked(found, wanted, mask):
    """`found` is `wanted` where kept, and zero where pruned, in every leaf, bit for bit."""
    assert found.keys() == wanted.keys()
    for name, leaf in found.items():
        kept = next((m for n, m in mask.items() if name.endswith(n)), np.array(True))
        survivors = np.where(np.broadcast_to(kept, leaf.shape), wanted[name], 0)
        assert leaf.tobytes() == survivors.astype(leaf.dtype).tobytes(), name


@pytest.mark.parametrize("rewind", ["0", "7"])
def test_learning_rate_rewinding_keeps_the_trained_weights(tmp_path, jobs, rewind):
    """Renda et al. 2020, §4: schedule, optimizer and data order go back, weights do not."""
    train(tmp_path, tiny_spec(**ONE | {"levels": 2}, rewind__kind="learning_rate",
                              rewind__step=rewind))  # fmt: skip
    e = experiment(tiny_spec(**ONE))
    for number in (1, 2):
        ticket = jobs.start(TRUNK, number)
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
def test_fine_tuning_goes_on_from_the_end_of_the_level_before(tmp_path, jobs, rewind, ends):
    """Weights, optimizer and all; each level adds the steps after the rewind point."""
    train(tmp_path, tiny_spec(**ONE | {"levels": 2}, rewind__kind="finetune",
                              rewind__step=rewind))  # fmt: skip
    for number in (1, 2):
        ticket = jobs.start(TRUNK, number)
        assert ticket.step == ends[number - 1]
        assert_masked(host(ticket.state), host(jobs.ends[RunId(TRUNK, number - 1, 0, 0)]),
                      host(ticket.mask))  # fmt: skip
        adam = ticket.state.opt_state[-1][0]
        assert int(adam.count) == ends[number - 1]
        store = RunDirectory.read(tmp_path)
        points = [point.step for point in store.curve(TRUNK, number)]
        assert (points[0], points[-1]) == (ends[number - 1], ends[number])
    steps = [int(row["steps"]) for row in results(tmp_path)]
    assert steps == [12, *[12 - int(rewind)] * 2]


def test_fine_tuned_in_one_shot_every_level_goes_on_from_level_0(tmp_path, jobs):
    train(tmp_path, tiny_spec(**ONE | {"levels": 2}, rewind__kind="finetune",
                              pruning__schedule="one_shot"))  # fmt: skip
    for number in (1, 2):
        ticket = jobs.start(TRUNK, number)
        assert ticket.step == 12
        assert_masked(host(ticket.state), host(jobs.ends[RunId(TRUNK, 0, 0, 0)]),
                      host(ticket.mask))  # fmt: skip
        assert jobs.jobs[RunId(TRUNK, number, 0, 0)].last == 24


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["learning_rate", "finetune"])
def test_other_rewinds_resume_to_the_same_bits(tmp_path, single_steps, kind):
    spec = tiny_spec(**ONE | {"branches": ("reinit", "freeze_pruned")}, rewind__kind=kind)
    train(tmp_path / "whole", spec)
    for poll in (60, 75):  # level 1
        with pytest.raises(Interrupted, match="level 1"):
            train(tmp_path / f"{poll}", spec, StopAt(poll))
        train(tmp_path / f"{poll}", spec)
        assert_same_run(tmp_path / f"{poll}", tmp_path / "whole")


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


# --- Branches -------------------------------------------------------------------------------

CONTROLS = tuple(name for name in BRANCHES if name not in TRANSFERS)


@pytest.fixture(scope="session")
def all_branches(tmp_path_factory):
    """Every branch of a level, added to a finished trunk; and what that trained."""
    path = tmp_path_factory.mktemp("all") / "run"
    train(path, tiny_spec(levels=1, replicates=1, branches=()))
    before = results(path)
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lth_jax.trunk.LevelTrainer", Jobs)
        spec = tiny_spec(levels=1, replicates=1, branches=CONTROLS)
        train(path, spec, observer=recorder)
    assert [row for row in results(path) if row["branch"] == TRUNK] == before
    return path, recorder, dict(Jobs.jobs), dict(Jobs.ends)


@pytest.mark.slow
def test_branches_added_to_a_finished_trunk_do_not_train_it_again(all_branches):
    path, recorder, _, _ = all_branches
    assert recorder.trained() == [RunId(name, 1, 0, 0) for name in CONTROLS]
    assert [row["branch"] for row in results(path)] == [TRUNK, TRUNK, *CONTROLS]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROLS)
def test_every_branch_has_the_ticket_s_density_and_length(all_branches, name):
    path, _, _, _ = all_branches
    (row,), ticket = rows_of(path, name), rows_of(path, TRUNK)[1]
    assert row["steps"] == ticket["steps"]
    assert row["prunable"] == ticket["prunable"]
    assert row["kept"] == (row["prunable"] if name == "dense" else ticket["kept"])
    if name in ("retrain", "one_shot"):  # level 1 *is* pruned in one shot
        assert row == ticket
    else:
        assert row["final_train_loss"] != ticket["final_train_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROLS)
def test_pruned_weights_stay_exactly_where_they_were_to_the_end(all_branches, name):
    _, _, jobs, ends = all_branches
    id = RunId(name, 1, 0, 0)
    start, end = host(jobs[id].ticket.state.params), host(ends[id].params)
    for leaf, mask in host(jobs[id].ticket.mask).items():
        assert end[leaf][~mask].tobytes() == start[leaf][~mask].tobytes()
        assert np.any(end[leaf][~mask]) == (name == "freeze_pruned" and not mask.all())
        assert np.any(end[leaf][mask] != start[leaf][mask])


@pytest.mark.slow
def test_the_dense_branch_repeats_level_0(all_branches):
    path, _, _, _ = all_branches
    (dense,), level_0 = rows_of(path, "dense"), rows_of(path, TRUNK)[0]
    assert {**dense, "level": "0"} == level_0


@pytest.mark.slow
def test_the_retrained_ticket_has_its_curve_too(all_branches):
    path, _, _, _ = all_branches
    found = curves(path)
    assert found["retrain/level_01.csv"] == found["ticket/level_01.csv"]


@pytest.mark.slow
def test_a_one_shot_branch_ranks_the_dense_network(all_branches):
    path, _, jobs, _ = all_branches
    mask = host(jobs[RunId("one_shot", 1, 0, 0)].ticket.mask)
    for name in KERNELS:
        weights = np.abs(level(path, 0)[f"params/{name}"])
        assert weights[mask[name]].min() >= weights[~mask[name]].max()


@pytest.mark.slow
def test_branches_keep_their_draws_apart(tmp_path, jobs):
    options = {name: {"draws": 2} for name in ("noise", "reshuffle", "constant_random_sign")}
    train(tmp_path, tiny_spec(**ONE | {"branches": tuple(options)}, branch=options))
    for name in options:
        one, other = (host(jobs.start(name, 1, draw=d).state.params) for d in (0, 1))
        assert np.any(one["fc1/kernel"] != other["fc1/kernel"])


OVERRIDES = {
    "optimizer": ({"optimizer": "sgd"}, "12"),
    "learning_rate": ({"learning_rate": 0.1}, "12"),
    "batch_size": ({"batch_size": 50}, "12"),
    "weight_decay": ({"weight_decay": 0.5}, "12"),
    "steps": ({"steps": "20"}, "20"),
    "epochs of its own batch": ({"steps": "3ep", "batch_size": 50}, "6"),
    "late rewinding": ({"optimizer": "momentum", "momentum": 0.5}, "5"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERRIDES)
def test_a_retrain_takes_its_own_training_options(tmp_path, jobs, name):
    """And starts from the ticket all the same."""
    options, steps = OVERRIDES[name]
    rewind = "7" if name == "late rewinding" else "0"
    spec = tiny_spec(**ONE | {"branches": ("again",)}, rewind__step=rewind,
                     branch={"again": {"kind": "retrain", **options}})  # fmt: skip
    train(tmp_path, spec)
    id = RunId("again", 1, 0, 0)
    assert jobs.jobs[id].experiment.spec.train == dataclasses.replace(spec.train, **options)
    start, ticket = jobs.start("again", 1), jobs.start(TRUNK, 1)
    assert start.step == ticket.step
    assert {k: v.tobytes() for k, v in host(start.state.params).items()} == {
        k: v.tobytes() for k, v in host(ticket.state.params).items()
    }
    (row,), ticket_row = rows_of(tmp_path, "again"), rows_of(tmp_path, TRUNK)[1]
    assert row["steps"] == steps
    assert row["kept"] == ticket_row["kept"]
    assert row["final_train_loss"] != ticket_row["final_train_loss"]
    end = host(jobs.ends[id].params)
    for leaf, mask in host(ticket.mask).items():
        assert not end[leaf][~mask].any()


def test_another_number_of_steps_compiles_no_other_program(tmp_path, compilations):
    """Invariant 10: the steps' number is an argument of the program."""
    fields = ONE | {"branches": ("retrain",)}
    train(tmp_path / "a", tiny_spec(**fields))
    compilations.clear()
    train(tmp_path / "b", tiny_spec(**fields, branch={"retrain": {"steps": "31"}}))
    assert compilations == []


@pytest.mark.slow
def test_a_convolutional_network_is_pruned_rewound_and_pruned_again(tmp_path):
    """Criteria that look at gradients too: their Hessians go through our convolutions."""
    conv = {"model__name": "conv2", "model__width": 0.05, "model__hidden": (300, 100)}
    conv |= {"branches": ("reinit", "random_mask")}
    train(tmp_path / "x", tiny_spec(replicates=1, **conv))
    assert len(results(tmp_path / "x")) == 3 + 2 * 2
    mask = level(tmp_path / "x", 2)
    wanted = experiment(tiny_spec(replicates=1, **conv)).targets[2]
    for names, kept in wanted.items():
        assert sum(int(mask[f"mask/{name}"].sum()) for name in names) == kept
    grasp = ONE | conv | {"branches": ()}
    train(tmp_path / "y", tiny_spec(**grasp, pruning__criterion="grasp"))
    assert results(tmp_path / "y")[0] == results(tmp_path / "x")[0]


@pytest.mark.parametrize(("schedule", "shared"), [("constant", True), ("cosine", False)])
def test_a_branch_of_other_steps_has_its_own_program_where_the_rate_knows_the_end(schedule, shared):
    whole = build(tiny_spec(train__schedule=schedule))
    half = whole.variant(dataclasses.replace(whole.spec.train, steps="6"))
    assert (half.program(1) is whole.program(1)) is shared
    assert half.steps == 6


@pytest.mark.parametrize("standardize", [False, True])
def test_criteria_see_the_pixels_that_training_sees(standardize):
    built = build(tiny_spec(data__standardize=standardize, data__flip=True))
    key = jax.random.key(0)
    images = np.asarray(built.probe(key, {}).images)
    chosen = jax.random.permutation(key, 100)
    np.testing.assert_array_equal(images, built.pixels.prepared(built.train.images[chosen]))
    assert bool(images.min() < 0) is standardize
    assert images.max() <= (4 if standardize else 1)
