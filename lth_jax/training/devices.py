"""The devices that runs train on: each has its share of the axis of runs, and all of the examples.

A run lies on one device from its beginning to its end, so no device ever waits for another, and a
run has the bits that it has on a machine with one device. Where a device `vmap`s several, XLA may
round otherwise than in a program for one device alone: measured, an accuracy's last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lth_jax.errors import SpecError
from lth_jax.pruning.trees import PyTree
from lth_jax.training.states import Examples, stack_runs, unstack_run

RUNS = "runs"  # the one axis of the mesh


class RunDevices:
    """What the axis of runs is spread over. With one device nothing is placed, moved or wrapped.

    Args:
      devices: two or more, whose number divides the length of each axis of runs; none stands for
        the one that JAX takes by itself.

    Attributes:
      count: how many there are.
    """

    def __init__(self, devices: Sequence[Any] = ()):
        self.devices, self.count = tuple(devices), len(devices) or 1
        self._mesh = Mesh(np.array(self.devices), (RUNS,))
        # By the array that was copied, which is held too: no other one gets its number meanwhile.
        self._copies: dict[int, tuple[jax.Array, jax.Array]] = {}

    @property
    def platform(self) -> str | None:
        """What they are, as JAX names it; None for its own choice."""
        return self.devices[0].platform if self.devices else None

    def map(self, function: Callable[..., Any], shared: int) -> Callable[..., Any]:
        """Returns `function`, of the runs of one device, as a function of the runs of all.

        Args:
          function: its arguments and results have a leading axis of runs.
          shared: the number of trailing arguments without that axis, which all devices have.
        """
        if self.count == 1:
            return function

        def on_all(*args: Any) -> Any:
            axes = (P(RUNS),) * (len(args) - shared) + (P(),) * shared
            # Unchecked: nothing is ever reduced over devices, and a loop's carry, whose first
            # values may be the same everywhere, would have to be marked as one that is not.
            return jax.shard_map(
                function, mesh=self._mesh, in_specs=axes, out_specs=P(RUNS), check_vma=False
            )(*args)

        return on_all

    def stack(self, runs: list[PyTree]) -> PyTree:
        """Returns the pytrees of single runs as one with a leading axis of runs, in their order."""
        if self.count == 1:
            return stack_runs(runs)
        size = len(runs) // self.count
        # Device by device, so that the first one, where runs begin, never holds all of them twice.
        parts = [
            jax.device_put(stack_runs(runs[index * size : (index + 1) * size]), device)
            for index, device in enumerate(self.devices)
        ]
        by_run = NamedSharding(self._mesh, P(RUNS))

        def joined(*leaves: jax.Array) -> jax.Array:
            shape = (len(runs), *leaves[0].shape[1:])
            return jax.make_array_from_single_device_arrays(shape, by_run, leaves)

        return jax.tree.map(joined, *parts)

    def run(self, runs: PyTree, index: int) -> PyTree:
        """Returns run `index` of what `stack` or a function of `map` gave, on its own device."""
        if self.count == 1:
            return unstack_run(runs, index)
        size = len(jax.tree.leaves(runs)[0]) // self.count
        # Not by an index into the whole: XLA would sum over devices, and -0.0 + 0.0 is 0.0.
        device, own = self.devices[index // size], index % size

        def part(leaf: jax.Array) -> jax.Array:
            return next(one.data for one in leaf.addressable_shards if one.device == device)

        return unstack_run(jax.tree.map(part, runs), own)

    def sharding(self, by_run: bool) -> NamedSharding | None:
        """Returns where new arrays lie: spread by a leading axis of runs, or whole on each device.

        It is None for one device, which is where JAX puts them.
        """
        return NamedSharding(self._mesh, P(RUNS) if by_run else P()) if self.count > 1 else None

    def copies(self, examples: Examples) -> Examples:
        """Returns a split that lies on every device; it is copied the first time."""
        return examples if self.count == 1 else jax.tree.map(self._copied, examples)

    def _copied(self, array: jax.Array) -> jax.Array:
        if id(array) not in self._copies:
            # On its own device it stays the same memory.
            parts = [jax.device_put(array, device) for device in self.devices]
            whole = NamedSharding(self._mesh, P())
            copy = jax.make_array_from_single_device_arrays(array.shape, whole, parts)
            self._copies[id(array)] = array, copy
        return self._copies[id(array)][1]


ONE_DEVICE = RunDevices()


def run_devices(mesh: str) -> RunDevices:
    """Returns the devices that `execution.mesh` names: `auto` for all, `runs:N` for the first N.

    Raises:
      SpecError: there are not so many.
    """
    there_are = jax.local_devices()
    wanted = len(there_are) if mesh == "auto" else int(mesh.removeprefix(f"{RUNS}:"))
    if wanted > len(there_are):
        most = f"{RUNS}:{len(there_are)}"
        raise SpecError(
            f"config.execution.mesh={mesh!r}: more than the devices here ({len(there_are)} × "
            f"{there_are[0].platform}); accepted: auto, or at most {most}"
        )
    return RunDevices(there_are[:wanted]) if wanted > 1 else ONE_DEVICE
