"""Criteria that look at gradients: of deep networks, with batch statistics and dropout."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.config import PruningSpec
from lth_jax.pruning.criteria import Probe, Scoring
from lth_jax.pruning.trees import map_named, named_leaves

from ..small_networks import arrays, assert_same_bits, bits
from .scored import DEEP, GRASP, WITH_STATE, scores_of, scoring, with_gradients, without_apply

of_the_loss = pytest.mark.parametrize("name", [GRASP, "snip"])

# --- Gradients of a deep network, in float64 ------------------------------------------------


def deep(dtype=jnp.float64):
    """(params, images, labels) of a 16-8-3 network with a pruned half of its first layer."""
    params = jax.jit(DEEP.init)(jax.random.key(5), np.zeros((1, 4, 4, 1), np.float32))["params"]
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * random.normal(size=leaf.shape), jax.device_get(params)
    )
    params["fc1"]["kernel"][:, 1::2] = 0
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    images, labels = arrays(12)
    return params, jnp.asarray(images / 255, dtype), jnp.asarray(labels)


def forward_loss(params, images, labels, temperature=1.0):
    """The mean cross-entropy in NumPy, without JAX."""
    hidden = images.reshape(len(images), -1) @ params["fc1"]["kernel"] + params["fc1"]["bias"]
    z = np.maximum(hidden, 0) @ params["output"]["kernel"] + params["output"]["bias"]
    z = z / temperature
    return np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels])


def numerical_gradient(params, images, labels, temperature=1.0, step=1e-6):
    """Central differences of `forward_loss`, weight by weight."""

    def slope(layer, name, index):
        values = []
        for sign in (1, -1):
            moved = {a: {b: np.array(leaf) for b, leaf in c.items()} for a, c in params.items()}
            moved[layer][name][index] += sign * step
            values.append(forward_loss(moved, images, labels, temperature))
        return (values[0] - values[1]) / (2 * step)

    return {
        layer: {
            name: np.array([slope(layer, name, index) for index in np.ndindex(leaf.shape)]).reshape(
                leaf.shape
            )
            for name, leaf in leaves.items()
        }
        for layer, leaves in params.items()
    }


def assert_scores(found, wanted, atol):
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted))
    assert scale > 0
    for name, leaf in named_leaves(wanted).items():
        np.testing.assert_allclose(named_leaves(found)[name] / scale, leaf / scale, atol=atol)


def score_deep(name, **changes):
    with jax.enable_x64(True):
        params, images, labels = deep()
        probe = Probe(DEEP.apply, {}, images, labels)
        given = Scoring(params, params, jax.random.key(0), probe, **changes)
        scores = jax.device_get(scores_of(name, given))
        assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(scores))
        return jax.device_get(params), np.asarray(images), np.asarray(labels), scores


@pytest.mark.parametrize("train", [True, False])
def test_snip_agrees_with_finite_differences(train):
    params, images, labels, found = score_deep("snip", train=train)
    gradient = numerical_gradient(params, images, labels)
    assert_scores(found, jax.tree.map(lambda g, w: np.abs(g * w), gradient, params), 1e-7)


@pytest.mark.parametrize("of", [None, frozenset({"fc1/kernel", "output/kernel"})])
@pytest.mark.parametrize("train", [pytest.param(True, marks=pytest.mark.slow), False])
def test_grasp_agrees_with_finite_differences(of, train):
    """Hg is how the gradient changes along itself, or along its part in the kernels."""
    temperature, step = 2.0, 1e-4
    params, images, labels, found = score_deep(
        "grasp", temperature=temperature, hessian_of=of, train=train
    )
    g = numerical_gradient(params, images, labels, temperature)
    g = map_named(lambda name, leaf: leaf * (of is None or name in of), g)
    ends = [
        numerical_gradient(
            jax.tree.map(lambda w, d, s=sign: w + s * step * d, params, g),
            images, labels, temperature,
        )
        for sign in (1, -1)
    ]  # fmt: skip
    hg = jax.tree.map(lambda a, b: (a - b) / (2 * step), *ends)
    assert_scores(found, jax.tree.map(np.multiply, params, hg), 1e-4)


def test_synflow_is_the_flow_through_each_weight():
    """With magnitudes everything is positive: paths into a weight times paths out of it."""
    params, _, _, found = score_deep("synflow")
    size = jax.tree.map(np.abs, params)
    into = size["fc1"]["kernel"].sum(axis=0) + size["fc1"]["bias"]
    out = size["output"]["kernel"].sum(axis=1)
    wanted = {
        "fc1": {"kernel": size["fc1"]["kernel"] * out, "bias": size["fc1"]["bias"] * out},
        "output": {
            "kernel": into[:, None] * size["output"]["kernel"],
            "bias": size["output"]["bias"],
        },
    }
    assert_scores(found, wanted, 1e-12)


@pytest.mark.parametrize("name", ["snip", "synflow"])
def test_pruned_weights_have_no_sensitivity(name):
    params, *_, found = score_deep(name)
    kernel = params["fc1"]["kernel"]
    assert not found["fc1"]["kernel"][kernel == 0].any()
    assert found["fc1"]["kernel"][kernel != 0].any()


# --- Batch statistics and dropout -----------------------------------------------------------


@cache
def variables_with_state():
    return jax.jit(WITH_STATE.init)(jax.random.key(1), np.zeros((1, 4, 4, 1), np.float32))


def with_state(name, key=0, change=lambda state: state, **changes):
    """Scores of a network with batch norm and dropout; its state's bits before and after."""
    variables = variables_with_state()
    state = change({"batch_stats": variables["batch_stats"]})
    images, labels = arrays(12)
    probe = Probe(
        WITH_STATE.apply, state, jnp.asarray(images / 255, jnp.float32), jnp.asarray(labels)
    )
    given = Scoring(variables["params"], variables["params"], jax.random.key(key), probe, **changes)
    before = bits(without_apply(given))
    scores = scores_of(name, given)
    assert bits(without_apply(given)) == before
    return scores


def moved(state):
    return jax.tree.map(lambda leaf: leaf + 0.5, state)


@with_gradients
@pytest.mark.parametrize("train", [None, True, False])
def test_batch_statistics_and_dropout_are_untouched_by_scoring(name, train):
    scores = with_state(name, train=train)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(scores))
    assert np.any(scores["fc1"]["kernel"])
    assert_same_bits(scores, with_state(name, train=train))


@of_the_loss
def test_gradients_of_training_are_of_its_dropout_and_the_batchs_statistics(name):
    found = with_state(name, train=True)
    assert bits(with_state(name, key=1, train=True)) != bits(found)
    assert_same_bits(with_state(name, change=moved, train=True), found)


@of_the_loss
def test_gradients_of_evaluation_are_of_the_running_statistics_and_no_dropout(name):
    found = with_state(name, train=False)
    assert_same_bits(with_state(name, key=1, train=False), found)
    assert bits(with_state(name, change=moved, train=False)) != bits(found)


@of_the_loss
def test_a_criterion_left_alone_does_what_its_authors_do(name):
    """SNIP evaluates and GraSP trains; the config, whose identity depends on it, says so too."""
    train = {"snip": False, "grasp": True}[name]
    assert (PruningSpec(criterion=name).gradients()["mode"] == "train") is train
    assert_same_bits(with_state(name), with_state(name, train=train))
    assert bits(with_state(name)) != bits(with_state(name, train=not train))


def test_synflow_is_of_evaluation():
    assert_same_bits(with_state("synflow", key=1), with_state("synflow"))
    assert bits(with_state("synflow", change=moved)) != bits(with_state("synflow"))


@with_gradients
def test_another_mask_compiles_nothing_more(name, compilations):
    given = scoring()
    scores_of(name, given)
    other = jax.tree.map(lambda w: jnp.where(w > 0, w, 0), given.final)
    compilations.clear()
    scores_of(name, given._replace(final=other, key=jax.random.key(3)))
    assert compilations == []
