"""Prints XLA's threads and a hash of what native code computes: `print_bits.py FOLDER THREADS`.

Its libraries are kept in FOLDER; THREADS is `threads.cc`, compiled. A process of its own for
`test_threads.py`, since XLA starts its threads once.
"""

import ctypes
import hashlib
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lth_jax.native import build
from lth_jax.native.chain import Chain
from lth_jax.native.dense_conv import dense_conv
from lth_jax.native.dense_product import dense_product
from lth_jax.native.layers import Layer
from lth_jax.native.operations import NATIVE
from lth_jax.native.packing import Packed
from lth_jax.native.sparse import Window, sparse_conv, sparse_product
from lth_jax.training.optimizers import AdamRule, MomentumRule, with_rule
from lth_jax.training.pixels import Pixels


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


def winograd_convolution(channels, features):
    """Chunks enough for all threads; the gradient of a small kernel and of a large one differ."""
    run = lambda x, k: dense_conv(x, k, (1, 1), ((1, 1), (0, 2)), winograd=True)  # noqa: E731
    return outcomes(run, normal(9, 37, 14, 15, channels), normal(10, 3, 3, channels, features))


def optimizers_steps():
    """Weights enough for several tasks, and numbers so small that they are flushed to zero."""
    weights, gradient = normal(9, 300_001), normal(10, 300_001)
    mask = gradient > -1
    ends = []
    adam = with_rule(optax.adam(0.1), AdamRule(0.1))
    momentum = with_rule(optax.sgd(0.1, momentum=0.9), MomentumRule(0.1, 0.9))
    for optimizer in (adam, momentum):
        state = jax.tree.map(lambda leaf: leaf + leaf.dtype.type(1), optimizer.init(weights))
        step = jax.jit(partial(NATIVE.masked_step, optimizer))
        ends.append(step(gradient * 1e-20, state, weights, mask))
    return ends


def chain():
    """Layers and examples enough for threads to share each phase."""
    leaf = packed("dense", (784, 300), 0.5)
    constants = {"a/kernel": leaf.tables}
    values = jnp.asarray(leaf.pack(normal(1, *leaf.shape)))
    params = {"a": {"kernel": values}, "b": {"kernel": normal(11, 300, 100)}}
    images = (jnp.abs(normal(12, 700, 28, 28, 1)) * 60).astype(jnp.uint8)
    network, pixels = Chain(("a/kernel", "b/kernel"), (None, None)), Pixels(1 / 255)
    labels = jnp.arange(700, dtype=jnp.int32) % 100
    return (
        network.loss_and_gradients(constants, params, images, labels, pixels),
        network.logits(constants, params, images, pixels),
    )


def threads(library: Path) -> int:
    """How many threads XLA gives native code."""
    capsule = jax.ffi.pycapsule(ctypes.CDLL(str(library)).Threads)
    jax.ffi.register_ffi_target("threads", capsule, platform="cpu")
    return int(jax.jit(jax.ffi.ffi_call("threads", jax.ShapeDtypeStruct((), jnp.int32)))())


def main(folder: Path, library: Path) -> None:
    build.load(tuple(build.TARGETS), folder)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(
        [
            packed_product(),
            unpacked_product(),
            convolution(),
            winograd_convolution(20, 37),
            winograd_convolution(48, 130),
            packed_convolution(),
            optimizers_steps(),
            chain(),
        ]
    ):
        digest.update(np.asarray(leaf).tobytes())
    print(threads(library), digest.hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
