"""Convolutions with packed kernels agree with XLA's, in value and gradients, for any shape and mask."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings

from lth_jax.kernels.layers import Layer
from lth_jax.kernels.packing import _packed
from lth_jax.kernels.sparse import Window, sparse_conv

pytestmark = pytest.mark.usefixtures("built")
PAIRS = st.tuples(st.integers(0, 3), st.integers(0, 3))
# The shapes of the zoo's layers: side, channels, features, width of the window, stride, border.
ZOO = {
    "conv2 first": (32, 3, 64, 3, 1, 1),
    "conv2 second": (32, 64, 64, 3, 1, 1),
    "conv4 fourth": (16, 128, 128, 3, 1, 1),
    "conv6 fifth": (8, 128, 256, 3, 1, 1),
    "lenet5 first": (28, 1, 6, 5, 1, 0),
    "lenet5 second": (14, 6, 16, 5, 1, 0),
    "resnet20": (32, 16, 16, 3, 1, 1),
    "resnet20 strided": (32, 16, 32, 3, 2, 1),
    "resnet20 shortcut": (32, 16, 32, 1, 2, 0),
    "resnet50 stem": (224, 3, 8, 7, 2, 3),
    "resnet50 narrow": (14, 256, 64, 1, 1, 0),
    "alexnet": (4, 192, 96, 3, 1, 1),
    "vgg last": (2, 256, 256, 3, 1, 1),
    "vit patches": (32, 3, 96, 4, 4, 0),
    "densenet": (16, 112, 32, 3, 1, 1),
    "no multiple of lanes": (9, 5, 37, 3, 2, 1),
}


def of_random(shape, density=0.2):
    return np.random.default_rng(7).random(shape) < density


def half_the_features(shape):
    mask = np.zeros(shape, bool)
    mask[..., ::2] = True
    return mask


def one_survivor(shape):
    mask = np.zeros(shape, bool)
    mask.flat[mask.size * 2 // 3] = True
    return mask


MASKS = {
    "random": of_random,
    "sparse": lambda shape: of_random(shape, 0.02),
    "all": lambda shape: np.ones(shape, bool),
    "none": lambda shape: np.zeros(shape, bool),
    "one survivor": one_survivor,
    "half the features": half_the_features,
    "half the channels": lambda shape: half_the_features((*shape[:2], *shape[:1:-1])).swapaxes(2, 3),
}


def operands(seed, *shapes):
    random = np.random.default_rng(seed)
    return tuple(jnp.asarray(random.normal(size=size), jnp.float32) for size in shapes)


def packed_of(mask, strides, padding=3):
    """The mask's packing, with some room behind the last entry."""
    return _packed(Layer("conv", mask.shape, strides), int(mask.sum()) + padding, mask)


def outcomes(function, given, *arrays):
    """(value, gradients of all arrays), given the output's gradient."""
    out, pullback = jax.vjp(function, *arrays)
    return out, *pullback(given)


def assert_agree(x, kernel, mask, strides, padding):
    """Values and gradients of a packed convolution, and of XLA's by the masked kernel."""
    packed, window = packed_of(mask, strides), Window(mask.shape[:2], strides, padding)
    [given] = operands(1, window.out(x.shape, mask.shape[3]))
    values = jnp.asarray(packed.pack(kernel))
    ours = outcomes(lambda v, x: sparse_conv(v, packed.tables, x, window), given, values, x)
    theirs = by_xla(x, np.where(mask, kernel, 0), given, strides, padding)
    weights = np.asarray(ours[1])
    assert not weights[len(packed.order) :].any()
    expected = (theirs[0], np.where(mask, theirs[1], 0), theirs[2])
    for mine, other in zip((ours[0], packed.unpack(weights), ours[2]), expected, strict=True):
        scale = np.max(np.abs(other)) + 1e-30
        np.testing.assert_allclose(mine / scale, other / scale, rtol=0, atol=1e-5)


def by_xla(x, kernel, given, strides, padding):
    """The same by convolutions of XLA's alone that any shape compiles in, in float64 where not."""
    kernel = np.asarray(kernel, np.float64)
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *padding, (0, 0)))
    out = np.zeros(given.shape)
    dx, dkernel = np.zeros_like(x), np.zeros_like(kernel)
    given = np.asarray(given, np.float64)
    rows, columns = out.shape[1:3]
    for r, q in np.ndindex(kernel.shape[:2]):
        down = slice(r, r + rows * strides[0], strides[0])
        along = slice(q, q + columns * strides[1], strides[1])
        seen = x[:, down, along][:, :rows, :columns]
        out += seen @ kernel[r, q]
        dx[:, down, along][:, :rows, :columns] += given @ kernel[r, q].T
        dkernel[r, q] = np.tensordot(seen, given, ((0, 1, 2), (0, 1, 2)))
    (top, bottom), (left, right) = padding
    return out, dkernel, dx[:, top : dx.shape[1] - bottom, left : dx.shape[2] - right]


@pytest.mark.parametrize("case", ZOO)
def test_the_zoos_layers_agree(case):
    side, channels, features, width, stride, border = ZOO[case]
    shape = (width, width, channels, features)
    x, kernel = operands(0, (3, side, side, channels), shape)
    assert_agree(x, kernel, of_random(shape), (stride, stride), ((border, border),) * 2)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 3)], ids=str)
@pytest.mark.parametrize("mask", MASKS)
def test_masks_agree(mask, strides):
    x, kernel = operands(2, (2, 10, 9, 20), (3, 3, 20, 24))
    assert_agree(x, kernel, MASKS[mask](kernel.shape), strides, ((1, 1), (0, 2)))
