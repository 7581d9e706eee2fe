"""A masked step and a rewind with optimizers that a user may bring: Optax's own, and chains."""

import functools

import jax
import numpy as np
import optax
import pytest

from lth_jax.pruning.masks import mask_optimizer_state, masked_step, ones_mask

from ..small_networks import assert_close, random_mask

RATE = 0.05


def kernels(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def labels(params):
    return jax.tree.map(lambda leaf: "moments" if leaf.ndim > 1 else "plain", params)


FOREIGN = {
    "lion": lambda: optax.lion(RATE, weight_decay=0.1),
    "lamb": lambda: optax.lamb(RATE, weight_decay=0.1),
    "adafactor": lambda: optax.adafactor(RATE, min_dim_size_to_factor=2),
    "nesterov, clipped": lambda: optax.chain(
        optax.clip_by_global_norm(0.5), optax.sgd(RATE, momentum=0.9, nesterov=True)
    ),
    "decay of kernels": lambda: optax.adamw(RATE, weight_decay=0.1, mask=kernels),
    "moments of kernels": lambda: optax.multi_transform(
        {"moments": optax.adam(RATE), "plain": optax.sgd(RATE)}, labels
    ),
    "several steps": lambda: optax.MultiSteps(optax.adam(RATE), 2).gradient_transformation(),
    "scheduled": lambda: optax.rmsprop(optax.exponential_decay(RATE, 2, 0.5), momentum=0.9),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(RATE),
}
# Each is two programs: of each kind of state the quick tests have one.
QUICK = ("lion", "moments of kernels", "several steps")
every = pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FOREIGN],
)


def tree(seed):
    random = np.random.default_rng(seed)
    shapes = {"fc1": {"bias": (3,), "kernel": (4, 3)}, "output": {"kernel": (3, 2)}}
    return jax.tree.map(
        lambda shape: random.normal(size=shape).astype(np.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


@functools.cache
def trained(name, masked=True):
    """The optimizer, a mask, and parameters and states after 0 to 4 steps."""
    optimizer, params = FOREIGN[name](), tree(0)
    mask = jax.device_get(random_mask(params) if masked else ones_mask(params))
    step = jax.jit(functools.partial(masked_step, optimizer))
    history = [(params, optimizer.init(params))]
    for index in range(4):
        params, state = step(tree(100 + index), history[-1][1], history[-1][0], mask)
        history.append((params, state))
    return optimizer, mask, jax.device_get(history)


@every
def test_pruned_weights_keep_their_value_and_survivors_move(name):
    _, mask, history = trained(name)
    start, end = history[0][0], history[-1][0]
    for before, after, m in zip(*map(jax.tree.leaves, (start, end, mask)), strict=True):
        np.testing.assert_array_equal(after[~m], before[~m])
        assert np.all(after[m] != before[m])


@every
def test_with_a_full_mask_it_is_optax_s_own_step(name):
    optimizer, _, history = trained(name, masked=False)
    params, state = tree(0), optimizer.init(tree(0))
    step = jax.jit(optimizer.update)
    for index in range(4):
        updates, state = step(tree(100 + index), state, params)
        params = optax.apply_updates(params, updates)
        assert_close((params, state), history[index + 1])


@every
def test_a_rewind_brings_back_the_whole_state_pruned_moments_at_zero(name):
    optimizer, mask, history = trained(name, masked=False)
    point = history[-1][1]
    mask = jax.device_get(random_mask(tree(0)))
    state = jax.device_get(mask_optimizer_state(optimizer, point, mask))
    assert jax.tree.structure(state) == jax.tree.structure(point)
    for before, after in zip(*map(jax.tree.leaves, (point, state)), strict=True):
        assert np.shape(before) == np.shape(after)
    kept = jax.device_get(mask_optimizer_state(optimizer, point, ones_mask(tree(0))))
    assert [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(kept)] == [
        np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(point)
    ]
    # Whatever is shaped like a parameter and is a moment of it has zeros where that is pruned.
    shapes = {leaf.shape: leaf for leaf in jax.tree.leaves(mask)}
    masked = [leaf for leaf in jax.tree.leaves(state) if np.shape(leaf) in shapes]
    unmasked = [leaf for leaf in jax.tree.leaves(point) if np.shape(leaf) in shapes]
    for after, before in zip(masked, unmasked, strict=True):
        m = shapes[after.shape]
        if after.ndim > 1:
            assert not np.any(after[~m])
        np.testing.assert_array_equal(after[m], before[m])


@every
def test_after_a_rewind_pruned_weights_do_not_move(name):
    optimizer, _, history = trained(name, masked=False)
    mask = jax.device_get(random_mask(tree(0)))
    start = jax.tree.map(lambda w, m: np.where(m, w, np.float32(0)), history[0][0], mask)
    state = mask_optimizer_state(optimizer, history[-1][1], mask)
    params, _ = jax.jit(functools.partial(masked_step, optimizer))(tree(7), state, start, mask)
    for leaf, m in zip(*map(jax.tree.leaves, (jax.device_get(params), mask)), strict=True):
        assert leaf[~m].tobytes() == bytes(4 * int((~m).sum()))
