"""Infinite and undefined numbers spread through kernels as through XLA's, but by no pruned zero.

XLA multiplies what is pruned by zero, and infinity times zero is undefined: so agreement is tested
with nothing pruned.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.native import dense_conv
from lth_jax.native.layers import Layer
from lth_jax.native.packing import Packed
from lth_jax.native.sparse import Window, sparse_conv, sparse_product

from .convolutions import cosines, operands

pytestmark = pytest.mark.usefixtures("built")
VALUES = pytest.mark.parametrize("value", [np.inf, np.nan], ids=str)
CONVOLUTIONS = [((1, 1), ((1, 1), (1, 1))), ((2, 1), ((1, 1), (0, 2))), ((1, 1), ((0, 0), (0, 0)))]
WINDOWS = pytest.mark.parametrize(("strides", "padding"), CONVOLUTIONS, ids=str)
SHAPE = (3, 3, 4, 5)
# A corner, an edge and the middle of images [2, 10, 9, 4].
PLACES = pytest.mark.parametrize("place", [(0, 0, 0, 1), (1, 4, 8, 2), (0, 5, 5, 3)], ids=str)


def packed(kind, mask, strides=(1, 1)):
    layout = (("kernel", max(1, int(mask.sum()))),)
    layer = Layer(kind, mask.shape, strides)
    return Packed(layout, {"kernel": layer}, {"kernel": mask}).leaves["kernel"]


def undefined(function, x, kernel, given=None):
    """Where (value, input gradient, kernel gradient) are not finite."""
    out, pullback = jax.vjp(function, jnp.asarray(x), jnp.asarray(kernel))
    given = cosines(out.shape) if given is None else given
    arrays = out, *pullback(jnp.asarray(given, jnp.float32))
    return [~np.isfinite(np.asarray(array)) for array in arrays]


def sparse_undefined(kind, mask, x, kernel, function, strides=(1, 1)):
    """The same of a packed layer, `function` of (values, tables, x)."""
    leaf = packed(kind, mask, strides)
    run = lambda x, values: function(values, leaf.tables, x)  # noqa: E731
    *others, gradient = undefined(run, x, leaf.pack(kernel))
    return *others, leaf.unpack(gradient)


def images(place, value):
    x, kernel = (np.array(array) for array in operands(0, (2, 10, 9, 4), SHAPE))
    x[place] = value
    return x, kernel


@VALUES
@PLACES
@WINDOWS
def test_dense_convolutions_spread_it_as_xla_does(strides, padding, place, value):
    x, kernel = images(place, value)
    mine = undefined(lambda x, k: dense_conv.dense_conv(x, k, strides, padding), x, kernel)
    other = undefined(lambda x, k: dense_conv._xla(x, k, strides, padding), x, kernel)
    for one, another in zip(mine, other, strict=True):
        np.testing.assert_array_equal(one, another)


@VALUES
def test_winograd_convolutions_spread_it_over_tiles(value):
    """Wherever it is undefined in XLA's, and no further than the tiles that see it."""
    x, kernel = (np.array(array) for array in operands(0, (2, 12, 12, 16), (3, 3, 16, 17)))
    x[1, 4, 5, 3] = value  # under the windows of two tiles by rows, and of one by columns
    one, seen = ((1, 1), (1, 1)), np.zeros((2, 12, 12, 1), bool)
    seen[1, :8, 4:8] = True

    def spread(x, given=None):
        mine = undefined(
            lambda x, k: dense_conv.dense_conv(x, k, (1, 1), one, winograd=True), x, kernel, given
        )
        theirs = undefined(lambda x, k: dense_conv._xla(x, k, (1, 1), one), x, kernel, given)
        for one_of_mine, other in zip(mine, theirs, strict=True):
            assert np.all(one_of_mine[other])
        return mine

    out, dx, dkernel = spread(x)
    assert np.all(out[1, 4:8, 4:8])
    assert not np.any(out & ~seen)
    assert not np.any(dx)
    assert not np.any(np.delete(dkernel, 3, axis=2))
    given = cosines(out.shape)
    given[1, 4, 5, 2] = value
    out, dx, dkernel = spread(np.nan_to_num(x, nan=0, posinf=0), given)
    assert not np.any(out)
    assert not np.any(dx & ~seen)
    assert not np.any(np.delete(dkernel, 2, axis=3))


@VALUES
@PLACES
@WINDOWS
def test_packed_convolutions_spread_it_as_xla_does(strides, padding, place, value):
    x, kernel = images(place, value)
    window, mask = Window(SHAPE[:2], strides, padding), np.ones(SHAPE, bool)
    run = lambda *operands: sparse_conv(*operands, window)  # noqa: E731
    out, dx, dkernel = sparse_undefined("conv", mask, x, kernel, run, strides)
    theirs = undefined(lambda x, k: dense_conv._xla(x, k, strides, padding), x, kernel)
    np.testing.assert_array_equal(out, theirs[0])
    np.testing.assert_array_equal(dx, theirs[1])
    # Between rows it meets zeros: it may reach more weights of its channel, but no other's.
    assert np.all(dkernel[theirs[2]])
    assert not np.any(np.delete(dkernel, place[3], axis=2))


@VALUES
def test_packed_dense_layers_spread_it_as_xla_does(value):
    x, kernel = (np.array(array) for array in operands(0, (70, 30), (30, 20)))
    x[65, 7] = value
    mine = sparse_undefined("dense", np.ones(kernel.shape, bool), x, kernel, sparse_product)
    for one, another in zip(mine, undefined(jnp.matmul, x, kernel), strict=True):
        np.testing.assert_array_equal(one, another)


@VALUES
def test_what_is_pruned_spreads_nothing(value):
    x, kernel = (np.array(array) for array in operands(0, (70, 30), (30, 20)))
    x[65, 7] = value
    mask = np.random.default_rng(1).random(kernel.shape) < 0.3
    out, dx, dkernel = sparse_undefined("dense", mask, x, kernel, sparse_product)
    np.testing.assert_array_equal(out[65], mask[7])
    assert not np.any(np.delete(out, 65, axis=0))
    assert not np.any(dx)
    np.testing.assert_array_equal(dkernel[7], mask[7])
    x, kernel = images((0, 5, 5, 3), value)
    mask = np.zeros(SHAPE, bool)
    mask[1, 1, :3] = True  # another channel's
    window = Window(SHAPE[:2], (1, 1), ((1, 1), (1, 1)))
    run = lambda *operands: sparse_conv(*operands, window)  # noqa: E731
    assert not any(map(np.any, sparse_undefined("conv", mask, x, kernel, run)))
