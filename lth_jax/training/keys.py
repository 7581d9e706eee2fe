"""Random keys derived from names: every random number has one place it comes from.

A run's randomness is a function of the seed, its replicate and its purpose (and, for draws, its
branch, level and draw), never of what ran before it or beside it.
"""

from __future__ import annotations

import zlib

import jax


def derive(seed: int, *path: str | int) -> jax.Array:
    """A typed key (shape `[]`) for `path`, such as `derive(0, "reinit", replicate, level, draw)`.

    Names enter by their CRC-32, integers as they are (taken modulo 2**32).
    """
    key = jax.random.key(seed)
    for part in path:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else part % 2**32
        key = jax.random.fold_in(key, number)
    return key
