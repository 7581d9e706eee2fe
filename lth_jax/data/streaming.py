"""Examples in blocks, read ahead on threads by Grain, for what does not fit on a device.

Which examples a block has, and what each is cropped by, is said by functions of the block's number
alone: reading may begin at any of them, and gives the same.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lth_jax.data.dataset import Split

INSTALL = 'pip install "grain>=0.2.18,<0.3"'


class Rows(NamedTuple):
    """Some examples of a split.

    Attributes:
      indices: int [n]; uniforms: float32 [n, …] in [0, 1), by which each image is cropped, for
        those that are decoded when they are needed; None to take their middle.
    """

    indices: np.ndarray
    uniforms: np.ndarray | None = None


class Block(NamedTuple):
    """The examples of a block, of each list its own.

    Attributes:
      inputs: [lists, n, …]; targets: [lists, n, …]; zeros behind what a list has.
      counts: how many each list has.
    """

    inputs: np.ndarray
    targets: np.ndarray
    counts: list[int]


def is_installed() -> bool:
    """Returns whether what reads ahead is there."""
    return importlib.util.find_spec("grain") is not None


class Blocks:
    """The blocks of a split.

    Args:
      split: its arrays on the host, or images that are read where they are asked for.
      lists: for each list of a block, a function of the block's number that says what is in it.
      size: the most that a list has.
      count: how many blocks there are.
      piece: how many examples of a list are read at once: threads share out what takes long.
    """

    def __init__(
        self,
        split: Split,
        lists: Sequence[Callable[[int], Rows]],
        *,
        size: int,
        count: int,
        piece: int = 0,
    ):
        self._split, self._lists, self._size, self._count = split, lists, size, count
        self._piece = piece or size
        self._pieces = math.ceil(size / self._piece)

    def read(
        self,
        first: int = 0,
        *,
        put: Callable[[Block], Any] = lambda block: block,
        threads: int = 1,
    ) -> Any:
        """Yields `put` of each block from number `first` on, in order; can be closed.

        While one is used, the next is read, and one that is read is put: where `put` brings it to a
        device, that takes three blocks of its memory.

        Args:
          first: the number of the first.
          put: is called in a thread of its own.
          threads: how many read.
        """
        import grain
        from grain.experimental import ThreadPrefetchIterDataset

        whole = len(self._lists) * self._pieces
        pieces = grain.MapDataset.range(first * whole, self._count * whole).map(self._read)
        ahead = max(threads, whole)
        read = pieces.to_iter_dataset(grain.ReadOptions(threads, prefetch_buffer_size=ahead))
        blocks = read.batch(whole, batch_fn=self._joined).map(put)
        return iter(ThreadPrefetchIterDataset(blocks, prefetch_buffer_size=1))

    def _read(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the inputs and targets of a piece; they are counted over all blocks."""
        number, piece = divmod(int(number), self._pieces)
        block, which = divmod(number, len(self._lists))
        own = slice(piece * self._piece, (piece + 1) * self._piece)
        indices, uniforms = self._lists[which](block)
        indices, uniforms = indices[own], None if uniforms is None else uniforms[own]
        images = self._split.images
        if not len(indices):  # of the last block, which ends where training does
            return np.zeros((0, *images.shape[1:]), images.dtype), self._split.labels[:0]
        inputs = images[indices] if uniforms is None else images.cropped(indices, uniforms)
        return np.asarray(inputs), self._split.labels[indices]

    def _joined(self, pieces: Sequence[tuple[np.ndarray, np.ndarray]]) -> Block:
        inputs, targets = (self._stacked([piece[i] for piece in pieces]) for i in (0, 1))
        sizes = np.array([len(piece[1]) for piece in pieces]).reshape(len(self._lists), -1)
        return Block(inputs, targets, sizes.sum(1).tolist())

    def _stacked(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        shape, dtype = pieces[0].shape[1:], pieces[0].dtype
        out = np.empty((len(self._lists), self._size, *shape), dtype)
        for number, rows in enumerate(out):
            at = 0
            for piece in pieces[number * self._pieces : (number + 1) * self._pieces]:
                rows[at : at + len(piece)] = piece
                at += len(piece)
            rows[at:] = 0
        return out
