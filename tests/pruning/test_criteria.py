"""The registry of criteria: definitions, finite scores, no state changed, invariant 7."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.pruning.criteria import CRITERIA, Scoring

from ..small_networks import assert_same_bits, bits
from .scored import GOLDEN, closed_form, every_criterion, scores_of, scoring, without_apply

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
@pytest.mark.parametrize("train", [None, True, False])
def test_scoring_changes_no_state(name, train):
    given = scoring()._replace(train=train)
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
