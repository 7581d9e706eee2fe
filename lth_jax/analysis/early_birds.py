"""What Early-Bird tickets save: the part of the dense network's training that comes after them."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import NamedTuple

from lth_jax.config import Spec
from lth_jax.lottery.early_bird import KIND
from lth_jax.store.tables import TRUNK, ResultRow, RunId


class Saving(NamedTuple):
    """What the early birds of a branch at a level save, means over replicates.

    Attributes:
      branch, level: which.
      step: the updates behind the dense network where they were drawn.
      share: of the dense network's updates that come after, a fraction.
      seconds: of the dense network's training, as it was measured, that a search which ends there
        does not take.
    """

    branch: str
    level: int
    step: float
    share: float
    seconds: float


def savings(rows: Iterable[ResultRow], spec: Spec) -> list[Saving]:
    """Returns what each branch of early birds saves at each of its levels, in the rows' order."""
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    rows = list(rows)
    by_id = {row.run_id: row for row in rows}
    for row in rows:
        early = row.branch in spec.branches and spec.branch_spec(row.branch).kind == KIND
        dense = by_id.get(RunId(TRUNK, 0, row.replicate, 0))
        if not early or not dense or not dense.steps:
            continue
        step = row.last_step - row.steps
        share = 1 - step / dense.steps
        numbers = step, share, share * dense.train_seconds
        found.setdefault((row.branch, row.level), []).append(numbers)
    return [
        Saving(*which, *map(fmean, zip(*numbers, strict=True))) for which, numbers in found.items()
    ]
