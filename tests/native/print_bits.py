"""Prints XLA's threads and a hash of what native code computes: `print_bits.py FOLDER THREADS`.

Its libraries are kept in FOLDER; THREADS is `threads.cc`, compiled. A process of its own for
`test_threads.py`, since XLA starts its threads once.
"""

import ctypes
import hashlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.native import build
from lth_jax.native.dense_conv import dense_conv
from lth_jax.native.dense_product import dense_product
from lth_jax.native.layers import Layer
from lth_jax.native.packing import Packed
from lth_jax.native.sparse import Window, sparse_conv, sparse_product


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def outcomes(function, *operands):
    """The value and all gradients, the value's cosine as its gradient, in one program."""

    def all_of(*operands):
        out, pullback = jax.vjp(function, *operands)
        return out, pullback(jnp.cos(out))

    return jax.jit(all_of)(*operands)


def packed(kind, shape, density, strides=(1, 1)):
    """A packed leaf of one layer."""
    mask = np.random.default_rng(0).random(shape) < density
    name, layer = "layer/kernel", Layer(kind, shape, strides)
    packing = Packed(((name, int(mask.sum())),), {name: layer}, {"layer": {"kernel": mask}})
    return packing.leaves[name]


def packed_product():
    """A layer large enough to be shared out among threads."""
    leaf = packed("dense", (784, 300), 0.2)
    values, x = jnp.asarray(leaf.pack(normal(1, *leaf.shape))), normal(2, 300, 784)
    return outcomes(lambda values, x: sparse_product(values, leaf.tables, x), values, x)


def unpacked_product():
    """Groups of examples and tasks of inputs, unequal ones, many of them zero."""
    x = normal(7, 300, 500) * (np.arange(500) % 3 > 0)
    return outcomes(dense_product, x, normal(8, 500, 101))


def packed_convolution():
    """Tasks enough for all parts of the kernel's gradient, and unequal ones."""
    leaf = packed("conv", (3, 3, 20, 37), 0.3, (2, 1))
    window = Window((3, 3), (2, 1), ((1, 1), (0, 2)))
    values, x = jnp.asarray(leaf.pack(normal(5, *leaf.shape))), normal(6, 37, 32, 32, 20)
    return outcomes(lambda values, x: sparse_conv(values, leaf.tables, x, window), values, x)


def convolution():
    """Images enough for several parts of the kernel's gradient."""
    run = lambda x, kernel: dense_conv(x, kernel, (2, 1), ((1, 1), (0, 2)))  # noqa: E731
    return outcomes(run, normal(3, 19, 16, 16, 20), normal(4, 3, 3, 20, 37))


def threads(library: Path) -> int:
    """How many threads XLA gives native code."""
    capsule = jax.ffi.pycapsule(ctypes.CDLL(str(library)).Threads)
    jax.ffi.register_ffi_target("threads", capsule, platform="cpu")
    return int(jax.jit(jax.ffi.ffi_call("threads", jax.ShapeDtypeStruct((), jnp.int32)))())


def main(folder: Path, library: Path) -> None:
    build.load(tuple(build.TARGETS), folder)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(
        [packed_product(), unpacked_product(), convolution(), packed_convolution()]
    ):
        digest.update(np.asarray(leaf).tobytes())
    print(threads(library), digest.hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
