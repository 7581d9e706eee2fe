"""Random keys derived from names: every random number has one place that it comes from.

A run's randomness is a function of the seed, its replicate and its purpose (and, where something is
drawn for a control, of its branch, level and draw), never of what ran before it or beside it. So
runs may be added, resumed and trained in any order, and comparisons stay paired.
"""

from __future__ import annotations

import zlib

import jax
from jaxtyping import Array, Key


def derive(seed: int, *path: str | int) -> Key[Array, ""]:
    """Returns the typed key [] of `path`, such as `derive(0, "reinit", replicate, level, draw)`.

    Names enter by their CRC-32, integers as they are (modulo 2**32).
    """
    key = jax.random.key(seed)
    for part in path:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else part % 2**32
        key = jax.random.fold_in(key, number)
    return key


def initialization_key(seed: int, replicate: int) -> Key[Array, ""]:
    """Returns the key of a replicate's initial weights."""
    return derive(seed, "init", replicate)


def data_key(seed: int, replicate: int) -> Key[Array, ""]:
    """Returns the key of batch order, augmentation and dropout.

    It is the same for all levels, branches and draws of a replicate: a ticket and its controls see
    the same batches, which is what makes their differences paired.
    """
    return derive(seed, "data", replicate)


def sibling_key(seed: int, replicate: int, number: int) -> Key[Array, ""]:
    """Returns the key of the data order, augmentation and dropout of a replicate's sibling.

    It is the same at all levels and for all steps at which siblings part: pairs are comparable.
    """
    return derive(seed, "sibling", replicate, number)


def pruning_key(seed: int, replicate: int, level: int) -> Key[Array, ""]:
    """Returns the key of what a criterion draws to prune to `level`."""
    return derive(seed, "prune", replicate, level)


def branch_key(seed: int, branch: str, replicate: int, level: int, draw: int) -> Key[Array, ""]:
    """Returns the key of what one draw of a branch draws, such as fresh weights."""
    return derive(seed, "branch", branch, replicate, level, draw)


def learning_key(seed: int, branch: str, replicate: int, level: int, draw: int) -> Key[Array, ""]:
    """Returns the key of where a learned mask's scores begin, and of what its training draws."""
    return derive(seed, "learning", branch, replicate, level, draw)


def moving_key(seed: int, branch: str, replicate: int, level: int, draw: int) -> Key[Array, ""]:
    """Returns the key of what a rule draws that moves a run's mask, of all of its moves."""
    return derive(seed, "moving", branch, replicate, level, draw)
