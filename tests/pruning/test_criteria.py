"""The registry of criteria: definitions, finite scores, no state changed, invariant 7."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import arrays, assert_same_bits, bits, mlp, norm_and_dropout

from lth_jax.pruning.criteria import CRITERIA, Scoring
from lth_jax.pruning.gradients import Probe
from lth_jax.trees import named_leaves

every_criterion = pytest.mark.parametrize("name", sorted(CRITERIA))
with_gradients = pytest.mark.parametrize("name", ["grasp", "snip", "synflow"])

IMAGES = np.array([[1.0, 2.0], [-0.5, 1.0], [3.0, 0.0]], np.float32).reshape(3, 1, 2, 1)
LABELS = np.array([0, 1, 0], np.int32)
DEEP, WITH_STATE = mlp(), norm_and_dropout()  # once: what is compiled belongs to a function

# Scores of `scoring()`, leaf by leaf, in leaf order; those without gradients by hand, from
# Zhou et al. 2019: final [0.25, 0], [-1.5, 2, -0, -3], initial [0.5, -1], [1, 2.5, -0.75, -2].
GOLDEN = {
    "magnitude": [[0.25, 0.0], [1.5, 2.0, 0.0, 3.0]],
    "random": [
        [0.8423141241, 0.1823786497],
        [0.0072938204, 0.0208911896, 0.5814265013, 0.3618379831],
    ],
    "small_final": [[-0.25, 0.0], [-1.5, -2.0, 0.0, -3.0]],
    "large_init": [[0.5, 1.0], [1.0, 2.5, 0.75, 2.0]],
    "small_init": [[-0.5, -1.0], [-1.0, -2.5, -0.75, -2.0]],
    "large_init_large_final": [[0.25, 0.0], [1.0, 2.0, 0.0, 2.0]],
    "magnitude_increase": [[-0.25, -1.0], [0.5, -0.5, -0.75, 1.0]],
    "movement": [[0.25, 1.0], [2.5, 0.5, 0.75, 1.0]],
    "large_final_same_sign": [[0.25, 0.0], [-1.5, 2.0, 0.0, 3.0]],
    # An input of ones gives each output |bias| + the sum of its |weights|: R's gradient is one.
    "synflow": [[0.25, 0.0], [1.5, 2.0, 0.0, 3.0]],
}


def linear(variables, images, train, rngs):
    """The network of `scoring()`: two inputs, two classes."""
    params = variables["params"]
    logits = images.reshape(len(images), -1) @ params["kernel"] + params["bias"][None]
    return logits, {}


def scoring(seed=0):
    final = {
        "bias": jnp.asarray([0.25, 0.0]),
        "kernel": jnp.asarray([[-1.5, 2.0], [-0.0, -3.0]]),
    }
    initial = {
        "bias": jnp.asarray([0.5, -1.0]),
        "kernel": jnp.asarray([[1.0, 2.5], [-0.75, -2.0]]),
    }
    probe = Probe(linear, {}, jnp.asarray(IMAGES), jnp.asarray(LABELS))
    return Scoring(final, initial, jax.random.key(seed), probe)


def scores_of(name, given):
    return CRITERIA[name].scores(given)


def without_apply(given):
    """Everything of a `Scoring` that has bits."""
    return given._replace(probe=given.probe[1:])


def closed_form(given, temperature):
    """(gradient, Hessian times gradient) of softmax regression's mean loss, in float64."""
    x = np.concatenate([IMAGES.reshape(3, 2), np.ones((3, 1))], axis=1).astype(np.float64)
    w = np.concatenate([given.final["kernel"], given.final["bias"][None]]).astype(np.float64)
    z = x @ w / temperature
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    g = x.T @ (p - np.eye(2)[LABELS]) / (3 * temperature)
    dz = x @ g / temperature
    dp = p * (dz - (p * dz).sum(axis=1, keepdims=True))
    return w, g, x.T @ dp / (3 * temperature)


# --- Definitions ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - {"snip", "grasp"}))
def test_golden_scores(name):
    """A new criterion needs its row."""
    scores = jax.tree.leaves(scores_of(name, scoring()))
    assert len(scores) == len(GOLDEN[name])
    for leaf, golden in zip(scores, GOLDEN[name], strict=True):
        np.testing.assert_allclose(np.ravel(leaf), golden, rtol=1e-6)


def test_snip_of_softmax_regression_is_its_closed_form():
    given = scoring()
    w, g, _ = closed_form(given, 1.0)
    found = scores_of("snip", given)
    np.testing.assert_allclose(found["kernel"], np.abs(w * g)[:2], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["bias"], np.abs(w * g)[2], rtol=1e-5, atol=1e-7)
    assert np.max(found["kernel"]) > 0.1


@pytest.mark.parametrize("temperature", [1.0, 3.0, 200.0])
def test_grasp_of_softmax_regression_is_its_closed_form_signs_and_all(temperature):
    """+w ⊙ Hg: the paper's S, which marks what to remove, turned round."""
    given = scoring()._replace(temperature=temperature)
    w, _, hg = closed_form(given, temperature)
    found = scores_of("grasp", given)
    scale = np.abs(w * hg).max()
    np.testing.assert_allclose(found["kernel"] / scale, (w * hg)[:2] / scale, atol=1e-5)
    np.testing.assert_allclose(found["bias"] / scale, (w * hg)[2] / scale, atol=1e-5)
    assert (np.asarray(found["kernel"]) < 0).any()
    assert (np.asarray(found["kernel"]) > 0).any()


@pytest.mark.parametrize(
    ("alpha", "kernel"), [(2.0, [1.0, 2.5, 0.0, 2.0]), (0.5, [0.75, 1.0, 0.0, 1.5])]
)
def test_alpha_weighs_the_final_weights(alpha, kernel):
    scores = scores_of("large_init_large_final", scoring()._replace(alpha=alpha))
    np.testing.assert_allclose(np.ravel(scores["kernel"]), kernel)


def test_a_flipped_sign_ranks_below_every_kept_sign():
    """Zhou et al. 2019: `large_final_same_sign` is |w_final|, lowest where the sign flipped."""
    initial = {"w": jnp.asarray([[1.0, -1.0, 1.0, -1.0, 1.0]])}
    final = {"w": jnp.asarray([[9.0, 9.0, -9.0, -1.0, 0.1]])}
    (scores,) = scores_of("large_final_same_sign", Scoring(final, initial, None))["w"]
    kept, flipped = np.asarray(scores)[[0, 3, 4]], np.asarray(scores)[[1, 2]]
    np.testing.assert_allclose(kept, [9.0, 1.0, 0.1])
    assert flipped.max() < kept.min()


# --- Gradients of a deep network, in float64 ------------------------------------------------


def deep(dtype=jnp.float64):
    """(params, images, labels) of a 16-8-3 network with a pruned half of its first layer."""
    params = DEEP.init(jax.random.key(5), jnp.zeros((1, 4, 4, 1)))["params"]
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf) + 0.1 * random.normal(size=leaf.shape), dtype),
        jax.device_get(params),
    )
    params["fc1"]["kernel"] = jnp.where(jnp.arange(8) % 2 == 0, params["fc1"]["kernel"], 0)
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


def test_snip_agrees_with_finite_differences():
    params, images, labels, found = score_deep("snip")
    gradient = numerical_gradient(params, images, labels)
    assert_scores(found, jax.tree.map(lambda g, w: np.abs(g * w), gradient, params), 1e-7)


def test_grasp_agrees_with_finite_differences():
    """Hg is how the gradient changes along itself."""
    temperature, step = 2.0, 1e-4
    params, images, labels, found = score_deep("grasp", temperature=temperature)
    g = numerical_gradient(params, images, labels, temperature)
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


# --- Conformance ----------------------------------------------------------------------------


@every_criterion
def test_scores_are_finite_and_have_the_parameters_structure(name):
    given = scoring()
    scores = scores_of(name, given)
    assert jax.tree.structure(scores) == jax.tree.structure(given.final)
    for leaf, weights in zip(jax.tree.leaves(scores), jax.tree.leaves(given.final), strict=True):
        assert leaf.shape == weights.shape
        assert jnp.issubdtype(leaf.dtype, jnp.floating)
        assert np.all(np.isfinite(leaf))


@every_criterion
def test_scoring_changes_no_state(name):
    given = scoring()
    before = bits(without_apply(given))
    first = scores_of(name, given)
    assert bits(without_apply(given)) == before
    assert_same_bits(first, scores_of(name, given))


@every_criterion
def test_scores_are_the_same_compiled(name):
    given = scoring()
    compiled = jax.jit(lambda *arguments: scores_of(name, Scoring(*arguments, given.probe)))
    found, wanted = compiled(*given[:3]), scores_of(name, given)
    if not CRITERIA[name].needs_probe:
        assert_same_bits(found, wanted)
    for leaf, same in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(leaf, same, rtol=1e-5, atol=1e-9)


@every_criterion
def test_a_row_says_what_its_criterion_needs(name):
    row, given = CRITERIA[name], scoring()
    bare = given._replace(probe=None)
    if row.needs_probe:
        with pytest.raises(ValueError, match=r"Scoring\.probe is None"):
            row.scores(bare)
    else:
        assert_same_bits(row.scores(bare), row.scores(given))
    assert row.rounds >= 1
    assert not (row.at_rewind and row.needs_training), "it would never be allowed"


@every_criterion
def test_at_initialization_a_criterion_that_needs_training_says_nothing(name):
    """Nothing but zeros, or plain magnitudes; and every other looks at one of the two alone."""
    given = scoring()
    if CRITERIA[name].needs_training:
        for score, w in zip(
            jax.tree.leaves(scores_of(name, given._replace(final=given.initial))),
            jax.tree.leaves(given.initial),
            strict=True,
        ):
            assert not np.any(score) or np.array_equal(score, np.abs(w))
    else:
        ones = jax.tree.map(jnp.ones_like, given.final)
        changed = [
            bits(scores_of(name, given._replace(**{field: ones}))) != bits(scores_of(name, given))
            for field in ("final", "initial")
        ]
        assert sum(changed) <= 1


def test_the_flags_of_the_registry():
    def names(flag):
        return {name for name, row in CRITERIA.items() if getattr(row, flag)}

    assert names("at_rewind") == names("needs_probe") == {"snip", "grasp", "synflow"}
    assert names("needs_training") == {
        "large_init_large_final", "magnitude_increase", "movement", "large_final_same_sign"
    }  # fmt: skip
    assert {name: row.rounds for name, row in CRITERIA.items() if row.rounds != 1} == {
        "synflow": 100
    }


# --- Batch statistics and dropout -----------------------------------------------------------


def with_state(name, key=0, change=lambda state: state):
    """Scores of a network with batch norm and dropout; its state's bits before and after."""
    variables = WITH_STATE.init(jax.random.key(1), jnp.zeros((1, 4, 4, 1)))
    state = change({"batch_stats": variables["batch_stats"]})
    images, labels = arrays(12)
    probe = Probe(
        WITH_STATE.apply, state, jnp.asarray(images / 255, jnp.float32), jnp.asarray(labels)
    )
    given = Scoring(variables["params"], variables["params"], jax.random.key(key), probe)
    before = bits(without_apply(given))
    scores = scores_of(name, given)
    assert bits(without_apply(given)) == before
    return scores


def moved(state):
    return jax.tree.map(lambda leaf: leaf + 0.5, state)


@with_gradients
def test_batch_statistics_and_dropout_are_untouched_by_scoring(name):
    scores = with_state(name)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(scores))
    assert np.any(scores["fc1"]["kernel"])
    assert_same_bits(scores, with_state(name))


@pytest.mark.parametrize("name", ["grasp", "snip"])
def test_gradients_are_those_of_training(name):
    """Dropout by the key, and the batch's own statistics, not those of evaluation."""
    assert bits(with_state(name, key=1)) != bits(with_state(name))
    assert_same_bits(with_state(name, change=moved), with_state(name))


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


# --- The plain ones -------------------------------------------------------------------------


def test_magnitude_is_blind_to_sign_key_and_initialization():
    given = scoring()
    other = Scoring(
        jax.tree.map(jnp.negative, given.final),
        jax.tree.map(jnp.zeros_like, given.final),
        jax.random.key(9),
    )
    assert_same_bits(scores_of("magnitude", given), scores_of("magnitude", other))


def test_random_depends_on_the_key_alone():
    given = scoring()
    other = given._replace(final=jax.tree.map(lambda w: w * 7 + 1, given.final), initial=None)
    assert_same_bits(scores_of("random", given), scores_of("random", other))
    assert bits(scores_of("random", given)) != bits(scores_of("random", scoring(seed=1)))


def test_random_is_uniform_and_its_own_in_every_leaf():
    final = {"a": jnp.zeros((100, 100)), "b": jnp.zeros((100, 100), jnp.bfloat16)}
    scores = scores_of("random", Scoring(final, final, jax.random.key(0)))
    a, b = np.ravel(scores["a"]), np.ravel(scores["b"])
    assert a.dtype == b.dtype == np.float32
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
    for draws in (a, b):
        assert draws.min() >= 0
        assert draws.max() < 1
        np.testing.assert_allclose(
            np.quantile(draws, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.02
        )
        assert len(np.unique(draws)) > 9_900, "coarse draws would tie, and ties go by position"
