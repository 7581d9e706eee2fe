"""Packed dense layers agree with dense ones, in value and gradients, for any shape and mask."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from lth_jax.native.layers import Layer
from lth_jax.native.packing import BLOCKED_SHARE, Packed
from lth_jax.native.sparse import TILE, sparse_product

pytestmark = pytest.mark.usefixtures("built")
NAME = "layer/kernel"
# The shapes of the zoo's layers, conv2's first with a smaller fan-in; examples.
ZOO = {
    "lenet first": ((784, 300), 60),
    "lenet second": ((300, 100), 60),
    "lenet output": ((100, 10), 60),
    "many tiles": ((70, 40), 573),
    "lenet, full tiles": ((784, 300), 2 * TILE),
    "conv2 first": ((1024, 256), 100),
    "conv2 second": ((256, 256), TILE + 1),
    "conv2 output": ((256, 10), 3 * TILE + 7),
    "one example": ((300, 100), 1),
    "one weight": ((1, 1), 3),
    "no multiple of lanes": ((37, 29), TILE - 1),
}


def random_mask(shape, density, seed=0):
    return np.random.default_rng(seed).random(shape) < density


def without(shape, axis):
    """A random mask of which whole inputs (axis 0) or outputs (axis 1) are empty, ends included."""
    mask = random_mask(shape, 0.5)
    np.moveaxis(mask, axis, 0)[::3] = False
    np.moveaxis(mask, axis, 0)[-1] = False
    return mask


def one_survivor(shape):
    mask = np.zeros(shape, bool)
    mask[-1, shape[1] // 2] = True
    return mask


MASKS = {
    "half": lambda shape: random_mask(shape, 0.5),
    "few": lambda shape: random_mask(shape, 0.036),
    "empty inputs": lambda shape: without(shape, 0),
    "empty outputs": lambda shape: without(shape, 1),
    "full": lambda shape: np.ones(shape, bool),
    "one survivor": one_survivor,
    "none": lambda shape: np.zeros(shape, bool),
}


def packed(mask, spare=5):
    """The packed leaf of a kernel with this mask, with room for `spare` more than survive."""
    return packed_as(mask, max(1, int(mask.sum()) + spare))


def packed_as(mask, length):
    layout = ((NAME, length),)
    packing = Packed(layout, {NAME: Layer("dense", mask.shape)}, {"layer": {"kernel": mask}})
    return packing.leaves[NAME]


def operands(mask, examples, seed=1):
    """(kernel, x, gradient of the output), float32."""
    random = np.random.default_rng(seed)
    shapes = mask.shape, (examples, mask.shape[0]), (examples, mask.shape[1])
    return tuple(jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes)


@jax.jit
def outcomes(values, tables, x, given):
    """(value without and with gradients to come, gradients of the values and of the input)."""
    out, pullback = jax.vjp(lambda values, x: sparse_product(values, tables, x), values, x)
    return sparse_product(values, tables, x), out, *pullback(given)


def assert_agrees(mask, examples):
    # Vectors of two lengths, so that masks share programs: tables are in blocks, or they are not.
    few = max(1, int(BLOCKED_SHARE * mask.size) - 1)
    leaf = packed_as(mask, few if mask.sum() <= few else mask.size + 5)
    kernel, x, given = operands(mask, examples)
    # Behind the survivors lies what must not count.
    values = leaf.pack(kernel) + 7 * ~leaf.mask()
    plain, out, dvalues, dx = outcomes(values, leaf.tables, x, given)
    kernel, x, given = (np.float64(array) for array in (kernel * mask, x, given))
    assert_close(out, x @ kernel)
    np.testing.assert_array_equal(plain, out)
    assert_close(dx, given @ kernel.T)
    assert_close(leaf.unpack(dvalues), (x.T @ given) * mask)
    assert not np.any(np.asarray(dvalues)[~leaf.mask()])


def assert_close(mine, other):
    scale = np.max(np.abs(other)) + 1e-30
    np.testing.assert_allclose(np.asarray(mine) / scale, other / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("case", ZOO)
def test_the_zoos_layers_agree(case, mask):
    shape, examples = ZOO[case]
    assert_agrees(MASKS[mask](shape), examples)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.data())
def test_any_shape_and_mask_agree(data):
    inputs, outputs = (data.draw(st.integers(1, 90)) for _ in range(2))
    examples = data.draw(st.sampled_from([1, 2, TILE - 1, TILE, TILE + 1, 2 * TILE + 30]))
    mask = random_mask((inputs, outputs), data.draw(st.floats(0, 1)), data.draw(st.integers(0, 99)))
    mask[:, data.draw(st.sets(st.integers(0, outputs - 1)).map(list))] = False
    mask[data.draw(st.sets(st.integers(0, inputs - 1)).map(list))] = False
    assert_agrees(mask, examples)


@pytest.mark.parametrize("shape", [(784, 300), (37, 29)])
def test_runs_side_by_side_have_the_bits_of_each_alone(shape):
    masks = [random_mask(shape, density, 2) for density in (0.1, 0.3, 0.0)]
    most = max(int(mask.sum()) for mask in masks)
    leaves = [packed(mask, most - int(mask.sum())) for mask in masks]
    runs = []
    for index, (mask, leaf) in enumerate(zip(masks, leaves, strict=True)):
        kernel, *rest = operands(mask, TILE + 6, index)
        runs.append((leaf.pack(kernel), leaf.tables, *rest))
    together = jax.vmap(outcomes)(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs))
    for index, run in enumerate(runs):
        for mine, other in zip(together, outcomes(*run), strict=True):
            np.testing.assert_array_equal(mine[index], other)


def test_an_operand_without_runs_serves_all():
    mask = random_mask((30, 20), 0.3)
    leaf = packed(mask)
    kernel, x, _ = operands(mask, 10)
    values = jnp.stack([leaf.pack(kernel), 2 * leaf.pack(kernel)])
    together = jax.vmap(lambda values: sparse_product(values, leaf.tables, x))(values)
    for mine, alone in zip(together, values, strict=True):
        np.testing.assert_array_equal(mine, sparse_product(alone, leaf.tables, x))
