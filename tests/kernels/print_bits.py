"""Prints a hash of what the kernels compute: `print_bits.py FOLDER`, where they are kept.

A process of its own for `test_kernels_threads.py`, since XLA starts its threads once.
"""

import hashlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.kernels import build
from lth_jax.kernels.convolution import conv
from lth_jax.kernels.layers import Layer
from lth_jax.kernels.packing import Packing
from lth_jax.kernels.sparse import sparse_dense


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def outcomes(function, *operands):
    """The value and all gradients, the value's cosine as its gradient, in one program."""

    def all_of(*operands):
        out, pullback = jax.vjp(function, *operands)
        return out, pullback(jnp.cos(out))

    return jax.jit(all_of)(*operands)


def dense():
    """A layer large enough to be shared out among threads."""
    mask = np.random.default_rng(0).random((784, 300)) < 0.2
    name, layer = "layer/kernel", Layer("dense", mask.shape)
    packing = Packing(((name, int(mask.sum())),), {name: layer}, {"layer": {"kernel": mask}})
    leaf = packing.leaves[name]
    values = jnp.asarray(leaf.pack(normal(1, *mask.shape)))
    x = normal(2, 300, 784)
    return outcomes(lambda values, x: sparse_dense(values, leaf.tables, x), values, x)


def convolution():
    """Images enough for several parts of the kernel's gradient."""
    run = lambda x, kernel: conv(x, kernel, (2, 1), ((1, 1), (0, 2)))  # noqa: E731
    return outcomes(run, normal(3, 19, 16, 16, 20), normal(4, 3, 3, 20, 37))


def main(folder: Path) -> None:
    for kind in build.TARGETS:
        build.load(kind, folder)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves([dense(), convolution()]):
        digest.update(np.asarray(leaf).tobytes())
    print(digest.hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
