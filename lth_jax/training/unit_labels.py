"""Labels of axes that are along the same units: what `training.units` finds in a trace."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lth_jax.pruning.units import Axis, Group

Label = int | None  # None: every entry along the axis is the same


class Labels:
    """Labels of axes, and what is known of each: a union-find.

    A label is free, or fixed where what is along it has its places; a free one may have to stay
    whole. It may have parts: the labels of the axes that it was made of, or is split up into.
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._size: list[int] = []
        self._fixed: set[int] = set()
        self._whole: set[int] = set()
        self._parts: dict[int, list[tuple[int, Label]]] = {}
        self._met: dict[int, int] = {}

    def new(self, size: int, parts: Sequence[tuple[int, Label]] = ()) -> int:
        """Returns a label of its own for an axis, perhaps one of several axes made one."""
        label = len(self._parent)
        self._parent.append(label)
        self._size.append(size)
        if parts:
            self._parts[label] = list(parts)
        return label

    def fixed(self, shape: Sequence[int]) -> list[Label]:
        """Returns labels of axes whose entries have their places."""
        found = [self.new(size) for size in shape]
        self._fixed.update(found)
        return list(found)

    def fix(self, label: Label) -> None:
        """Says that what is along an axis has its places."""
        if label is None:
            return
        root = self._root(label)
        self._fixed.add(root)
        for _, part in self._parts.get(root, ()):
            self.fix(part)

    def keep_whole(self, label: Label) -> None:
        """Says that no unit along an axis can be left out, though they may change places."""
        if label is None:
            return
        root = self._root(label)
        self._whole.add(root)
        for _, part in self._parts.get(root, ()):
            self.keep_whole(part)

    def parts(self, label: Label, sizes: Sequence[int]) -> list[Label]:
        """Returns the labels of an axis that is split up into axes of these sizes."""
        if label is None:
            return [None] * len(sizes)
        root = self._root(label)
        if root not in self._parts:
            self._parts[root] = [(size, self.new(size)) for size in sizes]
            if root in self._fixed:
                self.fix(root)
            self.keep_whole(root)  # pieces of a fixed size
        found = self._parts[root]
        if [size for size, _ in found] == list(sizes):
            return [part for _, part in found]
        self.fix(root)
        return self.fixed(sizes)

    def unite(self, one: Label, other: Label) -> Label:
        """Says that two axes are along the same units; returns their label."""
        if one is None or other is None:
            return other if one is None else one
        one, other = self._root(one), self._root(other)
        if one == other:
            return one
        if self._size[one] != self._size[other]:
            self.fix(one)
            self.fix(other)
            return one
        met = [self._met.pop(root) for root in (one, other) if root in self._met]
        self._met[one] = min(met, default=len(self._parent))
        self._parent[other] = one
        theirs, own = self._parts.pop(other, None), self._parts.get(one)
        fixed = one in self._fixed or other in self._fixed
        whole = one in self._whole or other in self._whole
        if theirs and not own:
            self._parts[one] = theirs
        elif theirs and own:
            if [size for size, _ in theirs] == [size for size, _ in own]:
                pairs = zip(own, theirs, strict=True)
                self._parts[one] = [(size, self.unite(a, b)) for (size, a), (_, b) in pairs]
            else:
                fixed = True
                for _, part in theirs:
                    self.fix(part)
        if fixed:
            self.fix(one)
        if whole:
            self.keep_whole(one)
        return one

    def groups(self, leaves: Mapping[str, Sequence[Label]]) -> list[Group]:
        """Returns the groups of what has no place, with the axes of the named arrays.

        They are in the order in which their axes first met others.
        """
        found: dict[int, list[Axis]] = {}
        for name, labels in leaves.items():
            for axis, label in enumerate(labels):
                units = [] if label is None else self._units(label)
                sizes = [size for size, _ in units]
                for place, (size, unit) in enumerate(units):
                    if unit is None or size < 2:
                        continue
                    before, after = math.prod(sizes[:place]), math.prod(sizes[place + 1 :])
                    found.setdefault(unit, []).append(Axis(name, axis, before, after))
        last = len(self._parent) + 1
        order = sorted(found, key=lambda unit: self._met.get(unit, last))
        return [
            Group(self._size[unit], tuple(found[unit]), unit not in self._whole) for unit in order
        ]

    def _units(self, label: int) -> list[tuple[int, int | None]]:
        """Returns the sizes of what an axis consists of, and the free labels among them."""
        root = self._root(label)
        if root not in self._parts:
            return [(self._size[root], None if root in self._fixed else root)]
        found: list[tuple[int, int | None]] = []
        for size, part in self._parts[root]:
            found += [(size, None)] if part is None else self._units(part)
        return found

    def _root(self, label: int) -> int:
        while self._parent[label] != label:
            label = self._parent[label]
        return label
