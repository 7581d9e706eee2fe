"""The grid end to end: criteria, scopes and schedules, on real images."""

import itertools

import jax
import numpy as np
import pytest

from lth_jax.lottery.building import build
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.pruning.schedules import fractions_of, targets
from lth_jax.store.tables import TRUNK, RunId

from ..tiny import (
    Recorder,
    assert_same_run,
    data_file,
    experiment,
    flip_byte,
    results,
    tiny_spec,
    train,
)
from .grid_runs import KERNELS, ONE, level, mask_of


@pytest.mark.parametrize(
    "criterion",
    [
        name if name == "random" else pytest.param(name, marks=pytest.mark.slow)
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


@pytest.mark.parametrize("standardize", [False, True])
def test_criteria_see_the_pixels_that_training_sees(standardize):
    built = build(tiny_spec(data__standardize=standardize, data__flip=True))
    key = jax.random.key(0)
    images = np.asarray(built.probe(key, {}).inputs)
    chosen = jax.random.permutation(key, 100)
    np.testing.assert_array_equal(images, built.pixels.prepared(built.train.inputs[chosen]))
    assert bool(images.min() < 0) is standardize
    assert images.max() <= (4 if standardize else 1)
