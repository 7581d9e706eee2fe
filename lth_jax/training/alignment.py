"""The order of a network's hidden units that makes it most like another (Ainsworth et al. 2023).

Two networks that were trained alike may differ in the order of their units alone, and then the
straight line between them leads through networks that compute nothing. Put into one order, they
compute what they did, and can be compared weight by weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from lth_jax.pruning.trees import PyTree, map_named, named_leaves
from lth_jax.pruning.units import Axis, Group, by_unit, taken

SWEEPS = 100  # at most; a dozen is usual
# Of two units: the first network's along the rows, the second's along the columns.
Similarity = Float[np.ndarray, "units units"]
Order = Int[np.ndarray, " units"]


def permuted(tree: PyTree, groups: Sequence[Group], orders: Sequence[Order]) -> PyTree:
    """Returns a network, or its mask, with its units in other orders.

    Args:
      tree: arrays by the names that the groups have for them, such as `{"params": …}`: all of the
        network's collections or some, NumPy's or JAX's.
      groups: which units may change places.
      orders: of each group, which unit comes to each place.
    """
    moves: dict[str, list[tuple[Axis, Order]]] = {}
    for group, order in zip(groups, orders, strict=True):
        for axis in group.axes:
            moves.setdefault(axis.leaf, []).append((axis, order))

    def leaf(name: str, array: Any) -> Any:
        for axis, order in moves.get(name, ()):
            array = taken(array, axis, len(order), order)
        return array

    return map_named(leaf, tree)


def inverse(orders: Sequence[Order]) -> list[Order]:
    """Returns the orders that undo these."""
    return [np.argsort(order) for order in orders]


def assigned(similarity: Similarity) -> Order:
    """Returns which unit of the second network is put to each of the first: the likest in sum."""
    # Weights that diverged are like none.
    return linear_sum_assignment(np.where(np.isfinite(similarity), similarity, 0), maximize=True)[1]


def by_weights(groups: Sequence[Group], first: PyTree, second: PyTree) -> list[Order]:
    """Returns the orders of the second network's units that bring its weights near to the first's.

    Weight matching (Ainsworth et al. 2023, §3.2): one group after the other is assigned anew, the
    others held, while the inner product of the weights grows. It begins once with the units as they
    are and once with a guess, and the better end counts: weights never come to lie further apart.

    Args:
      groups: which units may change places, in the order in which the data meet them.
      first, second: the arrays to be compared, `{"params": …}`.
    """
    matching = _Matching(groups, named_leaves(first), named_leaves(second))
    starts = [np.arange(group.units) for group in groups], matching.guess()
    return max(map(matching.improved, starts), key=matching.total)


class _Matching:
    """Two networks whose weights are compared under orders of the second's units."""

    def __init__(
        self, groups: Sequence[Group], first: Mapping[str, Any], second: Mapping[str, Any]
    ):
        self.groups = groups
        # In double precision a gain is a gain.
        self.first, self.second = (
            {name: np.asarray(leaf, np.float64) for name, leaf in leaves.items()}
            for leaves in (first, second)
        )
        self.members: dict[str, list[tuple[int, Axis]]] = {}
        for index, group in enumerate(groups):
            for axis in group.axes:
                if axis.leaf in self.first:
                    self.members.setdefault(axis.leaf, []).append((index, axis))

    def similarity(
        self, index: int, orders: Sequence[Order], known: Sequence[int] | None = None
    ) -> Similarity:
        """Returns the inner products of a group's units, the other groups in their orders.

        Args:
          index: which group.
          orders: of all groups.
          known: takes arrays alone whose other axes are of these groups, or of none.
        """
        units = self.groups[index].units
        total = np.zeros((units, units))
        for axis in self.groups[index].axes:
            others = [one for one in self.members.get(axis.leaf, ()) if one[1] != axis]
            unknown = known is not None and any(group not in known for group, _ in others)
            if axis.leaf not in self.members or unknown:
                continue
            second = self.second[axis.leaf]
            for group, other in others:
                second = taken(second, other, len(orders[group]), orders[group])
            total += by_unit(self.first[axis.leaf], axis) @ by_unit(second, axis).T
        return total

    def guess(self) -> list[Order]:
        """Returns orders found from the data on, each group by what is before it alone."""
        orders = [np.arange(group.units) for group in self.groups]
        for index in range(len(orders)):
            orders[index] = assigned(self.similarity(index, orders, range(index)))
        return orders

    def improved(self, orders: Sequence[Order]) -> list[Order]:
        """Returns orders from which assigning a single group anew gains nothing."""
        orders = list(orders)
        for _ in range(SWEEPS):
            moved = False
            for index, before in enumerate(orders):
                worth = self._worth(index, orders)
                orders[index] = assigned(self.similarity(index, orders))
                # An array may have the group on two axes: what was gained is seen afterwards.
                if self._worth(index, orders) > worth + 1e-9 * abs(worth):
                    moved = True
                else:
                    orders[index] = before
            if not moved:
                break
        return orders

    def _worth(self, index: int, orders: Sequence[Order]) -> float:
        similarity = self.similarity(index, orders)
        return float(similarity[np.arange(len(similarity)), orders[index]].sum())

    def total(self, orders: Sequence[Order]) -> float:
        """Returns the inner product of the two networks' weights."""
        second = permuted(self.second, self.groups, orders)
        return sum(float(np.vdot(self.first[name], second[name])) for name in self.members)
