"""Where an experiment's examples are: on the devices, or on the host and streamed from there."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from lth_jax import data
from lth_jax.config import Spec
from lth_jax.data import streaming
from lth_jax.data.streaming import Block, Blocks, Rows
from lth_jax.errors import SpecError
from lth_jax.system import machine
from lth_jax.training.backend import platform
from lth_jax.training.devices import ONE_DEVICE, RunDevices
from lth_jax.training.order import BatchOrder, Permutation
from lth_jax.training.states import Examples, in_batches
from lth_jax.training.streamed import Batches, Feed, StreamedSplit

# What `auto` leaves to networks and all that they compute.
SHARE_OF_MEMORY = 0.5
# Of a run: of LeNet some 90 steps, of ResNet-20 ten, of large images one. Three blocks of each run
# are in memory, and on a CPU all runs of a level have theirs at once.
BLOCK_BYTES = 4 * 2**20
MOST_STEPS = 256
# Images that are decoded are read so many at once: a batch is shared out among threads.
PIECE = 8


def check_placement(spec: Spec, is_stored: bool) -> None:
    """Checks that the examples can be where the spec wants them, before any are loaded.

    Args:
      spec: the spec.
      is_stored: whether its dataset stays on disk, to be read as it is needed.

    Raises:
      SpecError: they cannot.
    """
    place = f"config.data.placement={spec.data.placement!r}"
    if is_stored and spec.data.placement == "device":
        raise SpecError(
            f"{place}: {spec.data.name} stays on disk, and its images are decoded as they are "
            "needed; accepted: auto or stream"
        )
    if spec.data.resized_crop and not is_stored:
        raise SpecError(
            f"config.data.resized_crop=True: the images of {spec.data.name} have one size; "
            "accepted: False (config.data.crop moves them)"
        )
    if is_stored or spec.data.placement == "stream":
        _check_installed(place)


def _check_installed(why: str) -> None:
    if not streaming.is_installed():
        raise SpecError(
            f"{why}: examples are streamed by Grain, which is not installed; {streaming.INSTALL}"
        )


def workers(spec: Spec, devices: RunDevices) -> int:
    """Returns how many groups train side by side: as many as cores on a CPU, one elsewhere.

    One, too, on several devices, which already work side by side.
    """
    chosen = spec.execution.workers
    if chosen or platform() != "cpu" or devices is not ONE_DEVICE:
        return chosen or 1
    return machine.cores()


def streaming_of(
    spec: Spec, splits: data.Splits, devices: RunDevices, permutation: Permutation
) -> Streaming | None:
    """Returns what streams the examples: if the spec says so, or where they do not fit.

    Args:
      spec: the spec.
      splits: its examples, on the host.
      devices: what runs are spread over.
      permutation: what draws the order of an epoch.

    Raises:
      SpecError: they do not fit, and what streams them is not installed.
    """
    if not _is_streamed(spec, splits, devices):
        return None
    # The groups that train side by side share the cores, and each reads for itself.
    threads = max(1, machine.cores() // workers(spec, devices))
    return Streaming(permutation, threads, spec.data.resized_crop)


def placed(
    splits: data.Splits, stream: Streaming | None, batch_size: int, sharing: int = 1
) -> dict[str, Any]:
    """Returns the splits of an experiment by name, those to be evaluated in batches.

    Args:
      splits: its examples, on the host.
      stream: what streams them, if they are.
      batch_size: how many are evaluated at once.
      sharing: how many devices share a batch.
    """
    train: Any = splits.train  # arrays of the host, or images on its disk
    evaluated = {"validation": splits.validation, "test": splits.test}
    if stream is None:
        split = functools.partial(in_batches, multiple=sharing)
        examples = Examples(*map(jnp.asarray, train))
    else:
        split, examples = stream.split, Examples(*train)
    found = {name: split(*one, batch_size) for name, one in evaluated.items()}
    return {"train": examples, **found}


def _is_streamed(spec: Spec, splits: data.Splits, devices: RunDevices) -> bool:
    stored = any(data.is_stored(split.images) for split in splits)
    check_placement(spec, stored)
    if spec.data.placement != "auto" or stored:
        return spec.data.placement == "stream" or stored
    needed = sum(split.images.nbytes + split.labels.nbytes for split in splits)
    there_is = devices.memory()
    # What fits only just is tried where nothing could stream it, as ever.
    share = SHARE_OF_MEMORY if streaming.is_installed() else 1
    if needed <= share * there_is:
        return False
    gib = " of ".join(f"{amount / machine.GIB:,.1f}" for amount in (needed, there_is))
    _check_installed(
        f"config.data.placement='auto': the examples of {spec.data.name} take {gib} GiB of a "
        "device's memory"
    )
    return True


@dataclasses.dataclass(frozen=True)
class Streaming:
    """Streams examples from the host.

    Attributes:
      permutation: what draws the order of an epoch.
      threads: how many read for each group of runs.
      crops: whether training takes random parts of images that are decoded as they are needed.
      shard: (index, count): the part of each batch that this process reads, of `count` processes.
    """

    permutation: Permutation
    threads: int
    crops: bool = False
    shard: tuple[int, int] = (0, 1)

    def feed(
        self,
        train: Examples,
        keys: Sequence[Key[Array, ""]],
        *,
        batch_size: int,
        last: int,
        devices: RunDevices,
    ) -> Feed:
        """Returns the batches of a group of runs.

        Runs of one replicate take the same batches, which are read once. On the devices each run
        has its own: so a device, and a host, needs those of its runs alone.

        Args:
          train: the training examples, on the host.
          keys: the data key of each run.
          batch_size: how many examples a step takes.
          last: the step at which the runs end.
          devices: what the runs are spread over.
        """
        words = [np.asarray(jax.random.key_data(key)).tobytes() for key in keys]
        distinct = dict(zip(words, keys, strict=True))
        which = [list(distinct).index(one) for one in words]
        orders = [
            BatchOrder(
                key, len(train.targets), batch_size, permutation=self.permutation, shard=self.shard
            )
            for key in distinct.values()
        ]
        size = orders[0].size
        steps = steps_of_block(train, size)
        blocks = Blocks(
            data.Split(train.inputs, np.asarray(train.targets)),
            [functools.lru_cache(4)(functools.partial(self._rows, o, steps, last)) for o in orders],
            size=steps * size,
            count=math.ceil(last / steps),
            piece=_piece(train.inputs),
        )
        place, shape = devices.sharding(by_run=True), (len(keys), steps, size)

        def put(block: Block) -> Batches:
            def of_runs(array: np.ndarray) -> Any:
                own = array if which == list(range(len(array))) else array[which]
                return own.reshape(*shape, *array.shape[2:])

            return jax.device_put(Batches(of_runs(block.inputs), of_runs(block.targets)), place)

        return Feed(
            lambda number: blocks.read(number, put=put, threads=self.threads),
            steps,
            Batches(*(_shape(array, shape, place) for array in train[:2])),
        )

    def _rows(self, order: BatchOrder, steps: int, last: int, number: int) -> Rows:
        """Returns what a run's block has: whole batches, up to its last step."""
        start, stop = number * steps, min((number + 1) * steps, last)
        indices = order.indices(start, stop).reshape(-1)
        if not self.crops:
            return Rows(indices)
        uniforms = [order.uniforms(step, data.CROP_DRAWS) for step in range(start, stop)]
        return Rows(indices, np.concatenate(uniforms))

    def split(self, images: data.Images, labels: np.ndarray, batch_size: int) -> StreamedSplit:
        """Returns a split to be evaluated; no example is left out, and none counts twice."""
        split, count = data.Split(images, labels), len(labels)
        size = min(batch_size, count)
        batches = math.ceil(count / size)
        # Two at least, where there are two: of a loop over one XLA makes another program, whose
        # sums round otherwise than those of the loop over the whole split on a device.
        one = _bytes(split.images, split.labels) * size
        steps = min(batches, max(2, min(BLOCK_BYTES // one, MOST_STEPS)))
        blocks = Blocks(
            split,
            [lambda n: Rows(np.arange(n * steps * size, min((n + 1) * steps * size, count)))],
            size=steps * size,
            count=math.ceil(batches / steps),
            piece=_piece(split.images),
        )
        shape = steps, size

        def put(place: Any, block: Block) -> Examples:
            inputs, targets = (a[0].reshape(*shape, *a.shape[2:]) for a in block[:2])
            valid = np.arange(steps * size).reshape(shape) < block.counts[0]
            return Examples(*jax.device_put((inputs, targets, valid), place))

        def read(devices: RunDevices) -> Any:
            put_there = functools.partial(put, devices.sharding(by_run=False))
            return blocks.read(put=put_there, threads=self.threads)

        def shapes(devices: RunDevices) -> Examples:
            place = devices.sharding(by_run=False)
            arrays = *split, np.zeros(0, bool)
            return Examples(*(_shape(array, shape, place) for array in arrays))

        return StreamedSplit(
            read, shapes, lambda: in_batches(np.asarray(split.images), split.labels, batch_size)
        )


def steps_of_block(train: Examples, batch_size: int) -> int:
    """Returns how many batches of a run a block has."""
    one = _bytes(train.inputs, train.targets) * batch_size
    return max(1, min(BLOCK_BYTES // one, MOST_STEPS))


def _bytes(*arrays: Any) -> int:
    """Returns how many bytes one example takes."""
    return sum(math.prod(array.shape[1:]) * array.dtype.itemsize for array in arrays)


def _piece(images: Any) -> int:
    return PIECE if data.is_stored(images) else 0


def _shape(array: Any, axes: tuple[int, ...], place: Any) -> Any:
    return jax.ShapeDtypeStruct((*axes, *array.shape[1:]), array.dtype, sharding=place)
