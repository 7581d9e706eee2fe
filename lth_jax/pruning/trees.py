"""Named leaves of parameter pytrees, patterns over their names, and exact counts.

JAX is imported where it is used: run directories are looked at without waiting for it.
"""

from __future__ import annotations

import fnmatch
import re
import sys
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

    leaves = jax.tree_util.tree_leaves_with_path(plain(tree))
    return {path_name(path): leaf for path, leaf in leaves}


def map_named(function: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """Maps as `jax.tree.map` does a function that gets the leaf's name first."""
    import jax

    mapped = jax.tree_util.tree_map_with_path(
        lambda path, *leaves: function(path_name(path), *leaves), plain(tree), *map(plain, rest)
    )
    return like(tree, mapped)


def plain(tree: PyTree) -> PyTree:
    """Returns `tree` with the arrays of NNX's variables in their place; any other as it is.

    A state of `nnx.Param`, one of an `nnx.Optimizer`'s variables and one of arrays are different
    structures to JAX, though their leaves are alike.
    """
    nnx = sys.modules.get("flax.nnx")  # who has such variables has imported it
    return nnx.as_pure(tree) if nnx and _has_variables(tree, nnx) else tree


def like(tree: PyTree, values: PyTree) -> PyTree:
    """Returns `values`, in NNX's variables where `tree` has such; its leaves are as many."""
    import jax

    nnx = sys.modules.get("flax.nnx")
    if not nnx or not _has_variables(tree, nnx):
        return values
    return jax.tree.unflatten(jax.tree.structure(tree), jax.tree.leaves(values))


def _has_variables(tree: PyTree, nnx: Any) -> bool:
    import jax

    def is_variable(node: Any) -> bool:
        return isinstance(node, nnx.Variable)

    return any(map(is_variable, jax.tree.leaves(tree, is_leaf=is_variable)))


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


def is_output(name: str) -> bool:
    """Returns whether a leaf is of the output layer, as far as its name tells."""
    return name.startswith("output")


def natural_order(name: str) -> list[tuple[int, str]]:
    """Returns what sorts names so that numbers within count as numbers: `conv2` before `conv10`."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts if part]


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
