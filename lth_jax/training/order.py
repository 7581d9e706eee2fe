"""The order of the examples: drawn inside the compiled loop, or for it, on the host.

Either way it is a function of a run's data key and of the step alone, and the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int, Int32, Key

# The streams of random numbers that are drawn by a run's data key: the order of the examples,
# dropout, the augmentation of what is stored, and, where images are decoded as they are needed,
# which part of each is taken. Other numbers would be other experiments.
ORDER, DROPOUT, AUGMENTATION, CROPS = range(4)

# (key, count) -> a permutation of the integers below `count`.
Permutation = Callable[[Key[Array, ""], int], jax.Array]


def epoch_order(
    key: Key[Array, ""],
    epoch: Int[Array, ""] | int,
    count: int,
    permutation: Permutation = jax.random.permutation,
) -> Int32[Array, " examples"]:
    """Returns the order of `count` examples in an epoch: a fresh permutation, int32 [count]."""
    return permutation(jax.random.fold_in(key, epoch), count).astype(jnp.int32)


class BatchOrder:
    """The batches that the loop takes by one data key, computed on the host, from any step on.

    It may be asked by several threads at once.

    Args:
      key: typed key [], that of `Inputs`.
      examples: how many there are to train on.
      batch_size: how many a step takes.
      permutation: what draws an order; all that there are give the same.
      shard: (index, count): of each batch, the part of this process among `count`.

    Raises:
      ValueError: a batch is not shared out evenly.
    """

    def __init__(
        self,
        key: Key[Array, ""],
        examples: int,
        batch_size: int,
        *,
        permutation: Permutation = jax.random.permutation,
        shard: tuple[int, int] = (0, 1),
    ):
        index, count = shard
        if batch_size % count:
            raise ValueError(f"batch_size={batch_size}: accepted: a multiple of {count} processes")
        self._examples, self._batch_size, self._permutation = examples, batch_size, permutation
        self._steps_per_epoch = examples // batch_size
        self.size = batch_size // count
        self._own = slice(index * self.size, (index + 1) * self.size)
        # As numbers: an array lies on a device, and the host's threads compute on their own.
        self._words: Any = np.asarray(jax.random.key_data(key))
        self._style = jax.random.key_impl(key)
        self._lock = threading.Lock()
        # The last few: a block of batches may lie in two epochs, and threads are not in step.
        self._orders: dict[int, Int32[np.ndarray, " examples"]] = {}

    def indices(self, start: int, stop: int) -> Int32[np.ndarray, "steps batch"]:
        """Returns the examples of this process's part of the batches of steps `start` to `stop`."""
        rows = [self._batch(step)[self._own] for step in range(start, stop)]
        return np.stack(rows) if rows else np.zeros((0, self.size), np.int32)

    def _batch(self, step: int) -> Int32[np.ndarray, " batch"]:
        epoch, number = divmod(step, self._steps_per_epoch)
        first = number * self._batch_size
        return self._order(epoch)[first : first + self._batch_size]

    def _order(self, epoch: int) -> Int32[np.ndarray, " examples"]:
        with self._lock:
            if epoch not in self._orders:
                while len(self._orders) > 2:
                    del self._orders[min(self._orders)]
                with _on_host():
                    key = jax.random.fold_in(self._key(), ORDER)
                    order = epoch_order(key, epoch, self._examples, self._permutation)
                    self._orders[epoch] = np.asarray(order)
            return self._orders[epoch]

    def uniforms(self, step: int, of_each: int) -> Float32[np.ndarray, "batch of_each"]:
        """Returns numbers in [0, 1) for each of this process's examples in the batch of a step."""
        with _on_host():
            key = jax.random.fold_in(jax.random.fold_in(self._key(), CROPS), step)
            shape = self._batch_size, of_each
            return np.asarray(jax.random.uniform(key, shape, jnp.float32))[self._own]

    def _key(self) -> Key[Array, ""]:
        return jax.random.wrap_key_data(self._words, impl=self._style)


def _on_host() -> Any:
    """Computes within on the CPU, beside what trains; where JAX may not use it, as it chooses."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS names others alone
        return jax.default_device(None)
