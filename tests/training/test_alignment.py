"""Units in another order: what may move, that nothing changes by it, and that it is found again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_jax.models import MODELS
from lth_jax.pruning.trees import map_named, named_leaves
from lth_jax.training.alignment import by_weights, inverse, permuted
from lth_jax.training.paths import distance
from lth_jax.training.units import unit_groups

from ..small_networks import bits, random_mask

IMAGES = jnp.zeros((2, 16, 16, 3))
TOKENS = jnp.zeros((2, 8), jnp.int32)
# Small networks of every family, by the sizes of the groups that they have.
SMALL = {
    "mlp": ({"hidden": (6, 5)}, [6, 5]),
    "conv2": ({"width": 0.1}, [6, 6, 26, 26]),
    "vgg11": ({"blocks": (1, 1), "width": 0.1}, [6, 13]),
    "resnet20": ({"depth": 8, "width": 0.25}, [4, 4, 8, 8, 16, 16]),
    "resnet50": ({"blocks": (1, 1), "width": 0.1}, [6, 6, 6, 24, 13, 13, 52]),
    "densenet121": ({"blocks": (2, 2)}, None),
    "vit_tiny": ({"depth": 1, "features": 8, "heads": 2}, None),
    "gpt": ({"layers": 1, "features": 8, "heads": 2}, None),
}


def network(name, options, seed=0):
    """A network none of whose arrays are alike in all units, its groups, and inputs."""
    model = MODELS[name].make(10, **options)
    x = TOKENS if name == "gpt" else IMAGES
    key = jax.random.key(seed)
    shapes = jax.eval_shape(model.init, key, x[:1])
    random = np.random.default_rng(seed)

    def leaf(name, like):
        drawn = random.normal(size=like.shape).astype(np.float32)
        if len(like.shape) > 1:
            return drawn / np.sqrt(np.prod(like.shape[:-1]))
        return 1 + np.abs(drawn) if name.endswith(("scale", "var")) else 0.1 * drawn

    variables = map_named(leaf, shapes)
    if name == "gpt":
        x = jnp.asarray(random.integers(0, 10, x.shape), jnp.int32)
    else:
        x = jnp.asarray(random.random(x.shape), jnp.float32)
    return model, variables, unit_groups(model.apply, shapes, x[:1]), x


def drawn(groups, seed):
    random = np.random.default_rng(seed)
    return [random.permutation(group.units) for group in groups]


@pytest.mark.parametrize("name", SMALL)
def test_a_permuted_network_computes_the_same_function(name):
    model, variables, groups, x = network(name, SMALL[name][0])
    expected = SMALL[name][1]
    assert [group.units for group in groups] == expected or (groups and expected is None)
    other = permuted(variables, groups, drawn(groups, seed=1))
    assert bits(other) != bits(variables)
    run = jax.jit(lambda variables: model.apply(variables, x, False, {})[0])
    before, after = run(variables), run(other)
    assert np.ptp(np.asarray(before)) > 0.01
    np.testing.assert_allclose(after, before, atol=1e-6 * max(1, np.abs(before).max()))


def test_every_group_moves_and_none_may_move_alone():
    """A group in all of its axes but one is another function: so no axis is left out."""
    model, variables, groups, x = network("conv2", {"width": 0.1})
    run = jax.jit(lambda variables: model.apply(variables, x, False, {})[0])
    for group in groups:
        order = np.roll(np.arange(group.units), 1)
        for left_out in group.axes:
            axes = tuple(axis for axis in group.axes if axis != left_out)
            other = permuted(variables, [group._replace(axes=axes)], [order])
            assert np.abs(run(other) - run(variables)).max() > 1e-5, (left_out, group)


def test_channels_of_flattened_images_are_units_of_what_reads_them():
    _, _, groups, _ = network("conv2", {"width": 0.1})
    axes = {axis.leaf: axis for axis in groups[1].axes}
    flattened = axes["params/fc1/kernel"]
    assert (flattened.axis, flattened.before, flattened.after) == (0, 64, 1)


def test_a_residual_stream_is_one_group():
    _, _, groups, _ = network("resnet20", {"depth": 8, "width": 0.25})
    stream = {axis.leaf for axis in groups[0].axes}
    assert "params/conv/kernel" in stream
    assert "params/stage1_block1_conv2/kernel" in stream
    assert "params/stage2_block1_shortcut/kernel" in stream
    assert "batch_stats/stage1_block1_norm2/mean" in stream
    assert "params/stage1_block1_norm1/scale" not in stream


@settings(max_examples=8, deadline=None)
@given(hidden=st.lists(st.integers(2, 9), min_size=1, max_size=3), seed=st.integers(0, 2**16))
def test_matching_recovers_a_drawn_permutation(hidden, seed):
    _, variables, groups, _ = network("mlp", {"hidden": tuple(hidden)}, seed)
    orders = drawn(groups, seed + 1)
    other = permuted(variables, groups, orders)
    assert bits(permuted(other, groups, inverse(orders))) == bits(variables)
    found = by_weights(groups, {"params": variables["params"]}, {"params": other["params"]})
    assert bits(permuted(other, groups, found)) == bits(variables)


@pytest.mark.parametrize("name", ["conv2", "resnet20", "resnet50"])
def test_matching_recovers_channels_and_residual_streams(name):
    _, variables, groups, _ = network(name, SMALL[name][0], seed=3)
    other = permuted(variables, groups, drawn(groups, seed=4))
    found = by_weights(groups, {"params": variables["params"]}, {"params": other["params"]})
    assert bits(permuted(other, groups, found)) == bits(variables)


@settings(max_examples=8, deadline=None)
@given(hidden=st.lists(st.integers(2, 9), min_size=1, max_size=3), seed=st.integers(0, 2**16))
def test_alignment_by_weights_never_brings_networks_further_apart(hidden, seed):
    networks = [network("mlp", {"hidden": tuple(hidden)}, seed + more)[1:3] for more in (0, 1)]
    (first, groups), (second, _) = networks
    found = by_weights(groups, {"params": first["params"]}, {"params": second["params"]})
    aligned = permuted(second, groups, found)
    plain, after = (distance(first["params"], one["params"]).l2 for one in (second, aligned))
    assert after <= plain + 1e-9


@pytest.mark.slow
def test_a_mask_moves_with_its_network():
    _, variables, groups, _ = network("conv2", {"width": 0.1})
    mask = random_mask(variables["params"])
    sparse = jax.tree.map(lambda w, m: jnp.where(m, w, 0), variables["params"], mask)
    orders = drawn(groups, seed=2)
    moved = permuted({"params": mask}, groups, orders)["params"]
    weights = permuted({"params": sparse}, groups, orders)["params"]
    for name, kept in named_leaves(moved).items():
        assert kept.dtype == bool
        if kept.ndim > 1:
            np.testing.assert_array_equal(kept, named_leaves(weights)[name] != 0)
