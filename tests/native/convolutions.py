"""What tests of convolutions share: layers of the zoo, operands, and a reference by hand."""

import jax.numpy as jnp
import numpy as np

# The shapes of the zoo's layers: side, channels, features, width of the window, stride, border.
ZOO = {
    "conv2 first": (32, 3, 64, 3, 1, 1),
    "conv2 second": (32, 64, 64, 3, 1, 1),
    "conv6 fifth": (8, 128, 256, 3, 1, 1),
    "lenet5 first": (28, 1, 6, 5, 1, 0),
    "lenet5 second": (14, 6, 16, 5, 1, 0),
    "resnet20": (32, 16, 16, 3, 1, 1),
    "resnet20 strided": (32, 16, 32, 3, 2, 1),
    "resnet20 shortcut": (32, 16, 32, 1, 2, 0),
    "resnet50 stem": (32, 3, 64, 7, 2, 3),
    "resnet50 narrow": (8, 256, 64, 1, 1, 0),
    "vgg last": (2, 512, 512, 3, 1, 1),
    "vit patches": (32, 3, 192, 4, 4, 0),
    "densenet": (16, 112, 32, 3, 1, 1),
    "no multiple of lanes": (9, 5, 37, 3, 2, 1),
}


def operands(seed, *shapes):
    random = np.random.default_rng(seed)
    return tuple(jnp.asarray(random.normal(size=size), jnp.float32) for size in shapes)


def cosines(shape):
    return np.cos(np.arange(np.prod(shape, dtype=int))).reshape(shape)


def by_hand(x, kernel, strides, padding):
    """(value, input gradient, kernel gradient), given `cosines` as the output's gradient.

    In NumPy, float64, tap by tap: XLA's own gradients of odd shapes do not compile.
    """
    kernel = np.asarray(kernel, np.float64)
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *padding, (0, 0)))
    rows, columns = (
        (side - width) // stride + 1
        for side, width, stride in zip(x.shape[1:3], kernel.shape, strides, strict=False)
    )
    out = np.zeros((len(x), rows, columns, kernel.shape[3]))
    given, dx, dkernel = cosines(out.shape), np.zeros_like(x), np.zeros_like(kernel)
    for r, q in np.ndindex(kernel.shape[:2]):
        down = slice(r, r + rows * strides[0], strides[0])
        along = slice(q, q + columns * strides[1], strides[1])
        seen = x[:, down, along][:, :rows, :columns]
        out += seen @ kernel[r, q]
        dx[:, down, along][:, :rows, :columns] += given @ kernel[r, q].T
        dkernel[r, q] = np.einsum("nyxc,nyxk->ck", seen, given)
    (top, bottom), (left, right) = padding
    return out, dx[:, top : dx.shape[1] - bottom, left : dx.shape[2] - right], dkernel


def assert_agree(ours, theirs):
    """To 1e-5 of the largest number of each."""
    for mine, other in zip(ours, theirs, strict=True):
        scale = np.max(np.abs(other)) + 1e-30
        np.testing.assert_allclose(mine / scale, other / scale, rtol=0, atol=1e-5)
