"""The devices that runs train on: each has its share of the axis of runs, and all of the examples.

A run lies on one device from its beginning to its end, so no device ever waits for another, and a
run has the bits that it has on a machine with one device. Where a device `vmap`s several, XLA may
round otherwise than in a program for one device alone: measured, an accuracy's last bit.

For networks and batches that are too large for that, a second axis shares each batch among several
devices, which hold the same runs. They add up what they find, and round otherwise than one would.
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

RUNS, DATA = "runs", "data"  # the axes of the mesh


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
      devices: two or more, or none for the one that JAX takes by itself.
      data: how many share the batches of each run; those are neighbours among `devices`.

    Attributes:
      count: in how many shares runs lie: it divides the length of each axis of runs.
      data: how many devices have each share.
    """

    def __init__(self, devices: Sequence[Any] = (), data: int = 1):
        self.devices, self.data = tuple(devices), data
        self.count = len(self.devices) // data or 1
        shares = np.array(self.devices, object).reshape(-1, data)
        self._mesh = Mesh(shares, (RUNS, DATA)) if self.devices else None
        # By the array that was copied, which is held too: no other one gets its number meanwhile.
        self._copies: dict[int, tuple[jax.Array, jax.Array]] = {}

    @property
    def number(self) -> int:
        """How many there are."""
        return self.count * self.data

    @property
    def platform(self) -> str | None:
        """What they are, as JAX names it; None for its own choice."""
        return self.devices[0].platform if self.devices else None

    def memory(self) -> float:
        """Returns the bytes that a program may use on each device; infinity where none is known."""
        device = self.devices[0] if self.devices else jax.local_devices()[0]
        if device.platform == "cpu":  # all of them are parts of one machine
            return machine.memory() / self.number
        # What JAX may take of an accelerator's memory: `XLA_PYTHON_CLIENT_MEM_FRACTION` of it.
        return (device.memory_stats() or {}).get("bytes_limit") or math.inf

    def shapes(self, run: PyTree, size: int) -> PyTree:
        """Returns the shapes of what `filled` gives, before it is there.

        Args:
          run: a pytree of arrays, or of their shapes, without an axis of runs.
          size: the length of the axis.
        """
        by_run = self._by(RUNS) if self._mesh else None
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype, sharding=by_run), run
        )

    def _by(self, *axes: str) -> NamedSharding:
        assert self._mesh is not None, "one device has no mesh"
        return NamedSharding(self._mesh, P(*axes))

    def map(self, function: Callable[..., Any], shared: int) -> Callable[..., Any]:
        """Returns `function`, of the runs of one share, as a function of the runs of all.

        Args:
          function: its arguments and results have a leading axis of runs.
          shared: the number of trailing arguments without that axis, which all devices have.
        """
        mesh = self._mesh
        if not mesh:
            return function
        # Within a share, XLA divides the work as `spread` asks, and adds up where it has to.
        ours = {RUNS} if self.data > 1 else {RUNS, DATA}

        def on_all(*args: Any) -> Any:
            axes = (P(RUNS),) * (len(args) - shared) + (P(),) * shared
            # Unchecked: nothing is ever reduced over shares, and a loop's carry, whose first
            # values may be the same everywhere, would have to be marked as one that is not.
            return jax.shard_map(
                function,
                mesh=mesh,
                in_specs=axes,
                out_specs=P(RUNS),
                axis_names=ours,
                check_vma=False,
            )(*args)

        return on_all

    def spread(self, batch: PyTree) -> PyTree:
        """Returns a batch, in a function of `map`, that its devices share: each has some of it.

        One whose length they do not divide stays as it is: each computes all of it.

        Args:
          batch: arrays with a leading axis of examples.
        """
        if self.data == 1 or len(jax.tree.leaves(batch)[0]) % self.data:
            return batch
        return jax.lax.with_sharding_constraint(batch, P(DATA))

    def filled(self, run: PyTree, size: int) -> PyTree:
        """Returns `size` copies of a run as one pytree with a leading axis of runs."""
        if not self.devices:
            return _filled(run, size)
        each = size // self.count
        parts = [_filled(jax.device_put(run, device), each) for device in self.devices]
        return jax.tree.map(self._joined, *parts)

    def run(self, runs: PyTree, index: int) -> PyTree:
        """Returns run `index` of what `filled` or a function of `map` gave, on its own device."""
        if not self.devices:
            return unstack_run(runs, index)
        # Not by an index into the whole: XLA would sum over devices, and -0.0 + 0.0 is 0.0.
        share, own = divmod(index, len(jax.tree.leaves(runs)[0]) // self.count)
        return unstack_run(self._part(runs, self.devices[share * self.data]), own)

    def with_run(self, runs: PyTree, run: PyTree, index: int) -> PyTree:
        """Returns `runs` with `run` in place of the one at `index`; those given are given away."""
        if not self.devices:
            return _with_run(runs, run, index)
        share, own = divmod(index, len(jax.tree.leaves(runs)[0]) // self.count)
        # On its own devices alone, for the reason above.
        parts = [self._part(runs, one) for one in self.devices]
        for number in range(share * self.data, (share + 1) * self.data):
            there = jax.device_put(run, self.devices[number])
            parts[number] = _with_run(parts[number], there, own)
        return jax.tree.map(self._joined, *parts)

    def _part(self, runs: PyTree, device: Any) -> PyTree:
        """Returns the share of the runs that lies on a device."""

        def part(leaf: jax.Array) -> jax.Array:
            return next(one.data for one in leaf.addressable_shards if one.device == device)

        return jax.tree.map(part, runs)

    def _joined(self, *leaves: jax.Array) -> jax.Array:
        """Returns the shares of all devices as one array."""
        shape = (self.count * len(leaves[0]), *leaves[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, self._by(RUNS), leaves)

    def sharding(self, by_run: bool) -> NamedSharding | None:
        """Returns where new arrays lie: spread by a leading axis of runs, or whole on each device.

        It is None for one device, which is where JAX puts them.
        """
        return self._by(*([RUNS] if by_run else [])) if self._mesh else None

    def copies(self, examples: Examples) -> Examples:
        """Returns a split that lies on every device; it is copied the first time."""
        return jax.tree.map(self._copied, examples) if self.devices else examples

    def _copied(self, array: jax.Array) -> jax.Array:
        if id(array) not in self._copies:
            # On its own device it stays the same memory.
            parts = [jax.device_put(array, device) for device in self.devices]
            copy = jax.make_array_from_single_device_arrays(array.shape, self._by(), parts)
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
    """Returns the devices that `execution.mesh` names: `auto` for all, each with its own runs.

    `runs:N` are the first N; `runs:N,data:M` the first N·M, of which M have the same runs.

    Raises:
      SpecError: there are not so many.
    """
    there_are = jax.local_devices()
    shares, data = mesh_shape(mesh) or (len(there_are), 1)
    wanted = shares * data
    if wanted > len(there_are):
        most = f"{RUNS}:{len(there_are)}" if data == 1 else f"{len(there_are)} in all"
        raise SpecError(
            f"config.execution.mesh={mesh!r}: more than the devices here ({len(there_are)} × "
            f"{there_are[0].platform}); accepted: auto, or at most {most}"
        )
    return RunDevices(there_are[:wanted], data) if wanted > 1 else ONE_DEVICE


def mesh_shape(mesh: str) -> tuple[int, int] | None:
    """Returns (N, M) of `runs:N,data:M`, M being 1 by default; None for `auto`."""
    if mesh == "auto":
        return None
    sizes = dict(part.split(":") for part in mesh.split(","))
    return int(sizes[RUNS]), int(sizes.get(DATA, 1))
