"""The compact form of a run's network: what it is made of, checked against it, and measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import data
from lth_jax.config import Spec
from lth_jax.errors import DataError, RunError, SpecError
from lth_jax.export import sequential
from lth_jax.export.compact import CompactNetwork
from lth_jax.export.inference import inference_of, model_of
from lth_jax.lottery import network
from lth_jax.models import Model
from lth_jax.pruning.trees import PyTree, nbytes, size
from lth_jax.training.pixels import Pixels

# Sums in another order: a hundred times what was met, a thousandth of what shows.
TOLERANCE = 1e-5
CHECKED = 1000  # images
BATCHES = (1, 128)
SECONDS = 0.5  # of measuring, for each batch size


class Original(NamedTuple):
    """The network before it is shrunk, and the images on which the two are compared.

    Attributes:
      model: the network; params, statistics: its parameters, and those of its batch norms.
      layers: what it computes.
      pixels: how stored images become what it sees.
      images: what it sees, float32 [n, height, width, channels].
      origin: of the images, one phrase.
    """

    model: Model
    params: PyTree
    statistics: PyTree
    layers: Sequence[sequential.Layer]
    pixels: Pixels
    images: jax.Array
    origin: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image, (height, width, channels), or of another input."""
        return self.images.shape[1:]

    def logits(self, params: PyTree, statistics: PyTree, x: jax.Array) -> jax.Array:
        """Returns the logits [batch, classes] of `x`: a pure function."""
        state = {"batch_stats": statistics} if statistics else {}
        return self.model.apply({"params": params, **state}, x, False, {})[0]


def original_of(spec: Spec, params: PyTree, statistics: PyTree) -> Original:
    """Returns a network of a run; on random images where its data cannot be had.

    Args:
      spec: the run's.
      params, statistics: of the network, nested dicts on the host.

    Raises:
      SpecError: the network is no sequence of layers.
    """
    try:
        layers = sequential.layers_of(spec.model.name, list(params))
    except ValueError as error:
        raise SpecError(f"--format=compact: {error}") from None
    try:
        found = inference_of(spec)
    except DataError as error:
        model, pixels = model_of(spec, len(params["output"]["bias"])), Pixels(1 / 255)
        shape = _shape_without_data(spec, layers, params, statistics)
        images = jax.random.uniform(jax.random.key(0), (CHECKED, *shape))
        origin = f"{CHECKED:,} random images, since the data cannot be had ({error})"
    else:
        model, pixels = found.model, found.pixels
        images = pixels.prepared(jnp.asarray(found.images[:CHECKED]))
        origin = f"{len(images):,} test images of {spec.data.name}"
    return Original(model, params, statistics, layers, pixels, images, origin)


def _shape_without_data(
    spec: Spec, layers: Sequence[sequential.Layer], params: PyTree, statistics: PyTree
) -> tuple[int, ...]:
    """Returns the shape of an image by what is known of the dataset, else by the layers' sizes."""
    facts = data.facts(spec.data.name)
    if facts:
        return network.shape_of(spec, facts.shape)
    first = next(layer for layer in layers if layer.name)
    if first.kind == "dense":
        return 1, params[first.name]["kernel"].shape[0], 1
    channels = params[first.name]["kernel"].shape[2]
    for side in (32, *range(1, 512)):
        try:
            sequential.sizes(layers, params, statistics, (side, side, channels))
        except (TypeError, ValueError):
            continue
        return side, side, channels
    raise SpecError(f"--format=compact: no image fits {spec.model.name}, whose data are not here")


def difference(original: Original, compact: CompactNetwork) -> float:
    """Returns the largest difference of logits.

    Raises:
      RunError: it is more than sums in another order make.
    """
    weights = original.params, original.statistics
    wanted = np.asarray(jax.jit(original.logits)(*weights, original.images))
    found = np.asarray(jax.jit(compact.apply)(compact.params, original.images))
    largest = float(np.abs(wanted - found).max())
    if not largest <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
        raise RunError(
            f"--format=compact: its logits differ from the original's by {largest:.1e}, "
            f"on {original.origin}; nothing was written"
        )
    return largest


def counts(
    original: Original, mask: PyTree, compact: CompactNetwork, written: int
) -> dict[str, tuple[int, int]]:
    """Returns what shrank: what it is -> (of the original, of the compact network).

    Args:
      original: the network; mask: its mask.
      compact: the network that was made of it; written: the bytes of its file.
    """
    params, statistics, shape = original.params, original.statistics, original.shape

    def kept(mask: PyTree) -> int:
        return sum(int(leaf.sum()) for leaf in jax.tree.leaves(mask))

    def parameters(params: PyTree) -> int:
        return sum(map(size, jax.tree.leaves(params)))

    return {
        "parameters": (parameters(params), parameters(compact.params)),
        "of them not pruned": (kept(mask), kept(compact.mask)),
        "FLOPs an image": (
            sequential.flops(original.layers, params, statistics, shape),
            sequential.flops(compact.layers, compact.params, compact.statistics, shape),
        ),
        "bytes": (nbytes((params, statistics)), written),
    }


def milliseconds(original: Original, compact: CompactNetwork) -> dict[str, tuple[float, float]]:
    """Returns median times, of the original and of the compact network, for each batch size.

    Both are computed by the same code, so that only what was taken out differs.
    """
    found = {}
    for batch in BATCHES:
        images = jnp.resize(original.images, (batch, *original.shape))
        calls = [
            partial(jax.jit(partial(sequential.apply, layers)), *jax.device_put(trees), images)
            for layers, trees in (
                (original.layers, (original.params, original.statistics)),
                (compact.layers, (compact.params, compact.statistics)),
            )
        ]
        dense, small = _medians(calls)
        found[f"milliseconds, batch {batch}"] = dense, small
    return found


def _medians(calls: Sequence[Callable[[], Any]]) -> list[float]:
    """Returns the median milliseconds of each call; a busy machine is fair to all, in turns."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        jax.block_until_ready(call())
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times[0]) < 5:
        for found, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(call())
            found.append(time.perf_counter() - start)
    return [1000 * float(np.median(found)) for found in times]
