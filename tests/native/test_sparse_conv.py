"""Convolutions with packed kernels agree with dense ones, for any shape and any mask."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings

from lth_jax.native.layers import Layer
from lth_jax.native.packing import Layout, Packed
from lth_jax.native.sparse import Window, sparse_conv

from .convolutions import ZOO, assert_agree, by_hand, cosines, operands

pytestmark = pytest.mark.usefixtures("built")
PAIRS = st.tuples(st.integers(0, 3), st.integers(0, 3))
MORE = {
    "conv4 fourth": (16, 128, 128, 3, 1, 1),
    "alexnet first": (32, 3, 64, 3, 2, 1),
    "alexnet last": (4, 192, 96, 3, 1, 1),
    "resnet50 stem on imagenet": (224, 3, 8, 7, 2, 3),
    "one pixel": (1, 40, 30, 1, 1, 0),
}
BORDER = ((1, 1), (1, 1))


def at_random(shape, density=0.2):
    return np.random.default_rng(7).random(shape) < density


def every_other(shape, axis):
    mask = np.zeros(shape, bool)
    np.moveaxis(mask, axis, 0)[::2] = True
    return mask


def one_survivor(shape):
    return np.arange(np.prod(shape)).reshape(shape) == np.prod(shape) * 2 // 3


MASKS = {
    "random": at_random,
    "sparse": lambda shape: at_random(shape, 0.02),
    "all": lambda shape: np.ones(shape, bool),
    "none": lambda shape: np.zeros(shape, bool),
    "one survivor": one_survivor,
    "half the features": lambda shape: every_other(shape, 3),
    "half the channels": lambda shape: every_other(shape, 2),
    "a cross": lambda shape: every_other(shape, 0) | every_other(shape, 1),
}


def packed_of(mask, strides, room=3):
    """The mask's packing, with `room` behind its last entry."""
    layout: Layout = (("kernel", int(mask.sum()) + room),)
    layer = Layer("conv", mask.shape, strides)
    return Packed(layout, {"kernel": layer}, {"kernel": mask}).leaves["kernel"]


def outcomes(values, tables, x, window):
    """(value, input gradient, gradient of the values), given `cosines` as the output's gradient."""
    out, pullback = jax.vjp(lambda x, v: sparse_conv(v, tables, x, window), x, values)
    return out, *pullback(jnp.asarray(cosines(out.shape), jnp.float32))


def sparsely(x, kernel, mask, strides, padding):
    """The same by a masked kernel, the last as a kernel's gradient."""
    packed = packed_of(mask, strides)
    window = Window(mask.shape[:2], strides, padding)
    out, dx, gradient = outcomes(jnp.asarray(packed.pack(kernel)), packed.tables, x, window)
    assert not np.any(gradient[len(packed.order) :])
    return out, dx, packed.unpack(gradient)


def assert_agrees(x, kernel, mask, strides, padding):
    out, dx, dkernel = by_hand(x, np.where(mask, kernel, 0), strides, padding)
    theirs = out, dx, np.where(mask, dkernel, 0)
    assert_agree(sparsely(x, kernel, mask, strides, padding), theirs)


@pytest.mark.slow
@settings(max_examples=50)
@given(st.data())
def test_any_shape_and_mask_agree(data):
    n = data.draw(st.integers(1, 20))
    height, width = (data.draw(st.integers(1, 11)) for _ in range(2))
    channels, features = (data.draw(st.integers(1, 20)) for _ in range(2))
    rows, columns = (data.draw(st.integers(1, 5)) for _ in range(2))
    strides = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = data.draw(st.tuples(PAIRS, PAIRS))
    assume(height + sum(padding[0]) >= rows and width + sum(padding[1]) >= columns)
    shape = (rows, columns, channels, features)
    x, kernel = operands(0, (n, height, width, channels), shape)
    mask = at_random(shape, data.draw(st.floats(0, 1)))
    assert_agrees(x, kernel, mask, strides, padding)


@pytest.mark.parametrize("case", [*ZOO, *MORE])
def test_the_zoos_layers_agree(case):
    side, channels, features, width, stride, border = (ZOO | MORE)[case]
    shape = (width, width, channels, features)
    x, kernel = operands(1, (2, side, side, channels), shape)
    case = at_random(shape), (stride, stride), ((border, border),) * 2
    assert_agrees(x, kernel, *case)


@pytest.mark.parametrize("strides", [(1, 1), (2, 1)], ids=str)
@pytest.mark.parametrize("mask", MASKS)
def test_any_structure_agrees(mask, strides):
    shape = (3, 3, 20, 24)
    x, kernel = operands(2, (2, 10, 9, 20), shape)
    assert_agrees(x, kernel, MASKS[mask](shape), strides, ((1, 1), (0, 2)))


@pytest.mark.parametrize("images", [1, 7, 9, 70])
def test_small_images_lie_side_by_side(images):
    shape = (3, 3, 12, 10)
    x, kernel = operands(3, (images, 2, 3, 12), shape)
    assert_agrees(x, kernel, at_random(shape), (1, 1), BORDER)


def test_large_images_are_cut_into_bands():
    shape = (3, 3, 40, 40)
    x, kernel = operands(4, (1, 120, 70, 40), shape)
    assert_agrees(x, kernel, at_random(shape), (1, 1), BORDER)


def test_runs_side_by_side_have_the_bits_of_each_alone():
    shape = (3, 3, 16, 24)
    masks = [at_random(shape, density) for density in (0.02, 0.3, 0.1)]
    packed = [packed_of(mask, (2, 1), 2000 - int(mask.sum())) for mask in masks]
    x, kernel = operands(5, (3, 33, 12, 12, 16), (3, *shape))
    window = Window((3, 3), (2, 1), BORDER)
    values = jnp.stack([p.pack(k) for p, k in zip(packed, kernel, strict=True)])
    tables = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(p.tables for p in packed))

    def run(values, tables, x):
        return outcomes(values, tables, x, window)

    together = jax.jit(jax.vmap(run))(values, tables, x)
    for index, one in enumerate(packed):
        alone = jax.jit(run)(values[index], one.tables, x[index])
        for mine, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(mine[index], other)


def test_an_input_gradient_that_nobody_needs_is_not_computed():
    mask = at_random((3, 3, 3, 8))
    packed, window = packed_of(mask, (1, 1)), Window((3, 3), (1, 1), BORDER)
    [x] = operands(7, (2, 5, 5, 3))

    def loss(values):
        return jnp.sum(sparse_conv(values, packed.tables, x, window) ** 2)

    compiled = jax.jit(jax.grad(loss)).lower(jnp.ones(packed.length)).compile().as_text()
    assert "SparseConvKernelGradient" in compiled
    assert "SparseConvInputGradient" not in compiled
