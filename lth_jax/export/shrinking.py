"""A smaller network with the same logits: units without effect are taken out.

A unit is an input of a linear layer or a channel of a convolution. It goes where nothing that is
left needs it, and where it has the same value for every image: that value, weighted, moves to the
biases of the next layer. With zeros around a convolution's input a constant channel is not constant
at the border, so there only a channel that is constantly zero goes, and others stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lth_jax.export.sequential import EPSILON, Layer, sizes
from lth_jax.pruning.trees import PyTree

WEIGHTED = ("conv", "dense")
INPUTS = "inputs"  # the layer that picks what the first weighted layer still needs


class Shrunk(NamedTuple):
    """A smaller network.

    Attributes:
      layers: the sequence; a `select` stands before the first weighted layer if inputs went.
      params: layer -> leaf -> float32; mask: bool, the same.
      statistics: norm -> its mean and var.
      units: weighted layer -> which of its units are left, bool; `inputs` -> which inputs `select`
        picks.
    """

    layers: tuple[Layer, ...]
    params: dict[str, dict[str, np.ndarray]]
    mask: dict[str, dict[str, np.ndarray]]
    statistics: dict[str, dict[str, np.ndarray]]
    units: dict[str, np.ndarray]


def shrink(
    layers: Sequence[Layer],
    params: PyTree,
    mask: PyTree,
    statistics: PyTree,
    shape: tuple[int, ...],
) -> Shrunk:
    """Returns the smallest network that gives the same logits by taking units out.

    Args:
      layers: the sequence, as `sequential.layers_of` gives it.
      params: layer -> leaf, float.
      mask: the same structure, bool; pruned weights count as zeros.
      statistics: norm -> its mean and var.
      shape: of an image.
    """
    masked = {
        name: {leaf: np.where(mask[name][leaf], value, 0).astype(np.float64)
               for leaf, value in leaves.items()}
        for name, leaves in params.items()
    }  # fmt: skip
    counts = [found[-1] for found in sizes(layers, params, statistics, shape)]
    before = _constants(layers, masked, statistics, counts)
    needed = _needed(layers, masked, before, counts)
    return _rebuilt(layers, masked, mask, statistics, before, needed)


def _constants(
    layers: Sequence[Layer], params: Mapping[str, Any], statistics: PyTree, counts: Sequence[int]
) -> list[np.ndarray]:
    """Returns what each unit before a layer always is: float64 [units], NaN where x decides it."""
    constant = np.full(counts[0], np.nan)
    before = []
    for layer, count in zip(layers, counts[1:], strict=True):
        before.append(constant)
        if layer.kind in WEIGHTED:
            varying = ~_folds(layer, params, constant)
            varies = (_connected(params[layer.name]) & varying[:, None]).any(0)
            constant = np.where(varies, np.nan, _folded_bias(layer, params, constant))
        elif layer.kind == "norm":
            leaves = {**params[layer.name], **statistics[layer.name]}
            factor = leaves["scale"] / np.sqrt(leaves["var"] + EPSILON)
            constant = np.where(
                factor == 0, leaves["bias"], (constant - leaves["mean"]) * factor + leaves["bias"]
            )
        elif layer.kind == "relu":
            constant = np.maximum(constant, 0)  # NaN stays
        elif layer.kind == "flatten":
            constant = np.tile(constant, count // len(constant))  # channels change fastest
    return before


def _needed(
    layers: Sequence[Layer],
    params: Mapping[str, Any],
    before: Sequence[np.ndarray],
    counts: Sequence[int],
) -> list[np.ndarray]:
    """Tells which units before a layer, and after the last, must stay: bool [units] each."""
    first = _first(layers)
    needed: list[np.ndarray] = [np.ones(counts[-1], bool)]
    for index in range(len(layers) - 1, -1, -1):
        layer, constant = layers[index], before[index]
        units = np.asarray(needed[0])
        if index < first:
            units = np.ones(len(constant), bool)  # inputs are picked just before the first
        elif layer.kind in WEIGHTED:
            used = (_connected(params[layer.name]) & units[None, :]).any(1)
            units = used & ~_folds(layer, params, constant)
            if not units.any():
                units[0] = True  # no layer can be empty: one idle unit stays
        elif layer.kind == "flatten":
            units = np.asarray(units.reshape(-1, len(constant)).any(0))
            needed[0] = np.tile(units, counts[index + 1] // len(units))  # at all of their pixels
        needed.insert(0, units)
    return needed


def _first(layers: Sequence[Layer]) -> int:
    """Returns the index of the first layer with weights."""
    return next(index for index, layer in enumerate(layers) if layer.kind in WEIGHTED)


def _rebuilt(
    layers: Sequence[Layer],
    params: Mapping[str, Any],
    mask: PyTree,
    statistics: PyTree,
    before: Sequence[np.ndarray],
    needed: Sequence[np.ndarray],
) -> Shrunk:
    found = Shrunk(tuple(layers), {}, {}, {}, {})
    first = _first(layers)
    if not needed[first].all():
        selected = (*layers[:first], Layer("select", INPUTS), *layers[first:])
        found = found._replace(layers=selected)
        found.units[INPUTS] = needed[first]
    for index, layer in enumerate(layers):
        inside, outside = needed[index], needed[index + 1]
        name = layer.name
        if layer.kind in WEIGHTED:
            found.params[name], found.mask[name] = _weighted(
                layer, params, mask[name], before[index], inside, outside
            )
            found.units[name] = outside
        elif layer.kind == "norm":
            found.params[name] = {
                leaf: value[outside].astype(np.float32) for leaf, value in params[name].items()
            }
            found.mask[name] = _picked(mask[name], outside)
            found.statistics[name] = _picked(statistics[name], outside)
    return found


def _picked(leaves: Mapping[str, Any], units: np.ndarray) -> dict[str, np.ndarray]:
    return {leaf: np.asarray(value)[units] for leaf, value in leaves.items()}


def _weighted(
    layer: Layer,
    params: Mapping[str, Any],
    mask: PyTree,
    constant: np.ndarray,
    inside: np.ndarray,
    outside: np.ndarray,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns a layer's leaves and masks, of the units that stay."""
    leaves = params[layer.name]
    live = ~_folds(layer, params, constant)[:, None]  # an idle unit stays, its value has moved on
    found = {"kernel": np.where(live, leaves["kernel"], 0)[..., inside, :][..., outside]}
    masks = {"kernel": (np.asarray(mask["kernel"]) & live)[..., inside, :][..., outside]}
    if "bias" in leaves:
        found["bias"] = _folded_bias(layer, params, constant)[outside]
        masks["bias"] = np.asarray(mask["bias"])[outside]
    return {leaf: value.astype(np.float32) for leaf, value in found.items()}, masks


def _connected(leaves: Mapping[str, np.ndarray]) -> np.ndarray:
    """Tells whether a unit of the layer before has any weight to one of this: bool [in, out]."""
    kernel = leaves["kernel"]
    return (kernel != 0).reshape(-1, *kernel.shape[-2:]).any(0)


def _folds(layer: Layer, params: Mapping[str, Any], constant: np.ndarray) -> np.ndarray:
    """Tells which units before a layer can move to its biases: bool [in]."""
    anywhere = layer.padding == 0 and "bias" in params[layer.name]
    return ~np.isnan(constant) if anywhere else constant == 0


def _folded_bias(layer: Layer, params: Mapping[str, Any], constant: np.ndarray) -> np.ndarray:
    """Returns a layer's biases (zeros if it has none) with what constant units add, float64."""
    leaves = params[layer.name]
    kernel = leaves["kernel"].reshape(-1, *leaves["kernel"].shape[-2:]).sum(0)
    value = np.where(_folds(layer, params, constant), np.nan_to_num(constant), 0)
    return leaves.get("bias", np.zeros(kernel.shape[1])) + value @ kernel
