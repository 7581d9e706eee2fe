"""What a level keeps of each layer, read from its checkpoint as plain arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lth_jax.store.checkpoints import read_arrays


@dataclasses.dataclass(frozen=True)
class Layer:
    """A prunable kernel `[..., inputs, outputs]` of one level of one replicate.

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


def layers_of(trained: Path, start: Path | None, names: Sequence[str]) -> list[Layer]:
    """Reads the layers `names` of a level.

    Args:
      trained: the level's checkpoint, with its mask and its trained weights.
      start: that of the initial or rewound weights; None where it is lost.
      names: the kernels' names.

    Raises:
      Damaged: a byte of a checkpoint changed.
    """
    arrays = read_arrays(trained, [f"{part}/{n}" for n in names for part in ("mask", "params")])
    before = read_arrays(start, [f"params/{name}" for name in names]) if start else {}
    return [_layer(name, arrays, before.get(f"params/{name}")) for name in names]


def _layer(name: str, arrays: Mapping[str, np.ndarray], start: np.ndarray | None) -> Layer:
    mask = arrays[f"mask/{name}"]
    weights = arrays[f"params/{name}"][mask].astype(np.float64)
    kept = weights.size
    # Which units on either side have a surviving weight, bool [units].
    inputs, outputs = (
        mask.any(axis=tuple(a for a in range(mask.ndim) if a != mask.ndim + side))
        for side in (-2, -1)
    )
    sizes = np.abs(weights)
    statistics = {"min": np.min, "median": np.median, "mean": np.mean, "max": np.max}
    same_sign = None
    if start is not None and kept:
        same_sign = float(np.mean(np.sign(weights) == np.sign(start[mask])))
    return Layer(
        path=name,
        shape=mask.shape,
        kept=kept,
        total=mask.size,
        density=kept / mask.size if mask.size else 0.0,  # a forged file may hold none
        inputs=inputs.size,
        outputs=outputs.size,
        dead_in=int(np.count_nonzero(~inputs)),
        dead_out=int(np.count_nonzero(~outputs)),
        same_sign=same_sign,
        **{f"abs_{n}": float(of(sizes)) if kept else None for n, of in statistics.items()},
    )
