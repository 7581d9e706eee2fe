"""Invariants 3, 4 and 11: a masked step, over every optimizer there is."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax.pruning.masks import mask_optimizer_state, masked_step, ones_mask
from lth_jax.training.optimizers import OPTIMIZERS

from ..small_networks import assert_close, assert_same_bits, optimizer, random_mask

STEPS = 3


def clipped(name):
    return optax.chain(optax.clip_by_global_norm(0.5), optimizer(name))


def scheduled(name):
    return optimizer(name, learning_rate=optax.linear_schedule(0.1, 0.01, 10))


FORMS = {"plain": optimizer, "clipped": clipped, "scheduled": scheduled}
every_optimizer = pytest.mark.parametrize("name", sorted(OPTIMIZERS))
# A form is a program for each optimizer.
every_form = pytest.mark.parametrize(
    "form", ["clipped", "plain", pytest.param("scheduled", marks=pytest.mark.slow)]
)


@cache
def compiled(form, name):
    """(the transformation, its masked step): masks are arguments, so one compilation serves."""
    transform = FORMS[form](name)
    return transform, jax.jit(partial(masked_step, transform))


@cache
def normal(seed):
    random = np.random.default_rng(seed)
    # Few shapes: outside of `jit`, each operation is compiled for each.
    shapes = {"fc1": {"bias": (3,), "kernel": (4, 3)}, "output": {"kernel": (4, 3)}}
    return jax.tree.map(
        lambda shape: random.normal(size=shape).astype(np.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def params():
    return normal(0)


def gradients(step):
    return normal(100 + step)


def half_mask():
    return jax.device_get(random_mask(params()))


def full_mask():
    return jax.device_get(ones_mask(params()))


def with_pruned(tree, mask, value):
    """`tree` with `value` at pruned weights."""
    return jax.tree.map(lambda leaf, m: np.where(m, leaf, np.float32(value)), tree, mask)


def train(form, name, start, mask, spoiled=None):
    """Parameters and optimizer state after some steps, as numpy arrays."""
    transform, step = compiled(form, name)
    params, state = start, transform.init(start)
    for index in range(STEPS):
        grads = gradients(index)
        if spoiled is not None:
            grads = with_pruned(grads, mask, spoiled)
        params, state = step(grads, state, params, mask)
    return jax.device_get((params, state))


@every_optimizer
@every_form
def test_pruned_weights_keep_their_value_and_survivors_move(name, form):
    start, mask = params(), half_mask()
    end, _ = train(form, name, start, mask)
    for before, after, m in zip(*map(jax.tree.leaves, (start, end, mask)), strict=True):
        # Frozen at values other than zero: as a branch may have it.
        np.testing.assert_array_equal(after[~m], before[~m])
        assert np.all(after[m] != before[m])
        assert np.all(np.isfinite(after))


@every_optimizer
def test_weights_pruned_to_zero_stay_exactly_zero(name):
    mask = half_mask()
    end, _ = train("plain", name, with_pruned(params(), mask, 0.0), mask)
    for after, m in zip(*map(jax.tree.leaves, (end, mask)), strict=True):
        assert np.asarray(after[~m]).tobytes() == bytes(4 * int((~m).sum()))


@every_optimizer
@every_form
def test_moments_at_pruned_weights_stay_zero(name, form):
    mask = half_mask()
    _, state = train(form, name, params(), mask)

    def check(leaf, m):
        assert not np.any(leaf[~m])
        return leaf

    optax.tree_map_params(compiled(form, name)[0], check, state, mask)


@every_optimizer
@every_form
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, 0.0], ids=str)
def test_gradients_at_pruned_weights_do_not_matter(name, form, value):
    mask = half_mask()
    assert_same_bits(
        train(form, name, params(), mask), train(form, name, params(), mask, spoiled=value)
    )


@every_optimizer
@every_form
@pytest.mark.parametrize("value", [1e30, -3.0])
def test_frozen_values_do_not_matter_to_the_survivors(name, form, value):
    """Weight decay and the like see pruned weights as zeros."""
    mask = half_mask()
    zeroed, _ = train(form, name, with_pruned(params(), mask, 0.0), mask)
    frozen, _ = train(form, name, with_pruned(params(), mask, value), mask)
    assert_same_bits(zeroed, with_pruned(frozen, mask, 0.0))


def test_norms_see_live_weights_only():
    start, mask = {"w": jnp.asarray([[0.0, 0, 7]])}, {"w": jnp.asarray([[True, True, False]])}
    transform = optax.chain(
        optax.add_decayed_weights(1.0), optax.clip_by_global_norm(1.0), optax.sgd(1.0)
    )
    grads = {"w": jnp.asarray([[3.0, 4.0, 1e10]])}
    end, _ = masked_step(transform, grads, transform.init(start), start, mask)
    np.testing.assert_allclose(end["w"], [[-0.6, -0.8, 7.0]], rtol=1e-6)


@every_optimizer
@every_form
def test_an_all_true_mask_changes_no_bit(name, form):
    transform, mask = FORMS[form](name), full_mask()
    with jax.disable_jit():
        ours = theirs = params()
        our_state = their_state = transform.init(ours)
        for step in range(STEPS):
            ours, our_state = masked_step(transform, gradients(step), our_state, ours, mask)
            updates, their_state = transform.update(gradients(step), their_state, theirs)
            theirs = optax.apply_updates(theirs, updates)
    assert_same_bits((ours, our_state), (theirs, their_state))
    for before, after in zip(*map(jax.tree.leaves, (params(), ours)), strict=True):
        assert np.all(before != after), "weights of both signs move"
        assert {-1.0, 1.0} <= set(np.sign(np.concatenate([before.ravel(), after.ravel()])))


@every_optimizer
@every_form
def test_compiled_it_is_the_same_to_tolerance(name, form):
    ours, _ = train(form, name, params(), full_mask())
    transform = FORMS[form](name)
    theirs, state = params(), transform.init(params())
    for step in range(STEPS):
        updates, state = transform.update(gradients(step), state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    assert_close(ours, theirs)


@every_optimizer
@every_form
def test_masking_a_state_zeroes_moments_and_nothing_else(name, form):
    transform, mask = compiled(form, name)[0], half_mask()
    _, state = train(form, name, params(), full_mask())
    assert_same_bits(mask_optimizer_state(transform, state, full_mask()), state)
    masked = jax.device_get(mask_optimizer_state(transform, state, mask))
    expected = moments(transform, state, lambda leaf, m: np.where(m, leaf, np.float32(0)), mask)
    assert_same_bits(moments(transform, masked), expected)


def moments(transform, state, change=lambda leaf, m: leaf, mask=None):
    """The leaves of `state` that are shaped like the parameters, changed."""
    found = []
    optax.tree_map_params(
        transform, lambda *given: found.append(change(*given)), state, mask or full_mask()
    )
    return found


def test_masking_a_state_keeps_the_count_and_stops_nan():
    transform = optax.adam(0.1)
    mask = half_mask()
    state = transform.init(params())
    for step in range(STEPS):
        _, state = transform.update(gradients(step), state, params())
    broken = optax.tree_map_params(transform, lambda leaf: leaf * np.nan, state)
    masked = jax.device_get(mask_optimizer_state(transform, broken, mask))
    assert masked[0].count == STEPS
    for leaf, m in zip(jax.tree.leaves(masked[0].mu), jax.tree.leaves(mask), strict=True):
        assert not np.any(leaf[~m])
        assert np.all(np.isnan(leaf[m]))


def test_an_optimizer_that_moves_everything_does_not_move_pruned_weights():
    noisy = optax.chain(optax.sgd(0.1), optax.add_noise(1.0, 0.5, jax.random.key(0)))
    mask = half_mask()
    end, _ = masked_step(noisy, gradients(0), noisy.init(params()), params(), mask)
    for before, after, m in zip(
        *map(jax.tree.leaves, (params(), jax.device_get(end), mask)), strict=True
    ):
        np.testing.assert_array_equal(after[~m], before[~m])
        assert np.all(after[m] != before[m])


def test_dtypes_survive_a_step():
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params())
    grads = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), gradients(0))
    transform = optax.sgd(0.1)
    end, _ = masked_step(transform, grads, transform.init(start), start, random_mask(start))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(end))
