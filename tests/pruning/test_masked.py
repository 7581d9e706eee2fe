"""A mask in Optax's own form: what `masked_step` gives, in the loops of Optax, Flax and NNX."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

from lth_jax.pruning.masked import masked, set_mask
from lth_jax.pruning.masks import (
    apply_mask,
    density,
    mask_optimizer_state,
    masked_step,
    ones_mask,
    prunable,
)
from lth_jax.pruning.selection import prune
from lth_jax.pruning.trees import named_leaves, plain

from ..small_networks import assert_close, assert_same_bits
from .test_steps import (
    FORMS,
    STEPS,
    every_form,
    every_optimizer,
    gradients,
    half_mask,
    params,
    with_pruned,
)


def stepped(transform, start, mask, update):
    """Parameters and the optimizer's own state after some steps, as numpy arrays."""
    parameters, state = start, transform.init(start)
    for index in range(STEPS):
        parameters, state = update(parameters, state, gradients(index), mask)
    return jax.device_get((parameters, state))


@every_form
@every_optimizer
@pytest.mark.parametrize("pruned", [-0.0, 0.3, -np.inf])
def test_it_is_a_masked_step_bit_for_bit(form, name, pruned):
    """Operation by operation: compiled, they may be fused otherwise."""
    inner, mask = FORMS[form](name), half_mask()
    start, optimizer = with_pruned(params(), mask, pruned), masked(inner)

    def wrapped(parameters, state, grads, mask):
        if state.mask["output"]["kernel"].all():
            state = set_mask(optimizer, state, mask)
        updates, state = optimizer.update(grads, state, parameters)
        return optax.apply_updates(parameters, updates), state

    def plainly(parameters, state, grads, mask):
        return masked_step(inner, grads, state, parameters, mask)

    found, state = stepped(optimizer, start, mask, wrapped)
    expected, inner_state = stepped(inner, start, mask, plainly)
    assert_same_bits(found, expected)
    assert_same_bits(state.inner_state, inner_state)
    assert_same_bits(state.mask, mask)
    kept_as_they_were = jax.tree.map(lambda leaf, m: leaf[~m], found, mask)
    assert_same_bits(kept_as_they_were, jax.tree.map(lambda leaf, m: leaf[~m], start, mask))


@every_optimizer
def test_with_every_weight_kept_it_is_the_optimizer_itself(name):
    inner = FORMS["clipped"](name)
    optimizer, start = masked(inner), params()
    updates, state = optimizer.update(gradients(0), optimizer.init(start), start)
    plain_updates, inner_state = inner.update(gradients(0), inner.init(start), start)
    assert_same_bits(updates, plain_updates)
    assert_same_bits(state.inner_state, inner_state)


def test_another_mask_zeroes_moments_and_compiles_nothing(compilations):
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), masked(optax.adam(0.1)))

    @jax.jit
    def step(parameters, state, grads):
        updates, state = optimizer.update(grads, state, parameters)
        return optax.apply_updates(parameters, updates), state

    parameters = params()
    parameters, state = step(parameters, optimizer.init(parameters), gradients(0))
    assert compilations
    mask = half_mask()
    state = set_mask(optimizer, state, mask)
    moments = state[1].inner_state[0].mu
    zeros = jax.tree.map(lambda leaf, m: not np.any(leaf[~m]), jax.device_get(moments), mask)
    assert jax.tree.all(zeros)
    assert np.any(moments["fc1"]["kernel"])
    rewound = apply_mask(parameters, mask)
    compilations.clear()
    after, _ = step(rewound, state, gradients(1))
    assert not compilations
    assert not np.any(after["fc1"]["kernel"][~mask["fc1"]["kernel"]])
    state = set_mask(optimizer, state, ones_mask(parameters))  # and back
    assert jax.tree.all(jax.tree.map(np.all, state[1].mask))


def test_what_is_wrong_is_said():
    optimizer = masked(optax.sgd(0.1))
    state = optimizer.init(params())
    with pytest.raises(ValueError, match="needs the parameters"):
        optimizer.update(gradients(0), state)
    with pytest.raises(ValueError, match="is not of the optimized parameters' structure"):
        set_mask(optimizer, state, {"fc1": half_mask()["fc1"]})
    with pytest.raises(ValueError, match="is not of the optimized parameters' structure"):
        set_mask(optimizer, state, jax.tree.map(lambda m: m[:1], half_mask()))
    plain_optimizer = optax.sgd(0.1)
    with pytest.raises(ValueError, match="no optimizer in this state"):
        set_mask(plain_optimizer, plain_optimizer.init(params()), half_mask())


def test_extra_arguments_reach_the_optimizer():
    optimizer = masked(optax.contrib.reduce_on_plateau())
    state = optimizer.init(params())
    _, state = optimizer.update(gradients(0), state, params(), value=jnp.array(3.0))
    assert float(state.inner_state.best_value) == 3.0


def test_flaxs_train_state_steps_with_it_unchanged():
    inner, mask = optax.adamw(0.1), half_mask()
    start = apply_mask(params(), mask)
    state = TrainState.create(apply_fn=None, params=start, tx=masked(inner))
    state = state.replace(opt_state=set_mask(state.tx, state.opt_state, mask))
    state = state.apply_gradients(grads=gradients(0))
    expected, _ = masked_step(inner, gradients(0), inner.init(start), start, mask)
    assert_same_bits(jax.device_get(state.params), jax.device_get(expected))


class Network(nnx.Module):
    """A network with an embedding, which is not pruned, and layers in a list.

    Its leaves have two shapes: outside of `jit` each operation is compiled for each shape.
    """

    def __init__(self, rngs):
        self.embed = nnx.Embed(4, 4, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs)])
        self.output = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, tokens):
        return self.output(nnx.relu(self.layers[0](self.embed(tokens))))


def loss(network):
    return (network(jnp.arange(4)) ** 2).mean()


@nnx.jit
def nnx_step(network, optimizer):
    optimizer.update(network, nnx.grad(loss)(network))


def nnx_mask(network, seed=0):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(random.random(leaf.shape) < 0.5), nnx.state(network, nnx.Param)
    )


nnx_gradient = nnx.jit(nnx.grad(loss))


@pytest.mark.slow
def test_nnxs_optimizer_steps_with_it_unchanged():
    network, transform = Network(nnx.Rngs(0)), optax.adamw(0.1)
    mask = nnx_mask(network)
    nnx.update(network, apply_mask(nnx.state(network, nnx.Param), mask))
    start = jax.tree.map(jnp.copy, nnx.state(network, nnx.Param))
    optimizer = nnx.Optimizer(network, masked(transform), wrt=nnx.Param)
    optimizer.opt_state = set_mask(optimizer.tx, optimizer.opt_state, mask)
    grads = nnx_gradient(network)
    nnx_step(network, optimizer)
    found = nnx.state(network, nnx.Param)
    expected, _ = masked_step(transform, grads, transform.init(plain(start)), start, mask)
    assert type(expected) is type(found)
    assert_close(plain(found), plain(expected))
    for leaf, kept in zip(jax.tree.leaves(found), jax.tree.leaves(mask), strict=True):
        assert not np.any(leaf[~kept])


@pytest.mark.slow
def test_a_masked_step_takes_the_state_of_nnxs_optimizer():
    network, transform = Network(nnx.Rngs(0)), optax.adam(0.1)
    optimizer = nnx.Optimizer(network, transform, wrt=nnx.Param)
    weights, mask = nnx.state(network, nnx.Param), nnx_mask(network)
    grads = nnx_gradient(network)
    found, state = masked_step(transform, grads, optimizer.opt_state, weights, mask)
    assert jax.tree.structure(found) == jax.tree.structure(weights)
    assert jax.tree.structure(state) == jax.tree.structure(optimizer.opt_state)
    bare = (plain(grads), transform.init(plain(weights)), plain(weights), plain(mask))
    expected, inner = masked_step(transform, *bare)
    assert_same_bits(jax.device_get(plain(found)), jax.device_get(expected))
    assert_same_bits(jax.device_get(plain(state)), jax.device_get(inner))
    zeroed = mask_optimizer_state(transform, state, mask)
    assert jax.tree.structure(zeroed) == jax.tree.structure(state)
    optimizer.opt_state = zeroed
    nnx_step(network, optimizer)


def test_the_leaves_of_an_nnx_state_have_the_names_of_its_modules():
    network = Network(nnx.Rngs(0))
    weights = nnx.state(network, nnx.Param)
    names = ["layers/0/kernel", "output/kernel"]
    assert list(prunable(weights)) == names
    rates = prunable(weights, [("output", 0.5)])
    mask = ones_mask(weights)
    assert density(mask) == 1.0
    smaller = prune(jax.tree.map(jnp.abs, weights), mask, 0.5, rates=rates)
    assert jax.tree.structure(smaller) == jax.tree.structure(mask)
    kept = {name: int(np.sum(leaf)) for name, leaf in named_leaves(smaller).items()}
    assert [kept[name] for name in names] == [8, 12]
    pruned = apply_mask(weights, plain(smaller))  # a mask of arrays, too
    assert jax.tree.structure(pruned) == jax.tree.structure(weights)
    nnx.update(network, pruned)
    assert int(np.count_nonzero(network.layers[0].kernel[...])) == 8
