"""A compact network in a file: shrunk, each array in its smallest form, run without Flax."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.export import containers, sequential, sparse
from lth_jax.export.containers import Header
from lth_jax.export.sequential import Layer
from lth_jax.export.shrinking import INPUTS, Shrunk
from lth_jax.export.whole import Origin, objects
from lth_jax.pruning.trees import PyTree, named_leaves
from lth_jax.training.pixels import Pixels

MOST_UNITS, MOST_WEIGHTS = 1 << 24, 1 << 28  # of a layer, of all


class CompactNetwork(NamedTuple):
    """A network from a compact file.

    Attributes:
      params: layer -> leaf -> float32, pruned weights at zero.
      mask: bool, the same structure.
      statistics: of batch norms, and which inputs are looked at.
      units: layer -> which of the original layer's units are left, bool; `inputs` of what the first
        layer took.
      layers: what is computed.
      pixels: how stored images become what the network sees; shape: of an image.
      about: where it comes from: `spec`, `level`, `replicate`, `metrics`, `what`, …
    """

    params: dict[str, dict[str, jax.Array]]
    mask: dict[str, dict[str, jax.Array]]
    statistics: dict[str, dict[str, jax.Array]]
    units: dict[str, np.ndarray]
    layers: tuple[Layer, ...]
    pixels: Pixels
    shape: tuple[int, ...]
    about: Mapping[str, Any]

    def apply(self, params: PyTree, x: jax.Array) -> jax.Array:
        """Returns logits, float32 [batch, classes], of `x`, float [batch, *shape]; it is pure."""
        return sequential.apply(self.layers, params, self.statistics, x)

    def logits(self, images: Any) -> jax.Array:
        """Returns logits, float32 [batch, classes], of images as stored, uint8 [batch, *shape]."""
        return self.apply(self.params, self.pixels.prepared(jnp.asarray(images)))


def pack(
    shrunk: Shrunk, pixels: Pixels, shape: tuple[int, ...]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays of a compact file and what its metadata say of them."""
    arrays, shapes = {}, {}
    masks = named_leaves(shrunk.mask)
    for name, leaf in named_leaves(shrunk.params).items():
        shapes[name] = leaf.shape
        for part, array in sparse.encode(leaf, masks[name]).items():
            arrays[f"{name}.{part}"] = array
    for name, leaf in named_leaves(shrunk.statistics).items():
        arrays[f"statistics/{name}"] = leaf
    for name, units in shrunk.units.items():
        if not units.all():
            arrays[f"units/{name}"] = np.packbits(units)
    counts = {name: len(units) for name, units in shrunk.units.items()}
    facts = {
        "shapes": shapes,
        "units": counts,
        "layers_in_order": shrunk.layers,
        "pixels": {"scale": pixels.scale, "mean": pixels.mean, "deviation": pixels.deviation},
        "image_shape": shape,
    }
    return arrays, {name: json.dumps(value) for name, value in facts.items()}


def save(
    path: Path,
    origin: Origin,
    what: str,
    packed: tuple[Mapping[str, np.ndarray], Mapping[str, str]],
) -> int:
    """Writes what `pack` gave to exactly `path`; returns the size of the file in bytes.

    Raises:
      StoreError: it cannot be written.
    """
    about = {
        n: v
        for n, v in origin.metadata(containers.COMPACT).items()
        if n not in ("command", "versions")
    }
    spec = {n: v for n, v in origin.record["spec"].items() if n != "reference"}
    about |= {**packed[1], "spec": json.dumps(spec), "what": json.dumps(what)}
    return containers.write(path, packed[0], about)


def load_compact(path: str | Path) -> CompactNetwork:
    """Returns the network of a file that `python -m lth_jax export --format=compact` wrote.

    Raises:
      StoreError: the file is missing, damaged, of another kind or of another version.
    """
    path = Path(path)
    arrays, metadata = containers.read(path, containers.COMPACT, _check)
    with containers.understanding(path):
        network = unpack(arrays, metadata)
        _check_layers(network)
        return network


def _check(headers: Mapping[str, Header], metadata: Mapping[str, str]) -> None:
    """Raises a ValueError unless the arrays' sizes are such as the metadata promise.

    A leaf that is nearly all pruned is large while its arrays are small, so that its shape alone
    could ask for any memory: the most that a network may have limits it.
    """
    facts = objects(metadata)
    counts = [*facts["units"].values(), *facts["image_shape"]]
    if not all(type(count) is int and 0 < count <= MOST_UNITS for count in counts):
        raise ValueError(f"its layers have {counts} units")
    shapes = facts["shapes"]
    for name, shape in shapes.items():
        if not all(type(size) is int and 0 <= size <= MOST_UNITS for size in shape):
            raise ValueError(f"{name} has the shape {shape}")
    weights = sum(map(math.prod, shapes.values()))
    if weights > MOST_WEIGHTS:
        raise ValueError(f"it has {weights} weights")
    containers.check_memory(weights * (np.dtype(np.float32).itemsize + 1))  # with their mask
    for name, header in headers.items():
        leaf, _, part = name.rpartition(".")
        if leaf in shapes and part in ("dense", "masked", "values"):
            if header.size > math.prod(shapes[leaf]) or header.dtype != np.float32:
                raise ValueError(f"{name} has {header.size} numbers")
        elif not (leaf in shapes and part in ("bits", "gaps")) and header.size > MOST_UNITS:
            raise ValueError(f"{name} has {header.size} numbers")


def _check_layers(network: CompactNetwork) -> None:
    """Raises a TypeError or a ValueError unless each layer fits the one before."""
    for layer in network.layers:
        if layer.kind not in sequential.KINDS:
            raise ValueError(f"a layer of kind {layer.kind!r}")
    shapes = sequential.sizes(network.layers, network.params, network.statistics, network.shape)
    if INPUTS in network.units and network.layers:
        selects = [index for index, one in enumerate(network.layers) if one.kind == "select"]
        seen = shapes[selects[0]][-1] if selects else len(network.units[INPUTS])
        if len(network.units[INPUTS]) != seen:
            raise ValueError(f"it looks at some of {len(network.units[INPUTS])} inputs of {seen}")
    if len(shapes[-1]) != 1:
        raise ValueError(f"its logits have the shape {shapes[-1]}")


def unpack(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> CompactNetwork:
    """Returns the network that `pack` was given."""
    facts = objects(metadata)
    params: dict[str, dict[str, jax.Array]] = {}
    masks: dict[str, dict[str, jax.Array]] = {}
    for name, shape in facts["shapes"].items():
        layer, leaf = name.split("/")
        start = f"{name}."
        parts = {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}
        found, kept = sparse.decode(parts, tuple(shape))
        params.setdefault(layer, {})[leaf] = jnp.asarray(found)
        masks.setdefault(layer, {})[leaf] = jnp.asarray(kept)
    statistics: dict[str, dict[str, jax.Array]] = {}
    for name in (name for name in arrays if name.startswith("statistics/")):
        _, layer, leaf = name.split("/")
        statistics.setdefault(layer, {})[leaf] = jnp.asarray(arrays[name])
    units = {
        name: _bits(arrays[f"units/{name}"], count)
        if f"units/{name}" in arrays
        else np.ones(count, bool)
        for name, count in facts["units"].items()
    }
    if INPUTS in units:
        statistics[INPUTS] = {"indices": jnp.asarray(np.flatnonzero(units[INPUTS]))}
    scale, mean, deviation = (facts["pixels"][name] for name in ("scale", "mean", "deviation"))
    return CompactNetwork(
        params=params,
        mask=masks,
        statistics=statistics,
        units=units,
        layers=tuple(Layer(*values) for values in facts["layers_in_order"]),
        pixels=Pixels(scale, tuple(mean), tuple(deviation)),
        shape=tuple(facts["image_shape"]),
        about={n: v for n, v in facts.items() if n not in ("shapes", "units", "layers_in_order")},
    )


def _bits(packed: np.ndarray, count: int) -> np.ndarray:
    """Returns `count` bools that were packed, eight in a byte."""
    if packed.dtype != np.uint8 or packed.shape != (-(-count // 8),):
        raise ValueError(f"{packed.size} bytes for {count} units")
    return np.unpackbits(packed, count=count).astype(bool)
