"""The compact form of a network at the terminal: made, checked against the original, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from lth_jax import data
from lth_jax.config import Spec
from lth_jax.errors import DataError, RunError, SpecError
from lth_jax.export import compact as files
from lth_jax.export import sequential
from lth_jax.export.shrinking import Shrunk, shrink
from lth_jax.export.views import model_of, view
from lth_jax.models import Model
from lth_jax.pruning.trees import PyTree, nbytes, size
from lth_jax.report.terminal import make_console
from lth_jax.training.pixels import Pixels

if TYPE_CHECKING:
    from lth_jax.cli.export import Source

# Sums in another order: a hundred times what was met, a thousandth of what shows.
TOLERANCE = 1e-5
CHECKED = 1000
BATCHES = (1, 128)
SECONDS = 0.5
NAMES = {"ticket": "the ticket's rewound weights", "trained": "the trained weights"}


class Original(NamedTuple):
    """The network before it is shrunk, and what it is compared on.

    Attributes:
      model, variables: the network.
      layers: what it computes.
      pixels: how stored images become what it sees.
      images: what it sees, float32 [n, height, width, channels].
      shape: of one.
      origin: of the images, one phrase.
    """

    model: Model
    variables: dict[str, PyTree]
    layers: Sequence[sequential.Layer]
    pixels: Pixels
    images: jax.Array
    shape: tuple[int, int, int]
    origin: str

    def logits(self, variables: PyTree, x: jax.Array) -> jax.Array:
        """Logits [batch, classes]."""
        return self.model.apply(variables, x, False, {})[0]


def compact(source: Source, path: Path) -> None:
    """Writes the compact form to `path`, provided that its logits are the original's.

    Raises:
      SpecError: the network is no sequence of layers.
      RunError: the logits differ.
      StoreError: it cannot be written.
    """
    original = _original(source)
    params, statistics = source.weights()
    shape = original.shape
    mask = jax.device_get(source.ticket.mask)
    shrunk = shrink(original.layers, params, mask, statistics, shape)
    arrays, facts = files.pack(shrunk, original.pixels, shape)
    network = files.unpack(arrays, facts)  # as it will be read
    difference = _difference(original, network)
    written = files.save(path, source.origin, source.what, (arrays, facts))
    console = make_console()
    origin = source.origin
    console.print(
        f"{path}: {written:,} bytes, level {origin.level} of replicate {origin.replicate}, "
        f"{NAMES[source.what]}",
        soft_wrap=True,
    )
    kept = sum(int(leaf.sum()) for leaf in jax.tree.leaves(mask))
    console.print(_table(original, network, written, kept))
    console.print(f"units left: {_units(shrunk)}", soft_wrap=True)
    console.print(f"logits: the same to {difference:.1e}, on {original.origin}", soft_wrap=True)
    console.print(
        f"FLOPs: of linear layers and convolutions, zeros counted; bytes: arrays as they are, and "
        f"the whole file; milliseconds: medians on {jax.devices()[0].device_kind}. Units that went "
        "save time; pruned weights among those that stay do not, they are computed as zeros.\n"
        f"to load it: lth_jax.load_compact({str(path)!r})",
        soft_wrap=True,
    )


def _original(source: Source) -> Original:
    params, statistics = source.weights()
    spec = source.spec
    try:
        layers = sequential.layers_of(spec.model.name, list(params))
    except ValueError as error:
        raise SpecError(f"--format=compact: {error}") from None
    variables = {"params": params, **({"batch_stats": statistics} if statistics else {})}
    try:
        seen = view(spec)
    except DataError as error:
        model = model_of(spec, len(params["output"]["bias"]))
        shape = _shape_without_data(spec, layers, params, statistics)
        images = jax.random.uniform(jax.random.key(0), (CHECKED, *shape))
        origin = f"{CHECKED:,} random images, since the data cannot be had ({error})"
        return Original(model, variables, layers, Pixels(1 / 255), images, shape, origin)
    images = seen.pixels.prepared(jnp.asarray(seen.images[:CHECKED]))
    origin = f"{len(images):,} test images of {spec.data.name}"
    return Original(seen.model, variables, layers, seen.pixels, images, seen.shape, origin)


def _shape_without_data(
    spec: Spec, layers: Sequence[sequential.Layer], params: PyTree, statistics: PyTree
) -> tuple[int, int, int]:
    """The shape of the images, from what is known of the dataset, else from the layers' sizes."""
    from lth_jax.lottery import network

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


def _difference(original: Original, network: files.CompactNetwork) -> float:
    """The largest difference of logits.

    Raises:
      RunError: it is more than sums in another order make.
    """
    wanted = np.asarray(jax.jit(original.logits)(original.variables, original.images))
    found = np.asarray(jax.jit(network.apply)(network.params, original.images))
    difference = float(np.abs(wanted - found).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
        raise RunError(
            f"--format=compact: its logits differ from the original's by {difference:.1e}, "
            f"on {original.origin}; nothing was written"
        )
    return difference


def _table(original: Original, network: files.CompactNetwork, written: int, kept: int) -> Table:
    """What shrank, each by itself; `kept` is the original's number of parameters not pruned."""
    table = Table(box=None, pad_edge=False)
    for name in ("", "dense", "compact", "share"):
        table.add_column(name, justify="right" if name else "left")
    params = original.variables["params"]
    statistics = original.variables.get("batch_stats", {})
    shape = network.shape
    counts = {
        "parameters": (_count(params), _count(network.params)),
        "of them not pruned": (
            kept,
            sum(int(leaf.sum()) for leaf in jax.tree.leaves(network.mask)),
        ),
        "FLOPs an image": (
            sequential.flops(original.layers, params, statistics, shape),
            sequential.flops(network.layers, network.params, network.statistics, shape),
        ),
        "bytes": (nbytes(original.variables), written),
    }
    for name, (dense, small) in counts.items():
        table.add_row(name, f"{dense:,}", f"{small:,}", f"{small / dense:.1%}")
    for batch in BATCHES:
        images = jnp.resize(original.images, (batch, *shape))
        # Both by the same code, so that only what was taken out differs.
        whole = partial(sequential.apply, original.layers)
        dense, small = _milliseconds(
            [
                (jax.jit(whole), (params, statistics), images),
                (jax.jit(partial(sequential.apply, network.layers)),
                 (network.params, network.statistics), images),
            ]
        )  # fmt: skip
        name = f"milliseconds, batch {batch}"
        table.add_row(name, f"{dense:.3f}", f"{small:.3f}", f"{small / dense:.1%}")
    return table


def _count(tree: PyTree) -> int:
    return sum(size(leaf) for leaf in jax.tree.leaves(tree))


def _milliseconds(
    calls: Sequence[tuple[Callable[..., Any], tuple[PyTree, PyTree], jax.Array]],
) -> list[float]:
    """The median time of each call, taken in turn so that a busy machine is fair to all."""
    calls = [(function, jax.device_put(trees), images) for function, trees, images in calls]
    times: list[list[float]] = [[] for _ in calls]
    for function, trees, images in calls:
        jax.block_until_ready(function(*trees, images))
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times[0]) < 5:
        for found, (function, trees, images) in zip(times, calls, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(function(*trees, images))
            found.append(time.perf_counter() - start)
    return [1000 * float(np.median(found)) for found in times]


def _units(shrunk: Shrunk) -> str:
    counts = (f"{name} {units.sum():,} of {len(units):,}" for name, units in shrunk.units.items())
    return ", ".join(counts)
