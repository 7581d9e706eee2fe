"""Brings the hidden units of an experiment's networks into the order of another's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.errors import SpecError
from lth_jax.lottery.experiment import Experiment
from lth_jax.models.preactivations import on_preactivations
from lth_jax.pruning.trees import PyTree, named_leaves
from lth_jax.pruning.units import Axis, Group
from lth_jax.training.alignment import Order, Similarity, assigned, by_weights, permuted
from lth_jax.training.states import examples_at
from lth_jax.training.units import unit_groups

Network = tuple[PyTree, PyTree]  # parameters, and the model's other collections
EXAMPLES = 2_000  # training examples on which activations are compared, at most
CHUNK = 100  # of them at a time: those of a convolution take memory


class Aligner:
    """Finds which of a network's units are which of another's.

    Args:
      experiment: whose data and network.
      kind: `weights` or `activations`.
      examples: on how many training examples activations are compared; 0 is all, up to `EXAMPLES`.
      field: of the config, that names `kind`.
    """

    def __init__(
        self, experiment: Experiment, kind: str, examples: int = 0, field: str = "paths.align"
    ):
        self.experiment, self.kind, self.examples, self.field = experiment, kind, examples, field

    @cached_property
    def groups(self) -> list[Group]:
        """Which units may change places, as the network's trace says."""
        model, x = self.experiment.model, self.experiment.example
        return unit_groups(model.apply, jax.eval_shape(model.init, jax.random.key(0), x), x)

    def check(self) -> None:
        """Checks that the network has units that can be told from one another so.

        Raises:
          SpecError: it has none.
        """
        model, x = self.experiment.model, self.experiment.example
        shapes = dict(jax.eval_shape(model.init, jax.random.key(0), x))
        if self.groups and (self.kind == "weights" or self._layers((shapes.pop("params"), shapes))):
            return
        what = "hidden units that may change places"
        if self.groups:
            what = "hidden Dense or Conv of Flax Linen, whose activations could be compared"
        raise SpecError(
            f"config.{self.field}={self.kind!r}: {self.experiment.spec.model.name} has no {what}; "
            f"accepted: {'weights or none' if self.groups else 'none'}"
        )

    def orders(self, first: Network, second: Network) -> list[Order]:
        """Returns the order of each group of the second network's units, to fit the first's."""
        if self.kind == "weights":
            return by_weights(self.groups, {"params": first[0]}, {"params": second[0]})
        return [assigned(one) for one in self._similarities(first, second)]

    def aligned(self, first: Network, second: Network) -> Network:
        """Returns the second network, its units in the first's order; it computes the same."""
        return moved(second, self.groups, self.orders(first, second))

    # Activations: what every hidden layer gives, before its nonlinearity

    def _layers(self, shapes: Network) -> dict[str, int]:
        """Returns the group that the outputs of each hidden layer of Linen are in, if in one."""
        found: dict[str, int] = {}
        of = {axis: index for index, group in enumerate(self.groups) for axis in group.axes}
        kernels = named_leaves({"params": shapes[0]})

        def look(name: str, out: jax.Array) -> jax.Array:
            leaf = f"params/{name}/kernel"
            outputs = Axis(leaf, np.ndim(kernels[leaf]) - 1)
            if outputs in of:
                found[name] = of[outputs]
            return out

        def run(params: PyTree, state: PyTree, x: jax.Array) -> Any:
            return on_preactivations(self.experiment.model.apply, look)(
                {"params": params, **state}, x, False, {}
            )

        jax.eval_shape(run, *shapes, self.experiment.example)
        return found

    def _similarities(self, first: Network, second: Network) -> list[Similarity]:
        """Returns the correlations of units over examples, of each group summed over its layers.

        They are correlations (Li et al. 2016), which ask for no units' scales: those of a layer
        before a norm are anyone's.
        """
        layers = self._layers(first)
        sums: dict[str, _Moments] = {}
        for x in self._chunks():
            found: dict[str, _Moments] = jax.device_get(self._moments(first, second, x))
            for name in layers:
                now = _Moments(*(np.asarray(part, np.float64) for part in found[name]))
                sums[name] = now if name not in sums else now.plus(sums[name])
        total = [np.zeros((group.units, group.units)) for group in self.groups]
        for name, index in layers.items():
            total[index] += sums[name].correlation()
        return total

    def _chunks(self) -> list[jax.Array]:
        train = self.experiment.train
        count = min(self.examples or EXAMPLES, EXAMPLES, len(train.targets))
        inputs, _, _ = examples_at(train, slice(count))
        size = min(CHUNK, count)
        pixels = self.experiment.pixels
        # Whole ones alone: one of another size would be compiled anew.
        return [pixels.prepared(inputs[at : at + size]) for at in range(0, count - size + 1, size)]

    @cached_property
    def _moments(self) -> Any:
        def activations(network: Network, x: jax.Array) -> dict[str, jax.Array]:
            found: dict[str, jax.Array] = {}

            def look(name: str, out: jax.Array) -> jax.Array:
                wide = out.astype(jnp.promote_types(out.dtype, jnp.float32))
                found[name] = wide.reshape(-1, out.shape[-1])
                return out

            apply = on_preactivations(self.experiment.model.apply, look)
            apply({"params": network[0], **network[1]}, x, False, {})
            return found

        @jax.jit
        def moments(first: Network, second: Network, x: jax.Array) -> dict[str, _Moments]:
            one, other = activations(first, x), activations(second, x)
            return {name: _moments_of(one[name], other[name]) for name in one}

        return moments


class _Moments(NamedTuple):
    """Sums over examples of two networks' units, of their squares, and of their products.

    Attributes:
      count: of how many, places of images among them.
      one, other, one_squared, other_squared: [units]; products: [units, units].
    """

    count: Any
    one: Any
    other: Any
    one_squared: Any
    other_squared: Any
    products: Any

    def plus(self, more: _Moments) -> _Moments:
        return _Moments(*(mine + theirs for mine, theirs in zip(self, more, strict=True)))

    def correlation(self) -> Similarity:
        """Returns the correlation of each pair of units; 0 where one is the same for all inputs."""
        one, other, one_squared, other_squared, products = (part / self.count for part in self[1:])
        covariance = products - np.outer(one, other)
        variances = np.outer(one_squared - one**2, other_squared - other**2)
        alive = variances > 0
        return np.where(alive, covariance / np.sqrt(np.where(alive, variances, 1)), 0)


def _moments_of(one: jax.Array, other: jax.Array) -> _Moments:
    total = partial(jnp.sum, axis=0)
    squares = total(one**2), total(other**2)
    return _Moments(jnp.float32(len(one)), total(one), total(other), *squares, one.T @ other)


def moved(network: Network, groups: Sequence[Group], orders: Sequence[Order]) -> Network:
    """Returns a network with its units in other orders."""
    variables = dict(permuted({"params": network[0], **network[1]}, groups, orders))
    return variables.pop("params"), variables
