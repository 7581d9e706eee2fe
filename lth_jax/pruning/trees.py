"""Named leaves of parameter pytrees, patterns over their names, and exact counts.

JAX is imported where it is used: run directories are looked at without waiting for it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

PyTree = Any


def path_name(path: Sequence[Any]) -> str:
    """Returns a JAX key path as one `/`-joined name: `fc1/kernel`, `0/1`, `layers/0/w`."""
    import jax

    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Returns the leaves of `tree` by name, in `jax.tree.leaves` order.

    The order is part of the contract: it decides ties between equal scores.
    """
    import jax

    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_named(function: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """Maps as `jax.tree.map` does a function that gets the leaf's name first."""
    import jax

    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: function(path_name(path), *leaves), tree, *rest
    )


def name_matches(name: str, pattern: str) -> bool:
    """Returns whether a shell-style `pattern` names the leaf `name`, or a module above it.

    `output` and `out*` match `output/kernel`; `*/kernel` matches every kernel; `fc` does not match
    `fc1/kernel`.
    """
    parts = name.split("/")
    return any(
        fnmatch.fnmatchcase("/".join(parts[:length]), pattern)
        for length in range(1, len(parts) + 1)
    )


def size(leaf: Any) -> int:
    """Returns the number of elements of an array or of its shape, as a Python integer."""
    return int(np.prod(np.shape(leaf), dtype=np.int64))


def count_true(mask_leaf: Any) -> int:
    """Returns the number of True elements of a bool array, as a Python integer."""
    return int(np.count_nonzero(np.asarray(mask_leaf)))


def nbytes(tree: PyTree) -> int:
    """Returns the bytes that the arrays of `tree` hold."""
    import jax

    return sum(size(leaf) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def to_device(tree: PyTree) -> PyTree:
    """Returns `tree` with its arrays on the default device."""
    import jax
    import jax.numpy as jnp

    return jax.tree.map(jnp.asarray, tree)
