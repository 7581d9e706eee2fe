"""Units: the axes of a network's arrays that are along the same hidden units or channels.

Which these are is found in the network's trace (`training.units`). Here is what can be done with
an array once they are known: its units put into an order, picked, put back, or taken one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Axis(NamedTuple):
    """Where a group's units are in an array: an axis of before × units × after entries.

    Attributes:
      leaf: the name of the array, such as `params/fc1/kernel`.
      axis: which of its axes.
      before, after: more than 1 where images were flattened, whose channels are units.
    """

    leaf: str
    axis: int
    before: int = 1
    after: int = 1


class Group(NamedTuple):
    """Units that may change places: how many there are, and all axes that know of them.

    Attributes:
      units: their number.
      axes: all of them, in all arrays.
      removable: whether a unit can be left out: the network sums over units in products alone, so
        that one with zeros all around adds nothing. A mean over units, as a layer norm takes, or an
        axis that is cut into pieces of a fixed size, would become another without it.
    """

    units: int
    axes: tuple[Axis, ...]
    removable: bool = True


def taken(array: Any, axis: Axis, units: int, chosen: Sequence[int] | np.ndarray) -> Any:
    """Returns an array, NumPy's or JAX's, with the chosen of its units, in that order.

    Args:
      array: the array.
      axis: where its units are.
      units: how many it has.
      chosen: int [n], which units come to each place.
    """
    shape, at = np.shape(array), axis.axis
    split = array.reshape(*shape[:at], axis.before, units, axis.after, *shape[at + 1 :])
    entries = axis.before * len(chosen) * axis.after
    picked = split.take(np.asarray(chosen), at + 1)
    return picked.reshape(*shape[:at], entries, *shape[at + 1 :])


def put_back(array: Any, axis: Axis, units: int, chosen: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns an array of `units` units: those of `array` in the chosen places, zeros elsewhere."""
    array, at = np.asarray(array), axis.axis
    shape = array.shape
    split = array.reshape(*shape[:at], axis.before, len(chosen), axis.after, *shape[at + 1 :])
    whole = np.zeros((*shape[:at], axis.before, units, axis.after, *shape[at + 1 :]), array.dtype)
    whole[(slice(None),) * (at + 1) + (np.asarray(chosen),)] = split
    return whole.reshape(*shape[:at], axis.before * units * axis.after, *shape[at + 1 :])


def by_unit(array: np.ndarray, axis: Axis) -> np.ndarray:
    """Returns the entries of each unit of an axis, [units, entries]."""
    shape, at = array.shape, axis.axis
    split = array.reshape(*shape[:at], axis.before, -1, axis.after, *shape[at + 1 :])
    return np.moveaxis(split, at + 1, 0).reshape(split.shape[at + 1], -1)


def along(of_units: np.ndarray, axis: Axis, dimensions: int) -> np.ndarray:
    """Returns a value of each unit, [units], so that it broadcasts against the array of an axis."""
    spread = np.broadcast_to(of_units[:, None], (axis.before, len(of_units), axis.after))
    shape = [1] * dimensions
    shape[axis.axis] = math.prod(spread.shape)
    return spread.reshape(shape)
