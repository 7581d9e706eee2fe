"""The floor under a step: its matrix products and Adam's memory traffic, and nothing else.

Each of the two is measured with every library at hand, and the fastest counts: a slow BLAS must
not make the floor look high.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Takes a number of repetitions, and returns when they are done.
Repeat = Callable[[int], None]


class Reading(NamedTuple):
    """Holds one measurement of the floor, per step: milliseconds and who was fastest at what."""

    products_ms: float
    products_by: str
    traffic_ms: float
    traffic_by: str

    @property
    def milliseconds(self) -> float:
        """Returns the whole floor."""
        return self.products_ms + self.traffic_ms


class Floor:
    """Times products at the shapes of a step, and passes through Adam's arrays.

    Args:
      widths: layer widths from input to logits.
      batch_size: examples in a step.
    """

    def __init__(self, widths: tuple[int, ...], batch_size: int):
        operands = make_operands(widths, batch_size)
        parameters = sum((a + 1) * b for a, b in itertools.pairwise(widths))
        self.flops = sum(2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b in operands)
        # Adam reads p, m, v and g, and writes p, m and v.
        self.bytes = 7 * 4 * parameters
        self.products = {"NumPy": numpy_products(operands), "JAX": jax_products(operands)}
        self.traffic = {"NumPy": numpy_traffic(parameters), "JAX": jax_traffic(parameters)}
        with contextlib.suppress(ImportError):
            self.products["PyTorch"] = torch_products(operands)
            self.traffic["PyTorch"] = torch_traffic(parameters)

    def measure(self, repetitions: int, settle: float = 0.0) -> Reading:
        """Returns the floor now, from that many repetitions of either part by each library.

        Between any two of them it waits `settle` seconds; see `SETTLE_SECONDS` in `timing.py`.
        """
        products, traffic = (
            {name: milliseconds(repeat, repetitions, settle) for name, repeat in part.items()}
            for part in (self.products, self.traffic)
        )
        by, through = min(products, key=products.__getitem__), min(traffic, key=traffic.__getitem__)
        return Reading(products[by], by, traffic[through], through)


def milliseconds(repeat: Repeat, repetitions: int, settle: float) -> float:
    """Returns the time per repetition, after a pause of `settle` seconds and a warm-up."""
    time.sleep(settle)
    repeat(20)
    start = time.perf_counter()
    repeat(repetitions)
    return (time.perf_counter() - start) / repetitions * 1e3


def make_operands(widths: tuple[int, ...], batch_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the pairs that a step multiplies: forward, weight gradients, and input gradients.

    The first layer needs no gradient of its input. Transposes are views, as in backpropagation.
    """
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, np.float32)

    kernels = [normal(a, b) for a, b in itertools.pairwise(widths)]
    inputs = [normal(batch_size, width) for width in widths[:-1]]
    deltas = [normal(batch_size, width) for width in widths[1:]]
    forward = list(zip(inputs, kernels, strict=True))
    to_kernels = [(x.T, delta) for x, delta in zip(inputs, deltas, strict=True)]
    to_inputs = [(delta, w.T) for delta, w in zip(deltas[1:], kernels[1:], strict=True)]
    return forward + to_kernels + to_inputs


def numpy_products(operands: list[tuple[np.ndarray, np.ndarray]]) -> Repeat:
    results = [np.empty((a.shape[0], b.shape[1]), np.float32) for a, b in operands]

    def repeat(repetitions: int) -> None:
        for _ in range(repetitions):
            for (a, b), result in zip(operands, results, strict=True):
                np.matmul(a, b, out=result)

    return repeat


def torch_products(operands: list[tuple[np.ndarray, np.ndarray]]) -> Repeat:
    import torch

    pairs = [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in operands]
    results = [torch.empty(a.shape[0], b.shape[1]) for a, b in pairs]

    def repeat(repetitions: int) -> None:
        for _ in range(repetitions):
            for (a, b), result in zip(pairs, results, strict=True):
                torch.mm(a, b, out=result)

    return repeat


def jax_products(operands: list[tuple[np.ndarray, np.ndarray]]) -> Repeat:
    """Multiplies in a compiled loop. An entry of each left operand changes: nothing is hoisted."""
    # Transposed operands as XLA has them in backpropagation: row-major, contracted over rows.
    rows = [not a.flags.c_contiguous for a, _ in operands]
    columns = [not b.flags.c_contiguous for _, b in operands]

    def multiply(index: int, a: jax.Array, b: jax.Array) -> jax.Array:
        dimensions = ((0 if rows[index] else 1,), (1 if columns[index] else 0,))
        return jax.lax.dot_general(a, b, (dimensions, ((), ())))

    @jax.jit
    def loop(repetitions, left, right):
        def body(step, carry):
            left, _ = carry
            left = [a.at[0, 0].set(step.astype(a.dtype)) for a in left]
            pairs = enumerate(zip(left, right, strict=True))
            return left, [multiply(index, a, b) for index, (a, b) in pairs]

        pairs = enumerate(zip(left, right, strict=True))
        results = [jnp.zeros_like(multiply(index, a, b)) for index, (a, b) in pairs]
        return jax.lax.fori_loop(0, repetitions, body, (left, results))

    left = [jnp.asarray(a.T if t else a) for (a, _), t in zip(operands, rows, strict=True)]
    right = [jnp.asarray(b.T if t else b) for (_, b), t in zip(operands, columns, strict=True)]

    def repeat(repetitions: int) -> None:
        jax.block_until_ready(loop(repetitions, left, right))

    return repeat


def numpy_traffic(size: int) -> Repeat:
    p, m, v, g = np.zeros((4, size), np.float32)

    def repeat(repetitions: int) -> None:
        for _ in range(repetitions):
            np.add(p, g, out=p)
            np.negative(m, out=m)
            np.negative(v, out=v)

    return repeat


def jax_traffic(size: int) -> Repeat:
    @jax.jit
    def loop(repetitions, arrays, g):
        def body(_, arrays):
            p, m, v = arrays
            return [p + g, -m, -v]

        return jax.lax.fori_loop(0, repetitions, body, arrays)

    arrays, g = [jnp.zeros(size) for _ in range(3)], jnp.ones(size)

    def repeat(repetitions: int) -> None:
        jax.block_until_ready(loop(repetitions, arrays, g))

    return repeat


def torch_traffic(size: int) -> Repeat:
    import torch

    p, m, v, g = torch.zeros(4, size)

    def repeat(repetitions: int) -> None:
        for _ in range(repetitions):
            torch.add(p, g, out=p)
            torch.neg(m, out=m)
            torch.neg(v, out=v)

    return repeat
