"""The devices that runs train on: each has its share of the axis of runs, and all of the examples.

A run lies on one device from its beginning to its end, so no device ever waits for another, and a
run has the bits that it has on a machine with one device. Where a device `vmap`s several, XLA may
round otherwise than in a program for one device alone: measured, an accuracy's last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lth_jax.errors import SpecError
from lth_jax.pruning.trees import PyTree
from lth_jax.system import machine
from lth_jax.training.states import Examples, unstack_run

RUNS = "runs"  # the one axis of the mesh


class Memory(NamedTuple):
    """What a compiled program takes on each device, in bytes.

    Attributes:
      arguments: what it is given.
      besides: what it computes on its way, and what it gives back elsewhere than in its arguments.
    """

    arguments: int
    besides: int


def memory_of(program: jax.stages.Compiled) -> Memory:
    """Returns what a program takes as its compiler says; zeros where it says nothing."""
    found: Any = program.memory_analysis()
    if found is None:
        return Memory(0, 0)
    own = found.output_size_in_bytes - found.alias_size_in_bytes
    return Memory(found.argument_size_in_bytes, found.temp_size_in_bytes + max(0, own))


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

    def memory(self) -> float:
        """Returns the bytes that a program may use on each device; infinity where none is known."""
        device = self.devices[0] if self.devices else jax.local_devices()[0]
        if device.platform == "cpu":  # all of them are parts of one machine
            return machine.memory() / self.count
        # What JAX may take of an accelerator's memory: `XLA_PYTHON_CLIENT_MEM_FRACTION` of it.
        return (device.memory_stats() or {}).get("bytes_limit") or math.inf

    def shapes(self, run: PyTree, size: int) -> PyTree:
        """Returns the shapes of what `filled` gives, before it is there.

        Args:
          run: a pytree of arrays, or of their shapes, without an axis of runs.
          size: the length of the axis.
        """
        by_run = NamedSharding(self._mesh, P(RUNS)) if self.devices else None
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype, sharding=by_run), run
        )

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

    def filled(self, run: PyTree, size: int) -> PyTree:
        """Returns `size` copies of a run as one pytree with a leading axis of runs."""
        if self.count == 1:
            return _filled(run, size)
        each = size // self.count
        parts = [_filled(jax.device_put(run, device), each) for device in self.devices]
        return jax.tree.map(self._joined, *parts)

    def run(self, runs: PyTree, index: int) -> PyTree:
        """Returns run `index` of what `filled` or a function of `map` gave, on its own device."""
        if self.count == 1:
            return unstack_run(runs, index)
        size = len(jax.tree.leaves(runs)[0]) // self.count
        # Not by an index into the whole: XLA would sum over devices, and -0.0 + 0.0 is 0.0.
        device, own = self.devices[index // size], index % size
        return unstack_run(self._part(runs, device), own)

    def with_run(self, runs: PyTree, run: PyTree, index: int) -> PyTree:
        """Returns `runs` with `run` in place of the one at `index`; those given are given away."""
        if self.count == 1:
            return _with_run(runs, run, index)
        size = len(jax.tree.leaves(runs)[0]) // self.count
        device, own = self.devices[index // size], index % size
        # On its own device alone, for the reason above.
        parts = [self._part(runs, one) for one in self.devices]
        parts[index // size] = _with_run(parts[index // size], jax.device_put(run, device), own)
        return jax.tree.map(self._joined, *parts)

    def _part(self, runs: PyTree, device: Any) -> PyTree:
        """Returns the share of the runs that lies on a device."""

        def part(leaf: jax.Array) -> jax.Array:
            return next(one.data for one in leaf.addressable_shards if one.device == device)

        return jax.tree.map(part, runs)

    def _joined(self, *leaves: jax.Array) -> jax.Array:
        """Returns the shares of all devices as one array."""
        shape = (len(leaves) * len(leaves[0]), *leaves[0].shape[1:])
        by_run = NamedSharding(self._mesh, P(RUNS))
        return jax.make_array_from_single_device_arrays(shape, by_run, leaves)

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


@partial(jax.jit, static_argnums=1)
def _filled(run: PyTree, size: int) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (size, *leaf.shape)), run)


@partial(jax.jit, donate_argnums=0)
def _with_run(runs: PyTree, run: PyTree, index: int) -> PyTree:
    # The index is traced: one program for all runs of a group.
    return jax.tree.map(lambda leaf, new: leaf.at[index].set(new), runs, run)


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
