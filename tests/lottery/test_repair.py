"""REPAIR: the units of a network in between have the moments that lie between its ends'."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.errors import SpecError
from lth_jax.lottery.path_meter import PathMeter
from lth_jax.lottery.repair import corrections, moments_of, repaired
from lth_jax.models import MODELS, Model
from lth_jax.training.paths import Ends, between

from ..tiny import experiment, tiny_spec

X = jax.random.uniform(jax.random.key(9), (200, 8, 8, 1))


def ends_of(name, **options):
    model = MODELS[name].make(10, **options)
    networks = []
    for seed in (0, 1):
        variables = dict(model.init(jax.random.key(seed), X[:1]))
        params = variables.pop("params")
        networks.append((params, (variables, moments_of(model.apply, params, variables, X))))
    return model, Ends(*networks)


@pytest.mark.parametrize("name", ["mlp", pytest.param("resnet20", marks=pytest.mark.slow)])
def test_a_repaired_network_has_the_moments_between_those_of_its_ends(name):
    model, ends = ends_of(name)
    params, (state, wanted) = between(ends, 0.5)
    plain = moments_of(model.apply, params, state, X)
    by_layer = corrections(model.apply, params, state, wanted, X)
    found = moments_of(repaired(model.apply, by_layer), params, state, X)
    assert "output" not in found
    assert len(found) == {"mlp": 2, "resnet20": 21}[name]
    for layer, moments in wanted.items():
        collapsed = plain[layer].std.mean() / moments.std.mean()
        assert collapsed < 0.9, "nothing collapsed, and nothing was shown"
        np.testing.assert_allclose(found[layer].std, moments.std, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found[layer].mean, moments.mean, rtol=1e-2, atol=1e-4)


def test_the_ends_themselves_stay_as_they_are():
    model, ends = ends_of("mlp", hidden=(20, 10))
    for alpha, (params, (state, _)) in zip((0.0, 1.0), ends, strict=True):
        there, (_, wanted) = between(ends, alpha)
        by_layer = corrections(model.apply, there, state, wanted, X)
        variables = {"params": params, **state}
        logits, _ = repaired(model.apply, by_layer)(variables, X, False, {})
        np.testing.assert_allclose(logits, model.apply(variables, X, False, {})[0], atol=1e-5)


def test_a_unit_that_never_changes_is_shifted_alone():
    model, ends = ends_of("mlp", hidden=(4,))
    params, (state, wanted) = between(ends, 0.5)
    params["fc1"]["kernel"] = params["fc1"]["kernel"].at[:, 0].set(0)
    found = corrections(model.apply, params, state, wanted, X)["fc1"]
    assert found.scale[0] == 1
    assert np.all(np.isfinite(found.scale))
    assert np.all(np.isfinite(found.shift))


def test_repaired_paths_begin_and_end_in_the_rows_and_are_better_between():
    spec = tiny_spec(paths__pairs=("levels",), paths__points=3, paths__statistics="repaired")
    e = experiment(spec)
    first, second = ((s.params, s.model_state) for s in (e.initial(0), e.initial(1)))
    train, test = PathMeter(e, spec.paths).measured(first, second)
    plain = tiny_spec(paths__pairs=("levels",), paths__points=3).paths
    train_plain, test_plain = PathMeter(e, plain).measured(first, second)
    for index in (0, 2):
        np.testing.assert_allclose(test.loss[index], test_plain.loss[index], rtol=1e-4)
        np.testing.assert_allclose(train.loss[index], train_plain.loss[index], rtol=1e-4)
    assert test.loss[1] != test_plain.loss[1]


def test_a_network_without_layers_of_linen_is_refused_in_one_line():
    spec = tiny_spec(paths__pairs=("levels",), paths__statistics="repaired")
    e = experiment(spec)

    def init(key, x):
        return {"params": {"w": jnp.zeros((x[0].size, 10))}}

    def apply(variables, x, train, rngs):
        return x.reshape(len(x), -1) @ variables["params"]["w"], {}

    bare = dataclasses.replace(e, model=Model(init, apply))
    with pytest.raises(SpecError, match=r"config\.paths\.statistics='repaired'.*accepted: inter"):
        PathMeter(bare, spec.paths).check()
