"""The sharpness of a loss: the largest eigenvalue of its Hessian, by Lanczos' iteration.

The iteration is matfree's (Krämer et al. 2024), with full reorthogonalization.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Key, Shaped

from lth_jax.errors import SpecError
from lth_jax.pruning.trees import PyTree

INSTALL = 'pip install "matfree>=0.6,<0.7"'


class Sharpness(NamedTuple):
    """The largest eigenvalue that the iteration found.

    Attributes:
      eigenvalue: as far as the iteration came; no larger than the largest, but for rounding.
      residual: the length of Hv - λv for its unit vector v: an eigenvalue lies that near.
    """

    eigenvalue: float
    residual: float


def lanczos() -> ModuleType:
    """Returns the module that holds the iteration.

    Raises:
      SpecError: it is not installed.
    """
    try:
        from matfree import decomp
    except ImportError:
        raise SpecError(
            f"config.curvature.steps: it is measured by matfree, which is not installed; {INSTALL}"
        ) from None
    return decomp


def sharpness(
    loss: Callable[..., Array],
    params: PyTree,
    mask: PyTree,
    batches: tuple[Shaped[Array, "batches batch ..."], Shaped[Array, "batches batch ..."]],
    others: PyTree,
    key: Key[Array, ""],
    *,
    iterations: int,
) -> Sharpness:
    """Returns the largest eigenvalue of the Hessian of a mean loss in the weights that a mask has.

    Args:
      loss: (params, others, inputs, targets) -> float32 []; it is differentiated twice, and a
        program is compiled for each.
      params: where, float32.
      mask: bool, of their structure: the Hessian is that of the weights where it is True.
      batches: inputs and targets; the loss is the mean of those of the batches.
      others: what the loss needs besides.
      key: of the vector with which the iteration begins.
      iterations: products of the Hessian and a vector; as many as there are weights at most.
    """
    kept = sum(int(np.sum(np.asarray(leaf))) for leaf in jax.tree.leaves(mask))
    if not kept:
        return Sharpness(0.0, 0.0)
    depth = max(1, min(iterations, kept))
    while True:
        diagonal, beside, left = map(
            np.asarray, _tridiagonal(loss, params, mask, batches, others, key, depth)
        )
        if np.isfinite(diagonal).all() and np.isfinite(beside).all():
            values, vectors = np.linalg.eigh(
                np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
            )
            return Sharpness(float(values[-1]), float(abs(left * vectors[-1, -1])))
        if depth == 1:  # so is the loss
            return Sharpness(float("nan"), float("nan"))
        # The vectors so far span a space that the Hessian does not leave: the next has length 0.
        # In fewer of them the largest eigenvalue of this space is there already.
        depth //= 2


@partial(jax.jit, static_argnums=(0, 6))
def _tridiagonal(
    loss: Callable[..., Array],
    params: PyTree,
    mask: PyTree,
    batches: tuple[Array, Array],
    others: PyTree,
    key: Key[Array, ""],
    depth: int,
) -> tuple[Array, Array, Array]:
    """Returns the diagonal of Lanczos' matrix, what stands beside it, and the last residual."""
    flat, unravel = ravel_pytree(params)
    chosen = ravel_pytree(mask)[0].astype(flat.dtype)
    count = len(batches[0])

    def product(vector: Array) -> Array:
        tangent = unravel(vector * chosen)

        def add(total: Array, batch: tuple[Array, Array]) -> tuple[Array, None]:
            gradient = jax.grad(lambda p: loss(p, others, *batch))
            _, along = jax.jvp(gradient, (params,), (tangent,))
            return total + ravel_pytree(along)[0], None

        total, _ = jax.lax.scan(add, jnp.zeros_like(flat), batches)
        return total * chosen / count

    iterate = lanczos().tridiag_sym(depth, materialize=True, reortho="full", custom_vjp=False)
    start = jax.random.normal(key, flat.shape, flat.dtype) * chosen
    found = iterate(product, start / jnp.linalg.norm(start))
    matrix, left = found[1], found[2]
    return jnp.diagonal(matrix), jnp.diagonal(matrix, 1), jnp.linalg.norm(left)
