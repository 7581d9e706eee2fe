"""The layers of one level: what they keep, which units that leaves dead, how training moved it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lth_jax.cli.inspection.kept import Kept
from lth_jax.store.checkpoints import read_arrays


@dataclasses.dataclass(frozen=True)
class Layer:
    """A prunable kernel [..., inputs, outputs] of one level of one replicate.

    A unit is a column or row of a dense kernel, a channel of a convolution's. What a unit's
    neighbour keeps is seen in that layer's own row: which layer follows, shapes do not tell.

    Attributes:
      path: the leaf's name; shape: of the kernel.
      kept, total: weights; density: their ratio.
      inputs, outputs: units on either side of the kernel.
      dead_in: input units that no surviving weight leaves (rows of the kernel that are all pruned).
      dead_out: output units that no surviving weight reaches (columns that are all pruned).
      abs_min, abs_median, abs_mean, abs_max: of the absolute values of the surviving weights, as
        trained; None where nothing survives.
      same_sign: share of the surviving weights whose sign after training is that at the start;
        None where nothing survives or the start is lost.
    """

    path: str
    shape: tuple[int, ...]
    kept: int
    total: int
    density: float
    inputs: int
    outputs: int
    dead_in: int
    dead_out: int
    abs_min: float | None
    abs_median: float | None
    abs_mean: float | None
    abs_max: float | None
    same_sign: float | None


def layers_of(trained: Kept, start: Kept | None, names: Sequence[str]) -> list[Layer]:
    """The layers `names` of a level's checkpoint.

    Args:
      trained: the level's checkpoint, with its mask and its trained weights.
      start: that of the initial or rewound weights; None where it is lost.
      names: the kernels' names.

    Raises:
      Damaged: a byte of a checkpoint changed.
    """
    wanted = [f"{part}/{name}" for name in names for part in ("mask", "params")]
    arrays = read_arrays(trained.path, wanted)
    before = read_arrays(start.path, [f"params/{name}" for name in names]) if start else {}
    return [_layer(name, arrays, before.get(f"params/{name}")) for name in names]


def _layer(name: str, arrays: Mapping[str, np.ndarray], start: np.ndarray | None) -> Layer:
    mask = arrays[f"mask/{name}"]
    weights = arrays[f"params/{name}"][mask].astype(np.float64)
    kept = int(np.count_nonzero(mask))
    inputs, outputs = _units(mask, -2), _units(mask, -1)
    size = np.abs(weights)
    signs = None
    if start is not None and kept:
        signs = float(np.mean(np.sign(weights) == np.sign(start[mask])))
    return Layer(
        path=name,
        shape=mask.shape,
        kept=kept,
        total=mask.size,
        density=kept / mask.size,
        inputs=inputs.size,
        outputs=outputs.size,
        dead_in=int(np.count_nonzero(~inputs)),
        dead_out=int(np.count_nonzero(~outputs)),
        abs_min=float(size.min()) if kept else None,
        abs_median=float(np.median(size)) if kept else None,
        abs_mean=float(size.mean()) if kept else None,
        abs_max=float(size.max()) if kept else None,
        same_sign=signs,
    )


def _units(mask: np.ndarray, axis: int) -> np.ndarray:
    """Which units along `axis` of a kernel's mask have a surviving weight, bool [units]."""
    others = tuple(set(range(mask.ndim)) - {mask.ndim + axis})
    return np.asarray(mask.any(axis=others))
