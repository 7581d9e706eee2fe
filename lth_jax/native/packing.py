"""Packing: a run's pruned layers as vectors of their surviving weights, and back.

A packed run is a pytree of the same structure whose packed leaves are vectors, the optimizer's
moments included: so the optimizer's step shrinks with the weights. What lies on disk, and every
function outside of the compiled loop, knows nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Bool, Int, Int32, Int64, Shaped

from lth_jax.native.layers import Layer
from lth_jax.native.sparse import Tables
from lth_jax.pruning.masks import map_optimizer_state
from lth_jax.pruning.trees import PyTree, map_named, named_leaves
from lth_jax.training.parameterization import Dense
from lth_jax.training.states import TrainState

# Leaf name -> length of its vector, for the packed leaves; sorted, so that it can be compared.
Layout = tuple[tuple[str, int], ...]
# The shares of a leaf that vectors may have. Few, so that an experiment's levels share programs;
# closer where it is fuller, since what padding costs is the optimizer's update of it.
SHARES = (0.045, 0.135, 0.22, 0.34, 0.54, 1.0)
# Leaves smaller than the largest by this factor have vectors of their whole size, always.
SMALL = 16


def layout_of(kept: Mapping[str, int], sizes: Mapping[str, int], largest: int) -> Layout:
    """Returns how long the vectors of the packed leaves are.

    All that are not small have one share of their leaf, so that a level seldom changes it: each
    change is another program to compile.

    Args:
      kept: surviving weights by the name of the leaf to be packed.
      sizes: all weights of these leaves.
      largest: all weights of the network's largest leaf that can be packed.
    """
    large = [name for name in kept if sizes[name] * SMALL >= largest]
    share = next(share for share in SHARES if all(kept[n] <= int(share * sizes[n]) for n in large))
    lengths = {name: int(share * sizes[name]) if name in large else sizes[name] for name in kept}
    return tuple(sorted((name, max(1, length)) for name, length in lengths.items()))


# Dense layers whose vectors have at least this share have tables in blocks of this many inputs. Of
# a block, 64 examples fit a core's first cache; in a sparser layer too few weights meet a block.
BLOCKED_SHARE, BLOCK = 0.2, 128


class PackedLeaf(NamedTuple):
    """One packed leaf.

    Attributes:
      shape: of the dense leaf.
      length: of its vector, at least the number of survivors; zeros fill it up.
      order: int64 [kept], the flat indices of the surviving weights, in the vector's order.
      tables: the index tables of native code.
    """

    shape: tuple[int, ...]
    length: int
    order: Int64[np.ndarray, " kept"]
    tables: Tables

    def pack(self, leaf: Any) -> Shaped[np.ndarray, " {self.length}"]:
        """Returns the survivors of a dense leaf, with zeros behind them."""
        leaf = np.asarray(leaf)
        vector = np.zeros(self.length, leaf.dtype)
        vector[: len(self.order)] = leaf.reshape(-1)[self.order]
        return vector

    def unpack(self, vector: Any) -> np.ndarray:
        """Returns the dense leaf of such a vector, pruned weights at zero."""
        vector = np.asarray(vector)
        leaf = np.zeros(math.prod(self.shape), vector.dtype)
        leaf[self.order] = vector[: len(self.order)]
        return leaf.reshape(self.shape)

    def mask(self) -> Bool[np.ndarray, " {self.length}"]:
        """Returns the vector's own mask: True on the survivors."""
        # What fills the vector up counts as pruned: no update moves it from zero.
        return np.arange(self.length) < len(self.order)


class Packed(Dense):
    """The parameterization whose pruned layers are vectors of their surviving weights.

    Args:
      layout: the leaves to pack.
      layers: what they belong to, by the name of their leaf.
      mask: of the run, of the parameters' structure.
    """

    def __init__(self, layout: Layout, layers: Mapping[str, Layer], mask: PyTree):
        self.form = layout
        leaves = named_leaves(mask)
        self.leaves = {
            name: _packed(layers[name], length, np.asarray(leaves[name])) for name, length in layout
        }
        # The index tables, by the name of the packed leaf.
        self.constants = {name: leaf.tables for name, leaf in self.leaves.items()}

    def mask(self, name: str, mask: Any) -> Any:
        """Returns the mask of a leaf's vector, or the mask as it is where nothing is packed."""
        return self.leaves[name].mask() if name in self.leaves else mask

    def from_dense(self, name: str, leaf: Any) -> Any:
        """Returns a leaf's vector, or the leaf as it is where nothing is packed."""
        return self.leaves[name].pack(leaf) if name in self.leaves else leaf

    def to_dense(self, name: str, leaf: Any) -> Any:
        """Returns the dense leaf of a vector."""
        return self.leaves[name].unpack(leaf) if name in self.leaves else leaf


def zero_where_pruned(
    optimizer: optax.GradientTransformation, state: TrainState, mask: PyTree
) -> Callable[[str], bool]:
    """Returns what says of a leaf, by name, whether it and its moments are +0.0 where pruned."""
    masks = {name: np.asarray(leaf) for name, leaf in named_leaves(mask).items()}

    @cache
    def is_zero(name: str) -> bool:
        found: list[bool] = []

        def look(leaf: Any, leaf_name: str) -> Any:
            if leaf_name == name:
                pruned = np.asarray(leaf)[~masks[name]]
                # Unpacking gives +0.0: a -0.0 is equal to it, and has other bits.
                found.append(not np.any(pruned) and not np.any(np.signbit(pruned)))
            return leaf

        names = map_named(lambda leaf_name, _: leaf_name, state.params)
        jax.tree.map(look, state.params, names)
        map_optimizer_state(optimizer, look, state.opt_state, names)
        return all(found)

    return is_zero


def _packed(layer: Layer, length: int, mask: np.ndarray) -> PackedLeaf:
    """Returns the order of a leaf's survivors in its vector, and their index tables.

    Nothing is sorted: both orders are those in which survivors are met along the kernel's axes. A
    mask that moves has new tables every hundred steps.
    """
    dense = layer.kind == "dense"
    blocked = dense and length >= BLOCKED_SHARE * math.prod(layer.shape)
    forward, transposed = (_dense_entries if dense else _conv_entries)(layer, mask)
    # The vector lies in the order of the forward matrix, so that the forward product and the
    # gradient of the values read it from front to back; the transposed one looks its values up.
    order = forward.places
    in_vector = np.empty(mask.size, np.int32)
    in_vector[order] = np.arange(len(order), dtype=np.int32)
    tables = (
        _row_pointers(forward, blocked),
        _padded(forward.columns, length),
        _row_pointers(transposed, blocked),
        _padded(transposed.columns, length),
        _padded(in_vector[transposed.places], length),
    )
    return PackedLeaf(layer.shape, length, order, Tables(*jax.device_put(tables)))


class _Entries(NamedTuple):
    """The survivors of a kernel as entries of a sparse matrix, by row and then by column.

    Attributes:
      shape: of the matrix, (rows, columns).
      rows: int64 [kept], the row of each survivor.
      columns: int64 [kept], its column.
      places: int64 [kept], its flat index in the kernel.
    """

    shape: tuple[int, int]
    rows: Int64[np.ndarray, " kept"]
    columns: Int64[np.ndarray, " kept"]
    places: Int64[np.ndarray, " kept"]


def _survivors(mask: np.ndarray, axes: tuple[int, ...]) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns the indices of survivors along each axis of the kernel, and their flat indices.

    They are met in the order of `axes`, the last one changing fastest.
    """
    flat = np.flatnonzero(mask.transpose(axes))
    along = np.unravel_index(flat, [mask.shape[axis] for axis in axes])
    indices = [along[axes.index(axis)] for axis in range(mask.ndim)]
    return indices, np.ravel_multi_index(tuple(indices), mask.shape)


def _dense_entries(
    layer: Layer, mask: Bool[np.ndarray, "inputs outputs"]
) -> tuple[_Entries, _Entries]:
    """Returns the matrix with a row for each output, and its transpose."""
    width, count = layer.shape
    (inputs, outputs), places = _survivors(mask, (1, 0))
    forward = _Entries((count, width), outputs, inputs, places)
    (inputs, outputs), places = _survivors(mask, (0, 1))
    return forward, _Entries((width, count), inputs, outputs, places)


def _conv_entries(
    layer: Layer, mask: Bool[np.ndarray, "height width channels features"]
) -> tuple[_Entries, _Entries]:
    """Returns the matrix with a row for each feature, and its transpose.

    A column is a channel together with a position under the window, in one integer. The transpose
    has a row for each channel and each residue of the position modulo the strides: the pixels of an
    image that have one residue meet the same weights. `find_layers` sees to it that the integers
    can hold channel and position.
    """
    down, along = layer.strides
    *_, inputs, outputs = layer.shape
    (rows, columns, channels, features), places = _survivors(mask, (3, 2, 0, 1))
    under = (channels << 16) + (rows << 8) + columns
    forward = _Entries((outputs, inputs << 16), features, under, places)
    (rows, columns, channels, features), places = _survivors(mask, (2, 3, 0, 1))
    residues = (channels * down + rows % down) * along + columns % along
    under = (features << 16) + (rows << 8) + columns
    if down * along > 1:  # a channel has several rows, whose entries were met in turns
        order = np.argsort(residues, kind="stable")
        residues, under, places = residues[order], under[order], places[order]
    return forward, _Entries((inputs * down * along, outputs << 16), residues, under, places)


def _row_pointers(entries: _Entries, blocked: bool) -> Int32[np.ndarray, "rows_and_one blocks"]:
    """Returns where each row's entries of each block of columns begin, int32 [rows + 1, blocks].

    The last row holds the number of entries.

    Args:
      entries: of the matrix.
      blocked: whether columns are cut into blocks of at most `BLOCK`; else there is one block.
    """
    height, width = entries.shape
    blocks = -(-width // BLOCK) if blocked else 1
    block = entries.columns // -(-width // blocks)
    counts = np.bincount(entries.rows * blocks + block, minlength=height * blocks)
    # A block ends where the next one begins, the last of a row where the next row does. So there is
    # one row more than the matrix has, without entries.
    begins = np.concatenate([[0], np.cumsum(counts), np.full(blocks - 1, len(entries.rows))])
    return begins.reshape(-1, blocks).astype(np.int32)


def _padded(entries: Int[np.ndarray, " kept"], length: int) -> Int32[np.ndarray, " {length}"]:
    """Returns entries with zeros behind them, int32 [length]."""
    padded = np.zeros(length, np.int32)
    padded[: len(entries)] = entries
    return padded
