"""Narrow networks: those whose pruned channels are left out, so that they are small and dense.

A channel that is pruned from all that knows of it adds nothing to the network, in training or
after. Left out, what is left is the same network with smaller layers, which trains faster on any
backend. Sums are over fewer zeros, so that numbers are equal to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend import core

from lth_jax.pruning.channels import Channels
from lth_jax.pruning.trees import PyTree, map_named
from lth_jax.pruning.units import Axis, put_back, taken
from lth_jax.training.parameterization import Dense, Widths

# (an axis, how many units it has, which of them are left)
Cut = tuple[Axis, int, np.ndarray]


class Narrow(Dense):
    """The form whose pruned channels are left out of every array.

    Args:
      channels: of the network.
      mask: of the run: a channel that has nothing in it is left out. Its parameters and moments
        must be zeros; in batch statistics it comes back as zeros, which nothing looks at.
    """

    def __init__(self, channels: Channels, mask: PyTree):
        self.left: dict[str, int] = {}
        self._params: dict[str, list[Cut]] = {}
        self._state: dict[str, list[Cut]] = {}
        for name, alive in channels.alive(mask).items():
            chosen = np.flatnonzero(alive) if alive.any() else np.arange(1)
            self.left[name] = len(chosen)
            if len(chosen) == len(alive):
                continue
            for cuts, axes in (
                (self._params, channels.groups[name].axes),
                (self._state, channels.groups[name].state),
            ):
                for axis in axes:
                    cuts.setdefault(axis.leaf, []).append((axis, len(alive), chosen))
        self.constants = Widths(tuple(sorted(self.left.items())))
        self.form = "narrow", self.constants

    def is_whole(self) -> bool:
        """Returns whether no channel is left out."""
        return not self._params

    def mask(self, name: str, mask: Any) -> Any:
        """Returns the mask of what is left of a leaf."""
        return self.from_dense(name, mask)

    def from_dense(self, name: str, leaf: Any) -> Any:
        """Returns what is left of a leaf."""
        return _narrowed(leaf, self._params.get(name, ()))

    def to_dense(self, name: str, leaf: Any) -> Any:
        """Returns the whole leaf, zeros where a channel was left out."""
        return _widened(leaf, self._params.get(name, ()))

    def state_from_dense(self, name: str, leaf: Any) -> Any:
        """Returns what is left of a leaf of the model's other collections."""
        return _narrowed(leaf, self._state.get(name, ()))

    def state_to_dense(self, name: str, leaf: Any) -> Any:
        """Returns the whole leaf of one of the model's other collections."""
        return _widened(leaf, self._state.get(name, ()))


def _narrowed(leaf: Any, cuts: Any) -> Any:
    leaf = np.asarray(leaf) if cuts else leaf
    for axis, units, chosen in cuts:
        leaf = taken(leaf, axis, units, chosen)
    return leaf


def _widened(leaf: Any, cuts: Any) -> Any:
    for axis, units, chosen in cuts:
        leaf = put_back(leaf, axis, units, chosen)
    return leaf


def narrow_shapes(form: Narrow, variables: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Returns the shapes that a network's variables have in a form."""
    others = {name: tree for name, tree in variables.items() if name != "params"}

    def shapes(function: Callable[[str, Any], Any], tree: PyTree) -> PyTree:
        def leaf(name: str, like: Any) -> jax.ShapeDtypeStruct:
            # An array that takes no memory, whatever its shape.
            of_one = np.broadcast_to(np.zeros((), bool), like.shape)
            return jax.ShapeDtypeStruct(np.shape(function(name, of_one)), like.dtype)

        return map_named(leaf, tree)

    params = shapes(form.from_dense, variables["params"])
    return {"params": params, **shapes(form.state_from_dense, others)}


def is_same_program(
    apply: Callable[..., Any],
    variables: Mapping[str, PyTree],
    narrow: Mapping[str, PyTree],
    x: jax.ShapeDtypeStruct,
) -> str:
    """Returns why a network, as it trains, is not the same with narrower layers; '' if it is.

    It is traced at both sizes: the same operations with the same numbers must come of it. A number
    that a network computes from the size of a layer, such as the divisor of a mean, would be
    another one; so would dropout, whose draws depend on the shape that they are drawn for.

    Args:
      apply: (variables, x, train, rngs) -> (outputs, new_state); it takes layers of any size.
      variables: shapes of the whole network's.
      narrow: those of the narrower one.
      x: the shape of an input, [1, …].
    """

    def traced(shapes: Mapping[str, PyTree]) -> list[Any]:
        closed = jax.make_jaxpr(
            lambda given, x, key: apply(given, x, True, {"dropout": key})
        )(shapes, x, jax.random.key(0))  # fmt: skip
        consts = [(np.shape(one), np.asarray(one).tobytes()) for one in closed.consts]
        return [*_operations(closed.jaxpr), consts]

    whole = traced(variables)
    try:
        small = traced(narrow)
    except Exception as error:
        return f"it cannot be computed with fewer: {' '.join(str(error).split())[:200]}"
    for one, other in zip(whole, small, strict=False):
        if one != other:
            return f"it computes {one} with all of them, and {other} with fewer"
    return "" if len(whole) == len(small) else "it computes something else with fewer"


def _operations(jaxpr: core.Jaxpr) -> Iterator[Any]:
    """Yields the operations of a jaxpr, each with the numbers that are written into it."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        numbers = [
            repr(np.asarray(v.val).tolist()) for v in equation.invars if isinstance(v, core.Literal)
        ]
        drawn = equation.params.get("shape") if name.startswith("random_") else None
        yield (name, *numbers, *([] if drawn is None else [tuple(drawn)]))
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple) else (value,):
                if isinstance(inner, core.ClosedJaxpr):
                    yield from _operations(inner.jaxpr)
                elif isinstance(inner, core.Jaxpr):
                    yield from _operations(inner)
