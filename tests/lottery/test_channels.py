"""An experiment that prunes channels: exact counts, smaller networks, the same results."""

import flax.linen as nn
import numpy as np
import pytest

from lth_jax.errors import Interrupted, SpecError
from lth_jax.lottery.building import build
from lth_jax.lottery.checks import check
from lth_jax.models import MODELS, custom_model
from lth_jax.pruning.masks import ones_mask
from lth_jax.pruning.trees import named_leaves
from lth_jax.store import RunDirectory
from lth_jax.training.narrowing import Narrow
from lth_jax.training.optimizers import OPTIMIZERS
from lth_jax.training.parameterization import DENSE
from lth_jax.training.states import rewind

from ..registries import kept_registries
from ..tiny import (
    StopAt,
    assert_same_run,
    experiment,
    finished_run,
    results,
    tiny_spec,
    train,
)

BRANCHES = ("random_mask", "one_shot", "snip", "static")
OPTIONS = {name: {"keep": True} for name in BRANCHES} | {
    "snip": {"kind": "prune", "criterion": "snip", "keep": True}
}


def channels(**fields):
    own = {
        "branches": BRANCHES,
        "branch": OPTIONS,
        "replicates": 1,
        "model__hidden": (8, 6),
        "pruning__granularity": "channel",
        "pruning__layer_rates": (),
    }
    return tiny_spec(**own | fields)


def masks(path, name):
    arrays = RunDirectory.read(path).load(0, name)
    return {n.removeprefix("mask/"): a for n, a in arrays.items() if n.startswith("mask/")}


def units(mask):
    """Which units of the two hidden layers a mask has; it has them everywhere or nowhere."""
    first, second = mask["fc1/bias"], mask["fc2/bias"]
    np.testing.assert_array_equal(mask["fc1/kernel"], np.tile(first, (64, 1)))
    np.testing.assert_array_equal(mask["fc2/kernel"], np.outer(first, second))
    np.testing.assert_array_equal(mask["output/kernel"], np.repeat(second[:, None], 10, 1))
    assert mask["output/bias"].all()
    return first, second


@pytest.mark.slow
def test_each_level_prunes_exactly_its_channels_and_branches_as_many():
    path = finished_run(channels())
    rows = {(row["branch"], row["level"]): row for row in results(path)}
    before = np.ones(8, bool), np.ones(6, bool)
    # floor(0.3 × 8) = 2 of 8, floor(0.3 × 6) = 1; then 1 of 6 and 1 of 5.
    for level, (first, second) in enumerate([(8, 6), (6, 5), (5, 4)]):
        now = units(masks(path, f"level_{level:02d}"))
        assert tuple(map(np.sum, now)) == (first, second)
        assert not any(np.any(one & ~old) for one, old in zip(now, before, strict=True))
        before = now
        weights = 64 * first + first * second + 10 * second
        row = rows["ticket", str(level)]
        assert (int(row["kept"]), int(row["prunable"])) == (weights, 64 * 8 + 8 * 6 + 6 * 10)
        # Six operations for a weight, a step and an example of its batch.
        assert float(row["operations"]) == 6 * weights * 12 * 20
        for name in BRANCHES if level else ():
            assert rows[name, str(level)]["kept"] == row["kept"]
            if name != "static":
                found = units(masks(path, f"{name}_level_{level:02d}_0"))
                assert tuple(map(np.sum, found)) == (first, second)


@pytest.mark.slow
def test_the_lowest_l1_norms_go():
    path = finished_run(channels())
    trained = RunDirectory.read(path).load(0, "level_00")
    kept = masks(path, "level_01")["fc1/bias"]
    norms = np.abs(trained["params/fc1/kernel"].astype(np.float64)).sum(0)
    assert norms[kept].min() > norms[~kept].max()
    # What is gone is zero with all that it had: nothing of it trained.
    after = RunDirectory.read(path).load(0, "level_01")
    assert not after["params/fc1/bias"][~kept].any()
    assert not after["params/fc2/kernel"][~kept].any()
    assert after["params/fc1/bias"][kept].any()


@pytest.mark.slow
def test_a_ticket_trains_without_its_pruned_channels_and_ends_as_with_zeros(tmp_path, monkeypatch):
    spec = channels(branches=("reinit",), branch={"reinit": {"keep": True}})
    path = finished_run(spec)
    monkeypatch.setattr("lth_jax.lottery.experiment.Experiment.form", lambda *_: DENSE)
    train(tmp_path / "whole", spec)
    whole = RunDirectory.read(tmp_path / "whole")
    for name in ("level_01", "level_02", "reinit_level_02_0"):
        masked, narrow = whole.load(0, name), RunDirectory.read(path).load(0, name)
        for leaf, found in narrow.items():
            np.testing.assert_allclose(found, masked[leaf], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_which_runs_are_narrow():
    spec = channels()
    built, path = experiment(spec), finished_run(spec)
    mask = masks(path, "level_01")
    nested = {}
    for name, leaf in mask.items():
        layer, part = name.split("/")
        nested.setdefault(layer, {})[part] = leaf
    state = built.initial(0)
    with_zeros = state._replace(
        params={
            layer: {part: np.where(nested[layer][part], leaf, 0) for part, leaf in leaves.items()}
            for layer, leaves in state.params.items()
        }
    )
    form = built.form(1, nested, with_zeros)
    assert isinstance(form, Narrow)
    assert form.left == {"fc1": 6, "fc2": 5}
    shapes = {n: form.from_dense(n, leaf).shape for n, leaf in named_leaves(state.params).items()}
    assert shapes["fc2/kernel"] == (6, 5)
    # Weights that are pruned and not zero are part of the network.
    assert built.form(1, nested, state) is DENSE


def test_what_a_level_costs_is_foretold_from_its_channels():
    built = experiment(channels())
    programs, costs = zip(*map(built.expected, range(3)), strict=True)
    assert len(set(programs)) == 3
    assert costs[0] == 1.0 > costs[1] > costs[2] > 0.12


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path):
    spec = channels(branches=("reinit",), branch={"reinit": {"keep": True}})
    with pytest.raises(Interrupted):
        train(tmp_path / "run", spec, StopAt(1, updates=7))
    train(tmp_path / "run", spec)
    assert_same_run(tmp_path / "run", finished_run(spec))


@pytest.mark.slow
def test_ranked_among_all_replicates_have_networks_of_their_own():
    spec = channels(pruning__scope="global", branches=(), replicates=2)
    path = finished_run(spec)
    store = RunDirectory.read(path)
    kept = []
    for replicate in range(2):
        arrays = store.load(replicate, "level_02")
        kept.append([int(arrays[f"mask/{layer}/bias"].sum()) for layer in ("fc1", "fc2")])
    assert [sum(of) for of in kept] == [14 - 4 - 3] * 2
    assert all(min(of) > 0 for of in kept)


def test_channels_are_ranked_as_asked():
    path = finished_run(channels(pruning__rank="l2", levels=1, branches=()))
    trained, kept = RunDirectory.read(path).load(0, "level_00"), masks(path, "level_01")
    for layer in ("fc1", "fc2"):
        norms = np.square(trained[f"params/{layer}/kernel"].astype(np.float64)).sum(0)
        left = kept[f"{layer}/bias"]
        assert norms[left].min() > norms[~left].max()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pruning__scope": "erdos_renyi"}, "layerwise or global with pruning.granularity=channel"),
        ({"pruning__rank": "batch_norm"}, "fc1, fc2 go through no norm"),
        ({"pruning__rank": "l2", "pruning__criterion": "snip"}, "the criterion magnitude"),
        ({"pruning__layer_rates": (("fc*", 0),)}, "at least one layer whose channels"),
        (
            {"pruning__scope": "global", "levels": 9, "pruning__fraction": 0.6},
            "level .* would prune fc1, fc2 to nothing",
        ),
        (
            {"branch": {"prune": {"scope": "uniform"}}, "branches": ("prune",)},
            "layerwise or global with pruning.granularity=channel",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(fields, said):
    with pytest.raises(SpecError, match=said):
        check(channels(**fields))


def test_an_optimizer_that_is_not_elementwise_keeps_pruned_channels_as_zeros():
    with kept_registries():
        OPTIMIZERS["mine"] = OPTIMIZERS["adam"]._replace(elementwise=False)
        built = build(channels(train__optimizer="mine", levels=1))
        (note,) = built.notes
        assert note.startswith("pruned channels stay in the network as zeros for mine: ")
        state = built.initial(0)
        alive = {"fc1": np.arange(8) > 1, "fc2": np.ones(6, bool)}
        mask = built.channels.mask(alive, ones_mask(state.params))
        assert built.form(1, mask, rewind(state, mask, built.optimizer)) is DENSE


class Averaged(nn.Module):
    """A norm takes the mean over all of its hidden units."""

    classes: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(8, name="fc1")(x.reshape(x.shape[0], -1))
        return nn.Dense(self.classes, name="output")(nn.LayerNorm(name="norm")(x))


def test_a_network_whose_units_cannot_be_left_out_is_refused():
    with kept_registries():
        MODELS["averaged"] = custom_model("averaged", Averaged)
        with pytest.raises(SpecError, match="no hidden units of averaged can be followed"):
            check(channels(model__name="averaged", model__hidden=(300, 100)))


def test_what_no_channel_is_pruned_of_is_said():
    assert build(channels(levels=1)).notes == ()
    # `fc2` was not asked for, and `output` reads no other channels.
    built = build(channels(pruning__layer_rates=(("fc2", 0),), levels=1))
    assert built.notes == ("not pruned, since no channels of theirs can be: output/kernel",)
    assert built.channels.units == {"fc1": 8}
