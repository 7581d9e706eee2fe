"""Narrow networks: a network without its pruned channels computes, and learns, the same."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax.lottery.narrowing import Narrowing
from lth_jax.models import MODELS
from lth_jax.models.base import from_linen
from lth_jax.native.choice import XLA
from lth_jax.pruning.channels import channels_of
from lth_jax.pruning.masks import apply_mask, masked_step, ones_mask, prunable
from lth_jax.pruning.trees import map_named, named_leaves
from lth_jax.training.narrowing import Narrow
from lth_jax.training.units import unit_groups

from ..small_networks import assert_close, bits
from .test_alignment import IMAGES, network
from .test_alignment import SMALL as FAMILIES

# VGG without a pooling: which of a window's pixels is the largest may depend on a rounding, and so
# where its gradient goes.
SMALL = {name: options for name, (options, _) in FAMILIES.items()} | {
    "vgg11": {"blocks": (2,), "width": 0.1},
    "resnet50": {"blocks": (1,), "width": 0.1},
    "densenet121": {"blocks": (1, 1), "width": 0.25},
}

# The stream of ResNet-50's first stage comes to as many channels as the one before it.
SAME = {"conv": 3, "stage1_block1_conv3": 3}


def some_alive(channels, seed=0, of=()):
    random = np.random.default_rng(seed)
    alive = {}
    for name, units in channels.units.items():
        kept = dict(of).get(name, int(random.integers(1, units + 1)))
        alive[name] = random.permutation(units) < kept
    return alive


def pruned(name):
    """A network of the zoo with some channels pruned: its `apply`, its form, and both of it."""
    model, variables, groups, x = network(name, SMALL[name])
    params, state = variables["params"], {n: v for n, v in variables.items() if n != "params"}
    channels = channels_of(groups, params, prunable(params))
    alive = some_alive(channels, of=SAME if name == "resnet50" else ())
    mask = channels.mask(alive, ones_mask(params))
    return model, channels, mask, apply_mask(params, mask), state, x


def narrow_apply(model):
    return lambda variables, x: XLA.apply(model.apply)((), variables, x, True, {})


QUICK = ("mlp",)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in SMALL]
)
def test_a_network_without_its_pruned_channels_learns_as_with_zeros(name):
    with jax.enable_x64(True):  # rounding, which norms of two images make large, is small there
        check_learns_as_with_zeros(*pruned(name))


def check_learns_as_with_zeros(model, channels, mask, params, state, x):
    params, state = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (params, state))
    x = x if jnp.issubdtype(x.dtype, jnp.integer) else jnp.asarray(x, jnp.float64)
    form = Narrow(channels, mask)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05, momentum=0.9))

    def trained(apply, params, state, mask):
        def step(carry, _):
            params, state, opt_state = carry

            def loss_of(params):
                logits, new = apply({"params": params, **state}, x)
                return jnp.mean(jnp.square(logits - 1)), (new, logits)

            grads, (new, logits) = jax.grad(loss_of, has_aux=True)(params)
            params, opt_state = masked_step(optimizer, grads, opt_state, params, mask)
            return (params, new, opt_state), logits

        begin = params, state, optimizer.init(params)
        (params, state, _), logits = jax.lax.scan(step, begin, None, length=2)
        return params, state, logits

    train = jax.jit(trained, static_argnums=0)
    whole, whole_state, logits = train(narrow_apply(model), params, state, mask)
    small = map_named(form.from_dense, params)
    small_state = map_named(form.state_from_dense, state)
    kept = map_named(form.mask, mask)
    assert all(np.all(leaf) for leaf in jax.tree.leaves(kept))  # nothing pruned is left
    left = sum(leaf.size for leaf in jax.tree.leaves(small))
    assert (
        left
        == sum(int(np.sum(leaf)) for leaf in jax.tree.leaves(mask))
        < sum(leaf.size for leaf in jax.tree.leaves(params))
    )
    narrow, narrow_state, narrow_logits = train(narrow_apply(model), small, small_state, kept)
    assert np.ptp(np.asarray(logits[0])) > 0.001
    assert np.ptp(np.asarray(logits[:, 0])) > 0.001
    np.testing.assert_allclose(narrow_logits, logits, rtol=1e-7, atol=1e-7)
    assert_close(map_named(form.to_dense, narrow), whole, rtol=1e-7, atol=1e-7)
    whole_state = map_named(form.state_from_dense, whole_state)
    assert_close(narrow_state, whole_state, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["conv2", "vgg11"])
def test_what_comes_back_has_its_bits_and_zeros_elsewhere(name):
    _, channels, mask, params, state, _ = pruned(name)
    form = Narrow(channels, mask)
    there = map_named(form.to_dense, map_named(form.from_dense, params))
    assert bits(there) == bits(params)
    statistics = map_named(form.state_to_dense, map_named(form.state_from_dense, state))
    alive = channels.alive(mask)
    for group_name, group in channels.groups.items():
        for axis in group.state:
            found, before = named_leaves(statistics)[axis.leaf], named_leaves(state)[axis.leaf]
            np.testing.assert_array_equal(found, np.where(alive[group_name], before, 0))


class AsksForSizes(nn.Module):
    """A network that is another one when it is narrower: see `how`."""

    how: str

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(8, name="fc1")(x.reshape(x.shape[0], -1)))
        if self.how == "divides":
            x = x / x.shape[-1]
        if self.how == "drops":
            x = nn.Dropout(0.5, deterministic=not train)(x)
        if self.how == "branches" and x.shape[-1] == 8:
            x = nn.relu(x - 1)
        if self.how == "demands":
            assert x.shape[-1] == 8, "eight of them"
        return nn.Dense(3, name="output")(x)


def narrowing_of(model):
    x = jax.ShapeDtypeStruct((1, *IMAGES.shape[1:]), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    params = shapes["params"]
    channels = channels_of(unit_groups(model.apply, shapes, x), params, prunable(params))
    return Narrowing(channels, model, x)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("nothing", ""),
        ("divides", "8.0"),
        ("drops", "random_bits"),
        ("branches", "sub"),
        ("demands", "eight of them"),
    ],
)
def test_a_network_that_asks_for_sizes_keeps_its_pruned_channels(how, said):
    narrowing = narrowing_of(from_linen(AsksForSizes(how)))
    assert narrowing.channels.units == {"fc1": 8}
    assert said in narrowing.note
    assert bool(narrowing.note) == bool(said)


def test_means_over_units_and_pieces_of_fixed_sizes_leave_them_whole():
    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = x.reshape(x.shape[0], -1)
            x = nn.LayerNorm(name="norm")(nn.Dense(8, name="fc1")(x))
            x = nn.Dense(8, name="fc2")(x).reshape(x.shape[0], 2, 4)
            x = jnp.einsum("bij,bkj->bik", x, x).reshape(x.shape[0], -1)
            return nn.Dense(3, name="output")(nn.relu(nn.Dense(5, name="fc3")(x)))

    assert narrowing_of(from_linen(Normed())).channels.units == {"fc3": 5}


@pytest.mark.slow
def test_every_network_of_the_zoo_is_narrowed_or_says_why():
    """Those without a norm over units or attention have all of their hidden layers narrowed."""
    for name, options in SMALL.items():
        _, variables, groups, x = network(name, options)
        channels = channels_of(groups, variables["params"], prunable(variables["params"]))
        like = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
        assert channels.groups, name
        assert not Narrowing(channels, MODELS[name].make(10, **options), like).note, name
